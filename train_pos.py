"""Fine-tune an encoder for part-of-speech tagging and score it on the dev set of every language.

In:   a udpos file to train on (English, in its own or another word order) and a folder of dev-XX.tsv (XTREME's layout)
Out:  OUTPUT/dev-XX.tsv     predicted tags, a tag a line, a blank line after each sentence (XTREME's submission format)
      OUTPUT/scores.json    accuracy and F1 of every language, what was run, and how fast

    python train_pos.py --model models/multilingual-e5-small --train data/sample/udpos/train-en.tsv \\
        --data-dir data/sample/udpos --output runs/try --lr 1e-4 --batch-size 16
    torchrun --nproc_per_node 4 train_pos.py ...      # the same batches, shared out over four GPUs

The defaults are XTREME's settings for its full data (learning rate 2e-5, batch 32, 10 epochs, length 128); small data wants
a higher rate and a smaller batch. A word's tag is predicted from its first piece that is not a bare `▁`: that piece, which
XLM-R's tokenizers put before most Chinese and Japanese words, is the same for all of them (XTREME's issue 84). --label-on
first is XTREME's recipe. Sentences of more than --max-length pieces are cut between words into several, in training and in
testing, as XTREME's preprocessing does; so every word gets a prediction and counts.

With --reordered, every sentence is trained on in two forms, and --consistency adds, word by word, the divergence between the
predictions for them; --permutations says which word is which.
"""

import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import common
from data.cli import Arguments, InputError, run_script
from data.files import UPOS, languages_in, read_permutations, read_udpos, write_lines
from data.metrics import tagging_scores

DROPOUT = 0.1  # before the linear layer, as in BertForTokenClassification
TEST_BUDGET = {"cpu": 1024, "cuda": 65536}  # padded pieces in a batch of testing


def segments(tokenizer, sentences, max_length, label_on):
    """Sentences (lists of words) as model inputs of at most `max_length` pieces, cut between words.

    Returns a list of (ids, positions, sentence): the pieces with special ones, for each word the position of the piece
    that carries its tag, and the index of the sentence. A word that the tokenizer drops is an unknown piece; the pieces
    of a single word beyond the length are left out.
    """
    before, after = common.special_pieces(tokenizer)
    bare = common.bare_piece(tokenizer) if label_on == "content" else None
    room = max_length - len(before) - len(after)
    made = []
    for number, (ids, word) in enumerate(common.words_to_pieces(tokenizer, sentences)):
        words = [[] for _ in sentences[number]]
        for piece, index in zip(ids, word):
            words[index].append(piece)
        inside, positions = [], []
        for pieces in words:
            pieces = pieces[:room] or [tokenizer.unk_token_id]
            if len(inside) + len(pieces) > room:
                made.append((before + inside + after, positions, number))
                inside, positions = [], []
            carrier = next((k for k, piece in enumerate(pieces) if piece != bare), 0)
            positions.append(len(before) + len(inside) + carrier)
            inside.extend(pieces)
        made.append((before + inside + after, positions, number))
    return made


def collate(batch, pad_id, device):
    """Tensors of a list of segments: ids (B, L), mask (B, L), and the (row, column) of every word's piece, 2 x (W,)."""
    ids = common.pad([ids for ids, _, _ in batch], pad_id)
    lengths = torch.tensor([len(ids) for ids, _, _ in batch])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    rows = torch.tensor([row for row, (_, positions, _) in enumerate(batch) for _ in positions], dtype=torch.int64)
    columns = torch.tensor([column for _, positions, _ in batch for column in positions], dtype=torch.int64)
    return ids.to(device), mask.to(device), rows.to(device), columns.to(device)


def word_scores(encoder, classifier, batch, precision, dropout=0.0):
    """Scores of every tag for every word of a collated batch, (W, tags) float32."""
    ids, mask, rows, columns = batch
    with common.autocast(ids.device, precision):
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, L, H)
    words = hidden[rows, columns].float()  # (W, H)
    return classifier(F.dropout(words, dropout, training=encoder.training))


