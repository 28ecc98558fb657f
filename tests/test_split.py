"""data/split.py: the rule for words, and parallel files with every pair once."""

import json
import os
import random

import pytest

from data.files import read_pairs, read_parallel
from data.words import WORD, split_text


@pytest.mark.parametrize(
    "text, words",
    [
        ("I don't know, it's well-known...", "I don't know , it's well-known ..."),
        ("At 5 p.m. the U.S. paid $10,000 (3.5%) -- no!", "At 5 p.m. the U.S. paid $ 10,000 ( 3.5 % ) -- no !"),
        ("The end.Next a,b 'quoted' dogs' rock-", "The end . Next a , b ' quoted ' dogs ' rock -"),
        ("L'homme n’a pas aujourd'hui.", "L'homme n’a pas aujourd'hui ."),
        ("वह क्यों नहीं जानता है?", "वह क्यों नहीं जानता है ?"),
        ("我不知道，iPhone 3.5是“好”。", "我 不 知 道 ， iPhone 3.5 是 “ 好 ” 。"),
        ("ฉันไม่รู้", "ฉั น ไ ม่ รู้"),
        ("a|||b c_d", "a | b c _ d"),
        ("e\u0301te\u0301 \u2028 x", "e\u0301te\u0301 x"),
        ("I ❤\ufe0f Paris 🇫🇷🇩🇪 a🇫🇷", "I ❤\ufe0f Paris 🇫🇷 🇩🇪 a 🇫🇷"),
        ("👨\u200d👩\u200d👧 👍🏽👍🏽 🏴\U000e0067\U000e007f 1\ufe0f\u20e3 #\ufe0f\u20e3!!\ufe0f", "👨\u200d👩\u200d👧 👍🏽👍🏽 🏴\U000e0067\U000e007f 1\ufe0f\u20e3 #\ufe0f\u20e3 ! !\ufe0f"),
        ("co\u00adop a\u200bb\u2060 well\u2060-\u2060known \u200fשלום\u200f!", "co\u00adop a\u200bb\u2060 well\u2060-\u2060known \u200fשלום\u200f !"),
        ("二〇二〇年ㄅㄆｱｶﾞ⽔葛\U000e0100城", "二 〇 二 〇 年 ㄅ ㄆ ｱ ｶﾞ ⽔ 葛\U000e0100 城"),
        ("คำน้ำ ນຳ ក្រុម က္က သည် ꪀꪁ", "คำ น้ำ ນຳ ក្រុ ម က္က သ ည် ꪀ ꪁ"),
        ("한국어 책이", "한국어 책이"),
        ("(\u060012", "( \u060012"),
        ("a.b." * 30 + "c", "a . b . " * 30 + "c"),
        ("", ""),
    ],
)
def test_words_are_split_by_the_rule(text, words):
    assert split_text(text) == words.split()


def test_no_word_begins_or_ends_within_a_grapheme_cluster():
    regex = pytest.importorskip("regex")
    generator = random.Random(0)
    pool = "aé1 _-'.,!|❤👍👨🇫🇷#〇中かｶคนำเไកကต한글" + "".join(map(chr, [0x17D2, 0x1039, 0x1AF, 0x903, 0xE31, 0xFE0F, 0x20E3]))
    pool += "\u200d\u200b\u00ad\u2060\u0301🏽\U000e0067\U000e0100\u0600ﾞ"
    for _ in range(6_000):
        text = "".join(generator.choices(pool, k=generator.randint(1, 12)))
        ends = {match.end() for match in WORD.finditer(text)}
        inside = {place for match in regex.finditer(r"\X", text) for place in range(match.start() + 1, match.end())}
        # UAX 29 breaks around zero-width spaces, word joiners and the like and never within a space and its accents.
        broken = [place for place in ends & inside if " " not in text[place - 1 : place + 1]]
        assert not broken, (text, [match[0] for match in WORD.finditer(text)])
        words = split_text(text)
        assert "".join(words).replace("|", "") == "".join(text.split()).replace("|", "")
        assert split_text(" ".join(words)) == words


