"""Extractive question answering: SQuAD 1.1's JSON, the official scores of predicted answers.

read_squad and write_squad handle the files of SQuAD 1.1, XQuAD, MLQA and TyDiQA-GoldP, qa_files finds a task's dev
files in XTREME's layout, gold_answers and read_answer_predictions give what question_scores and squad_scores compare.
Positions count characters (Unicode code points).

Two things of XTREME's own files: the ids of its TyDiQA training file are not unique (3,696 questions, 89 ids), and the
answers of its test files (xquad, tydiqa's dev files) are replaced by one empty text; the datasets' own releases have
them. Only the standard library is used here.
"""

import collections
import json
import os
import re

from data.cli import InputError, error_at, open_output
from data.files import list_files, read_lines

LAYOUT = (
    '{"data": [{"paragraphs": [{"context": "", '
    '"qas": [{"id": "", "question": "", "answers": [{"text": "", "answer_start": 0}]}]}]}]}'
)
KINDS = {str: "text", int: "whole number", list: "list"}

# Names of dev files. dev-XX.json is our sample's, of any task.
NAMES = {
    "tydiqa": r"tydiqa\.goldp\.([a-z]{2,3})\.dev\.json",
    "xquad": r"xquad\.([a-z]{2,3})\.json",
    "mlqa": r"dev-context-([a-z]{2,3})-question-\1\.json",
}

QA_TASKS = list(NAMES)


# ---- files -----------------------------------------------------------------------------------------


