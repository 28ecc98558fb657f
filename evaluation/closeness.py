"""Whether it helps a language that the order trained on is close to its own: one number from all cells of the table.

The closeness tau(c, M) is Kendall's tau between two orders of the same English sentences, that of condition c and that
of language M's translation, mean over sentences. With y(c, M) the score of condition c in language M,

    y(c, M) = a(c) + b(M) + gamma tau(c, M)

gamma: points for a unit of tau. See docs/methods.md.
"""

import itertools
import os

import numpy as np

from data.files import InputError, read_lines
from evaluation.contrasts import ALIGNED, BASELINE, FIXED, split_order
from evaluation.runs import read_statistics

ALL = 8  # languages up to which every permutation of them is tried
DRAWS, SEED = 9999, 1
MOST = 2000  # sentences that tau is taken from: its mean is known within .02, and full XNLI has 800,000


def read_order(path):
    """Return the first MOST permutations that reorder.py --permutations wrote, None where there is no such file."""
    try:
        return [np.array(line.split(), int) for line in itertools.islice(read_lines(path), MOST)]
    except (InputError, ValueError):
        return None


def pair_signs(order):
    """Return for every pair of words of every sentence 1 where it keeps its English order, else -1, and its weight.

    order: permutations, arrays of word numbers. The weighted mean of the products of two orders' signs is the mean over
    sentences of several words of Kendall's tau between them.
    """
    signs, weights = [], []
    for permutation in order:
        place = np.argsort(permutation)
        first, second = np.triu_indices(len(place), 1)
        signs.append(np.where(place[first] < place[second], 1, -1).astype(np.int8))
        weights.append(np.full(len(first), 1 / max(1, len(first)), np.float32))
    return np.concatenate(signs), np.concatenate(weights) / max(1, sum(len(one) > 1 for one in order))


def find_closeness(train, langs, aligner):
    """Return {condition: {language: tau}} of original English and an aligner's orders, {} without order files.

    train: {condition: training file}. The order of language M lies beside the training file of an order L, its name
    with M in place of L, followed by .order. Languages whose file is missing or of other sentences are left out, and
    those with few words aligned (as its name followed by .json says), whose order is hardly their translation's.
    """
    keys = [key for key in train if key[1] == aligner and split_order(key[0])[::2] == (False, "")]
    keys = [key for key in keys if key[0] not in FIXED]
    signs = {}
    for lang in dict.fromkeys([*(key[0] for key in keys), *langs]) if keys else ():
        folder, name = os.path.split(train[keys[0]])
        path = os.path.join(folder, name.replace(f"-{keys[0][0]}.", f"-{lang}."))
        aligned = read_statistics([{"args": {"train": path}}]).get("aligned", 1.0)
        if lang != "en" and aligned >= ALIGNED and (order := read_order(path + ".order")):
            signs[lang] = pair_signs(order)
    if not signs:
        return {}
    _, weights = next(iter(signs.values()))
    signs = {lang: one for lang, (one, weight) in signs.items() if np.array_equal(weight, weights)}
    signs["en"] = np.ones(len(weights), np.int8)
    orders = {key: "en" if key == BASELINE else key[0] for key in [BASELINE, *keys]}
    return {
        key: {lang: float(weights @ (signs[order] * signs[lang])) for lang in langs if lang in signs}
        for key, order in orders.items() if key in train and order in signs
    }  # fmt: skip


def centred(values, weights):
    """Return what a fit of a(c) + b(M) leaves of values, (..., conditions, languages), with weights of languages."""
    rows = (values * weights).sum(-1, keepdims=True) / weights.sum()
    columns = values.mean(-2, keepdims=True)
    return values - rows - columns + rows.mean(-2, keepdims=True)


def fit_closeness(tau, cells):
    """Return (terms of gamma, p), None where the table is too small or has one seed.

    tau: find_closeness'; cells: {(condition, language): {seed: (score, influence)}}. Languages are weighted by the
    inverse of the variance that condition and seed leave. p: fraction of the permutations of languages, which give the
    tau of one to another's scores, with at least as large a |gamma| / SE (the observed one counts). SE is that of the
    permutation: with weights w and x the tau that centred leaves, it is proportional to 1 / sqrt(sum w x^2).
    """
    keys, langs = list(tau), list(next(iter(tau.values()), ()))
    found = [[cells.get((key, lang), {}) for lang in langs] for key in keys]
    seeds = sorted(set.intersection(*(set(cell) for row in found for cell in row))) if found and langs else []
    if len(keys) < 2 or len(langs) < 4 or len(seeds) < 2:
        return None
    scores = np.array([[[cell[seed][0] for seed in seeds] for cell in row] for row in found])
    rest = scores - scores.mean(2, keepdims=True) - scores.mean(0) + scores.mean((0, 2))[:, None]
    variance = (rest**2).sum((0, 2)) / (len(keys) - 1) / (len(seeds) - 1)
    weights = 1 / np.maximum(variance, 1e-3 * max(variance.mean(), 1e-12))
    table, means = np.array([[tau[key][lang] for lang in langs] for key in keys]), scores.mean(2)

    left = centred(table, weights)
    squares = (weights * left**2).sum()
    if squares < 1e-12 * weights.sum():  # all orders are equally close to all languages
        return None

    def statistic(tables):
        left = centred(tables, weights)
        squares = (weights * left**2).sum((-2, -1))
        return np.abs((weights * left * means).sum((-2, -1))) / np.sqrt(squares)

    if len(langs) <= ALL:
        orders = np.array(list(itertools.permutations(range(len(langs)))))
    else:
        generator = np.random.default_rng(SEED)
        orders = np.array([range(len(langs)), *(generator.permutation(len(langs)) for _ in range(DRAWS))])
    limit = statistic(table) * (1 - 1e-9)
    larger = sum(int((statistic(table[:, part].swapaxes(0, 1)) >= limit).sum()) for part in np.array_split(orders, 50))
    slopes = weights * left / squares
    terms = [(slopes[c, m], key, lang) for c, key in enumerate(keys) for m, lang in enumerate(langs)]
    return terms, larger / len(orders)
