"""Fine-tune an encoder for part-of-speech tagging and score it on the dev set of every language.

In:   a udpos file to train on (English, in its own or another word order) and a folder of dev-XX.tsv (XTREME's layout)
Out:  OUTPUT/dev-XX.tsv     predicted tags, a tag a line, a blank line after each sentence (XTREME's submission format)
      OUTPUT/scores.json    accuracy and F1 of every language, what was run, and how fast

    python train_pos.py --model models/multilingual-e5-small --train data/sample/udpos/train-en.tsv \\
        --data-dir data/sample/udpos --output runs/try --lr 1e-4 --batch-size 16
    torchrun --nproc_per_node 4 train_pos.py ...      # the same batches, shared out over four GPUs

The defaults are XTREME's settings for its full data (learning rate 2e-5, batch 32, 10 epochs, length 128), but for the
warm-up, a tenth of the steps where XTREME has none (--warmup 0), the start of the last layer (--head random), and that
the last step's weights are tested, not those that are best on English dev; small data wants a higher rate and a smaller
batch. A word's tag is predicted from its first piece that is not a bare `▁`: that piece, which XLM-R's tokenizers put
before most Chinese and Japanese words, is the same for all of them (XTREME's issue 84). --label-on first is XTREME's
recipe. Sentences of more than --max-length pieces are cut between words into several, in training and in testing, as
XTREME's preprocessing does; so every word gets a prediction and counts. The head is the one that transformers gives the
family of the model: dropout and a linear layer, or more.

With --reordered, every sentence is trained on in two orders, and --consistency adds, word by word, the divergence
between the predictions for them; --permutations says which word is which.
"""

import functools
import itertools
import os

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import common
from data.cli import Arguments, InputError, run_script
from data.files import UPOS, languages_in, read_permutations, read_udpos
from data.metrics import tagging_scores
from data.tasks import TASKS
from lib import checkpoints, heads, subwords, training

TRAIN_BUDGET = {"cpu": 4096, "cuda": 65536}  # padded pieces that are trained on at a time
FITTED_WORDS = 100_000  # most words that a fitted head is fitted to
TEST_BUDGET = {"cpu": 1024, "cuda": 65536}  # padded pieces in a batch of testing


# ---- data ------------------------------------------------------------------------------------------


def read_tagged(path, task, most=None):
    """Return the sentences of a udpos file, or its first `most` ones, as (words, tags). Raises InputError where it has
    no tags."""
    sentences = read_udpos(path, task)[:most]
    if sentences[0][1] is None:
        raise InputError(f"{path}:1: no tags; expected word<TAB>TAG")
    return sentences


def read_orders(reordered, permutations, train, train_path, task):
    """Return (second, orders): the sentences of --reordered, and which word of `train` stands at each place of them.

    Without --reordered both are []. Raises InputError where these are not the sentences of `train` in the order of
    --permutations.
    """
    if not reordered:
        return [], []
    second, lengths = read_tagged(reordered, task), [len(words) for words, _ in train]
    if len(second) != len(train):
        raise InputError(
            f"{reordered}: {len(second)} sentences, but {train_path} has {len(train)}; expected the same ones"
        )
    orders = [list(range(length)) for length in lengths]
    if permutations:
        orders = read_permutations(permutations, lengths)
    for number, ((words, tags), other, order) in enumerate(zip(train, second, orders), 1):
        if ([words[i] for i in order], [tags[i] for i in order]) != other:
            source = f"in the order of {permutations}" if permutations else "in its order; expected --permutations FILE"
            raise InputError(f"{reordered}: sentence {number} is not that of {train_path} {source}")
    return second, orders


def segments(tokenizer, sentences, max_length, label_on):
    """Return sentences (lists of words) as model inputs of at most `max_length` pieces, cut between words.

    That is a list of (ids, positions, sentence): the pieces with special ones, for each word the position of the piece
    that carries its tag, and the index of the sentence. A word that the tokenizer drops is an unknown piece; the pieces
    of a single word beyond the length are left out.
    """
    before, after = subwords.special_pieces(tokenizer)
    bare = subwords.bare_piece(tokenizer) if label_on == "content" else None
    room = max_length - len(before) - len(after)
    made = []
    for number, (ids, word) in enumerate(subwords.words_to_pieces(tokenizer, sentences)):
        words = [[] for _ in sentences[number]]
        for piece, index in zip(ids, word):
            words[index].append(piece)
        inside, positions = [], []
        for pieces in words:
            pieces = pieces[:room] or [subwords.unknown_piece(tokenizer)]
            if len(inside) + len(pieces) > room:
                made.append((before + inside + after, positions, number))
                inside, positions = [], []
            carrier = next((k for k, piece in enumerate(pieces) if piece != bare), 0)
            positions.append(len(before) + len(inside) + carrier)
            inside.extend(pieces)
        made.append((before + inside + after, positions, number))
    return made


