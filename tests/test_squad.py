"""SQuAD files load, fail and are written again exactly; scores are the official scripts'; sentences are cut by the
rule.
"""

import itertools
import json
import math
import os
import random
import re
import string
import tracemalloc
import unicodedata

import pytest

from data import paragraphs
from data.files import InputError
from data.paragraphs import STEPS, pair_sentences, paragraph_sentences, reorder_paragraph
from data.squad import (
    ARTICLES, NAMES, answer_counts, gold_answers, qa_files, question_scores, read_answer_predictions, read_squad,
    squad_scores, write_squad,
)  # fmt: skip
from data.words import split_sentences

CONTEXT = "Paris lies on the Seine. It is old."


def question(name="q1", answers=(("the Seine", 14),), **more):
    return {
        "answers": [{"answer_start": start, "text": text} for text, start in answers],
        "question": "Where?",
        "id": name,
        **more,
    }


def document(*questions, context=CONTEXT):
    return {"data": [{"title": "T", "paragraphs": [{"context": context, "qas": list(questions)}]}], "version": "1.1"}


def saved(tmp_path, value, name="in.json"):
    """The path of a file with this text, these bytes or this value as JSON."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
    )
    return str(path)


# ---- files -----------------------------------------------------------------------------------------


def test_paragraphs_are_read(tmp_path):
    value = document(question(), question("q2", [("old", 31), ("It is old", 25)]))
    value["data"].append(
        {"paragraphs": [{"context": "北京。", "qas": [question("q1", [("北", 0)])]}]}
    )  # an id of another paragraph
    assert read_squad(saved(tmp_path, value)) == [
        (CONTEXT, [("q1", "Where?", [("the Seine", 14)]), ("q2", "Where?", [("old", 31), ("It is old", 25)])]),
        ("北京。", [("q1", "Where?", [("北", 0)])]),
    ]


@pytest.mark.parametrize("answers", [[], [("", 0)]])
def test_test_files_load_but_give_no_gold(tmp_path, answers):
    path = saved(tmp_path, document(question(answers=answers), question("q2", answers)))
    assert read_squad(path) == [(CONTEXT, [("q1", "Where?", None), ("q2", "Where?", None)])]
    with pytest.raises(InputError, match=r"in\.json: question 'q1': no answers"):
        gold_answers(path, read_squad(path))


BAD = {
    "missing file": (None, r"no\.json: cannot be read"),
    "empty file": ("", r"in\.json:1: no JSON at column 1"),
    "broken JSON": ('{"data":\n [}', r"in\.json:2: no JSON at column 3"),
    "not UTF-8": (b'{"data":\n"\xff"}', r"in\.json:2: byte 0xff at column 2 is not UTF-8"),
    "endless number": ('{"data": ' + "1" * 5000 + "}", r"in\.json: (no JSON that can be read|the file: 'data' is)"),
    "endless brackets": ("[" * 100_000, r"in\.json: no JSON that can be read"),
    "name twice": ('{"data": [], "data": []}', r"in\.json: 'data' stands twice"),
    "a list": ([], r"in\.json: the file: 'data' is missing or no list"),
    "no paragraphs": ({"data": [{"title": "T"}]}, r"article 1: 'paragraphs' is missing"),
    "paragraph of text": (
        {"data": [{"paragraphs": ["x"]}]},
        r"article 1, paragraph 1: 'context' is missing or no text",
    ),
    "no qas": ({"data": [{"paragraphs": [{"context": "x"}]}]}, r"article 1, paragraph 1: 'qas' is missing"),
    "no questions": (document(), r"in\.json: no questions"),
    "numeric id": (
        document(question(), question(7)),
        r"article 1, paragraph 1, question 2: 'id' is missing or no text",
    ),
    "no question": (document({"id": "q1", "answers": []}), r"question 'q1': 'question' is missing"),
    "answers as an object": (
        document(question() | {"answers": {"text": ["x"]}}),
        r"question 'q1': 'answers' is missing or no list",
    ),
    "answer as text": (document(question() | {"answers": ["Seine"]}), r"question 'q1': 'text' is missing"),
    "start as text": (
        document(question(answers=[("Paris", "0")])),
        r"question 'q1': 'answer_start' is missing or no whole number",
    ),
    "start as truth": (
        document(question(answers=[("Paris", False)])),
        r"question 'q1': 'answer_start' is missing or no whole number",
    ),
    "wrong start": (
        document(question(answers=[("Seine", 14)])),
        r"question 'q1': the answer 'Seine' is not at character 14",
    ),
    "start before the text": (
        document(question(answers=[("old.", -4)])),
        r"question 'q1': the answer 'old.' is not at character -4",
    ),
    "start behind the text": (
        document(question(answers=[("old", 99)])),
        r"question 'q1': the answer 'old' is not at character 99",
    ),
    "one answer empty": (
        document(question(answers=[("Paris", 0), ("", 0)])),
        r"question 'q1': the answer '' is not at",
    ),
    "some unanswered": (
        document(question(), question("q2", [])),
        r"question 'q2': no answer, though question 'q1' has one",
    ),
    "id twice in a paragraph": (
        document(question(), question()),
        r"question 'q1': another question of this paragraph has its id",
    ),
    "half a character": (
        document(question(), context=CONTEXT + "\ud83d"),
        r"article 1, paragraph 1: 'context' holds half a surrogate",
    ),
}


@pytest.mark.parametrize("value, message", BAD.values(), ids=BAD)
def test_bad_files_end_in_one_line(tmp_path, value, message):
    path = str(tmp_path / "no.json") if value is None else saved(tmp_path, value)
    with pytest.raises(InputError, match=message) as error:
        read_squad(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(path)


def test_an_id_used_twice_gives_no_gold(tmp_path):
    value = document(question())
    value["data"] *= 2
    path = saved(tmp_path, value)
    with pytest.raises(InputError, match="question 'q1': its id is used twice"):
        gold_answers(path, read_squad(path))


def test_a_file_is_written_again_byte_by_byte(tmp_path):
    value = document(question(), question("q2", [("old", 31)], more="kept"), context=CONTEXT + " 东京 😀")
    source, path = saved(tmp_path, value), str(tmp_path / "out.json")
    write_squad(path, read_squad(source), source)
    assert open(path, "rb").read() == open(source, "rb").read()


def test_another_context_is_written(tmp_path):
    source = saved(tmp_path, document(question(), question("q2"), question("q3", more="kept")))
    new = [("On the Seine lies Paris.", [("q3", "Who?", [("the Seine", 3)]), ("q1", "Where?", [("Paris", 18)])])]
    write_squad(str(tmp_path / "out.json"), new, source)
    expected = document(
        question(answers=[("Paris", 18)]),
        question("q3", [("the Seine", 3)], question="Who?", more="kept"),
        context=new[0][0],
    )
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_empty_answers_stay_when_a_test_file_is_written(tmp_path):
    source, path = saved(tmp_path, document(question(answers=[("", 0)]))), str(tmp_path / "out.json")
    write_squad(path, read_squad(source), source)
    assert open(path).read() == open(source).read()


@pytest.mark.parametrize(
    "task, names",
    [
        (
            "tydiqa",
            [
                "tydiqa.goldp.fi.dev.json",
                "tydiqa.goldp.en.dev.json",
                "-tydiqa.goldp.en.train.json",
                "-tydiqa-goldp-v1.1-train.json",
            ],
        ),
        ("xquad", ["xquad.fi.json", "a/b/xquad.en.json", "-xquad.en.txt", "-train-en.json"]),
        (
            "mlqa",
            [
                "MLQA_V1/dev/dev-context-en-question-en.json",
                "MLQA_V1/dev/dev-context-fi-question-fi.json",
                "-MLQA_V1/dev/dev-context-en-question-fi.json",
                "-MLQA_V1/test/test-context-en-question-en.json",
            ],
        ),
        *[(task, ["dev-fi.json", "dev-en.json", "-dev-en.tsv", "-dev-english.json"]) for task in NAMES],
    ],
)
def test_dev_files_are_found_by_language(tmp_path, task, names):
    for name in names:
        saved(tmp_path, "", name.lstrip("-"))
    found = qa_files(str(tmp_path), task)
    assert list(found) == ["en", "fi"]
    assert set(found.values()) == {str(tmp_path / name) for name in names if name[0] != "-"}


def test_dev_files_that_lack_or_clash_are_told(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        qa_files(str(tmp_path / "no"), "mlqa")
    with pytest.raises(InputError, match=r"no dev files of mlqa below it; expected names such as dev-context-hi"):
        qa_files(str(tmp_path), "mlqa")
    one, two = saved(tmp_path, "", "a/xquad.hi.json"), saved(tmp_path, "", "b/dev-hi.json")
    with pytest.raises(InputError, match=f"{two}: {one} is of the same language"):
        qa_files(str(tmp_path), "xquad")


def test_predictions_are_read(tmp_path):
    assert read_answer_predictions(saved(tmp_path, '{"a": "x", "b": "", "c": "东"}')) == {"a": "x", "b": "", "c": "东"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", r"in\.json: no predicted answers; expected"),
        ('{"a": 3}', r"in\.json: no predicted answers; expected"),
        ('{"a": "x", "a": "y"}', r"in\.json: 'a' stands twice"),
        ('{"a": "x",\n"b"}', r"in\.json:2: no JSON at column 4"),
    ],
)
def test_bad_predictions_end_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_answer_predictions(saved(tmp_path, text))


# ---- metrics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task, lang, gold, prediction, exact, f1",
    [
        ("xquad", "en", ["The Seine"], "seine.", 1, 1),
        ("xquad", "en", ["the old city of Paris"], "Paris city", 0, 2 / 3),  # 2 common, of 2 and of 4
        ("xquad", "en", ["a b b"], "b b b", 0, 0.8),  # `a` is an article; 2 common, of 3 and of 2
        ("xquad", "en", ["x", "x y", "y"], "x y", 1, 1),  # the best of the answers
        ("xquad", "en", ["10,000"], "10000", 1, 1),
        ("xquad", "en", ["the"], "", 1, 0),  # both empty
        ("xquad", "en", ["x"], None, 0, 0),
        ("xquad", "de", ["die Stadt"], "Stadt", 0, 2 / 3),  # English rules in every language
        ("mlqa", "de", ["die Stadt"], "Stadt", 1, 1),
        ("tydiqa", "en", ["“x”"], "x", 0, 0),  # quotes that are not ASCII
        ("mlqa", "en", ["“x”"], "x", 1, 1),
        ("mlqa", "en", ["$5"], "5", 1, 1),  # a symbol, but in string.punctuation
        ("mlqa", "en", ["€5"], "5", 0, 0),
        ("xquad", "zh", ["中国北京"], "北京", 0, 0),
        ("mlqa", "zh", ["中国北京。"], "北京", 0, 2 / 3),
        ("mlqa", "zh", ["2010年"], "2010 年", 1, 1),
        ("mlqa", "ar", ["الكتاب"], "كتاب", 1, 1),
        ("mlqa", "ar", ["خيال"], "خي", 1, 1),  # the official script takes it out within words too
        ("mlqa", "hi", ["एक नदी।"], "एक नदी", 1, 1),
        ("xquad", "hi", ["एक नदी।"], "एक नदी", 0, 0.5),
        ("mlqa", "vi", ["những ngôi nhà"], "ngôi nhà", 1, 1),
        ("mlqa", "es", ["La Casa de las flores"], "casa de flores", 1, 1),
    ],
)
def test_answers_are_scored_as_computed_by_hand(task, lang, gold, prediction, exact, f1):
    assert question_scores(gold, prediction, lang, task) == (exact, pytest.approx(f1))


def official_tokens(text, lang, task):
    """The official rules once more, a character at a time, without regular expressions."""
    marks = set(string.punctuation)
    if task == "mlqa":
        marks |= {c for c in text.lower() if unicodedata.category(c) in ("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po")}
    text = "".join("" if c in marks else c for c in text.lower())
    articles = {
        "en": ["a", "an", "the"],
        "es": ["un", "una", "unos", "unas", "el", "la", "los", "las"],
        "vi": ["của", "là", "cái", "chiếc", "những"],
        "de": ["ein", "eine", "einen", "einem", "eines", "einer", "der", "die", "das", "den", "dem", "des"],
    }.get(lang if task == "mlqa" else "en", [])
    runs = ["".join(run) for _, run in itertools.groupby(text, lambda c: c.isalnum() or c == "_")]
    text = "".join(" " if run in articles else run for run in runs)
    if (task, lang) == ("mlqa", "ar"):
        text = " ".join(text.split("ال"))
    if (task, lang) == ("mlqa", "zh"):
        text = "".join(f" {c} " if 0x4E00 <= ord(c) <= 0x9FA5 else c for c in text)
    return text.split()


def official_scores(gold, prediction, lang, task):
    guess = official_tokens(prediction, lang, task)
    best = [0, 0]
    for answer in (official_tokens(answer, lang, task) for answer in gold):
        left = list(answer)
        for token in guess:
            if token in left:
                left.remove(token)
        same = len(answer) - len(left)
        f1 = 2 * (same / len(guess)) * (same / len(answer)) / (same / len(guess) + same / len(answer)) if same else 0
        best = [max(best[0], " ".join(guess) == " ".join(answer)), max(best[1], f1)]
    return tuple(best)


PIECES = (
    "a an the The A. _a the- un las der die DES của Là những x y Z 10 3.5 ال الكتاب كتاب، يال हिन्दी नदी। ॥ 中 国 北京 。 ！ ， ０ Ａ ａ "
    "㐀 龥 龦 𠀀 は ノ 한국 ß İ Σ é e\u0301 a\u0301 “ ” « » — - ' \" $ + < ^ ` | ~ € № ° … ¿ ¡ ؟ 😀 _ \u00a0 \u3000 \u200b \u2028 \n \t".split(
        " "
    )
)


def random_text(generator):
    return "".join(
        generator.choice(PIECES) + generator.choice(["", "", " ", " ", "  "]) for _ in range(generator.randint(0, 6))
    )


@pytest.mark.parametrize("task, lang", [("xquad", "zh"), ("tydiqa", "en"), *[("mlqa", lang) for lang in ARTICLES]])
def test_scores_are_the_official_ones_on_random_text(task, lang):
    generator, partial = random.Random(0), 0
    for _ in range(1500):
        gold = [random_text(generator) for _ in range(generator.randint(1, 3))]
        prediction = generator.choice([random_text(generator), gold[0].upper(), gold[-1] + generator.choice(PIECES)])
        scores = question_scores(gold, prediction, lang, task)
        assert scores == official_scores(gold, prediction, lang, task), (gold, prediction)
        partial += 0 < scores[1] < 1
    assert partial > 200  # the comparison met hard cases


def test_scores_are_means_over_all_gold_questions(tmp_path):
    path = saved(
        tmp_path,
        document(question("q1", [("Paris", 0)]), question("q2", [("the Seine", 14)]), question("q3", [("old", 31)])),
    )
    gold, predictions = gold_answers(path, read_squad(path)), {"q1": "paris", "q2": "Seine river", "other": "old"}
    scores = squad_scores(gold, predictions, "en", "xquad")
    assert scores == {"exact_match": pytest.approx(1 / 3), "f1": pytest.approx((1 + 2 / 3) / 3), "count": 3}
    counts = answer_counts(gold, predictions, "en", "xquad").tolist()
    assert counts == [[1, 1, 1], [pytest.approx(2 / 3), 0, 1], [0, 0, 1]]


def test_a_language_without_mlqa_rules_is_told():
    with pytest.raises(InputError, match="language 'fr': MLQA has no rules"):
        question_scores(["x"], "x", "fr", "mlqa")


# ---- real files ------------------------------------------------------------------------------------


def test_real_training_questions_load_and_are_written_again(shared, tmp_path):
    source, path = os.path.join(shared, "xtreme", "tydiqa", "tydiqa.goldp.en.train.json"), str(tmp_path / "out.json")
    paragraphs = read_squad(source)
    assert sum(len(questions) for _, questions in paragraphs) == 3696
    write_squad(path, paragraphs, source)
    assert open(path, "rb").read() == open(source, "rb").read()
    with pytest.raises(InputError, match="its id is used twice"):
        gold_answers(source, paragraphs)
    # Gold answers score 1, and few of them reach beyond a sentence: most of those hold several.
    answers = [(context, *answer) for context, questions in paragraphs for _, _, found in questions for answer in found]
    assert all(question_scores([text], text, "en", "tydiqa")[0] == 1 for _, text, _ in answers)
    inside = sum(
        any(
            begin <= start + len(text) - len(text.lstrip()) and start + len(text.rstrip()) <= end
            for begin, end in split_sentences(context)
        )
        for context, text, start in answers
    )
    assert len(answers) - inside < 40
    check_cover(context for context, _ in paragraphs)


def test_real_dev_questions_load(shared):
    files = qa_files(os.path.join(shared, "xtreme", "tydiqa"), "tydiqa")
    counts = {lang: sum(len(questions) for _, questions in read_squad(path)) for lang, path in files.items()}
    assert counts == {"en": 440, "fi": 782, "id": 565, "ko": 276}
    for path in files.values():
        check_cover(context for context, _ in read_squad(path))


# ---- sentences -------------------------------------------------------------------------------------


def check_cover(texts):
    """The spans of each text are in order, begin and end with text, and leave out white space alone."""
    for text in texts:
        end = 0
        for start, stop in split_sentences(text):
            assert (
                end <= start < stop
                and not text[start].isspace()
                and not text[stop - 1].isspace()
                and not text[end:start].strip()
            ), text
            end = stop
        assert not text[end:].strip(), text


@pytest.mark.parametrize(
    "text",
    [
        # en
        "He left.|She stayed!|Why?|Nobody knew",
        'He said "Stop!"|She said (quietly.)|“Fine.”|‘Yes.’|And then…|Nothing',
        "Mr. Smith met Dr. J. R. Jones of the U.S. Army in St. Louis, e.g. Paris.|It rained.",
        "It costs 3.5 dollars.|$5 is No. 5 on p. 12 of Dec. 10.|No.|That is wrong.|In 1990.|12 men came",
        "An initial decided for plan B. It failed in the U.S. He left.",  # rather together than cut
        "It was old.[3]|The next.[1][2]:23–25|And [4] another. [5]|Last",
        "well... he said.|Well...|He said?!|What is it, he asked! and went. , no",
        "one line\n|another\r\n|\u2028a third",
        "1. The first.|2. The second.",
        # fr
        "Il dit : « Bonjour ! »|Puis il partit.|«\u00a0Non.\u00a0»|En 52 av. J.-C. Rome prit M. Dupont.|Était-ce vrai ?|Oui",
        # de
        "Er kam am 3. Oktober 1990.|Dann ging er z. B. nach Bonn.|„Komm mit!“|Im 19. Jahrhundert war Dr. Koch da.|Über 5.|»Ja.«|Ende",
        # hi
        "यह एक वाक्य है।|डॉ. राम आए।|क्या हुआ?|वह गया।‖और फिर आया॥|सब ठीक है.|अंत",
        # zh
        "他来了。‖“你好！”‖他说。‖价格是3.5亿。‖真的吗?‖是的……‖《书名》很好！‖（真的。）‖Apple Inc.是公司。‖2010年开始",
        "“好！”，他说。|Yahoo!是公司",
    ],
)
def test_sentences_are_cut_at_bars(text):
    plain = text.replace("|", " ").replace("‖", "")  # | stands for a space, ‖ for none
    expected = [part.strip() for part in re.split("[|‖]", text)]
    assert [plain[start:end] for start, end in split_sentences(plain)] == expected


def test_sentences_cover_random_text():
    generator = random.Random(0)
    alphabet = list("aBé1 中は한ह।。！？.!?…\"'“”«»()[]{}「」,;\n\r\t\u00a0\u3000\u2028$-_") + [
        "Mr.",
        "U.S.",
        " No. ",
        "[1]:2",
        "다. ",
    ]
    check_cover("".join(generator.choices(alphabet, k=generator.randint(0, 25))) for _ in range(20_000))
    assert split_sentences("") == split_sentences(" \n\u3000") == []


# ---- paragraphs ------------------------------------------------------------------------------------


def every_pairing(sources, targets):
    """The cheapest pairing of pair_sentences' rule by trying all of them: its list of (sources, targets) counts."""
    scale = sum(map(len, targets)) / sum(map(len, sources))

    def cheapest(i, j):
        if i == len(sources) and j == len(targets):
            return 0.0, []
        found = []
        for m, n, price in STEPS:
            if i + m <= len(sources) and j + n <= len(targets):
                ours, theirs = (sum(map(len, part)) for part in (sources[i : i + m], targets[j : j + n]))
                fit = math.log(theirs / (scale * ours)) ** 2 if m and n else 0.0
                rest, steps = cheapest(i + m, j + n)
                found.append((price + fit + rest, [(m, n), *steps]))
        return min(found)

    return cheapest(0, 0)[1]


