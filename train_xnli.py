"""Fine-tune an encoder for a sentence-pair task, XNLI or PAWS-X, and score it on the dev set of every language.

In:   a file of sentence1<TAB>sentence2<TAB>label lines (English, in its own or another word order) and a folder of
      dev-XX.tsv (XTREME's layout)
Out:  OUTPUT/dev-XX.tsv     predicted labels, one a line (XTREME's submission format)
      OUTPUT/scores.json    accuracy of every language, loss history, what was run, and how fast

    python train_xnli.py --task xnli --model models/multilingual-e5-small --train data/sample/xnli/train-en.tsv \\
        --data-dir data/sample/xnli --output runs/try --lr 1e-4 --batch-size 16
    torchrun --nproc_per_node 4 train_xnli.py ...     # the same batches, shared out over four GPUs

The defaults are XTREME's settings for its full data (learning rate 2e-5, batch 32, 5 epochs, length 128), with three
exceptions: the warm-up is a tenth of the steps (XTREME: --warmup 0), the last layer is fitted before training (XTREME:
--head random), and the last step's weights are tested, not those that are best on English dev.

An input is [CLS] sentence1 [SEP] sentence2 [SEP], or what the model's tokenizer puts in these places; of a pair that is
too long, the longer sentence is cut. The label is predicted by the head that transformers gives the model's family, as
in XTREME's baselines:

- BERT (mBERT, the default model): the pooler, which is a dense layer with tanh (the checkpoint's, or a new one where
  it has none, as in the default model), then dropout and a linear layer;
- XLM-R (InfoXLM and XLM-Align too): dropout, a new dense layer with tanh, dropout, a linear layer. Other families are
  similar.

With --reordered, every pair is trained on in two orders; --consistency adds to the loss the divergence between the
predictions for the two.
"""

import collections
import itertools
import os

import numpy as np
import torch
import torch.nn.functional as F

import common
import training
from data.files import (
    PAIR_LABELS, Arguments, InputError, dev_files, error_at, iterate_pairs, run_script, warn, write_lines,
)  # fmt: skip
from data.metrics import pair_scores

TEST_BUDGET = {"cpu": 2048, "cuda": 65536}  # padded subwords in a batch of testing
READ = 20_000  # pairs that are tokenised at a time
FITTED_PAIRS = 20_000  # most pairs that a fitted head is fitted to

# The inputs of many pairs in flat arrays. ids, types: a subword's id and its token type (BERT's: 0 first sentence, 1
# second); first, lengths: where a pair begins and how many subwords it has; labels: their index in PAIR_LABELS.
Inputs = collections.namedtuple("Inputs", "ids types first lengths labels")


# ---- data ------------------------------------------------------------------------------------------


def read_inputs(path, task, tokenizer, limit, most=None):
    """Return the pairs of a file, or its first `most`, as Inputs of at most `limit` subwords each; text is not kept.

    Raises InputError.
    """
    parts, rows, number, cut = [], itertools.islice(iterate_pairs(path, task, labelled=True), most), 0, 0
    before, between, after, second_type = common.special_pair_subwords(tokenizer)
    room = limit - len(before) - len(between) - len(after)
    while chunk := list(itertools.islice(rows, READ)):
        number += len(chunk)
        ids, types = [], []
        sides = (common.texts_to_subwords(tokenizer, [row[side] for row in chunk]) for side in (0, 1))
        for one, two in zip(*sides):
            kept = longest_first(len(one), len(two), room)
            cut += sum(kept) < len(one) + len(two)
            head, tail = before + one[: kept[0]] + between, two[: kept[1]] + after
            ids.append(head + tail)
            types.append([0] * len(head) + [second_type] * len(tail))
        labels = [PAIR_LABELS[task].index(label) for *_, label in chunk]
        flat, flat_types = (list(itertools.chain.from_iterable(lists)) for lists in (ids, types))
        lengths = np.array(list(map(len, ids)))
        parts.append((np.array(flat, np.int32), np.array(flat_types, np.int8), lengths, np.array(labels)))
    if cut:
        warn(f"{path}: {cut} of {number} pairs have more than {limit} subwords and are cut")
    ids, types, lengths, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return Inputs(ids, types, np.cumsum(lengths) - lengths, lengths, labels)


