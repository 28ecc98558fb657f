"""The tasks of the experiment and the formats of their files: one table that every script asks.

TASKS[name] says what a task's labels are, where the dev files of a folder lie, how gold labels and predictions are
read and written, and what is counted. FORMATS[name], name being what --task takes in reorder.py, translate.py and
data/split.py, says how the sentences of a training file are read and written in another order.

A new task of tagging is its tags in data/files.py and a line in TASKS.
"""

import collections
import functools
import itertools
import json
import os

from data.cli import InputError, open_output
from data.files import (
    LABELS,
    file_style,
    iterate_pairs,
    languages_in,
    read_label_predictions,
    read_lines,
    read_tag_predictions,
    read_udpos,
    split_words,
    write_lines,
    write_pairs,
    write_udpos,
)
from data.metrics import answer_counts, pair_counts, tagging_counts
from data.paragraphs import (
    pair_paragraphs,
    paragraph_sentences,
    paragraph_texts,
    reorder_paragraph,
    translated_paragraphs,
)
from data.squad import QA_TASKS, gold_answers, qa_files, read_answer_predictions, read_squad, write_squad
from data.words import join_words, split_text, split_with_spaces

# kind: tagging, pairs or qa; labels: in the order of the classifier's outputs, None for qa; metrics: their names, the
# first one leads; predictions: the name of a prediction file, a language in place of {}. dev_files(folder) ->
# {language: path}.  read_gold(path, most=None) -> labels of the first `most` examples: tags of each sentence, a label
# of each pair, {question id: answers}.  read_predictions(path, gold, gold_path) -> the like; InputError where they do
# not fit the gold ones.  write_predictions(path, predictions).  counts(gold, predictions, lang) -> numpy (examples,
# counts) for data.metrics.task_metrics.
Task = collections.namedtuple(
    "Task", "kind labels metrics predictions dev_files read_gold read_predictions write_predictions counts"
)

# rows(path, translation=False) -> the texts of each line, tuples; None where files hold words and no text.
# sentences(path) -> (words, units, rest) of each sentence: units number what moves as one, for each word its unit;
# rest is the writer's.  write(path, sentences, source): (words, order, rest) in the order of the file `source`;
# `order` lists the units' numbers.  translations(source, target) -> (text, translation) of each sentence; None where
# files are parallel line by line.
Format = collections.namedtuple("Format", "rows sentences write translations")


# ---- gold labels and predictions -----------------------------------------------------------------------


def dev_files(folder):
    """Find the dev-XX.tsv in a folder: {language: path}. Raises InputError where there is none."""
    return {lang: os.path.join(folder, f"dev-{lang}.tsv") for lang in languages_in(folder)}


def read_gold_tags(path, most=None, *, task):
    """Read the tags of a file's first sentences, lists. Raises InputError where it has none."""
    sentences = read_udpos(path, task)[:most]
    if sentences[0][1] is None:
        raise InputError(f"{path}:1: no tags; expected word<TAB>TAG")
    return [tags for _, tags in sentences]


def read_gold_labels(path, most=None, *, task):
    """Read the labels of a file's first pairs. Raises InputError where it has none."""
    labels = [label for *_, label in itertools.islice(iterate_pairs(path, task), most)]
    if labels[0] is None:
        raise InputError(f"{path}:1: no label; expected sentence1<TAB>sentence2<TAB>label")
    return labels


def read_gold_answers(path, most=None):
    """Read {question id: [answer texts]} of a file's first questions. Raises InputError where one has no answer."""
    return dict(itertools.islice(gold_answers(path, read_squad(path)).items(), most))


def read_fitting_tags(path, gold, gold_path, *, task):
    """Read predicted tags, a list for each sentence of `gold`. Raises InputError where they do not fit its words."""
    predicted = read_tag_predictions(path, task)
    if [len(tags) for tags in predicted] != [len(tags) for tags in gold]:
        words = [sum(map(len, tags)) for tags in (predicted, gold)]
        raise InputError(
            f"{path}: {len(predicted)} sentences, {words[0]} labels, which do not fit the {len(gold)} sentences, "
            f"{words[1]} labels of {gold_path}; train this run again"
        )
    return predicted


