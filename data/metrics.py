"""Metrics of tagging and pairs, equal to XTREME's evaluation: accuracy and seqeval's F1. squad.py has those of answers.

Counts are summed over the examples of a dev set and then become metrics, so that any selection of examples can be
scored.
"""

import numpy as np


def spans(sentences):
    """Return the entities that seqeval sees in lists of tags: a set of (type, first, last).

    seqeval 1.2.2 in its default mode is XTREME's metric for udpos. first and last number the words through all
    sentences, one number being left free after each sentence. A tag is read as a prefix (its first letter) and a type
    (the rest, after a hyphen if there is one). UPOS tags have no prefixes, so neighbouring equal tags are one entity,
    SCONJ and SYM ('S', a single one) always begin a new one, INTJ is an inside tag, CCONJ and SCONJ are of one type,
    and an X at a sentence's end joins an X at the next one's beginning.
    """
    found, begin = set(), 0
    last_prefix, last_type = "O", ""
    for i, tag in enumerate(tag for tags in sentences for tag in [*tags, "O"]):
        prefix, kind = tag[0], tag[1:].rsplit("-", 1)[-1] or "_"
        pair = last_prefix + prefix
        changed = kind != last_type
        if last_prefix in "ES" or pair in ("BB", "BS", "BO", "IB", "IS", "IO") or (changed and last_prefix not in "O."):
            found.add((last_type, begin, i - 1))
        if prefix in "BS" or pair in ("EE", "EI", "SE", "SI", "OE", "OI") or (changed and prefix not in "O."):
            begin = i
        last_prefix, last_type = prefix, kind
    return found


def tagging_counts(gold, predicted):
    """Return the counts of each sentence, (sentences, 5): right words, words, right, predicted and gold entities."""
    counts = np.zeros((len(gold), 5))
    for n, (ours, theirs) in enumerate(zip(gold, predicted)):
        counts[n, :2] = sum(a == b for a, b in zip(ours, theirs)), len(ours)
    sentence = np.repeat(np.arange(len(gold)), counts[:, 1].astype(int) + 1)
    truth, guess = spans(gold), spans(predicted)
    for column, entities in ((2, truth & guess), (3, guess), (4, truth)):
        counts[:, column] = (
            np.bincount(sentence[[first for _, first, _ in entities]], minlength=len(gold)) if entities else 0
        )
    return counts


def tagging_metrics(counts):
    """Return {'accuracy', 'f1'} of summed counts (..., 5); f1: harmonic mean of entities' precision and recall."""
    right, words, hits, guessed, true = np.moveaxis(np.asarray(counts), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / guessed, hits / true
        f1 = 2 * precision * recall / (precision + recall)  # in seqeval's order of operations, for its very last digit
    return {"accuracy": right / words, "f1": np.where(hits > 0, f1, 0.0)}


def tagging_scores(gold, predicted):
    """Return {'accuracy', 'f1', 'count'} of lists of predicted tags; f1 is XTREME's, count the number of words."""
    total = tagging_counts(gold, predicted).sum(0)
    return {**{name: float(value) for name, value in tagging_metrics(total).items()}, "count": int(total[1])}


def pair_counts(gold, predicted):
    """Return the counts of each pair, (pairs, 2): right labels, labels."""
    right = np.array([a == b for a, b in zip(gold, predicted)], float)
    return np.stack([right, np.ones_like(right)], 1)


def pair_scores(gold, predicted):
    """Return {'accuracy', 'count'} of predicted labels; count is the number of pairs."""
    total = pair_counts(gold, predicted).sum(0)
    return {"accuracy": float(total[0] / total[1]), "count": int(total[1])}
