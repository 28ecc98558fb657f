"""Fine-tune an encoder for a sentence-pair task, XNLI or PAWS-X, and score it on the dev set of every language.

In:   a file of sentence1<TAB>sentence2<TAB>label lines (English, in its own or another word order) and a folder of dev-XX.tsv
Out:  OUTPUT/dev-XX.tsv     predicted labels, one a line (XTREME's submission format)
      OUTPUT/scores.json    accuracy of every language, what was run, and how fast

    python train_xnli.py --task xnli --model models/multilingual-e5-small --train data/sample/xnli/train-en.tsv \\
        --data-dir data/sample/xnli --output runs/try --lr 1e-4 --batch-size 16
    torchrun --nproc_per_node 4 train_xnli.py ...     # the same batches, shared out over four GPUs

The defaults are XTREME's settings for its full data (learning rate 2e-5, batch 32, 5 epochs, length 128). An input is
[CLS] sentence1 [SEP] sentence2 [SEP], or what the model's tokenizer puts in these places; of a pair that is too long, the longer
sentence is cut. The label is predicted from the first position by the head that XTREME's baselines use for the family of the model:

- BERT (mBERT, the default model): the checkpoint's pooler, which is a dense layer with tanh, then dropout and a linear layer;
- XLM-R (InfoXLM and XLM-Align too): dropout, a new dense layer with tanh, dropout, a linear layer.

With --reordered, every pair is trained on in two forms, and --consistency adds the divergence between the predictions for them.
"""

import collections
import itertools
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import common
from data.cli import Arguments, InputError, error_at, run_script
from data.files import PAIR_LABELS, iterate_pairs, languages_in, write_lines
from data.metrics import pair_scores

DROPOUT = 0.1  # before each new layer, as in BertForSequenceClassification and RobertaClassificationHead
TEST_BUDGET = {"cpu": 2048, "cuda": 65536}  # padded pieces in a batch of testing
READ = 20_000  # pairs that are tokenised at a time

# The inputs of many pairs in flat arrays. ids, types: a piece's id and its sentence (0 or 1) where the model tells them apart;
# first, lengths: where a pair begins and how many pieces it has; labels: -1 for none.
Inputs = collections.namedtuple("Inputs", "ids types first lengths labels")


def read_inputs(path, task, tokenizer, limit, most=None):
    """The pairs of a file, or its first `most` ones, as Inputs of at most `limit` pieces each; text is not kept. Raises InputError."""
    parts, rows, number = [], itertools.islice(iterate_pairs(path, task), most), 0
    while chunk := list(itertools.islice(rows, READ)):
        for row in chunk:
            number += 1
            if row[2] is None:
                raise error_at(path, number, "no label; expected sentence1<TAB>sentence2<TAB>label")
        encoded = tokenizer(
            [row[0] for row in chunk],
            [row[1] for row in chunk],
            truncation="longest_first",
            max_length=limit,
            return_token_type_ids=True,
            return_attention_mask=False,
            verbose=False,
        )
        parts.append((
            np.fromiter(itertools.chain.from_iterable(encoded["input_ids"]), np.int32),
            np.fromiter(itertools.chain.from_iterable(encoded["token_type_ids"]), np.int8),
            np.array([len(ids) for ids in encoded["input_ids"]]),
            np.array([PAIR_LABELS[task].index(row[2]) for row in chunk]),
        ))  # fmt: skip
    ids, types, lengths, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return Inputs(ids, types, np.cumsum(lengths) - lengths, lengths, labels)


def check_same_words(args):
    """Raise InputError for the first pair of --reordered that is not of the words, in whatever order, of that of --train."""
    first, second = (iterate_pairs(path, args.task) for path in (args.train, args.reordered))
    for number, rows in enumerate(zip(first, second), 1):
        for one, other in zip(*(row[:2] for row in rows)):
            if characters(one) != characters(other):
                raise error_at(
                    args.reordered,
                    number,
                    f"is not line {number} of {args.train} in another word order; expected the same words",
                )