def load_json(path):
    """Return what a JSON file holds. Raises InputError for what is not JSON and for an object that has a name twice."""

    def unique(pairs):
        count = collections.Counter(name for name, _ in pairs)
        if len(count) < len(pairs):
            raise InputError(
                f"{path}: {count.most_common(1)[0][0]!r} stands twice in one object; leave one of them out"
            )
        return dict(pairs)

    try:
        return json.loads("\n".join(read_lines(path)), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise error_at(
            path, error.lineno, f"no JSON at column {error.colno} ({error.msg}); get or write the file again"
        ) from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number of thousands of digits, brackets within brackets without end
        raise InputError(f"{path}: no JSON that can be read ({error}); get or write the file again") from None


def field(path, place, owner, name, kind):
    """Return owner[name], a str, int or list. Raises InputError for another type and for text that is not Unicode."""
    value = owner.get(name) if isinstance(owner, dict) else None
    if type(value) is not kind:
        raise InputError(f"{path}: {place}: {name!r} is missing or no {KINDS[kind]}; expected {LAYOUT}")
    if kind is str and re.search("[\ud800-\udfff]", value):
        raise InputError(f"{path}: {place}: {name!r} holds half a surrogate pair; write the character whole")
    return value


def read_squad(path, translation=False):
    """Read the paragraphs of a file: a list of (context, [(id, question, [(answer text, answer_start)])]).

    Answers are None in all questions of a test file, where they are left out or empty. Ids are unique within a
    paragraph; gold_answers asks for more. Of a `translation` only the answers that stand where they should are
    returned, none or many.
    Raises InputError, which names the question, for anything missing or of another type, an answer that does not stand
    at its answer_start, and answers in some questions only.
    """
    paragraphs, answered, unanswered = [], None, None
    for a, article in enumerate(field(path, "the file", load_json(path), "data", list), 1):
        for p, paragraph in enumerate(field(path, f"article {a}", article, "paragraphs", list), 1):
            place, questions = f"article {a}, paragraph {p}", {}
            context = field(path, place, paragraph, "context", str)
            for q, entry in enumerate(field(path, place, paragraph, "qas", list), 1):
                name = field(path, f"{place}, question {q}", entry, "id", str)
                this = f"question {name!r}"
                if name in questions:
                    raise InputError(
                        f"{path}: {this}: another question of this paragraph has its id; expected different ones"
                    )
                question = field(path, this, entry, "question", str)
                answers = usable_answers(entry, context) if translation else read_answers(path, this, entry, context)
                answered, unanswered = (this, unanswered) if answers else (answered, this)
                questions[name] = question, answers
            paragraphs.append((context, [(name, *rest) for name, rest in questions.items()]))
    if not answered and not unanswered:
        raise InputError(f"{path}: no questions; expected {LAYOUT}")
    if answered and unanswered and not translation:
        raise InputError(
            f"{path}: {unanswered}: no answer, though {answered} has one; "
            "expected SQuAD 1.1, where every question has one (leave out those of SQuAD 2.0 that have none)"
        )
    return paragraphs


def read_answers(path, place, entry, context):
    """Return the (text, answer_start) of a question's entry, None without them. Raises InputError."""
    found = field(path, place, entry, "answers", list) if "answers" in entry else []
    answers = [(field(path, place, one, "text", str), field(path, place, one, "answer_start", int)) for one in found]
    if not any(text for text, _ in answers):
        return None
    for text, start in answers:
        if not stands(context, text, start):
            raise InputError(
                f"{path}: {place}: the answer {text[:60]!r} is not at character {start} of its context; "
                "correct answer_start (it counts characters from 0) or leave the question out"
            )
    return answers


def usable_answers(entry, context):
    """Return the (text, answer_start) of a question's entry that stand where they should."""
    found = entry.get("answers")
    found = found if isinstance(found, list) else []
    answers = [(one.get("text"), one.get("answer_start")) for one in found if isinstance(one, dict)]
    return [
        (text, start)
        for text, start in answers
        if type(text) is str and type(start) is int and stands(context, text, start)
    ]


def stands(context, text, start):
    """Tell whether an answer stands at a place of its context."""
    return bool(text.strip()) and start >= 0 and context.startswith(text, start)


def write_squad(path, paragraphs, source):
    """Write the file `source` again with read_squad's paragraphs in place of its own.

    They are as many and in the same order, with new contexts, questions and answers; a question that is left out of
    them is left out of the file. Titles, version and the like stay; an answer keeps its text and place alone. The
    bytes are those of XTREME's files where nothing differs.
    """
    document = load_json(source)
    entries = [paragraph for article in document["data"] for paragraph in article["paragraphs"]]
    for entry, (context, questions) in zip(entries, paragraphs, strict=True):
        kept = {name: rest for name, *rest in questions}
        entry["context"] = context
        entry["qas"] = [one for one in entry["qas"] if one["id"] in kept]
        for one in entry["qas"]:
            one["question"], answers = kept[one["id"]]
            if answers is not None:
                one["answers"] = [{"answer_start": start, "text": text} for text, start in answers]
    with open_output(path) as stream:
        stream.write(json.dumps(document))


def stripped(text, start):
    """Return an answer and its place without the white space around it, which a few of TyDiQA's answers have."""
    return text.strip(), start + len(text) - len(text.lstrip())


def qa_files(folder, task):
    """Find the dev files of xquad, mlqa or tydiqa at any depth below a folder: {language: path}, sorted.

    In mlqa context and question are of the same language. Raises InputError where there is none, or two of a language.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder; expected one with the dev files of {task}")
    files = {}
    for path in list_files(folder):
        if match := re.fullmatch(rf"{NAMES[task]}|dev-([a-z]{{2,3}})\.json", os.path.basename(path)):
            lang = match[1] or match[2]
            if lang in files:
                raise InputError(
                    f"{path}: {files[lang]} is of the same language; "
                    f"expected one dev file of {task} each, name its folder"
                )
            files[lang] = path
    if not files:
        expected = {
            "tydiqa": "tydiqa.goldp.fi.dev.json",
            "xquad": "xquad.hi.json",
            "mlqa": "dev-context-hi-question-hi.json",
        }[task]
        raise InputError(f"{folder}: no dev files of {task} below it; expected names such as {expected} or dev-hi.json")
    return dict(sorted(files.items()))


def gold_answers(path, paragraphs):
    """Return {question id: [answer texts]} of read_squad's paragraphs of a file.

    Raises InputError for no answers and for an id used twice.
    """
    gold = {}
    for name, _, answers in (question for _, questions in paragraphs for question in questions):
        if answers is None:
            raise InputError(
                f"{path}: question {name!r}: no answers, so that nothing can be scored; "
                "XTREME removes them from test files, take the file of the dataset's own release"
            )
        if name in gold:
            raise InputError(
                f"{path}: question {name!r}: its id is used twice; "
                "expected different ones, predictions are found by them"
            )
        gold[name] = [text for text, _ in answers]
    return gold


def read_answer_predictions(path):
    """Read predicted answers, {question id: text}: JSON of just this, XTREME's submission format. Raises InputError."""
    predictions = load_json(path)
    if not isinstance(predictions, dict):
        raise InputError(f'{path}: no object; expected {{"question id": "answer text"}}')
    for name, text in predictions.items():
        if not isinstance(text, str):
            raise InputError(
                f'{path}: question {name!r}: the prediction is no text; expected {{"question id": "answer text"}}'
            )
    return predictions
