"""Extractive question answering: SQuAD 1.1's JSON and the official scores of predicted answers.

read_squad and write_squad handle the files of SQuAD 1.1, XQuAD, MLQA and TyDiQA-GoldP. Positions count characters
(Unicode code points). In XTREME's own files, the ids of TyDiQA's training file are not unique (3,696 questions, 89
ids), and the answers of test files (xquad, tydiqa's dev files) are replaced by one empty text; the datasets' own
releases have them.
"""

import collections
import json
import os
import re
import string
import unicodedata

import numpy as np

from data.files import InputError, check_folder, error_at, list_files, open_output, read_lines

LAYOUT = (
    '{"data": [{"paragraphs": [{"context": "", '
    '"qas": [{"id": "", "question": "", "answers": [{"text": "", "answer_start": 0}]}]}]}]}'
)
KINDS = {str: "text", int: "whole number", list: "list"}
# Names of dev files, XX being the language. dev-XX.json is our sample's, of any task.
NAMES = {"tydiqa": "tydiqa.goldp.XX.dev.json", "xquad": "xquad.XX.json", "mlqa": "dev-context-XX-question-XX.json"}
QA_TASKS = list(NAMES)


# ---- files -----------------------------------------------------------------------------------------


def load_json(path):
    """Return what a JSON file holds. Raises InputError for what is not JSON and for an object that has a name twice."""

    def unique(pairs):
        name, count = collections.Counter(name for name, _ in pairs).most_common(1)[0] if pairs else ("", 1)
        if count > 1:
            raise InputError(f"{path}: {name!r} stands twice in one object; leave one of them out")
        return dict(pairs)

    cure = "get or write the file again"
    try:
        return json.loads("\n".join(read_lines(path)), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise error_at(path, error.lineno, f"no JSON at column {error.colno} ({error.msg}); {cure}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of open brackets
        raise InputError(f"{path}: no JSON that can be read ({error}); {cure}") from None


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
    paragraph; gold_answers asks for more. Answers of a `translation` that are not at their answer_start are left out.
    Raises InputError, which names the question, for anything missing or of another type, an answer that is not at its
    answer_start, and answers in some questions only.
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
                    wrong = "another question of this paragraph has its id"
                    raise InputError(f"{path}: {this}: {wrong}; expected different ones")
                question = field(path, this, entry, "question", str)
                answers = usable_answers(entry, context) if translation else read_answers(path, this, entry, context)
                answered, unanswered = (this, unanswered) if answers else (answered, this)
                questions[name] = question, answers
            paragraphs.append((context, [(name, *rest) for name, rest in questions.items()]))
    if not answered and not unanswered:
        raise InputError(f"{path}: no questions; expected {LAYOUT}")
    if answered and unanswered and not translation:
        wrong = f"{unanswered}: no answer, though {answered} has one"
        raise InputError(f"{path}: {wrong}; leave out the questions of SQuAD 2.0 that have none")
    return paragraphs


def read_answers(path, place, entry, context):
    """Return the (text, answer_start) of a question's entry, None without them. Raises InputError."""
    found = field(path, place, entry, "answers", list) if "answers" in entry else []
    answers = [(field(path, place, one, "text", str), field(path, place, one, "answer_start", int)) for one in found]
    if not any(text for text, _ in answers):
        return None
    for text, start in answers:
        if not stands(context, text, start):
            wrong = f"the answer {text[:60]!r} is not at character {start} of its context"
            cure = "correct answer_start (it counts characters from 0) or leave the question out"
            raise InputError(f"{path}: {place}: {wrong}; {cure}")
    return answers


def usable_answers(entry, context):
    """Return the (text, answer_start) of a question's entry that stand where they should."""
    found = entry.get("answers") if isinstance(entry.get("answers"), list) else []
    answers = [(one.get("text"), one.get("answer_start")) for one in found if isinstance(one, dict)]
    return [one for one in answers if list(map(type, one)) == [str, int] and stands(context, *one)]


def stands(context, text, start):
    """Tell whether an answer stands at a place of its context."""
    return bool(text.strip()) and start >= 0 and context.startswith(text, start)


def write_squad(path, paragraphs, source):
    """Write the file `source` again with other contexts, questions and answers.

    paragraphs: as read_squad returns them, as many and in the same order; a question that they lack is left out.
    Titles, version and the like stay; an answer keeps its text and place alone. The bytes are those of XTREME's files
    where nothing differs.
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
    check_folder(folder, f"the dev files of {task}")
    name = re.escape(NAMES[task]).replace("XX", "([a-z]{2,3})", 1).replace("XX", r"\1")
    files = {}
    for path in list_files(folder):
        if match := re.fullmatch(rf"{name}|dev-([a-z]{{2,3}})\.json", os.path.basename(path)):
            lang = match[1] or match[2]
            if lang in files:
                raise InputError(f"{path}: {files[lang]} is of the same language; expected one file for each of {task}")
            files[lang] = path
    if not files:
        names = f"{NAMES[task].replace('XX', 'hi')} or dev-hi.json"
        raise InputError(f"{folder}: no dev files of {task} below it; expected names such as {names}")
    return dict(sorted(files.items()))


def gold_answers(path, paragraphs):
    """Return {question id: [answer texts]} of read_squad's paragraphs of a file.

    Raises InputError for a question without answers and for an id used twice.
    """
    gold = {}
    for name, _, answers in (question for _, questions in paragraphs for question in questions):
        if answers is None:
            wrong = "no answers (XTREME's test files have none), so that nothing can be scored"
            raise InputError(f"{path}: question {name!r}: {wrong}; take the file of the dataset's own release")
        if name in gold:
            raise InputError(f"{path}: question {name!r}: its id is used twice; predictions need different ones")
        gold[name] = [text for text, _ in answers]
    return gold


def read_answer_predictions(path):
    """Read predicted answers, {question id: text}: JSON of just this, XTREME's submission format. Raises InputError."""
    predictions = load_json(path)
    if not isinstance(predictions, dict) or not all(isinstance(text, str) for text in predictions.values()):
        raise InputError(f'{path}: no predicted answers; expected {{"question id": "answer text"}}')
    return predictions


# ---- scores ----------------------------------------------------------------------------------------

# XTREME scores xquad and tydiqa as SQuAD 1.1's script does, by English rules in every language, mlqa as MLQA's script.
ARTICLES = {
    "ar": None,  # the letters of the article are taken out wherever they stand
    "de": "ein eine einen einem eines einer der die das den dem des",
    "en": "a an the",
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
    marks = {c for c in text.lower() if c in string.punctuation or mlqa and unicodedata.category(c)[0] == "P"}
    text = "".join(c for c in text.lower() if c not in marks)
    if mlqa and lang == "ar":
        return text.replace("ال", " ").split()
    if mlqa and lang == "zh":
        text = re.sub("([\u4e00-\u9fa5])", r" \1 ", text)
    if articles := ARTICLES[lang if mlqa else "en"]:
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


def answer_counts(gold, predicted, lang, task):
    """Return the counts of each question, numpy (questions, 3): F1, exact match, 1. gold: gold_answers'."""
    scores = [question_scores(answers, predicted.get(name), lang, task) for name, answers in gold.items()]
    return np.array([(f1, exact, 1.0) for exact, f1 in scores])


def squad_scores(gold, predictions, lang, task):
    """Return {'exact_match', 'f1', 'count'} of {question id: text} against gold_answers'; count is the gold questions'.

    The official scripts' numbers, as fractions. A question without a prediction counts 0; one that gold lacks is
    left out.
    """
    f1, exact, count = (sum(column) for column in answer_counts(gold, predictions, lang, task).T.tolist())
    return {"exact_match": exact / count, "f1": f1 / count, "count": int(count)}