def characters(text):
    """What splitting a text into words and ordering them leaves as it is: its sorted characters but spaces, and `|` (see data/split.py)."""
    return sorted("".join(text.replace("|", "").split()))


def build_head(config, labels):
    """The layers over the first position's vector, (B, H) to (B, labels): see the first lines of this file."""

    def linear(size):
        layer = torch.nn.Linear(config.hidden_size, size)
        torch.nn.init.normal_(layer.weight, std=config.initializer_range)
        torch.nn.init.zeros_(layer.bias)
        return layer

    if has_pooler(config):
        return torch.nn.Sequential(torch.nn.Dropout(DROPOUT), linear(labels))
    dense = linear(config.hidden_size)
    return torch.nn.Sequential(
        torch.nn.Dropout(DROPOUT), dense, torch.nn.Tanh(), torch.nn.Dropout(DROPOUT), linear(labels)
    )


def has_pooler(config):
    """Whether the family of the model classifies by the checkpoint's pooler."""
    return config.model_type == "bert"


def label_scores(encoder, head, inputs, batch, pad_id, precision):
    """Scores of every label for a batch of pairs (their numbers), (B, labels) float32."""
    device = next(head.parameters()).device
    index, inside = common.place_batch(inputs, batch)
    ids = torch.from_numpy(np.where(inside, inputs.ids[index], pad_id).astype(np.int64)).to(device)
    types = torch.from_numpy(np.where(inside, inputs.types[index], 0).astype(np.int64)).to(device)
    if encoder.config.type_vocab_size < 2:
        types = None
    with common.autocast(device, precision):
        output = encoder(input_ids=ids, attention_mask=torch.from_numpy(inside).to(device), token_type_ids=types)
    first = output.pooler_output if has_pooler(encoder.config) else output.last_hidden_state[:, 0]
    return head(first.float())


