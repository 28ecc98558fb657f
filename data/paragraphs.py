"""The sentences of SQuAD's paragraphs: found in the text, paired with those of a translation, put in another word order.

A paragraph is (context, [(id, question, [(answer text, answer_start)])]), as data.squad.read_squad returns it.
"""

import collections
import itertools
import math

from data.cli import InputError
from data.squad import stripped
from data.words import WORD, joined_parts, split_sentences, split_with_spaces


def context_sentences(context, questions):
    """The (begin, end) of the sentences of a paragraph's context; where an answer goes on into the next sentence, they are one."""
    answers = [stripped(*answer) for _, _, found in questions for answer in found or []]
    spans = []
    for begin, end in split_sentences(context):
        if spans and any(start < spans[-1][1] and start + len(text) > begin for text, start in answers):
            spans[-1] = spans[-1][0], end
        else:
            spans.append((begin, end))
    return spans


def paragraph_texts(context, questions):
    """The sentences of a paragraph (see data.squad.read_squad) in order: those of its context, then its questions."""
    return [context[begin:end] for begin, end in context_sentences(context, questions)] + [
        question for _, question, _ in questions
    ]


def translated_paragraphs(sources, targets):
    """(paragraph, its translation) of every source paragraph: the one in its place where all ids are the same, else one with its questions' ids.

    TyDiQA's ids are not unique, so its files go by place. A paragraph without a translation gets ("", []).
    """
    names = [
        [[identifier for identifier, *_ in questions] for _, questions in paragraphs]
        for paragraphs in (sources, targets)
    ]
    if names[0] == names[1]:
        return zip(sources, targets)
    several = collections.Counter(identifier for paragraph in names[1] for identifier in set(paragraph)).most_common(1)
    if several and several[0][1] > 1:
        raise InputError(
            f"the translation has question {several[0][0]!r} in {several[0][1]} paragraphs, and not the source's questions in their order; "
            "expected the same questions in the same order, or different ids"
        )
    place = {identifier: paragraph for paragraph in targets for identifier, *_ in paragraph[1]}
    return (
        (one, next((place[identifier] for identifier, *_ in one[1] if identifier in place), ("", [])))
        for one in sources
    )


def pair_paragraphs(paragraph, other):
    """(sentence, translation) of each sentence of a paragraph's context and each of its questions; the translation may be empty.

    Questions are paired by their ids, sentences by pair_sentences.
    """
    (context, questions), (translated, answered) = paragraph, other
    sources = [context[begin:end] for begin, end in context_sentences(*paragraph)]
    targets = [translated[begin:end] for begin, end in context_sentences(*other)]
    asked = {identifier: question for identifier, question, _ in answered}
    return pair_sentences(sources, targets) + [
        (question, asked.get(identifier, "")) for identifier, question, _ in questions
    ]


def pair_sentences(sources, targets):
    """(sentence, its translation) of every source sentence; the texts go together, but may be cut into different numbers of sentences.

    Of all ways to pair 1 with 1, 1 with 2, 2 with 1, 1 with none and none with 1, in order, the one whose paired
    lengths fit best: the sum of squared logarithms of length ratios, with a price of 1 for 1 with 2 and 3 for none
    (after Gale and Church 1993).
    """
    scale = (sum(map(len, targets)) or 1) / (sum(map(len, sources)) or 1)
    best = {(0, 0): (0.0, [])}
    for i, j in itertools.product(range(len(sources) + 1), range(len(targets) + 1)):
        for m, n, price in ((1, 1, 0), (1, 2, 1), (2, 1, 1), (1, 0, 3), (0, 1, 3)):
            if (i - m, j - n) in best:
                ours, theirs = sum(map(len, sources[i - m : i])), sum(map(len, targets[j - n : j]))
                cost, steps = best[i - m, j - n]
                cost += price + (math.log(theirs / (scale * ours)) ** 2 if m and n else 0.0)
                if (i, j) not in best or cost < best[i, j][0]:
                    best[i, j] = cost, steps + [(m, n)]
    pairs, i, j = [], 0, 0
    for m, n in best[len(sources), len(targets)][1]:
        pairs += [(source, " ".join(targets[j : j + n])) for source in sources[i : i + m]]
        i, j = i + m, j + n
    return pairs


# What a sentence of a paragraph is put in order by. words; units: of each word the number of what moves as one, a word or all the
# words of an answer; spans: (begin, end) of each unit in the text; before, after: split_with_spaces' marks of each unit.
Sentence = collections.namedtuple("Sentence", "words units spans before after")


def units_of(text, begin=0, end=None, answers=()):
    """The Sentence that lies from `begin` to `end` in a text. answers: (begin, end) in the text."""
    part = text[begin:end]
    words, before, after = split_with_spaces(part)
    units, spans, first, last = [], [], [], []
    for k, match in enumerate(WORD.finditer(part)):
        a, b = begin + match.start(), begin + match.end()
        if k and any(start < spans[-1][1] and stop > a for start, stop in answers):
            spans[-1], last[-1] = (spans[-1][0], b), after[k]
        else:
            spans.append((a, b))
            first.append(before[k])
            last.append(after[k])
        units.append(len(spans) - 1)
    return Sentence(words, units, spans, first, last)


def paragraph_sentences(context, questions):
    """The Sentences of a paragraph (see data.squad.read_squad): those of its context, then its questions."""
    answers = [
        (start, start + len(text))
        for _, _, found in questions
        for text, start in (stripped(*answer) for answer in found or [])
    ]
    inside = [units_of(context, begin, end, answers) for begin, end in context_sentences(context, questions)]
    return inside + [units_of(question) for _, question, _ in questions]


def reordered_text(text, sentences, orders):
    """(text, moves): the text with the units of its sentences in their orders; moves: (begin, end, new begin) of every unit.

    What lies between the sentences stays where it is.
    """
    made, moves, done = "", [], 0
    for sentence, order in zip(sentences, orders):
        if not order:
            continue
        made += text[done : sentence.spans[0][0]]
        done = sentence.spans[-1][1]
        spans, before, after = ([kept[i] for i in order] for kept in (sentence.spans, sentence.before, sentence.after))
        for (begin, end), part in zip(spans, joined_parts([text[begin:end] for begin, end in spans], before, after)):
            made += part
            moves.append((begin, end, len(made) - (end - begin)))
    return made + text[done:], moves


def reorder_paragraph(paragraph, sentences, orders):
    """((context, questions), moves): a paragraph in the orders of its sentences, answers found at their new places; reordered_text's moves."""
    context, questions = paragraph
    inside = len(sentences) - len(questions)
    text, moves = reordered_text(context, sentences[:inside], orders[:inside])
    made = []
    for (identifier, question, answers), sentence, order in zip(questions, sentences[inside:], orders[inside:]):
        asked, found = reordered_text(question, [sentence], [order])[0], [stripped(*answer) for answer in answers or []]
        places = [next(new + start - begin for begin, end, new in moves if begin <= start < end) for _, start in found]
        made.append((identifier, asked, answers and [(answer, place) for (answer, _), place in zip(found, places)]))
    return (text, made), moves
