"""data/split.py: the rule for words, and parallel files with every pair once."""

import os

import pytest

from data.files import read_pairs, read_parallel
from data.words import split_text


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
        ("", ""),
    ],
)
def test_words_are_split_by_the_rule(text, words):
    assert split_text(text) == words.split()


def test_no_character_but_spaces_is_lost_in_fifteen_languages(shared):
    folder = os.path.join(shared, "xtreme", "xnli")
    for name in sorted(os.listdir(folder)):
        if name.startswith("dev-"):
            for sentence in [side for row in read_pairs(os.path.join(folder, name), "xnli")[:400] for side in row[:2]]:
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