def make_examples(tokenizer, views, max_length, label_on, labels=UPOS):
    """Return for each sentence its segments in each order, as (ids, positions, tags). views: lists of (words, tags)
    sentences."""
    examples = [[[] for _ in views] for _ in views[0]]
    for view, sentences in enumerate(views):
        tags = iter([labels.index(tag) for _, tags in sentences for tag in tags])
        for ids, positions, n in segments(tokenizer, [words for words, _ in sentences], max_length, label_on):
            examples[n][view].append((ids, positions, [next(tags) for _ in positions]))
    return examples


def collate(batch, pad_id, device):
    """Return tensors of a list of segments: ids (B, L), mask (B, L), and the (row, column) of every word's piece, 2 x
    (W,)."""
    ids = common.pad([ids for ids, _, _ in batch], pad_id)
    lengths = torch.tensor([len(ids) for ids, _, _ in batch])
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    rows = torch.tensor([row for row, (_, positions, _) in enumerate(batch) for _ in positions], dtype=torch.int64)
    columns = torch.tensor([column for _, positions, _ in batch for column in positions], dtype=torch.int64)
    return ids.to(device), mask.long().to(device), rows.to(device), columns.to(device)


# ---- model -----------------------------------------------------------------------------------------


def word_scores(model, batch, pad_id, precision):
    """Return the scores of every tag for every word of a list of segments, (W, tags) float32."""
    ids, mask, rows, columns = collate(batch, pad_id, model.device)
    with common.autocast(ids.device, precision):
        return model(input_ids=ids, attention_mask=mask).logits[rows, columns]


def split_batch(numbers, examples, budget):
    """Yield (segments, whole): parts of a batch of at most `budget` pieces, so that memory does not grow with a
    sentence.

    examples[number]: the segments of each order of a sentence. whole: the numbers of the sentences that are whole in
    this part, whose segments come first, one order after the other; a sentence above the budget is cut between its
    segments.
    """
    units = []
    for number in numbers:
        inside = [segment for segments in examples[number] for segment in segments]
        whole = sum(len(ids) for ids, *_ in inside) <= budget
        units += [(number, examples[number])] if whole else [(None, [[segment]]) for segment in inside]
    sizes = [sum(len(ids) for segments in orders for ids, *_ in segments) for _, orders in units]
    for part in common.length_sorted(sizes, budget):
        whole = [units[k] for k in part if units[k][0] is not None]
        cut = [units[k][1] for k in part if units[k][0] is None]
        groups = [*zip(*(orders for _, orders in whole)), *zip(*cut)]
        yield [segment for group in groups for segments in group for segment in segments], [n for n, _ in whole]


def divergence(scores, orders):
    """Return the summed divergence of the predictions for words in two orders. scores: (2 W, tags), first orders
    first."""
    first, other = F.log_softmax(scores, 1).chunk(2)
    starts = np.cumsum([0] + [len(order) for order in orders])
    same = torch.tensor([start + i for start, order in zip(starts, orders) for i in order], device=scores.device)
    return training.symmetric_divergence(first[same], other).sum()


def pass_words(model, examples, pad_id, precision, generator):
    """Run the model on the words of `examples`, of large data on a random sample of FITTED_WORDS words; yields what
    training.fit_last_layer takes."""
    segments = [segment for n in generator.permutation(len(examples)) for order in examples[n] for segment in order]
    words = np.cumsum([len(positions) for _, positions, _ in segments])
    segments = segments[: 1 + int(np.searchsorted(words, FITTED_WORDS))]
    for batch in common.length_sorted([len(ids) for ids, *_ in segments], TEST_BUDGET[model.device.type]):
        chosen = [segments[n] for n in batch]
        ids, mask, rows, columns = collate(chosen, pad_id, model.device)
        with common.autocast(model.device, precision):
            model(input_ids=ids, attention_mask=mask)
        yield (rows, columns), torch.tensor([tag for *_, tags in chosen for tag in tags], device=model.device)


def predict(model, items, count, pad_id, precision):
    """Return the predicted tags of the sentences that the segments `items` come from, `count` lists of tag names."""
    predicted, labels = [None] * len(items), model.config.id2label
    model.eval()
    with torch.inference_mode():
        for batch in common.length_sorted([len(ids) for ids, *_ in items], TEST_BUDGET[model.device.type]):
            tags = iter(word_scores(model, [items[n] for n in batch], pad_id, precision).argmax(1).tolist())
            for n in batch:
                predicted[n] = [labels[next(tags)] for _ in items[n][1]]
    sentences = [[] for _ in range(count)]
    for (_, _, sentence), tags in zip(items, predicted):
        sentences[sentence].extend(tags)
    return sentences


