"""Find the sentences of SQuAD's paragraphs, pair them with those of a translation, put them in another word order.

A paragraph is (context, [(id, question, [(answer text, answer_start)])]), as data.squad.read_squad returns it.
"""

import bisect
import collections
import math

from data.files import InputError
from data.squad import stripped
from data.words import WORD, add_spaces, split_sentences, split_with_spaces

# The ways to pair sentences with those of a translation: (sentences, translations, price).
STEPS = ((1, 1, 0), (1, 2, 1), (2, 1, 1), (1, 0, 3), (0, 1, 3))
BAND = 100  # sentences to either side of the diagonal that pair_sentences looks at


# ---- sentences -------------------------------------------------------------------------------------------------


def answer_spans(questions):
    """Return the (begin, end) of the answers of a paragraph's questions, sorted; those that overlap are joined."""
    found = [stripped(*answer) for _, _, answers in questions for answer in answers or []]
    spans = []
    for begin, end in sorted((start, start + len(text)) for text, start in found):
        if spans and begin < spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((begin, end))
    return spans


def touched(spans, begin, end):
    """Tell whether one of sorted, disjoint spans begins before `end` and ends behind `begin`; begin >= end."""
    k = bisect.bisect_left(spans, (end,)) - 1
    return k >= 0 and spans[k][1] > begin


def context_sentences(context, questions):
    """Return the (begin, end) of a context's sentences; two that an answer goes across are one."""
    answers, spans = answer_spans(questions), []
    for begin, end in split_sentences(context):
        if spans and touched(answers, begin, spans[-1][1]):
            spans[-1] = spans[-1][0], end
        else:
            spans.append((begin, end))
    return spans


def paragraph_texts(context, questions):
    """Return the sentences of a paragraph: those of its context, then its questions."""
    sentences = [context[begin:end] for begin, end in context_sentences(context, questions)]
    return sentences + [question for _, question, _ in questions]


# ---- translations ------------------------------------------------------------------------------------------------


def translated_paragraphs(sources, targets, path):
    """Yield every source paragraph with its translation; one without a translation gets ("", []).

    TyDiQA's ids are not unique, so paragraphs are paired by their places where all ids are the same, else by the ids of
    their questions. Raises InputError, which names the translation's `path`, where neither is possible.
    """
    ids = [[[name for name, *_ in questions] for _, questions in paragraphs] for paragraphs in (sources, targets)]
    if ids[0] == ids[1]:
        return zip(sources, targets)
    name, count = collections.Counter(name for names in ids[1] for name in set(names)).most_common(1)[0]
    if count > 1:
        wrong = f"has question {name!r} in {count} paragraphs, and not the source's questions in their order"
        raise InputError(f"{path}: {wrong}; expected the same questions in the same order, or different ids")
    place = {name: paragraph for names, paragraph in zip(ids[1], targets) for name in names}
    found = (next((place[name] for name in names if name in place), ("", [])) for names in ids[0])
    return zip(sources, found)


def pair_paragraphs(paragraph, other):
    """Return (sentence, translation) of a paragraph's sentences, then of its questions; translations may be empty.

    Questions are paired by their ids, sentences by pair_sentences.
    """
    texts = [[one[0][begin:end] for begin, end in context_sentences(*one)] for one in (paragraph, other)]
    asked = {name: question for name, question, _ in other[1]}
    return pair_sentences(*texts) + [(question, asked.get(name, "")) for name, question, _ in paragraph[1]]


