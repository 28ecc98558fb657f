"""English sentences in the word order of their translation.

In:   sentences (a udpos, xnli or pawsx file, or tokenised text a line) and, for each, the links of its words to its translation's
      (Pharaoh format; of xnli and pawsx a line for each sentence: 1 of pair 1, 2 of pair 1, 1 of pair 2, ...)
Out:  the same sentences in the same format, words in the translation's order, tags moved with their words;
      statistics as one JSON object on stdout

    python reorder.py --task udpos --input data/sample/udpos/train-en.tsv --alignment hi.align --output train-hi.tsv
    python reorder.py --task udpos --input data/sample/udpos/train-en.tsv --alignment hi.align --output train-random.tsv --random

A word's place is the median of the positions its links have in the translation, the lower one of two: a single wrong link, which
lies anywhere, moves the mean and the minimum but hardly the median, and the lower median is a place where one of its links
really is. Words with the same place keep their English order. A word without links goes with the next word that has one: English
words that a translation lacks are mostly articles, auxiliaries and prepositions, which stand before the word they belong to.
Where no linked word follows (with --unaligned previous: precedes), it stays at that end of the sentence; --unaligned nearest counts
both ends as linked neighbours.

--random writes the control that tells order from noise: every sentence gets a random permutation with exactly as many inversions
as its reordering has, drawn uniformly from all of these (in sentences of more than 128 words not quite). So Kendall's tau to the
English order is the same in every sentence.

--identity keeps the English order: what is left is the effect of splitting text into words and joining them again.

Question answering (--task qa, SQuAD's JSON): every sentence of a context and every question is put in order, a line of links each:
the sentences of paragraph 1, its questions, the sentences of paragraph 2, ... The words of an answer move as one, in their own
order and spelling, so each answer is a span of the new context, at the place that the output gives.

Sentences of xnli and pawsx are text: they are split by the rule in data/split.py, and joined so that punctuation marks keep the
spaces around them that they had. Everything but udpos is read and written a line at a time.
"""

import contextlib
import functools
import json
import os

import numpy as np

from data.cli import Arguments, InputError, check_writable, error_at, open_output, random_seed, run_script
from data.files import (
    file_style,
    iterate_pairs,
    parse_links,
    read_lines,
    read_udpos,
    split_words,
    write_lines,
    write_pairs,
    write_udpos,
)
from data.paragraphs import paragraph_sentences, reorder_paragraph
from data.squad import read_squad, write_squad
from data.words import join_words, split_with_spaces


EXACT = 128  # longest sentence whose random permutations are exactly uniform; the table grows with its cube


