"""Fine-tune an encoder for part-of-speech tagging and score it on the dev set of every language.

In:   a udpos file to train on (English, in its own or another word order) and a folder of dev-XX.tsv (XTREME's layout)
Out:  OUTPUT/dev-XX.tsv     predicted tags, a tag a line, a blank line after each sentence (XTREME's submission format)
      OUTPUT/scores.json    accuracy and F1 of every language, loss history, what was run, and how fast

    python train_pos.py --model models/multilingual-e5-small --train data/sample/udpos/train-en.tsv \\
        --data-dir data/sample/udpos --output runs/try --lr 1e-4 --batch-size 16
    torchrun --nproc_per_node 4 train_pos.py ...      # the same batches, shared out over four GPUs

The defaults are XTREME's settings for its full data (learning rate 2e-5, batch 32, 10 epochs, length 128), with four
exceptions: the warm-up is a tenth of the steps (XTREME: --warmup 0), the last layer is fitted before training (XTREME:
--head random), the last step's weights are tested, not those that are best on English dev, and a word's tag sits on
another subword, see below. Small data wants a higher rate and a smaller batch.

A word's tag is predicted from its first subword that is not a bare `▁`. XLM-R's tokenizers put that subword before most
Chinese and Japanese words, so it says nothing about any of them (XTREME's issue 84); --label-on first is XTREME's
recipe. Sentences of more than --max-length subwords are cut between words, in training and in testing, as XTREME's
preprocessing does, so every word gets a prediction and counts. The head is the one that transformers gives the model's
family: dropout and a linear layer, or more.

With --reordered, every sentence is trained on in two orders; --permutations says which word is which. --consistency
adds to the loss the divergence between the predictions for the two, the mean over words.
"""

import itertools
import os

import numpy as np
import torch
import torch.nn.functional as F

import common
import training
from data.files import (
    TAGS, Arguments, InputError, check_count, dev_files, error_at, read_lines, read_udpos, run_script, split_words,
    write_lines,
)  # fmt: skip
from data.metrics import tagging_scores

TRAIN_BUDGET = {"cpu": 4096, "cuda": 65536}  # padded subwords that are trained on at a time
TEST_BUDGET = {"cpu": 1024, "cuda": 65536}  # padded subwords in a batch of testing
FITTED_WORDS = 100_000  # about the most words that a fitted head is fitted to


# ---- data ------------------------------------------------------------------------------------------


def read_permutations(path, lengths, source):
    """Return the order of each sentence's words that reorder.py --permutations wrote: lists of their numbers, from 0.

    lengths: how many words each sentence of the file `source` has. Raises InputError for a line that is no permutation
    of them, and for another number of lines.
    """
    lines = [split_words(line.removesuffix("\r")) for line in read_lines(path)]
    check_count(path, len(lines), len(lengths), source)
    for number, (line, length) in enumerate(zip(lines, lengths), 1):
        if sorted(line) != sorted(map(str, range(length))):
            expected = f"the numbers 0 to {length - 1}, each once, as reorder.py --permutations writes them"
            raise error_at(path, number, f"does not fit the sentence; expected {expected}")
    return [list(map(int, line)) for line in lines]


def read_orders(args, train):
    """Return (second, orders): the sentences of --reordered, and which word of `train` stands at each place of them.

    Without --reordered both are []. Raises InputError where these are not the sentences of `train` in the order of
    --permutations.
    """
    if not args.reordered:
        return [], []
    second, lengths = read_udpos(args.reordered, args.task, tagged=True), [len(words) for words, _ in train]
    check_count(args.reordered, len(second), len(train), args.train, "sentences")
    orders, source = [list(range(length)) for length in lengths], "in its order; expected --permutations FILE"
    if args.permutations:
        orders = read_permutations(args.permutations, lengths, args.train)
        source = f"in the order of {args.permutations}"
    for number, ((words, tags), other, order) in enumerate(zip(train, second, orders), 1):
        if ([words[i] for i in order], [tags[i] for i in order]) != other:
            raise InputError(f"{args.reordered}: sentence {number} is not that of {args.train} {source}")
    return second, orders


