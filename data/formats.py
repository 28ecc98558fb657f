"""The formats of training files: how the sentences of a file are read, and written again in another order.

FORMATS[name] is what --task names in reorder.py, translate.py and data/split.py.
"""

import collections
import functools

from data.files import (
    PAIR_LABELS, TAGS, file_style, iterate_pairs, open_output, read_lines, read_udpos, split_words, write_pairs,
    write_udpos,
)  # fmt: skip
from data.paragraphs import (
    pair_paragraphs, paragraph_sentences, paragraph_texts, reorder_paragraph, translated_paragraphs,
)  # fmt: skip
from data.squad import read_squad, write_squad
from data.words import add_spaces, split_with_spaces

# rows(path, translation=False) -> the texts of each line, tuples; None where files hold words and no text.
# sentences(path) -> (words, units, rest) of each sentence: units, the number of what moves as one for each word; rest
# is the writer's.  write(path, sentences, source): writes (words, order, rest) in the order of the file `source`;
# `order` lists the units' numbers.  translations(source, target) -> (text, translation) of each sentence; None where
# files are parallel line by line.
Format = collections.namedtuple("Format", "rows sentences write translations")


def tagged_sentences(path, *, task):
    """Yield (words, units, tags) of a udpos file; every word is a unit."""
    for words, tags in read_udpos(path, task):
        yield words, range(len(words)), tags


def write_tagged(path, sentences, source):
    """Write a udpos file with the line ends of `source`; tags move with their words."""
    moved = (([words[i] for i in order], tags and [tags[i] for i in order]) for words, order, tags in sentences)
    write_udpos(path, moved, file_style(source))


def pair_rows(path, translation=False, *, task):
    """Yield both sentences of each pair. The header of XNLI-MT's files is left out; a translation may be empty."""
    header = next(read_lines(path), "").rstrip("\r\n").split("\t")[:2] == ["premise", "hypo"]
    for first, second, _ in iterate_pairs(path, task, int(header), translation):
        yield first, second


def paired_sentences(path, *, task):
    """Yield (words, units, (row, spacing)) of both sentences of each pair; see data.words.split_with_spaces."""
    for row in iterate_pairs(path, task):
        for text in row[:2]:
            words, spacing = split_with_spaces(text)
            yield words, range(len(words)), (row, spacing)


def write_paired(path, sentences, source):
    """Write pairs with the line ends of `source`; each label stays with its pair."""
    texts = (
        (row, "".join(add_spaces([words[i] for i in order], [spacing[i] for i in order])))
        for words, order, (row, spacing) in sentences
    )
    write_pairs(path, ((one, two, row[2]) for (row, one), (_, two) in zip(texts, texts)), file_style(source))


def text_rows(path, translation=False):
    """Yield each line of a text."""
    for line in read_lines(path):
        yield (line.removesuffix("\r"),)


def text_sentences(path):
    """Yield (words, units, None) of each line of tokenised text."""
    for (line,) in text_rows(path):
        words = split_words(line)
        yield words, range(len(words)), None


def write_text(path, sentences, source):
    """Write tokenised text with the line ends of `source`."""
    newline, _ = file_style(source)
    with open_output(path) as stream:
        stream.writelines(" ".join(words[i] for i in order) + newline for words, order, _ in sentences)


def question_rows(path, translation=False):
    """Yield the sentences of each paragraph's context, then its questions."""
    for paragraph in read_squad(path, translation):
        yield from ((sentence,) for sentence in paragraph_texts(*paragraph))


def question_translations(source, target):
    """Yield (text, translation) of the sentences of question_rows, found by the questions' ids or places."""
    for paragraph, other in translated_paragraphs(read_squad(source), read_squad(target, translation=True), target):
        yield from pair_paragraphs(paragraph, other)


def question_sentences(path):
    """Yield (words, units, None) of the sentences of question_rows; an answer is a unit."""
    for paragraph in read_squad(path):
        yield from ((sentence.words, sentence.units, None) for sentence in paragraph_sentences(*paragraph))


def write_questions(path, sentences, source):
    """Write the SQuAD file `source` with its sentences in other orders, every answer at its new place."""
    paragraphs, sentences = [], iter(sentences)
    for paragraph in read_squad(source):  # one of them may have no sentence
        parts = paragraph_sentences(*paragraph)
        paragraphs.append(reorder_paragraph(paragraph, parts, [next(sentences)[1] for _ in parts])[0])
    next(sentences, None)  # raises InputError where there are more alignments
    write_squad(path, paragraphs, source)


def tagging_format(task):
    """Return the Format of a task of tagging."""
    return Format(None, functools.partial(tagged_sentences, task=task), write_tagged, None)


def pair_format(task):
    """Return the Format of a task of pairs of sentences."""
    rows, sentences = (functools.partial(read, task=task) for read in (pair_rows, paired_sentences))
    return Format(rows, sentences, write_paired, None)


FORMATS = {
    **{task: tagging_format(task) for task in TAGS},
    **{task: pair_format(task) for task in PAIR_LABELS},
    "text": Format(text_rows, text_sentences, write_text, None),
    "qa": Format(question_rows, question_sentences, write_questions, question_translations),
}