def target_places(length, links, unaligned="next"):
    """The place of each of `length` source words in the translation, a list of numbers that sort into its order.

    links: (source, target) pairs, 0-indexed. unaligned: 'previous', 'next' or 'nearest', whom words without links follow.
    """
    targets = [[] for _ in range(length)]
    for i, j in set(links):
        targets[i].append(j)
    places = [sorted(found)[(len(found) - 1) // 2] if found else None for found in targets]

    # Both ends of the sentence count as linked neighbours, one before and one after every other place.
    before, place = [], -1
    for own in places:
        place = place if own is None else own
        before.append(place)
    after, place = [], float("inf")
    for own in reversed(places):
        place = place if own is None else own
        after.append(place)
    after.reverse()
    if unaligned == "previous":
        return before
    if unaligned == "next":
        return after
    linked = [-1] + [i for i, own in enumerate(places) if own is not None] + [length]
    distance = [(i - max(k for k in linked if k <= i), min(k for k in linked if k >= i) - i) for i in range(length)]
    return [before[i] if back < ahead else after[i] for i, (back, ahead) in enumerate(distance)]


def reordering(length, links, unaligned="next"):
    """The permutation that puts `length` words in the translation's order: a list whose k-th entry is the index of the word that comes k-th."""
    places = target_places(length, links, unaligned)
    return sorted(range(length), key=lambda i: (places[i], i))


def inversions(permutation):
    """How many pairs of the permutation stand in the opposite of their natural order."""
    order = np.asarray(permutation)
    return int((order[:, None] > order[None, :])[np.triu_indices(len(order), 1)].sum())


def kendall_tau(permutation):
    """Kendall's rank correlation with the identity: 1 - 4 * inversions / (n * (n - 1)); 1.0 for a single word."""
    n = len(permutation)
    return 1.0 - 4.0 * inversions(permutation) / (n * (n - 1)) if n > 1 else 1.0


@functools.lru_cache(maxsize=None)
def inversion_distribution(n):
    """The share of all permutations of n items that have k inversions, k = 0 .. n (n - 1) / 2 (Mahonian numbers over n!)."""
    if n < 2:
        return np.ones(1)
    # Inserting the n-th item before 0 .. n - 1 of the others makes that many inversions, each equally likely.
    return np.convolve(inversion_distribution(n - 1), np.full(n, 1.0 / n))


def random_permutation(n, k, generator):
    """A permutation of n items with exactly k inversions, uniform among them. `generator` is a numpy Generator.

    Beyond EXACT items the first insertions are drawn uniformly instead, which keeps the table small.
    """
    inserted = []
    for size in range(n, 0, -1):
        rest = (size - 1) * (size - 2) // 2
        choices = np.arange(max(0, k - rest), min(size - 1, k) + 1)
        weights = inversion_distribution(size - 1)[k - choices] if size <= EXACT else np.ones(len(choices))
        choice = int(generator.choice(choices, p=weights / weights.sum()))
        inserted.append(choice)
        k -= choice
    permutation = []
    for item, behind in enumerate(reversed(inserted)):
        permutation.insert(len(permutation) - behind, item)
    return permutation


def read_sentences(task, path):
    """Yield each sentence's words, with what else the writer needs: its tags (udpos), (row, side, before, after) of a pair, or
    (paragraph, its Sentences, this one) of question answering."""
    if task == "udpos":
        yield from read_udpos(path)
    elif task == "text":
        yield from ((split_words(line.removesuffix("\r")), None) for line in read_lines(path))
    elif task == "qa":
        for paragraph in read_squad(path):
            sentences = paragraph_sentences(*paragraph)
            yield from ((sentence.words, (paragraph, sentences, sentence)) for sentence in sentences)
    else:
        for row in iterate_pairs(path, task):
            for side in (0, 1):
                words, before, after = split_with_spaces(row[side])
                yield words, (row, side, before, after)


def write_sentences(task, path, sentences, style, source):
    """Write an iterable of (words, order, rest): words by read_sentences, `order` the permutation to write them in; source: the file that they are of."""
    if task == "udpos":
        write_udpos(
            path,
            (([words[i] for i in order], tags and [tags[i] for i in order]) for words, order, tags in sentences),
            style,
        )
    elif task == "text":
        with open_output(path) as stream:
            stream.writelines(" ".join(words[i] for i in order) + style[0] for words, order, _ in sentences)
    elif task == "qa":
        paragraphs, sentences = [], iter(sentences)
        for paragraph in read_squad(source):  # one of them may have no sentence
            whole = paragraph_sentences(*paragraph)
            paragraphs.append(reorder_paragraph(paragraph, whole, [next(sentences)[1] for _ in whole])[0])
        next(sentences, None)  # raises InputError where there are more alignments
        write_squad(path, paragraphs, source)
    else:
        texts = (
            (row, join_words(*([kept[i] for i in order] for kept in (words, before, after))))
            for words, order, (row, _, before, after) in sentences
        )
        write_pairs(path, ((one, two, row[2]) for (row, one), (_, two) in zip(texts, texts)), style)


def read_alignment(path, sentences, sentences_path):
    """Yield (words, links, rest) of each of the `sentences`. Raises InputError for another number of lines and for a word that is not there."""
    lines, number = read_lines(path), 0
    for number, (words, rest) in enumerate(sentences, 1):
        line = next(lines, None)
        if line is None:
            count = number + sum(1 for _ in sentences)
            raise InputError(
                f"{path}: {number - 1} lines, but {sentences_path} has {count} sentences; expected one for each"
            )
        links = parse_links(path, number, line.removesuffix("\r"), "-")
        for i, j in links:
            if i >= len(words):
                raise error_at(
                    path,
                    number,
                    f"link {i}-{j}: sentence {number} of {sentences_path} has {len(words)} words (the first is 0)",
                )
        yield words, links, rest
    if next(lines, None) is not None:
        raise error_at(
            path, number + 1, f"more lines than the {number} sentences of {sentences_path}; expected one for each"
        )


def main():
    parser = Arguments(__doc__)
    parser.add_argument(
        "--task",
        choices=["udpos", "xnli", "pawsx", "text", "qa"],
        required=True,
        help="format of the input; text is a tokenised sentence a line, qa is SQuAD's JSON",
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="English sentences")
    parser.add_argument(
        "--alignment",
        required=True,
        metavar="FILE",
        help="`i-j` links, English word - word of the translation, a line a sentence",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--unaligned",
        choices=["previous", "next", "nearest"],
        default="next",
        help="which neighbour words without links go with",
    )
    parser.add_argument("--identity", action="store_true", help="write the control: the English order")
    parser.add_argument(
        "--random", action="store_true", help="write the control: random permutations with as many inversions"
    )
    parser.add_argument("--seed", type=random_seed, default=1, help="of the random permutations")
    parser.add_argument(
        "--permutations",
        metavar="FILE",
        help="write each sentence's order too, a line of word numbers from 0, for --consistency in training",
    )
    parser.add_argument(
        "--stats", metavar="FILE", help="write the statistics to this file too; eval.py reads them from TRAIN_FILE.json"
    )
    args = parser.parse_args()

    if "-" in (args.input, args.alignment, args.output):
        raise InputError("-: standard input and output are taken by the statistics; expected the names of files")
    written = [os.path.abspath(path) for path in (args.output, args.stats, args.permutations) if path]
    if len(set(written)) < len(written):
        raise InputError(
            f"{args.output}: --output, --stats and --permutations are different files; expected a name for each"
        )
    for path in written:
        check_writable(path)
    if args.random and args.identity:
        raise InputError("--random and --identity are two controls; expected one of them")
    style = file_style(args.input)
    generator = np.random.default_rng(args.seed)
    sentences = words_seen = aligned = moved = several = 0
    tau = 0.0

    def reordered():
        nonlocal sentences, words_seen, aligned, moved, several, tau
        for words, links, rest in read_alignment(args.alignment, read_sentences(args.task, args.input), args.input):
            if args.task == "qa":  # an answer's words move as one
                links = {(rest[2].units[i], j) for i, j in links}
                words = rest[2].spans
            order = list(range(len(words))) if args.identity else reordering(len(words), links, args.unaligned)
            if args.random:
                order = random_permutation(len(order), inversions(order), generator)
            sentences, words_seen, aligned = (
                sentences + 1,
                words_seen + len(words),
                aligned + len({i for i, _ in links}),
            )
            if listed:
                listed.write(" ".join(map(str, order)) + "\n")
            moved += sum(i != k for k, i in enumerate(order))
            if len(order) > 1:
                several, tau = several + 1, tau + kendall_tau(order)
            yield words, order, rest

    with open_output(args.permutations) if args.permutations else contextlib.nullcontext() as listed:
        write_sentences(args.task, args.output, reordered(), style, args.input)
    statistics = json.dumps(
        {
            "sentences": sentences,
            "words": words_seen,
            "aligned": aligned / max(1, words_seen),
            "moved": moved / max(1, words_seen),
            "kendall_tau": tau / several if several else 1.0,  # the mean over sentences of two words or more
        }
    )
    if args.stats:
        write_lines(args.stats, [statistics])
    print(statistics)


if __name__ == "__main__":
    run_script(main)
