"""Put English sentences in the word order of their translation.

In:   sentences (a udpos, xnli or pawsx file, or tokenised text a line) and, for each, the links of its words to its
      translation's (Pharaoh format; of xnli and pawsx a line for each sentence: 1 of pair 1, 2 of pair 1, ...)
Out:  the same sentences in the same format, words in the translation's order, tags moved with their words;
      statistics as one JSON object on stdout

    python reorder.py --task udpos --input data/sample/udpos/train-en.tsv --alignment hi.align --output train-hi.tsv
    python reorder.py --task udpos --input train-en.tsv --alignment hi.align --output train-random-hi.tsv --random

A word's place is the median of the positions its links have in the translation, the lower one of two: a single wrong
link, which lies anywhere, moves the mean and the minimum but hardly the median, and the lower median is a place where
one of its links really is. Words with the same place keep their English order. A word without links goes with the next
word that has one: English words that a translation lacks are mostly articles, auxiliaries and prepositions, which
stand before the word they belong to. Where no linked word follows (with --unaligned previous: precedes), it stays at
that end of the sentence; --unaligned nearest counts both ends as linked neighbours.

Four controls read the same files. --random is the control with the same Kendall's tau: every sentence gets a random
permutation with exactly as many inversions as its reordering has. Punctuation marks (words without a letter or a digit)
stay where the reordering puts them, since a translation hardly moves a full stop from the end and a random order of all
words does, which is another effect than that of the words' order. The permutation is drawn uniformly from all that keep
both, in nearly all sentences (see random_around). --random-all draws from the permutations of all words, punctuation
too, with that number of inversions, uniformly (in sentences of more than 128 words nearly so). --identity keeps the
English order: what is left is the effect of splitting text into words and joining them again. --reverse turns every
sentence backwards.

Question answering (--task qa, SQuAD's JSON): every sentence of a context and every question is put in order, a line of
links each: the sentences of paragraph 1, its questions, the sentences of paragraph 2, ... The words of an answer move
as one, in their own order and spelling, so each answer is a span of the new context, at the place that the output
gives.

Sentences of xnli and pawsx are text: they are split by the rule in data/words.py, and joined so that punctuation marks
keep the spaces around them that they had. Pairs and text are read and written a line at a time.
"""

import collections
import contextlib
import functools
import itertools
import json
import math

import numpy as np

from data.files import (
    Arguments, InputError, check_count, check_outputs, error_at, open_output, random_seed, read_pharaoh, run_script,
    write_lines,
)  # fmt: skip
from data.formats import FORMATS

EXACT = 128  # longest sentence whose random permutations are exactly uniform; the table grows with its cube
# Permutations that random_around proposes at a time, and how often. In PUD's sentences in the orders of hi ja tr ko the
# median acceptance is 1 in 60, and in 2 of 8,000 draws nothing was accepted.
BATCH, BATCHES = 512, 256
CONTROLS = {
    "identity": "write the control: the English order",
    "reverse": "write the control: every sentence backwards",
    "random": "write the control: random permutations with as many inversions, punctuation in its place",
    "random-all": "write the control: random permutations with as many inversions, of punctuation too",
}


# ---- orders ------------------------------------------------------------------------------------------------


def last_linked(places, end):
    """Return (place, distance) of the last word up to each word that has a place; `end` is before the first one."""
    found, place, distance = [], end, 0
    for own in places:
        place, distance = (place, distance + 1) if own is None else (own, 0)
        found.append((place, distance))
    return found


