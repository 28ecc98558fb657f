"""Metrics of every task, equal to XTREME's evaluation: accuracy, seqeval's F1, SQuAD's and MLQA's exact match and F1.

Counts are summed over the examples of a dev set and then become metrics, so that any selection of examples can be
scored.
"""

import collections
import re
import string
import unicodedata

import numpy as np

from data.cli import InputError


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


def answer_counts(gold, predicted, lang, task):
    """Return the counts of each question, (questions, 3): F1, exact match, 1. gold: data.squad.gold_answers'."""
    scores = [question_scores(answers, predicted.get(name), lang, task) for name, answers in gold.items()]
    return np.array([(f1, exact, 1.0) for exact, f1 in scores])


def metric_ratios(counts):
    """Return {metric: (numerator, denominator)}, (examples,) each: every metric is a ratio of their sums."""
    columns = np.moveaxis(np.asarray(counts), -1, 0)
    if len(columns) == 5:
        right, words, hits, guessed, true = columns
        return {"accuracy": (right, words), "f1": (2 * hits, guessed + true)}
    names = ["f1", "exact_match"] if len(columns) == 3 else ["accuracy"]
    return {name: (columns[n], columns[-1]) for n, name in enumerate(names)}


def task_metrics(counts):
    """Return the metrics of summed counts, (..., 5) of tagging, (..., 3) of questions, (..., 2) of pairs."""
    counts = np.asarray(counts)
    if counts.shape[-1] == 5:
        return tagging_metrics(counts)
    names = ["f1", "exact_match"] if counts.shape[-1] == 3 else ["accuracy"]
    return {name: counts[..., column] / counts[..., -1] for column, name in enumerate(names)}


# XTREME scores xquad and tydiqa as SQuAD 1.1's script does, by English rules in every language, mlqa as MLQA's script.
ENGLISH = "a an the"

ARTICLES = {
    "ar": None,  # the letters of the article are taken out wherever they stand
    "de": "ein eine einen einem eines einer der die das den dem des",
    "en": ENGLISH,
    "es": "un una unos unas el la los las",
    "hi": "",
    "vi": "của là cái chiếc những",
    "zh": "",
}


def answer_tokens(text, lang, task):
    """Return the tokens of an answer, a list: lower case, without punctuation and articles, cut at white space.

    For mlqa, punctuation is that of Unicode too, articles are the language's, and every Han character of zh is a token.
    Raises InputError for a language that MLQA has no rules for.
    """
    mlqa = task == "mlqa"
    if mlqa and lang not in ARTICLES:
        raise InputError(f"language {lang!r}: MLQA has no rules to score it; expected one of {' '.join(ARTICLES)}")
    text = "".join(
        c for c in text.lower() if c not in string.punctuation and not (mlqa and unicodedata.category(c)[0] == "P")
    )
    if mlqa and lang == "ar":
        return text.replace("ال", " ").split()
    if mlqa and lang == "zh":
        text = re.sub("([\u4e00-\u9fa5])", r" \1 ", text)
    articles = ARTICLES[lang] if mlqa else ENGLISH
    if articles:
        text = re.sub(rf"\b({articles.replace(' ', '|')})\b", " ", text)
    return text.split()


def question_scores(answers, prediction, lang, task):
    """Return (exact match, F1), 0.0 to 1.0, of a predicted text, the best over the gold answers; (0, 0) for None.

    F1 is the harmonic mean of the fractions of common tokens in both; it is 0 where both are empty, as in the official
    scripts.
    """
    if prediction is None:
        return 0.0, 0.0
    exact, f1 = 0.0, 0.0
    guess = answer_tokens(prediction, lang, task)
    for answer in answers:
        gold = answer_tokens(answer, lang, task)
        exact = max(exact, float(guess == gold))
        common = sum((collections.Counter(guess) & collections.Counter(gold)).values())
        if common:
            precision, recall = common / len(guess), common / len(gold)
            # In the scripts' order of operations, for its very last digit.
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    return exact, f1


def squad_scores(gold, predictions, lang, task):
    """Return {'exact_match', 'f1', 'count'} of {question id: text} against gold_answers'; count is the gold questions'.

    The official scripts' numbers, as fractions. A question without a prediction counts 0; one that gold lacks is
    left out.
    """
    scores = [question_scores(answers, predictions.get(name), lang, task) for name, answers in gold.items()]
    exact, f1 = (sum(column) / len(scores) for column in zip(*scores))
    return {"exact_match": exact, "f1": f1, "count": len(scores)}


def link_counts(links, gold):
    """Return |A & S|, |A & P|, |A|, |S| of a pair's links A against its gold links (sure, possible)."""
    return np.array([len(gold[0].intersection(links)), len(gold[1].intersection(links)), len(links), len(gold[0])])


def alignment_scores(counts):
    """Return AER, precision, recall and F1 of the sums of link_counts.

    AER = 1 - (|A & S| + |A & P|) / (|A| + |S|) (Och and Ney 2003).
    """
    sure_hits, hits, found, sure = counts
    precision, recall = hits / found if found else 0.0, sure_hits / sure if sure else 0.0
    return {
        "aer": 1 - (sure_hits + hits) / (found + sure) if found + sure else 0.0,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
    }