def match_forms(args, train, second):
    """The order of each sentence's words in its second form, lists of their numbers; [] without second forms. Raises InputError."""
    if not second:
        return []
    if len(second) != len(train):
        raise InputError(
            f"{args.reordered}: {len(second)} sentences, but {args.train} has {len(train)}; expected the same ones"
        )
    lengths = [len(words) for words, _ in train]
    orders = (
        read_permutations(args.permutations, lengths)
        if args.permutations
        else [list(range(length)) for length in lengths]
    )
    for number, ((words, tags), other, order) in enumerate(zip(train, second, orders), 1):
        if ([words[i] for i in order], tags and [tags[i] for i in order]) != other:
            source = (
                f"in the order of {args.permutations}"
                if args.permutations
                else "in its order; expected --permutations FILE"
            )
            raise InputError(f"{args.reordered}: sentence {number} is not that of {args.train} {source}")
    return orders


def predict(encoder, classifier, items, count, pad_id, precision):
    """Predicted tags of the sentences that the segments `items` come from, `count` lists of tag names."""
    device = classifier.weight.device
    predicted = [None] * len(items)
    encoder.eval()
    with torch.inference_mode():
        for batch in common.length_sorted([len(ids) for ids, _, _ in items], TEST_BUDGET[device.type]):
            scores = word_scores(encoder, classifier, collate([items[n] for n in batch], pad_id, device), precision)
            tags = iter(scores.argmax(1).tolist())
            for n in batch:
                predicted[n] = [UPOS[next(tags)] for _ in items[n][1]]
    sentences = [[] for _ in range(count)]
    for (_, _, sentence), tags in zip(items, predicted):
        sentences[sentence].extend(tags)
    return sentences


