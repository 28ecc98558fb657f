"""Fine-tune an encoder for a sentence-pair task, XNLI or PAWS-X, and score it on the dev set of every language.

In:   a file of sentence1<TAB>sentence2<TAB>label lines (English, in its own or another word order) and a folder of
      dev-XX.tsv
Out:  OUTPUT/dev-XX.tsv     predicted labels, one a line (XTREME's submission format)
      OUTPUT/scores.json    accuracy of every language, what was run, and how fast

    python train_xnli.py --task xnli --model models/multilingual-e5-small --train data/sample/xnli/train-en.tsv \\
        --data-dir data/sample/xnli --output runs/try --lr 1e-4 --batch-size 16
    torchrun --nproc_per_node 4 train_xnli.py ...     # the same batches, shared out over four GPUs

The defaults are XTREME's settings for its full data (learning rate 2e-5, batch 32, 5 epochs, length 128), but for the
warm-up, a tenth of the steps where XTREME has none (--warmup 0), the start of the last layer (--head random), and that
the last step's weights are tested, not those that are best on English dev. An input is [CLS] sentence1 [SEP] sentence2
[SEP], or what the model's tokenizer puts in these places; of a pair that is too long, the longer sentence is cut. The
label is predicted by the head that transformers gives the family of the model, which is what XTREME's baselines use:

- BERT (mBERT, the default model): the pooler, which is a dense layer with tanh (the checkpoint's; new where it has
  none, as the default model), then dropout and a linear layer;
- XLM-R (InfoXLM and XLM-Align too): dropout, a new dense layer with tanh, dropout, a linear layer; others are much
  like these.

With --reordered, every pair is trained on in two orders, and --consistency adds the divergence between the predictions
for them.
"""

import collections
import functools
import itertools
import os

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import common
from data.cli import Arguments, InputError, error_at, run_script, warn
from data.files import PAIR_LABELS, iterate_pairs, languages_in, write_lines
from data.metrics import pair_scores
from lib import checkpoints, heads, subwords, training

TEST_BUDGET = {"cpu": 2048, "cuda": 65536}  # padded pieces in a batch of testing
READ = 20_000  # pairs that are tokenised at a time
FITTED_PAIRS = 20_000  # most pairs that a fitted head is fitted to

# The inputs of many pairs in flat arrays. ids, types: a piece's id and its sentence (0 or 1) where the model tells them
# apart; first, lengths: where a pair begins and how many pieces it has; labels: -1 for none.
Inputs = collections.namedtuple("Inputs", "ids types first lengths labels")


# ---- data ------------------------------------------------------------------------------------------


def read_inputs(path, task, tokenizer, limit, most=None):
    """Return the pairs of a file, or its first `most` ones, as Inputs of at most `limit` pieces each; text is not kept.

    Raises InputError.
    """
    parts, rows, number, cut = [], itertools.islice(iterate_pairs(path, task), most), 0, 0
    before, between, after, second_type = subwords.special_pair_pieces(tokenizer)
    room = limit - len(before) - len(between) - len(after)
    while chunk := list(itertools.islice(rows, READ)):
        for row in chunk:
            number += 1
            if row[2] is None:
                raise error_at(path, number, "no label; expected sentence1<TAB>sentence2<TAB>label")
        ids, types = [], []
        for one, two in zip(*(subwords.text_pieces(tokenizer, [row[side] for row in chunk]) for side in (0, 1))):
            kept = longest_first(len(one), len(two), room)
            cut += sum(kept) < len(one) + len(two)
            head, tail = before + one[: kept[0]] + between, two[: kept[1]] + after
            ids.append(head + tail)
            types.append([0] * len(head) + [second_type] * len(tail))
        parts.append((
            np.fromiter(itertools.chain.from_iterable(ids), np.int32),
            np.fromiter(itertools.chain.from_iterable(types), np.int8),
            np.array(list(map(len, ids))),
            np.array([PAIR_LABELS[task].index(row[2]) for row in chunk]),
        ))  # fmt: skip
    if cut:
        warn(f"{path}: {cut} of {number} pairs have more than {limit} pieces and are cut")
    ids, types, lengths, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return Inputs(ids, types, np.cumsum(lengths) - lengths, lengths, labels)