def test_no_character_but_spaces_is_lost_in_fifteen_languages(shared):
    folder = os.path.join(shared, "xtreme", "xnli")
    for name in sorted(os.listdir(folder)):
        if name.startswith("dev-"):
            for sentence in [side for row in read_pairs(os.path.join(folder, name), "xnli")[:150] for side in row[:2]]:
                words = split_text(sentence)
                assert "".join(words) == "".join(sentence.split()).replace("|||", "|") and all(words)
                assert split_text(" ".join(words)) == words  # splitting again changes nothing


def test_parallel_files_hold_each_pair_once(run, tmp_path):
    (tmp_path / "en").write_text("A dog.\tIt barks.\nA dog.\tIt sleeps.\nA dog.\tIt barks.\n")
    (tmp_path / "fr").write_text("Un chien.\tIl aboie.\nUn chien.\tIl dort.\nUn chien.\tIl aboie !\n")
    done = run(
        "data/split",
        "--task",
        "xnli",
        "--source",
        tmp_path / "en",
        "--target",
        tmp_path / "fr",
        "--output",
        tmp_path / "out",
    )
    assert done.code == 0, done.err
    pairs = [(" ".join(source), " ".join(target)) for source, target in read_parallel(str(tmp_path / "out"))]
    assert pairs == [
        ("A dog .", "Un chien ."),
        ("It barks .", "Il aboie ."),
        ("It sleeps .", "Il dort ."),
        ("It barks .", "Il aboie !"),
    ]
    text = [line.split("\t")[0] for line in (tmp_path / "en").read_text().splitlines()]
    (tmp_path / "text").write_text("\n".join(text) + "\n")
    done = run(
        "data/split",
        "--task",
        "text",
        "--source",
        tmp_path / "text",
        "--target",
        tmp_path / "text",
        "--output",
        tmp_path / "out",
    )
    assert done.code == 0 and (tmp_path / "out").read_text() == "A dog . ||| A dog .\n"


def test_translations_are_found_in_every_format_that_users_have(run, tmp_path):
    (tmp_path / "en.tsv").write_text("A dog.\tIt barks.\tneutral\nA dog.\tIt sleeps.\tentailment\n")
    formats = {
        "lines": "Un chien.\tIl aboie.\tneutral\nUn chien.\tIl dort.\tentailment\n",
        "mt": "premise\thypo\tlabel\nUn chien.\tIl aboie.\tneutral\nUn chien.\tIl dort.\tentailment\n",
        "five": "A dog.\tIt sleeps.\tUn chien.\tIl dort.\tentailment\nA dog.\tIt barks.\tUn chien.\tIl aboie.\tneutral\n",
        "bars": "It sleeps . ||| Il dort .\nA dog . ||| Un chien .\nIt barks . ||| Il aboie .\n",
    }
    expected = "A dog . ||| Un chien .\nIt barks . ||| Il aboie .\nA dog . ||| Un chien .\nIt sleeps . ||| Il dort .\n"
    arguments = ["--task", "xnli", "--source", tmp_path / "en.tsv", "--output", tmp_path / "out", "--target"]
    for name, content in formats.items():
        (tmp_path / name).write_text(content)
        done = run("data/split", *arguments, tmp_path / name, "--every")
        assert done.code == 0, done.err
        assert (tmp_path / "out").read_text() == expected
    run("data/split", *arguments, tmp_path / "bars")
    assert (tmp_path / "out").read_text() == "".join(dict.fromkeys(expected.splitlines(True)))
    (tmp_path / "bars").write_text("A dog . ||| Un chien .\n")
    done = run("data/split", *arguments, tmp_path / "bars")
    assert done.code == 2 and "en.tsv:1: 'It barks .' has no translation" in done.err