def test_sentences_are_paired_as_cheaply_as_possible():
    generator = random.Random(0)
    for _ in range(60):
        sources, targets = (
            [chr(97 + k) * generator.randint(1, 40) for k in range(generator.randint(1, 5))] for _ in range(2)
        )
        expected, i, j = [], 0, 0
        for m, n in every_pairing(sources, targets):
            expected += [(source, " ".join(targets[j : j + n])) for source in sources[i : i + m]]
            i, j = i + m, j + n
        assert pair_sentences(sources, targets) == expected


def long_texts(count):
    """Sentences and their translation, from which one in fifty is left out."""
    generator = random.Random(0)
    sources = [f"{k} " + "x" * generator.randint(5, 90) for k in range(count)]
    return sources, [source.upper() for k, source in enumerate(sources) if k % 50]


def test_sentences_of_a_context_of_any_length_are_paired():
    sources, targets = long_texts(1500)
    pairs = pair_sentences(sources, targets)
    right = sum(other == one.upper() for k, (one, other) in enumerate(pairs) if k % 50)
    assert [source for source, _ in pairs] == sources and right > 1300
    assert pair_sentences(sources, []) == [(source, "") for source in sources] and pair_sentences([], targets) == []
    assert pair_sentences(["a"] * 3, ["b"] * 1000)[0][0] == "a"


def test_memory_for_pairing_grows_with_the_text(monkeypatch):
    monkeypatch.setattr(paragraphs, "BAND", 10)
    peaks = []
    for count in (100, 200):
        texts = long_texts(count)
        tracemalloc.start()
        pair_sentences(*texts)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 3 * peaks[0] < 300_000


def test_answers_that_overlap_move_as_one_and_keep_their_places():
    context = "In the old city of Paris lived a king. He was tall. Nobody knew him."
    answers = ["old city", "city of Paris", "king. He", "tall"]
    questions = [(name, "Who lived there?", [(name, context.index(name))]) for name in answers]
    sentences = paragraph_sentences(context, questions)
    assert [" ".join(context[a:b] for a, b in one.spans) for one in sentences[:2]][1] == "Nobody knew him ."
    assert (context.index("old"), context.index("Paris") + 5) in sentences[0].spans
    orders = [list(range(len(one.spans)))[::-1] for one in sentences]
    (text, moved), _ = reorder_paragraph((context, questions), sentences, orders)
    for name, _, [(answer, place)] in moved:
        assert answer == name and text[place : place + len(answer)] == answer