def longest_first(one, two, room):
    """Return how many pieces are kept of two sentences of so many: of a pair that is too long, the longer one is cut.

    Where both are cut and `room` is odd, the second keeps one more, unless the first was longer (as in tokenizers'
    truncation).
    """
    if one + two <= room:
        return one, two
    if one > two:
        return longest_first(two, one, room)[::-1]
    one = min(one, room // 2)
    return one, room - one


def read_views(path, reordered, task, tokenizer, limit):
    """Return (inputs, views): the Inputs of a training file, after them those of `reordered` where it is given; views
    is 1 or 2.

    Raises InputError where `reordered` is not the same pairs in other orders.
    """
    inputs = read_inputs(path, task, tokenizer, limit)
    if not reordered:
        return inputs, 1
    second = read_inputs(reordered, task, tokenizer, limit)
    if not np.array_equal(second.labels, inputs.labels):
        raise InputError(f"{reordered}: other labels, or another number of pairs, than {path}; expected the same ones")
    for number, rows in enumerate(zip(*(iterate_pairs(name, task) for name in (path, reordered))), 1):
        if any(characters(one) != characters(other) for one, other in zip(*(row[:2] for row in rows))):
            raise error_at(
                reordered, number, f"is not line {number} of {path} in another word order; expected the same words"
            )
    second = second._replace(first=second.first + len(inputs.ids))
    return Inputs(*map(np.concatenate, zip(inputs, second))), 2


def characters(text):
    """Return what splitting a text into words and ordering them leaves: its sorted characters but spaces and `|`."""
    return sorted("".join(text.replace("|", "").split()))


# ---- model -----------------------------------------------------------------------------------------


def label_scores(model, inputs, batch, pad_id, precision):
    """Return the scores of every label for a batch of pairs (their numbers), (B, labels) float32."""
    index, inside = common.place_batch(inputs, batch)
    ids = torch.from_numpy(np.where(inside, inputs.ids[index], pad_id).astype(np.int64)).to(model.device)
    types = torch.from_numpy(np.where(inside, inputs.types[index], 0).astype(np.int64)).to(model.device)
    mask = torch.from_numpy(inside).long().to(model.device)
    with common.autocast(model.device, precision):
        return model(input_ids=ids, attention_mask=mask, **common.token_types(model.config, types)).logits


def pass_pairs(model, inputs, pad_id, precision, generator):
    """Run the model on pairs, of large data on a random sample of FITTED_PAIRS; yields what training.fit_last_layer
    takes."""
    chosen = generator.permutation(len(inputs.lengths))[:FITTED_PAIRS]
    for batch in common.length_sorted(inputs.lengths[chosen], TEST_BUDGET[model.device.type]):
        label_scores(model, inputs, chosen[batch], pad_id, precision)
        yield ..., torch.from_numpy(inputs.labels[chosen[batch]]).to(model.device)


def predict(model, inputs, pad_id, precision):
    """Return predicted labels, a numpy (pairs,) of their numbers."""
    predicted = np.empty(len(inputs.lengths), np.int64)
    model.eval()
    with torch.inference_mode():
        for batch in common.length_sorted(inputs.lengths, TEST_BUDGET[model.device.type]):
            predicted[batch] = label_scores(model, inputs, batch, pad_id, precision).argmax(1).cpu().numpy()
    return predicted


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--task", choices=list(PAIR_LABELS), required=True, help="xnli: three labels, pawsx: two")
    training.add_options(parser, epochs=5)
    training.add_head_option(parser)
    args = parser.parse_args()

    # Read. Everything is checked before the model is loaded.
    training.check_views(args.reordered, args.consistency)
    training.check_output(args.output, args.data_dir)
    langs = training.dev_languages(args.langs, languages_in(args.data_dir), args.data_dir)
    config, tokenizer = common.load_config(args.model), common.load_tokenizer(args.model)
    limit = training.input_limit(args.max_length, tokenizer, config, least=8)
    inputs, views = read_views(args.train, args.reordered, args.task, tokenizer, limit)
    files = {lang: os.path.join(args.data_dir, f"dev-{lang}.tsv") for lang in langs}
    dev = {lang: read_inputs(files[lang], args.task, tokenizer, limit, args.max_dev) for lang in langs}
    pad_piece, pairs = tokenizer.pad_token_id, len(inputs.lengths) // views
    del tokenizer
    common.release_memory()

    # Work: train, from where a killed run of the same code, settings, data and model stood.
    device = common.pick_device()
    rank, world = common.start_distributed(device)
    precision = args.precision or common.pick_precision(device)
    training.seed_everything(args.seed)
    model = heads.load_with_head(args.model, "SequenceClassification", PAIR_LABELS[args.task])
    used = np.unique(np.concatenate([np.unique(part.ids) for part in (inputs, *dev.values())])).tolist()
    new_id = common.trim_embeddings(model.base_model, {pad_piece, *used})
    inputs = inputs._replace(ids=new_id[inputs.ids])
    dev = {lang: part._replace(ids=new_id[part.ids]) for lang, part in dev.items()}
    pad_id = int(new_id[pad_piece])
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay, fused=True)
    options = {**vars(args), "precision": precision}
    crc = checkpoints.training_crc(__file__, options, [*inputs, *checkpoints.weights(model)])
    checkpoint = checkpoints.path_of(args.output), crc, {"model": model}, optimizer
    state = checkpoints.load(*checkpoint)
    if args.head == "fitted" and state["step"] == 0:
        fitted = pass_pairs(model, inputs, pad_id, precision, np.random.default_rng(args.seed))
        training.fit_last_layer(model, fitted, rank)

    parameters = list(model.parameters())
    sizes = inputs.lengths.reshape(views, pairs).sum(0)
    total = args.epochs * -(-pairs // args.batch_size)
    save = functools.partial(checkpoints.save, *checkpoint, state)
    model.train()
    for step, batch in training.steps(
        sizes, args.batch_size, args.epochs, args.seed, rank, state, save, args.save_every
    ):
        training.seed_step(args.seed, step, rank)
        local = [view * pairs + n for view in range(views) for n in batch[rank::world]]
        if local:
            scores = label_scores(model, inputs, local, pad_id, precision)  # (views * B, labels)
            labels = torch.from_numpy(inputs.labels[local]).to(device)
            loss = F.cross_entropy(scores, labels, reduction="sum") / (len(batch) * views)
            if args.consistency:
                both = F.log_softmax(scores, 1).chunk(2)
                loss = loss + args.consistency * training.symmetric_divergence(*both).sum() / len(batch)
            loss.backward()  # gradients of all processes add up
            state["loss"] = loss.detach() * world
        training.update(optimizer, parameters, args.lr * training.linear_schedule(step, total, args.warmup))

    # Write: the model, predictions and scores. Every process takes its part of the languages.
    labels = PAIR_LABELS[args.task]
    if args.save and rank == 0:
        folder = os.path.join(args.output, "model")
        training.save_model(args.model, "SequenceClassification", labels, model, new_id, folder)
    if precision == "bf16":
        common.store_linear_in_bf16(model.base_model)
    training.withdraw_scores(args.output)
    scores = {}
    for lang in tqdm(langs[rank::world], unit=" languages", desc="dev", disable=None if rank == 0 else True):
        predicted = predict(model, dev[lang], pad_id, precision)
        write_lines(os.path.join(args.output, f"dev-{lang}.tsv"), (labels[label] for label in predicted))
        scores[lang] = pair_scores(dev[lang].labels, predicted)
    report = training.describe_training(pairs, total, int(sizes.sum()) * args.epochs, state["seconds"])
    machine = training.describe_machine(precision, world)
    training.write_scores(vars(args), args.task, "accuracy", machine, scores, langs, report)


if __name__ == "__main__":
    run_script(main)