def target_places(length, links, unaligned="next"):
    """Return the place of each of `length` source words in the translation, numbers that sort into its order.

    links: (source, target) pairs, 0-indexed. unaligned: 'previous', 'next' or 'nearest', the word that one without
    links goes with.
    """
    targets = [[] for _ in range(length)]
    for i, j in set(links):
        targets[i].append(j)
    places = [sorted(found)[(len(found) - 1) // 2] if found else None for found in targets]
    # Both ends of the sentence count as linked neighbours, one before and one after every other place.
    before, after = last_linked(places, -1), last_linked(places[::-1], float("inf"))[::-1]
    if unaligned == "nearest":
        return [one[0] if one[1] < other[1] else other[0] for one, other in zip(before, after)]
    return [place for place, _ in (before if unaligned == "previous" else after)]


def reordering(length, links, unaligned="next"):
    """Return the permutation that puts `length` words in the translation's order: its k-th entry is the k-th word."""
    places = target_places(length, links, unaligned)
    return sorted(range(length), key=places.__getitem__)  # stable: equal places keep the English order


def inversions(permutation):
    """Count the pairs of a permutation that stand in the opposite of their natural order, in O(n log^2 n)."""
    order = np.asarray(permutation)
    if len(order) <= 64:
        return int((order[:, None] > order[None, :])[np.triu_indices(len(order), 1)].sum())
    first, second = np.array_split(order, 2)
    smaller = np.searchsorted(np.sort(first), second)  # how many of the first half are smaller than each of the second
    return inversions(first) + inversions(second) + int((len(first) - smaller).sum())


def kendall_tau(permutation):
    """Return Kendall's rank correlation with the identity: 1 - 4 * inversions / (n * (n - 1)); 1.0 for one word."""
    n = len(permutation)
    return 1.0 - 4.0 * inversions(permutation) / (n * (n - 1)) if n > 1 else 1.0


@functools.lru_cache(maxsize=None)
def inversion_distribution(n):
    """Return the fractions of permutations of n items with k = 0 .. n (n - 1) / 2 inversions: Mahonian numbers / n!."""
    if n < 2:
        return np.ones(1)
    # Inserting the n-th item before 0 .. n - 1 of the others makes that many inversions, each equally likely.
    return np.convolve(inversion_distribution(n - 1), np.full(n, 1.0 / n))


def random_permutation(n, k, generator):
    """Draw a permutation of n items with exactly k inversions, uniform among them. `generator` is a numpy Generator.

    Beyond EXACT items, where the table would be large, the first insertions are those of Mallows' law with k inversions
    on average (Mallows 1957, Biometrika 44:114-130): each makes c inversions with a probability proportional to
    exp(tilt c), so that all parts of a sentence have their share.
    """
    inserted, tilt = [], mallows_tilt(n, k) if n > EXACT else 0.0
    for size in range(n, 0, -1):
        fewest, most = max(0, k - (size - 1) * (size - 2) // 2), min(size - 1, k)
        if size <= EXACT:
            choices = np.arange(fewest, most + 1)
            weights = inversion_distribution(size - 1)[k - choices]
            choice = int(generator.choice(choices, p=weights / weights.sum()))
        else:
            choice = fewest + int(tilted_choice(tilt, most - fewest + 1, generator.random()))
        inserted.append(choice)
        k -= choice
    permutation = []
    for item, behind in enumerate(reversed(inserted)):
        permutation.insert(len(permutation) - behind, item)  # moves memory: 0.1 s in all for 30,000 items
    return permutation


def tilted_choice(tilt, n, u):
    """Return c of 0 .. n - 1 with a probability proportional to exp(tilt c), by inversion; u: uniform in [0, 1), a
    number or a numpy array."""
    if tilt > 0:
        return n - 1 - tilted_choice(-tilt, n, u)
    return np.minimum(n - 1, np.log1p(u * math.expm1(tilt * n)) / tilt if tilt else u * n).astype(int)


def mallows_tilt(n, k):
    """Return the tilt with which insertions of 1 .. n items make k inversions on average, from -30 to 30."""
    sizes, most = np.arange(1.0, n + 1), n * (n - 1) / 2
    if 2 * k > most:
        return -mallows_tilt(n, most - k)
    low, high = 1e-9, 30.0  # of -tilt
    for _ in range(60):
        middle = (low + high) / 2
        mean = n / math.expm1(middle) - (sizes / np.expm1(np.minimum(middle * sizes, 700.0))).sum()
        low, high = (middle, high) if mean > k else (low, middle)
    return -low


def crossings(places, marks):
    """Count the inversions between words and punctuation marks in each of B permutations of m words, (B,).

    places: (B, m), the place among the words that each word has. marks: for each mark how many words stand before it in
    the permutation and how many in English; a word makes an inversion with it if it is among one of these only.
    """
    word = np.arange(places.shape[1])
    return sum((((places < before) != (word < english)).sum(1) for before, english in marks), np.zeros(len(places)))


def mallows_places(m, tilt, generator):
    """Draw BATCH permutations of m items by Mallows' law, probability proportional to exp(tilt inversions).

    Returns the place of each item, (BATCH, m), and the numbers of inversions, (BATCH,).
    """
    places, total = np.zeros((BATCH, m), dtype=int), np.zeros(BATCH, dtype=int)
    for item in range(m):
        behind = tilted_choice(tilt, item + 1, generator.random(BATCH))  # it is put before so many of the items so far
        places[:, item] = item - behind
        places[:, :item] += places[:, :item] >= places[:, item : item + 1]
        total += behind
    return places, total


def random_around(order, punctuation, generator):
    """Draw a permutation with as many inversions as `order` that has `punctuation`, a set of its items, where `order`
    has it, uniform among all of these.

    Where the number of inversions between words and marks is the same in all of them, as with a full stop at the end of
    both, this is random_permutation. Elsewhere permutations of the words are proposed by Mallows' law. One with x
    inversions among words and c between words and marks is rejected if x + c is not what `order` has; else its
    probability was proportional to exp(tilt x), thus to exp(-tilt c), and it is accepted with a probability
    proportional to exp(tilt c): all have the same. The tilt is the one with most acceptances. Sentences of more than
    EXACT words, and those in which BATCHES of proposals are all rejected, are left to shuffle_stretches.
    """
    words = sorted(item for item in order if item not in punctuation)
    marks = [(k, item) for k, item in enumerate(order) if item in punctuation]
    m, wanted = len(words), inversions(order) - inversions([item for _, item in marks])
    marks = [(k - n, np.searchsorted(words, item)) for n, (k, item) in enumerate(marks)]
    # A mark has fewest inversions with the words if they stand in English order, most if backwards.
    fewest, most = (int(crossings(np.arange(m)[None, ::step], marks)[0]) for step in (1, -1))
    if fewest == most:
        drawn = random_permutation(m, wanted - fewest, generator)
    elif m > EXACT or (drawn := accepted(m, wanted, marks, fewest, most, generator)) is None:
        return shuffle_stretches(order, punctuation, generator)
    drawn = iter(drawn)
    return [item if item in punctuation else words[next(drawn)] for item in order]


def accepted(m, wanted, marks, fewest, most, generator):
    """Return the first permutation of m words that random_around's rejection sampling accepts, None without any.

    wanted: inversions among words, and between words and marks, which are from `fewest` to `most`; marks: as in
    crossings.
    """
    half, tilt, bound = m * (m - 1) / 4, 0.0, 0  # bound: where exp(tilt c) is greatest
    if wanted - fewest < half:
        tilt, bound = mallows_tilt(m, wanted - fewest), fewest
    elif wanted - most > half:
        tilt, bound = mallows_tilt(m, wanted - most), most
    for _ in range(BATCHES):
        places, total = mallows_places(m, tilt, generator)
        crossed = crossings(places, marks)
        fits = (total + crossed == wanted) & (generator.random(BATCH) < np.exp(tilt * (crossed - bound)))
        if fits.any():
            return np.argsort(places[fits.argmax()]).tolist()
    return None


def shuffle_stretches(order, punctuation, generator):
    """Return `order` with the words of each stretch without punctuation in a random order with as many inversions as
    they had: no word leaves its stretch, so the number of all inversions stays."""
    shuffled = []
    for fixed, stretch in itertools.groupby(order, punctuation.__contains__):
        stretch = list(stretch)
        if not fixed:
            words = sorted(stretch)
            stretch = [words[i] for i in random_permutation(len(words), inversions(stretch), generator)]
        shuffled += stretch
    return shuffled


def find_punctuation(words, units):
    """Return the set of the units that are a single word without a letter or a digit."""
    sizes = collections.Counter(units)
    return {unit for word, unit in zip(words, units) if sizes[unit] == 1 and not any(map(str.isalnum, word))}


def order_rule(control, unaligned, seed):
    """Return the function (words, units, links) -> permutation of the units by one of CONTROLS, of the translation's
    order for None."""
    generator = np.random.default_rng(seed)

    def rule(words, units, links):
        length = units[-1] + 1 if words else 0
        if control in ("identity", "reverse"):
            return list(range(length))[:: 1 if control == "identity" else -1]
        order = reordering(length, links, unaligned)
        if control is None:
            return order
        return random_around(order, find_punctuation(words, units) if control == "random" else set(), generator)

    return rule


# ---- files ---------------------------------------------------------------------------------------------------


def read_alignment(path, sentences, sentences_path):
    """Yield (words, units, links, rest) of each of a Format's sentences; links join units and the translation's words.

    Raises InputError for another number of lines and for a word that is not there.
    """
    lines, number, name = read_pharaoh(path), 0, f"the list of sentences in {sentences_path}"
    for number, (words, units, rest) in enumerate(sentences, 1):
        links = next(lines, None)
        if links is None:
            check_count(path, number - 1, number + sum(1 for _ in sentences), name)
        for i, j in links:
            if i >= len(words):
                has = f"sentence {number} of {sentences_path} has {len(words)} words (the first is 0)"
                raise error_at(path, number, f"link {i}-{j}: {has}")
        yield words, units, {(units[i], j) for i, j in links}, rest
    check_count(path, number + sum(1 for _ in lines), number, name)


def put_in_order(sentences, rule, counts, listed):
    """Yield (words, order, rest) of read_alignment's sentences, `rule` giving the order of the units.

    Sums in `counts` what summarise needs; writes each order to the stream `listed`, if there is one.
    """
    for words, units, links, rest in sentences:
        order = rule(words, units, links)
        length = len(order)
        if listed:
            listed.write(" ".join(map(str, order)) + "\n")
        counts["sentences"] += 1
        counts["words"] += length
        counts["aligned"] += len({i for i, _ in links})
        counts["moved"] += sum(i != k for k, i in enumerate(order))
        if length > 1:
            counts["several"] += 1
            counts["tau"] += kendall_tau(order)
        yield words, order, rest


def summarise(counts):
    """Return the statistics of put_in_order's counts; kendall_tau is the mean over sentences of several words."""
    words, several = max(1, counts["words"]), counts["several"]
    return {
        "sentences": counts["sentences"],
        "words": counts["words"],
        "aligned": counts["aligned"] / words,
        "moved": counts["moved"] / words,
        "kendall_tau": counts["tau"] / several if several else 1.0,
    }


def main():
    parser = Arguments(__doc__)
    add = parser.add_argument
    add("--task", choices=list(FORMATS), required=True, help="format of the input; text is a tokenised sentence a "
        "line, qa is SQuAD's JSON")  # fmt: skip
    add("--input", required=True, metavar="FILE", help="English sentences")
    add("--alignment", required=True, metavar="FILE", help="`i-j` links, English word - word of the translation, a "
        "line for each sentence")  # fmt: skip
    add("--output", required=True, metavar="FILE", help="file to write")
    add("--unaligned", choices=["previous", "next", "nearest"], default="next", help="which neighbour words without "
        "links go with")  # fmt: skip
    controls = parser.add_mutually_exclusive_group()
    for name, text in CONTROLS.items():
        controls.add_argument(f"--{name}", action="store_const", const=name, dest="control", help=text)
    add("--seed", type=random_seed, default=1, help="of the random permutations: that of the training they are for")
    add("--permutations", metavar="FILE", help="write each sentence's order too, a line of word numbers from 0, for "
        "--consistency in training")  # fmt: skip
    add("--stats", metavar="FILE", help="write the statistics to this file too; eval.py reads them from "
        "TRAIN_FILE.json")  # fmt: skip
    args = parser.parse_args()

    inputs = [args.input, args.alignment]
    outputs = [path for path in (args.output, args.stats, args.permutations) if path]
    if "-" in inputs + outputs:
        raise InputError("-: standard output is taken by the statistics; expected the names of files")
    check_outputs(outputs, inputs)

    form, counts = FORMATS[args.task], collections.Counter()
    rule = order_rule(args.control, args.unaligned, args.seed)
    with open_output(args.permutations) if args.permutations else contextlib.nullcontext() as listed:
        sentences = read_alignment(args.alignment, form.sentences(args.input), args.input)
        form.write(args.output, put_in_order(sentences, rule, counts, listed), args.input)

    statistics = json.dumps(summarise(counts))
    if args.stats:
        write_lines(args.stats, [statistics])
    print(statistics)


if __name__ == "__main__":
    run_script(main)