def segments(tokenizer, sentences, max_length, label_on):
    """Return sentences (lists of words) as model inputs of at most `max_length` subwords, cut between words.

    That is a list of (ids, positions, sentence): the subwords with special ones, the position of the subword that
    carries each word's tag, and the index of the sentence. A word without subwords becomes an unknown one; of a word
    longer than an input, the last subwords are left out.
    """
    before, after = common.special_subwords(tokenizer)
    bare = common.bare_subword(tokenizer) if label_on == "content" else None
    room = max_length - len(before) - len(after)
    made = []
    for number, (ids, word) in enumerate(common.words_to_subwords(tokenizer, sentences)):
        words = [[] for _ in sentences[number]]
        for id, index in zip(ids, word):
            words[index].append(id)
        inside, positions = [], []
        for subwords in words:
            subwords = subwords[:room] or [common.unknown_subword(tokenizer)]
            if len(inside) + len(subwords) > room:
                made.append((before + inside + after, positions, number))
                inside, positions = [], []
            carrier = next((k for k, id in enumerate(subwords) if id != bare), 0)
            positions.append(len(before) + len(inside) + carrier)
            inside.extend(subwords)
        made.append((before + inside + after, positions, number))
    return made


def make_examples(tokenizer, views, max_length, label_on, labels):
    """Return each sentence's segments, (ids, positions, numbers of tags), in each order. views: sentences by order."""
    examples = [[[] for _ in views] for _ in views[0]]
    for view, sentences in enumerate(views):
        tags = iter([labels.index(tag) for _, tags in sentences for tag in tags])
        for ids, positions, n in segments(tokenizer, [words for words, _ in sentences], max_length, label_on):
            examples[n][view].append((ids, positions, [next(tags) for _ in positions]))
    return examples


def collate(batch, pad_id, device):
    """Return tensors of a list of segments: ids and mask (B, L), and (rows, columns) of tagged subwords, (W,) each."""
    ids = common.pad([ids for ids, _, _ in batch], pad_id)
    mask = common.pad([[1] * len(ids) for ids, _, _ in batch], 0)
    rows = torch.tensor([row for row, (_, positions, _) in enumerate(batch) for _ in positions])
    columns = torch.tensor([column for _, positions, _ in batch for column in positions])
    return ids.to(device), mask.to(device), (rows.to(device), columns.to(device))


# ---- model -----------------------------------------------------------------------------------------


def word_scores(model, batch, pad_id, precision):
    """Return the scores of every tag for every word of a list of segments, (W, tags) float32."""
    ids, mask, places = collate(batch, pad_id, model.device)
    with common.autocast(model.device, precision):
        return model(input_ids=ids, attention_mask=mask).logits[places]


def split_batch(numbers, examples, budget):
    """Yield (segments, whole): parts of a batch of about `budget` subwords, however long a sentence is.

    examples[number]: the segments of each order of a sentence. whole: the numbers of the sentences that are whole in
    this part, whose segments come first, one order after the other. Others are cut between their segments.
    """
    blocks = []  # (number of a whole sentence, or None, and its segments of each order)
    for number in numbers:
        inside = [segment for order in examples[number] for segment in order]
        fits = sum(len(ids) for ids, *_ in inside) <= budget
        blocks += [(number, examples[number])] if fits else [(None, [[segment]]) for segment in inside]
    sizes = [sum(len(ids) for order in orders for ids, *_ in order) for _, orders in blocks]
    for part in common.length_sorted(sizes, budget):
        whole = [blocks[k] for k in part if blocks[k][0] is not None]
        cut = [blocks[k][1] for k in part if blocks[k][0] is None]
        groups = [*zip(*(orders for _, orders in whole)), *zip(*cut)]
        yield [segment for group in groups for order in group for segment in order], [n for n, _ in whole]


def divergence(scores, orders):
    """Return the summed divergence between the predictions for words in two orders. scores: (2 W, tags), the first
    order's first; orders[n][k]: which word of the first order stands at place k of the second."""
    first, other = F.log_softmax(scores, 1).chunk(2)
    starts = np.cumsum([0] + [len(order) for order in orders])
    same = torch.tensor([start + i for start, order in zip(starts, orders) for i in order], device=scores.device)
    return training.symmetric_divergence(first[same], other).sum()