def predict(encoder, head, inputs, pad_id, precision):
    """Predicted labels, a numpy (pairs,) of their numbers."""
    predicted = np.empty(len(inputs.lengths), np.int64)
    encoder.eval()
    head.eval()
    with torch.inference_mode():
        for batch in common.length_sorted(inputs.lengths, TEST_BUDGET[next(head.parameters()).device.type]):
            predicted[batch] = label_scores(encoder, head, inputs, batch, pad_id, precision).argmax(1).cpu().numpy()
    return predicted


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--task", choices=list(PAIR_LABELS), required=True, help="xnli: three labels, pawsx: two")
    common.add_training_arguments(parser, epochs=5)
    args = parser.parse_args()
    common.check_consistency(args)

    # Data. Everything is read and checked before the model is loaded.
    common.check_output(args)
    langs = languages_in(args.data_dir) if args.langs == "all" else list(dict.fromkeys(args.langs.split(",")))
    config, tokenizer = common.load_config(args.model), common.load_tokenizer(args.model)
    limit = min(args.max_length, common.piece_limit(tokenizer, config))
    if limit < 8:
        raise InputError(f"--max-length {limit}: leaves no room for two sentences; expected 8 or more")
    train = read_inputs(args.train, args.task, tokenizer, limit)
    pairs = len(train.lengths)
    if args.reordered:  # the second forms follow the first ones
        second = read_inputs(args.reordered, args.task, tokenizer, limit)
        if not np.array_equal(second.labels, train.labels):
            raise InputError(
                f"{args.reordered}: other labels, or another number of pairs, than {args.train}; expected the same ones"
            )
        check_same_words(args)
        train = Inputs(*map(np.concatenate, zip(train, second._replace(first=second.first + len(train.ids)))))
    dev = {
        lang: read_inputs(os.path.join(args.data_dir, f"dev-{lang}.tsv"), args.task, tokenizer, limit, args.max_dev)
        for lang in langs
    }
    pad_piece = tokenizer.pad_token_id
    del tokenizer
    common.release_memory()

    # Model: encoder and head.
    device = common.pick_device()
    precision = args.precision or common.pick_precision(device)
    rank, world = common.start_distributed(device)
    common.seed_everything(args.seed)
    attention = "eager" if device.type == "cpu" else None  # the faster one on short inputs
    encoder = common.load_encoder(args.model, attention=attention, pooler=has_pooler(config))
    new_id = common.trim_embeddings(
        encoder,
        {pad_piece, *np.unique(np.concatenate([np.unique(part.ids) for part in (train, *dev.values())])).tolist()},
    )
    train, dev = (
        train._replace(ids=new_id[train.ids]),
        {lang: part._replace(ids=new_id[part.ids]) for lang, part in dev.items()},
    )
    pad_id = int(new_id[pad_piece])
    head = build_head(config, len(PAIR_LABELS[args.task]))
    encoder.to(device)
    head.to(device)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    modules = {"encoder": encoder, "head": head}

    # Where a killed run of the same settings, data and model stood.
    crc = common.training_crc(args, [*train, *(p.detach().cpu().numpy() for p in parameters)])
    state = common.load_checkpoint(args, crc, modules, optimizer) or {"step": 0, "seconds": 0.0}

    # Training. Every process takes its share of each batch; the gradients of all are added up.
    lengths = train.lengths[:pairs]
    steps = args.epochs * -(-pairs // args.batch_size)
    tokens = int(train.lengths.sum()) * args.epochs
    started = time.perf_counter() - state["seconds"]
    encoder.train()
    head.train()
    done = tokens * state["step"] // steps
    with tqdm(
        total=tokens, initial=done, unit=" tokens", unit_scale=True, desc="train", disable=None if rank == 0 else True
    ) as bar:
        for step, batch in common.training_steps(lengths, args, state["step"]):
            common.seed_step(args, step, rank)
            mine = batch[rank::world]
            if mine:
                both = mine + [pairs + n for n in mine if args.reordered]
                scores = label_scores(
                    encoder, head, train, both, pad_id, precision
                )  # (B, labels), with second forms (2 B, labels)
                labels = torch.from_numpy(train.labels[both]).to(device)
                loss = F.cross_entropy(scores, labels, reduction="sum") / (len(batch) * len(both) / len(mine))
                if args.consistency:
                    loss = loss + args.consistency * common.symmetric_divergence(
                        *F.log_softmax(scores, 1).chunk(2)
                    ).sum() / len(batch)
                loss.backward()
            common.update(optimizer, parameters, args.lr * common.linear_schedule(step, steps, args.warmup))
            if step % 20 == 19 and mine and not bar.disable:  # reading the loss makes the GPU wait
                bar.set_postfix(loss=f"{loss.item() * world:.3f}", refresh=False)
            bar.update(int(train.lengths[batch + [pairs + n for n in batch if args.reordered]].sum()))
            if (step + 1) % args.save_every == 0 and rank == 0:
                common.save_checkpoint(
                    args, crc, modules, optimizer, step=step + 1, seconds=time.perf_counter() - started
                )
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    if args.save and rank == 0:
        names = (
            {"classifier": head[1]}
            if has_pooler(config)
            else {"classifier.dense": head[1], "classifier.out_proj": head[4]}
        )
        common.save_model(args, "SequenceClassification", PAIR_LABELS[args.task], encoder, new_id, names)
    if precision == "bf16":
        common.store_linear_in_bf16(encoder)

    # Testing. Every process takes its share of the languages.
    scores = {}
    for lang in tqdm(langs[rank::world], unit=" languages", desc="dev", disable=None if rank == 0 else True):
        predicted = predict(encoder, head, dev[lang], pad_id, precision)
        write_lines(
            os.path.join(args.output, f"dev-{lang}.tsv"), (PAIR_LABELS[args.task][label] for label in predicted)
        )
        scores[lang] = pair_scores(dev[lang].labels, predicted)
    train_report = {"examples": pairs, "steps": steps, "seconds": seconds, "tokens_per_second": tokens / seconds}
    common.write_scores(args, args.task, "accuracy", precision, scores, langs, train_report)


if __name__ == "__main__":
    run_script(main)