def main():
    parser = Arguments(__doc__)
    tasks = [name for name, task in TASKS.items() if task.kind == "tagging"]
    parser.add_argument("--task", choices=tasks, default="udpos", help="whose tags (data/tasks.py)")
    training.add_options(parser, epochs=10)
    parser.add_argument(
        "--label-on", choices=["content", "first"], default="content",
        help="piece that carries a word's tag: the first that is not a bare `▁`, or the first",
    )  # fmt: skip
    parser.add_argument(
        "--permutations", metavar="FILE",
        help="what reorder.py --permutations wrote beside --reordered (default: the orders are the same)",
    )  # fmt: skip
    training.add_head_option(parser)
    args = parser.parse_args()

    # Read. Everything is checked before the model is loaded.
    training.check_views(args.reordered, args.consistency, args.permutations)
    training.check_output(args.output, args.data_dir)
    langs = training.dev_languages(args.langs, languages_in(args.data_dir), args.data_dir)
    task = TASKS[args.task]
    sentences = read_tagged(args.train, args.task)
    second, orders = read_orders(args.reordered, args.permutations, sentences, args.train, args.task)
    dev = {lang: read_tagged(os.path.join(args.data_dir, f"dev-{lang}.tsv"), args.task, args.max_dev) for lang in langs}
    config, tokenizer = common.load_config(args.model), common.load_tokenizer(args.model)
    limit = training.input_limit(args.max_length, tokenizer, config, least=8)
    views = [sentences, second] if second else [sentences]
    examples = make_examples(tokenizer, views, limit, args.label_on, task.labels)
    dev_items = {lang: segments(tokenizer, [words for words, _ in dev[lang]], limit, args.label_on) for lang in langs}
    pad_piece = tokenizer.pad_token_id
    del tokenizer
    common.release_memory()

    # Work: train, from where a killed run of the same code, settings, data and model stood.
    device = common.pick_device()
    rank, world = common.start_distributed(device)
    precision = args.precision or common.pick_precision(device)
    training.seed_everything(args.seed)
    model = heads.load_with_head(args.model, "TokenClassification", task.labels)
    inputs = [item for example in examples for order in example for item in order]
    every = [ids for ids, *_ in itertools.chain(inputs, *dev_items.values())]
    new_id = training.trim_inputs(model.base_model, every, pad_piece)
    pad_id = int(new_id[pad_piece])
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay, fused=True)
    data = [np.array([*ids, *positions, *tags]) for ids, positions, tags in inputs] + list(map(np.array, orders))
    options = {**vars(args), "precision": precision}
    crc = checkpoints.training_crc(__file__, options, [*data, *checkpoints.weights(model)])
    checkpoint = checkpoints.path_of(args.output), crc, {"model": model}, optimizer
    state = checkpoints.load(*checkpoint)
    if args.head == "fitted" and state["step"] == 0:
        words = pass_words(model, examples, pad_id, precision, np.random.default_rng(args.seed))
        training.fit_last_layer(model, words, rank)

    parameters = list(model.parameters())
    sizes = [sum(len(ids) for order in example for ids, *_ in order) for example in examples]
    total = args.epochs * -(-len(examples) // args.batch_size)
    save = functools.partial(checkpoints.save, *checkpoint, state)
    model.train()
    for step, batch in training.steps(
        sizes, args.batch_size, args.epochs, args.seed, rank, state, save, args.save_every
    ):
        training.seed_step(args.seed, step, rank)
        words = sum(len(sentences[n][0]) for n in batch)
        state["loss"] = 0.0
        for part, whole in split_batch(batch[rank::world], examples, TRAIN_BUDGET[device.type]):
            scores = word_scores(model, part, pad_id, precision)  # (W, tags)
            tags = torch.tensor([tag for *_, tags in part for tag in tags], device=device)
            loss = F.cross_entropy(scores, tags, reduction="sum") / (words * len(examples[0]))
            if args.consistency and whole:
                pairs = 2 * sum(len(orders[n]) for n in whole)
                loss = loss + args.consistency * divergence(scores[:pairs], [orders[n] for n in whole]) / words
            loss.backward()  # gradients of all parts and processes add up
            state["loss"] += loss.detach() * world
        training.update(optimizer, parameters, args.lr * training.linear_schedule(step, total, args.warmup))

    # Write: the model, predictions and scores. Every process takes its part of the languages.
    if args.save and rank == 0:
        folder = os.path.join(args.output, "model")
        training.save_model(args.model, "TokenClassification", task.labels, model, new_id, folder)
    if precision == "bf16":
        common.store_linear_in_bf16(model.base_model)
    training.withdraw_scores(args.output)
    scores = {}
    for lang in tqdm(langs[rank::world], unit=" languages", desc="dev", disable=None if rank == 0 else True):
        tags = predict(model, dev_items[lang], len(dev[lang]), pad_id, precision)
        task.write_predictions(os.path.join(args.output, task.predictions.format(lang)), tags)
        scores[lang] = tagging_scores([sentence for _, sentence in dev[lang]], tags)
    report = training.describe_training(len(examples), total, sum(sizes) * args.epochs, state["seconds"])
    machine = training.describe_machine(precision, world)
    training.write_scores(vars(args), args.task, task.metrics[0], machine, scores, langs, report)


if __name__ == "__main__":
    run_script(main)