def pass_words(model, examples, pad_id, precision, generator):
    """Run the model on the words of `examples`, about FITTED_WORDS random ones; yields for training.fit_last_layer."""
    chosen = [segment for n in generator.permutation(len(examples)) for order in examples[n] for segment in order]
    words = np.cumsum([len(positions) for _, positions, _ in chosen])
    chosen = chosen[: 1 + int(np.searchsorted(words, FITTED_WORDS))]
    for numbers in common.length_sorted([len(ids) for ids, *_ in chosen], TEST_BUDGET[model.device.type]):
        batch = [chosen[n] for n in numbers]
        word_scores(model, batch, pad_id, precision)
        tags = torch.tensor([tag for *_, tags in batch for tag in tags], device=model.device)
        yield collate(batch, pad_id, model.device)[2], tags


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
    add = parser.add_argument
    add("--task", choices=TAGS, default="udpos", help="whose tags")
    training.add_options(parser, epochs=10)
    training.add_view_options(parser)
    add("--permutations", metavar="FILE", help="of --reordered, as reorder.py wrote it (default: the same order)")
    add("--label-on", choices=["content", "first"], default="content", help="subword that carries a word's tag: the "
        "first that is not a bare `▁`, or the first")  # fmt: skip
    args = parser.parse_args()

    # Read. All files are checked before the model is loaded.
    files, labels = training.check_options(args, dev_files(args.data_dir)), TAGS[args.task]
    if args.permutations and not args.reordered:
        raise InputError("--permutations: belongs to a second view of the examples; expected --reordered FILE too")
    train = read_udpos(args.train, args.task, tagged=True)
    second, orders = read_orders(args, train)
    dev = {lang: read_udpos(path, args.task, tagged=True)[: args.max_dev] for lang, path in files.items()}
    tokenizer, limit = training.load_tokenizer(args, "TokenClassification", least=8)
    examples = make_examples(tokenizer, [train, second] if second else [train], limit, args.label_on, labels)
    dev_items = {lang: segments(tokenizer, [words for words, _ in dev[lang]], limit, args.label_on) for lang in dev}
    common.check_known(args.model, tokenizer)
    pad_id = tokenizer.pad_token_id
    del tokenizer
    common.release_memory()

    # Train, from where a killed run of the same code, settings, data and model stopped.
    device, rank, world = training.start(args)
    model = training.load_with_head(args.model, "TokenClassification", labels)
    inputs = [segment for example in examples for order in example for segment in order]
    every = [ids for ids, *_ in itertools.chain(inputs, *dev_items.values())]
    new_id, pad_id = common.trim_inputs(model.base_model, every, pad_id)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay, fused=True)
    data = [np.array([*ids, *positions, *tags]) for ids, positions, tags in inputs] + list(map(np.array, orders))
    state, save = training.resume(__file__, args, data, {"model": model}, optimizer)
    if args.head == "fitted" and state["step"] == 0:
        words = pass_words(model, examples, pad_id, args.precision, np.random.default_rng(args.seed))
        training.fit_last_layer(model, words, rank)
    sizes = [sum(len(ids) for order in example for ids, *_ in order) for example in examples]
    model.train()
    for _, batch, rate in training.steps(sizes, args, rank, state, save):
        words, state["loss"] = sum(len(train[n][0]) for n in batch), 0.0
        for part, whole in split_batch(batch[rank::world], examples, TRAIN_BUDGET[device.type]):
            scores = word_scores(model, part, pad_id, args.precision)  # (W, tags)
            tags = torch.tensor([tag for *_, tags in part for tag in tags], device=device)
            loss = F.cross_entropy(scores, tags, reduction="sum") / (words * len(examples[0]))
            if args.consistency and whole:
                pairs = 2 * sum(len(orders[n]) for n in whole)
                loss = loss + args.consistency * divergence(scores[:pairs], [orders[n] for n in whole]) / words
            loss.backward()  # gradients of all parts and processes add up
            state["loss"] += loss.detach() * world
        training.update(optimizer, rate)

    # Write the model, predictions and scores. Every process takes its part of the languages.
    training.finish_training(args, "TokenClassification", labels, model, new_id, rank)
    scores = {}
    for lang in training.test_languages(list(dev), rank, world):
        tags = predict(model, dev_items[lang], len(dev[lang]), pad_id, args.precision)
        lines = (line for sentence in tags for line in [*sentence, ""])
        write_lines(os.path.join(args.output, f"dev-{lang}.tsv"), lines)
        scores[lang] = tagging_scores([sentence for _, sentence in dev[lang]], tags)
    training.write_scores(args, "accuracy", scores, list(dev), state, len(examples), sum(sizes))


if __name__ == "__main__":
    run_script(main)
