"""Tagging by gold tag: what each tag contributes to a difference, and the contrast on function words.

The contribution of a tag to the accuracy in a language is the number of words with this gold tag that are tagged
rightly, divided by all words. So contributions add up to the accuracy, and their differences to its difference.
"""

import collections

import numpy as np

from evaluation.contrasts import less
from evaluation.intervals import interval, score_with_influence

VERB_LAST = "hi", "ja", "tr", "ko"  # orders
BOTH = "ADP", "AUX"
# Languages that write adpositions or auxiliaries behind their word, as words of their own, and languages that do not.
# The reasons for each, from grammars, are in docs/methods.md.
BEHIND = {"hi": BOTH, "ur": BOTH, "ja": BOTH, "eu": ("AUX",)}
NOT_BEHIND = dict.fromkeys("en es fr it pt ar id ru fi tr ko".split(), BOTH)
NOT_BEHIND |= {"de": ("ADP",), "fa": ("ADP",), "zh": ("AUX",)}
FUNCTION_WORDS = BEHIND | NOT_BEHIND


def right_by_tag(gold, predicted):
    """Return {tag: right words of each sentence with this gold tag, (sentences,)} of lists of tags."""
    found = {tag: np.zeros(len(gold)) for tags in gold for tag in tags}
    for n, (truth, tags) in enumerate(zip(gold, predicted)):
        for one, other in zip(truth, tags):
            found[one][n] += one == other
    return found


def tag_shares(dev):
    """Return {language: {tag: its fraction of the words}} of runs.read_dev's gold tags, frequent tags first."""
    counts = {lang: collections.Counter(tag for tags in gold for tag in tags) for lang, (_, gold) in dev.items()}
    return {
        lang: {tag: number / found.total() for tag, number in found.most_common()} for lang, found in counts.items()
    }


def add_contributions(cells, key, seed, lang, right, words, clusters):
    """Add a run's contributions in a language to cells, {tag or "function words": cells of intervals.estimator}.

    right: see right_by_tag; words, clusters: (sentences,).
    """
    parts = dict(right)
    if lang in FUNCTION_WORDS:
        parts["function words"] = sum((right.get(tag, 0 * words) for tag in FUNCTION_WORDS[lang]), 0 * words)
    for tag, column in parts.items():
        cells[tag][key, lang][seed] = score_with_influence(column, words, clusters)


def by_tag(key, baseline, cells, estimates, shares):
    """Return {language: {tag: {'accuracy', 'contribution'}}} of a condition.

    cells, estimates: {tag: ...}, see add_contributions and intervals.estimator; shares: tag_shares'. The accuracy is
    the mean over seeds; the contribution to the difference from `baseline` is None against None and itself.
    """
    found = {}
    for lang, tags in shares.items():
        for tag, share in tags.items():
            if seeds := cells[tag].get((key, lang)):
                accuracy = float(np.mean([score for score, _ in seeds.values()])) / share
                value = estimates[tag](less(key, baseline, [lang])) if baseline not in (None, key) else None
                entry = {"accuracy": accuracy, "contribution": value and interval(value)}
                found.setdefault(lang, {})[tag] = entry
    return found


def function_word_terms(pairs, langs):
    """Return the terms of a gain on function words, [] without pairs or without a kind of language.

    It is the gain of the first over the second condition of each pair in the contributions of adpositions and
    auxiliaries: in the languages that write them behind their word as words of their own, less that in those that do
    not (means).
    """
    behind, rest = ([lang for lang in langs if lang in group] for group in (BEHIND, NOT_BEHIND))
    return [
        (weight / len(pairs), *more)
        for key, other in pairs if behind and rest
        for weight, *more in less(key, other, behind) + less(other, key, rest)
    ]  # fmt: skip