def longest_first(one, two, room):
    """Return how many subwords are kept of two sentences of so many: of a pair that is too long, the longer one is cut.

    Where both are cut and `room` is odd, the second keeps one more, unless the first was longer (as in tokenizers'
    truncation).
    """
    if one + two <= room:
        return one, two
    if one > two:
        return longest_first(two, one, room)[::-1]
    one = min(one, room // 2)
    return one, room - one


def read_views(args, tokenizer, limit):
    """Return (inputs, views): the Inputs of --train, followed by those of --reordered if given; views is 1 or 2.

    Raises InputError where --reordered does not hold the same pairs in other orders.
    """
    inputs = read_inputs(args.train, args.task, tokenizer, limit)
    if not args.reordered:
        return inputs, 1
    second = read_inputs(args.reordered, args.task, tokenizer, limit)
    if not np.array_equal(second.labels, inputs.labels):
        wrong = f"other labels, or another number of pairs, than {args.train}"
        raise InputError(f"{args.reordered}: {wrong}; expected the same ones")
    for number, rows in enumerate(zip(*(iterate_pairs(path, args.task) for path in (args.train, args.reordered))), 1):
        if any(characters(one) != characters(other) for one, other in zip(*(row[:2] for row in rows))):
            wrong = f"is not line {number} of {args.train} in another word order"
            raise error_at(args.reordered, number, f"{wrong}; expected the same words")
    second = second._replace(first=second.first + len(inputs.ids))
    return Inputs(*map(np.concatenate, zip(inputs, second))), 2


def characters(text):
    """Return the characters of a text that reordering keeps, sorted: all but white space and `|`."""
    return sorted("".join(text.replace("|", "").split()))


# ---- model -----------------------------------------------------------------------------------------


def label_scores(model, inputs, batch, pad_id, precision):
    """Return the scores of every label for a batch of pairs (their numbers), (B, labels) float32."""
    index, mask = common.place_batch(inputs, batch)
    ids, types = (np.where(mask, flat[index], fill) for flat, fill in ((inputs.ids, pad_id), (inputs.types, 0)))
    ids, types, mask = (torch.from_numpy(array.astype(np.int64)).to(model.device) for array in (ids, types, mask))
    with common.autocast(model.device, precision):
        return model(input_ids=ids, attention_mask=mask, **common.token_types(model.config, types)).logits


def pass_pairs(model, inputs, pad_id, precision, generator):
    """Run the model on pairs, at most FITTED_PAIRS random ones; yields for training.fit_last_layer."""
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
    parser.add_argument("--task", choices=PAIR_LABELS, required=True, help="xnli: three labels, pawsx: two")
    training.add_options(parser, epochs=5)
    training.add_view_options(parser)
    args = parser.parse_args()

    # Read. All files are checked before the model is loaded.
    files, labels = training.check_options(args, dev_files(args.data_dir)), PAIR_LABELS[args.task]
    tokenizer, limit = training.load_tokenizer(args, "SequenceClassification", least=8)
    inputs, views = read_views(args, tokenizer, limit)
    dev = {lang: read_inputs(path, args.task, tokenizer, limit, args.max_dev) for lang, path in files.items()}
    common.check_known(args.model, tokenizer)
    pad_id, pairs = tokenizer.pad_token_id, len(inputs.lengths) // views
    del tokenizer
    common.release_memory()

    # Train, from where a killed run of the same code, settings, data and model stopped.
    device, rank, world = training.start(args)
    model = training.load_with_head(args.model, "SequenceClassification", labels)
    used = np.unique(np.concatenate([np.unique(part.ids) for part in (inputs, *dev.values())])).tolist()
    new_id = common.trim_embeddings(model.base_model, {pad_id, *used})
    inputs, *tests = (part._replace(ids=new_id[part.ids]) for part in (inputs, *dev.values()))
    dev, pad_id = dict(zip(dev, tests)), int(new_id[pad_id])
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay, fused=True)
    state, save = training.resume(__file__, args, inputs, {"model": model}, optimizer)
    if args.head == "fitted" and state["step"] == 0:
        fitted = pass_pairs(model, inputs, pad_id, args.precision, np.random.default_rng(args.seed))
        training.fit_last_layer(model, fitted, rank)
    sizes = inputs.lengths.reshape(views, pairs).sum(0)
    model.train()
    for _, batch, rate in training.steps(sizes, args, rank, state, save):
        local = [view * pairs + n for view in range(views) for n in batch[rank::world]]
        if local:
            scores = label_scores(model, inputs, local, pad_id, args.precision)  # (views * B, labels)
            gold = torch.from_numpy(inputs.labels[local]).to(device)
            loss = F.cross_entropy(scores, gold, reduction="sum") / (len(batch) * views)
            if args.consistency:
                both = F.log_softmax(scores, 1).chunk(2)
                loss = loss + args.consistency * training.symmetric_divergence(*both).sum() / len(batch)
            loss.backward()  # gradients of all processes add up
        state["loss"] = loss.detach() * world if local else 0.0
        training.update(optimizer, rate)

    # Write the model, predictions and scores. Every process takes its part of the languages.
    training.finish_training(args, "SequenceClassification", labels, model, new_id, rank)
    scores = {}
    for lang in training.test_languages(list(dev), rank, world):
        predicted = predict(model, dev[lang], pad_id, args.precision)
        write_lines(os.path.join(args.output, f"dev-{lang}.tsv"), (labels[label] for label in predicted))
        scores[lang] = pair_scores(dev[lang].labels, predicted)
    training.write_scores(args, "accuracy", scores, list(dev), state, pairs, int(sizes.sum()))


if __name__ == "__main__":
    run_script(main)