def main():
    parser = Arguments(__doc__)
    common.add_training_arguments(parser, epochs=10)
    parser.add_argument(
        "--label-on",
        choices=["content", "first"],
        default="content",
        help="piece that carries a word's tag: the first that is not a bare `▁`, or the first",
    )
    parser.add_argument(
        "--permutations",
        metavar="FILE",
        help="what reorder.py --permutations wrote beside --reordered (default: the orders are the same)",
    )
    args = parser.parse_args()
    common.check_consistency(args)

    # Data. Everything is read and checked before the model is loaded.
    common.check_output(args)
    langs = languages_in(args.data_dir) if args.langs == "all" else list(dict.fromkeys(args.langs.split(",")))
    train = read_udpos(args.train)
    second = read_udpos(args.reordered) if args.reordered else []
    orders = match_forms(args, train, second)
    dev = {lang: read_udpos(os.path.join(args.data_dir, f"dev-{lang}.tsv"))[: args.max_dev] for lang in langs}
    for path, sentences in [(args.train, train)] + [
        (os.path.join(args.data_dir, f"dev-{lang}.tsv"), dev[lang]) for lang in langs
    ]:
        if sentences[0][1] is None:
            raise InputError(f"{path}:1: no tags; expected word<TAB>TAG")
    config, tokenizer = common.load_config(args.model), common.load_tokenizer(args.model)
    limit = min(args.max_length, common.piece_limit(tokenizer, config))
    if limit < 8:
        raise InputError(f"--max-length {limit}: leaves no room for a sentence; expected 8 or more")
    # An example is a sentence: its inputs are one segment or several. The second forms follow the first ones.
    forms = [words for words, _ in train + second]
    train_items = [[] for _ in forms]
    for item in segments(tokenizer, forms, limit, args.label_on):
        train_items[item[2]].append(item)
    train_tags = [[UPOS.index(tag) for tag in tags] for _, tags in train + second]
    dev_items = {lang: segments(tokenizer, [words for words, _ in dev[lang]], limit, args.label_on) for lang in langs}

    pad_piece = tokenizer.pad_token_id
    del tokenizer
    common.release_memory()

    # Model: encoder, dropout, linear layer.
    device = common.pick_device()
    precision = args.precision or common.pick_precision(device)
    rank, world = common.start_distributed(device)
    common.seed_everything(args.seed)
    encoder = common.load_encoder(
        args.model, attention="eager" if device.type == "cpu" else None
    )  # the faster one on short inputs
    every_item = [item for items in (*train_items, *dev_items.values()) for item in items]
    new_id = common.trim_embeddings(encoder, {pad_piece, *(piece for ids, _, _ in every_item for piece in ids)})
    for ids, _, _ in every_item:
        ids[:] = new_id[ids].tolist()
    pad_id = int(new_id[pad_piece])
    classifier = torch.nn.Linear(config.hidden_size, len(UPOS))
    torch.nn.init.normal_(classifier.weight, std=config.initializer_range)
    torch.nn.init.zeros_(classifier.bias)
    encoder.to(device)
    classifier.to(device)
    parameters = [*encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    modules = {"encoder": encoder, "classifier": classifier}

    # Where a killed run of the same settings, data and model stood.
    data = [np.array([number for ids, positions, _ in items for number in ids + positions]) for items in train_items]
    crc = common.training_crc(
        args,
        [*data, *map(np.array, train_tags), *map(np.array, orders), *(p.detach().cpu().numpy() for p in parameters)],
    )
    state = common.load_checkpoint(args, crc, modules, optimizer) or {"step": 0, "seconds": 0.0}

    # Training. Every process takes its share of each batch; the gradients of all are added up.
    pieces = [sum(len(ids) for ids, _, _ in items) for items in train_items]
    lengths = pieces[: len(train)]
    steps = args.epochs * -(-len(train) // args.batch_size)
    tokens = sum(pieces) * args.epochs
    started = time.perf_counter() - state["seconds"]
    encoder.train()
    done = tokens * state["step"] // steps
    with tqdm(
        total=tokens, initial=done, unit=" tokens", unit_scale=True, desc="train", disable=None if rank == 0 else True
    ) as bar:
        for step, batch in common.training_steps(lengths, args, state["step"]):
            common.seed_step(args, step, rank)
            mine = batch[rank::world]
            if mine:
                both = mine + [len(train) + n for n in mine if second]
                inputs = collate([item for n in both for item in train_items[n]], pad_id, device)
                tags = torch.tensor([tag for n in both for tag in train_tags[n]], device=device)
                scores = word_scores(
                    encoder, classifier, inputs, precision, DROPOUT
                )  # (W, tags), with second forms (2 W, tags)
                words = sum(len(train_tags[n]) for n in batch)
                loss = F.cross_entropy(scores, tags, reduction="sum") / (words * len(both) / len(mine))
                if args.consistency:
                    first, other = F.log_softmax(scores, 1).chunk(2)
                    starts = np.cumsum([0] + [len(orders[n]) for n in mine])
                    same = torch.tensor([start + i for start, n in zip(starts, mine) for i in orders[n]], device=device)
                    loss = loss + args.consistency * common.symmetric_divergence(first[same], other).sum() / words
                loss.backward()
            common.update(optimizer, parameters, args.lr * common.linear_schedule(step, steps, args.warmup))
            if step % 20 == 19 and mine and not bar.disable:  # reading the loss makes the GPU wait
                bar.set_postfix(loss=f"{loss.item() * world:.3f}", refresh=False)
            bar.update(sum(pieces[n] for n in batch + [len(train) + n for n in batch if second]))
            if (step + 1) % args.save_every == 0 and rank == 0:
                common.save_checkpoint(
                    args, crc, modules, optimizer, step=step + 1, seconds=time.perf_counter() - started
                )
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    if args.save and rank == 0:
        common.save_model(args, "TokenClassification", UPOS, encoder, new_id, {"classifier": classifier})
    if precision == "bf16":
        common.store_linear_in_bf16(encoder)

    # Testing. Every process takes its share of the languages.
    scores = {}
    for lang in tqdm(langs[rank::world], unit=" languages", desc="dev", disable=None if rank == 0 else True):
        tags = predict(encoder, classifier, dev_items[lang], len(dev[lang]), pad_id, precision)
        write_lines(os.path.join(args.output, f"dev-{lang}.tsv"), ("\n".join(sentence) + "\n" for sentence in tags))
        scores[lang] = tagging_scores([sentence for _, sentence in dev[lang]], tags)
    train = {"examples": len(train), "steps": steps, "seconds": seconds, "tokens_per_second": tokens / seconds}
    common.write_scores(args, "udpos", "accuracy", precision, scores, langs, train)


if __name__ == "__main__":
    run_script(main)