def pair_sentences(sources, targets):
    """Return (sentence, its translation) of every source sentence, for texts cut into different numbers of sentences.

    Sentences are paired in order, by the STEPS that cost least: the sum of squared logarithms of length ratios and of
    the steps' prices (after Gale and Church 1993). Only pairs within BAND sentences of the diagonal are looked at.
    """
    ours, theirs = list(map(len, sources)), list(map(len, targets))
    scale = (sum(theirs) or 1) / (sum(ours) or 1)
    slope = len(theirs) / max(1, len(ours))
    reach = BAND + math.ceil(slope)
    rows, steps = [{}, {}, {}], []  # {j: cost} of row i and the two before it; of every row its first j and its steps
    for i in range(len(ours) + 1):
        low, high = max(0, int(i * slope) - reach), min(len(theirs), int(i * slope) + reach)
        rows, chosen = [{}, *rows[:2]], bytearray()
        expected = [0.0, *(scale * sum(ours[max(0, i - m) : i]) for m in (1, 2))]
        for j in range(low, high + 1):
            found = (0, *(sum(theirs[max(0, j - n) : j]) for n in (1, 2)))
            best, step = (0.0, 0) if i == j == 0 else (math.inf, 0)
            for number, (m, n, price) in enumerate(STEPS):
                before = rows[m].get(j - n, math.inf)
                if before + price < best:
                    cost = before + (price + (math.log(found[n] / expected[m]) ** 2 if m and n else 0.0))
                    if cost < best:
                        best, step = cost, number
            rows[0][j] = best
            chosen.append(step)
        steps.append((low, chosen))
    return paired(sources, targets, steps)


def paired(sources, targets, steps):
    """Return the pairs that pair_sentences' steps lead to. steps: of every row (first j, step into each j)."""
    pairs, i, j = [], len(sources), len(targets)
    while i or j:
        low, chosen = steps[i]
        m, n, _ = STEPS[chosen[j - low]]
        pairs += [(source, " ".join(targets[j - n : j])) for source in reversed(sources[i - m : i])]
        i, j = i - m, j - n
    return pairs[::-1]


# ---- another word order ------------------------------------------------------------------------------------------

# A unit is what moves as one: a word, or all the words of an answer. words; units: the number of each word's unit;
# spans: (begin, end) of each unit in the text; spacing: split_with_spaces' of each unit.
Sentence = collections.namedtuple("Sentence", "words units spans spacing")


def units_of(text, begin=0, end=None, answers=()):
    """Return the Sentence that lies from `begin` to `end` in a text. answers: answer_spans'."""
    part = text[begin:end]
    words, places = split_with_spaces(part)
    units, spans, spacing = [], [], []
    for match, (_, before, after) in zip(WORD.finditer(part), places):
        a, b = begin + match.start(), begin + match.end()
        if spans and touched(answers, a, spans[-1][1]):
            number, first, _ = spacing[-1]
            spans[-1], spacing[-1] = (spans[-1][0], b), (number, first, after)
        else:
            spacing.append((len(spans), before, after))
            spans.append((a, b))
        units.append(len(spans) - 1)
    return Sentence(words, units, spans, spacing)


def paragraph_sentences(context, questions):
    """Return the Sentences of a paragraph: those of its context, then its questions."""
    answers = answer_spans(questions)
    found = [units_of(context, begin, end, answers) for begin, end in context_sentences(context, questions)]
    return found + [units_of(question) for _, question, _ in questions]


def reordered_text(text, sentences, orders):
    """Put the units of a text's sentences in their orders: (text, moves), (begin, end, new begin) of every unit.

    What lies between the sentences stays where it is.
    """
    made, moves, done = "", [], 0
    for sentence, order in zip(sentences, orders):
        if not order:
            continue
        made += text[done : sentence.spans[0][0]]
        done = sentence.spans[-1][1]
        spans, spacing = ([kept[i] for i in order] for kept in (sentence.spans, sentence.spacing))
        for (begin, end), part in zip(spans, add_spaces([text[begin:end] for begin, end in spans], spacing)):
            made += part
            moves.append((begin, end, len(made) - (end - begin)))
    return made + text[done:], moves


def reorder_paragraph(paragraph, sentences, orders):
    """Put a paragraph in the orders of its sentences: ((context, questions), moves), answers found at their new places.

    moves: reordered_text's of the context.
    """
    context, questions = paragraph
    count = len(sentences) - len(questions)
    text, moves = reordered_text(context, sentences[:count], orders[:count])
    sources, made = sorted(moves), []
    for (name, question, answers), sentence, order in zip(questions, sentences[count:], orders[count:]):
        asked, _ = reordered_text(question, [sentence], [order])
        moved = []
        for answer, start in [stripped(*one) for one in answers or []]:
            begin, _, new = sources[bisect.bisect_right(sources, (start, math.inf)) - 1]
            moved.append((answer, new + start - begin))
        made.append((name, asked, answers and moved))
    return (text, made), moves