def test_an_empty_translation_keeps_its_place(run, tmp_path):
    (tmp_path / "en").write_text("He sleeps.\tHe is awake.\tcontradiction\nHe sleeps.\tIt is warm.\tneutral\n")
    (tmp_path / "fr").write_text("premise\thypo\tlabel\nIl dort.\tIl veille.\tcontradictory\n\tIl fait chaud.\tneutral\n")
    arguments = ["--task", "xnli", "--source", tmp_path / "en", "--target", tmp_path / "fr", "--output", tmp_path / "out"]
    done = run("data/split", *arguments, "--every")
    assert done.code == 0 and "split.py: 1 of 4 sentences have an empty translation" in done.err
    assert (tmp_path / "out").read_text() == (
        "He sleeps . ||| Il dort .\nHe is awake . ||| Il veille .\nHe sleeps . ||| \nIt is warm . ||| Il fait chaud .\n"
    )


@pytest.mark.parametrize(
    "source, first, second, expected",
    [
        ('He said "hi".', '"He said ""hi""."', '"Il a dit ""salut""."', 'Il a dit " salut " .'),
        ('"He said ""hi""."', 'He said "hi".', 'Il a dit "salut".', 'Il a dit " salut " .'),
        ('He said "hi".', "He said hi.", "Il a dit salut.", "Il a dit salut ."),
        ('He said "hi".', 'He said "hi".', '"Il a dit salut."', '" Il a dit salut . "'),
    ],
)
def test_translations_are_found_whatever_their_quotation_marks(run, tmp_path, source, first, second, expected):
    (tmp_path / "en").write_text(f"{source}\tYes.\t0\n")
    (tmp_path / "five").write_text(f"{first}\tYes.\t{second}\tOui.\t0\n")
    arguments = ["--task", "pawsx", "--source", tmp_path / "en", "--output", tmp_path / "out", "--every", "--target"]
    done = run("data/split", *arguments, tmp_path / "five")
    assert done.code == 0, done.err
    assert [line.split(" ||| ")[1] for line in (tmp_path / "out").read_text().splitlines()] == [expected, "Oui ."]
    (tmp_path / "five").write_text(f"{first}\tYes.\t{second}\tOui.\t0\n" + '"a\tb"\tc\td\te\t0\n')
    done = run("data/split", *arguments, tmp_path / "five")
    assert done.code == 2 and "five:2: 6 columns" in done.err and "quotation marks" in done.err


def test_answers_of_a_translation_are_not_needed(run, tmp_path):
    def document(context, questions):
        qas = [{"id": name, "question": asked, "answers": answers} for name, asked, answers in questions]
        return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]})

    answer = {"text": "1890", "answer_start": 24}
    (tmp_path / "en").write_text(document("The bridge was built in 1890.", [("a", "When?", [answer]), ("b", "What year?", [answer])]))
    for answers in ([], [{"text": "1890", "answer_start": 3}], {}, None, ["1890"], [{"text": 7}]):
        (tmp_path / "fr").write_text(document("Le pont date de 1890.", [("a", "Quand ?", []), ("b", "Quel an ?", answers)]))
        arguments = ["--task", "qa", "--source", tmp_path / "en", "--target", tmp_path / "fr"]
        assert run("data/split", *arguments, "--output", tmp_path / "out", "--every").code == 0
        assert len((tmp_path / "out").read_text().splitlines()) == 3


def test_a_translation_that_repeats_an_id_elsewhere_is_named(run, tmp_path):
    def document(*ids):
        asked = [[{"id": name, "question": "Who?", "answers": [{"text": "He", "answer_start": 0}]}] for name in ids]
        return json.dumps({"data": [{"paragraphs": [{"context": "He came.", "qas": qas} for qas in asked]}]})

    for name, ids in (("en", "abc"), ("fr", "aab")):
        (tmp_path / f"{name}.json").write_text(document(*ids))
    files = ["--source", tmp_path / "en.json", "--target", tmp_path / "fr.json", "--output", tmp_path / "out"]
    done = run("data/split", "--task", "qa", *files, "--every")
    assert done.code == 2 and f"{tmp_path}/fr.json: has question 'a' in 2 paragraphs" in done.err