def read_fitting_labels(path, gold, gold_path, *, task):
    """Read predicted labels, one for each pair of `gold`. Raises InputError for another number."""
    predicted = read_label_predictions(path, task)
    if len(predicted) != len(gold):
        raise InputError(
            f"{path}: {len(predicted)} labels, which do not fit the {len(gold)} pairs of {gold_path}; "
            "train this run again"
        )
    return predicted


def read_fitting_answers(path, gold, gold_path):
    """Read predicted answers, {question id: text}. Raises InputError where they are not to `gold`'s questions."""
    predicted = read_answer_predictions(path)
    if predicted.keys() != gold.keys():
        raise InputError(
            f"{path}: {len(predicted)} answers, not to the {len(gold)} questions of {gold_path}; train this run again"
        )
    return predicted


def write_tags(path, sentences):
    """Write predicted tags: a tag a line, a blank line after each sentence."""
    write_lines(path, ("\n".join(tags) + "\n" for tags in sentences))


def write_answers(path, answers):
    """Write predicted answers, {question id: text}, as JSON."""
    with open_output(path) as stream:
        json.dump(answers, stream, ensure_ascii=False, indent=1)


# ---- sentences of training files ---------------------------------------------------------------------


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
        (row, join_words(*([kept[i] for i in order] for kept in (words, spacing))))
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
        whole = paragraph_sentences(*paragraph)
        paragraphs.append(reorder_paragraph(paragraph, whole, [next(sentences)[1] for _ in whole])[0])
    next(sentences, None)  # raises InputError where there are more alignments
    write_squad(path, paragraphs, source)


# ---- the tables ------------------------------------------------------------------------------------------


def tagging(name, *metrics):
    """Return the Task of tagging words with LABELS[name]."""
    return Task(
        kind="tagging",
        labels=LABELS[name],
        metrics=metrics,
        predictions="dev-{}.tsv",
        dev_files=dev_files,
        read_gold=functools.partial(read_gold_tags, task=name),
        read_predictions=functools.partial(read_fitting_tags, task=name),
        write_predictions=write_tags,
        counts=lambda gold, predicted, lang: tagging_counts(gold, predicted),
    )


def pairs(name):
    """Return the Task of classifying pairs of sentences by LABELS[name]."""
    return Task(
        kind="pairs",
        labels=LABELS[name],
        metrics=("accuracy",),
        predictions="dev-{}.tsv",
        dev_files=dev_files,
        read_gold=functools.partial(read_gold_labels, task=name),
        read_predictions=functools.partial(read_fitting_labels, task=name),
        write_predictions=write_lines,
        counts=lambda gold, predicted, lang: pair_counts(gold, predicted),
    )


def questions(name):
    """Return the Task of answering questions by a span of a context, scored as XTREME scores `name`."""
    return Task(
        kind="qa",
        labels=None,
        metrics=("f1", "exact_match"),
        predictions="dev-{}.json",
        dev_files=functools.partial(qa_files, task=name),
        read_gold=read_gold_answers,
        read_predictions=read_fitting_answers,
        write_predictions=write_answers,
        counts=lambda gold, predicted, lang: answer_counts(gold, predicted, lang, name),
    )


TASKS = {
    "udpos": tagging("udpos", "accuracy", "f1"),
    "xnli": pairs("xnli"),
    "pawsx": pairs("pawsx"),
    **{name: questions(name) for name in QA_TASKS},
}


def sentence_format(name):
    """Return the Format of a task's training files."""
    functions = {
        "tagging": (None, tagged_sentences, write_tagged),
        "pairs": (pair_rows, paired_sentences, write_paired),
    }[TASKS[name].kind]
    rows, sentences, write = functions
    return Format(rows and functools.partial(rows, task=name), functools.partial(sentences, task=name), write, None)


FORMATS = {
    **{name: sentence_format(name) for name, task in TASKS.items() if task.kind != "qa"},
    "text": Format(text_rows, text_sentences, write_text, None),
    "qa": Format(question_rows, question_sentences, write_questions, question_translations),
}


def training_words(task, path):
    """Yield the words of each sentence of a task's training file, in order."""
    name = "qa" if TASKS[task].kind == "qa" else task
    if FORMATS[name].rows is None:
        yield from (words for words, _, _ in FORMATS[name].sentences(path))
    else:
        yield from (split_text(text) for row in FORMATS[name].rows(path) for text in row)
