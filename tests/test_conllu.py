"""CoNLL-U comes out as XTREME's udpos files."""

import os

import pytest

from data.conllu import convert, merge_multiword
from data.files import InputError, read_udpos

SENTENCE = """# sent_id = 1
1\tJe\tje\tPRON\t_\t_\t2\tnsubj\t_\t_
2\tparle\tparler\tVERB\t_\t_\t0\troot\t_\t_
3-4\tdu\t_\t_\t_\t_\t_\t_\t_\t_
3\tde\tde\tADP\t_\t_\t5\tcase\t_\t_
4\tle\tle\tDET\t_\t_\t5\tdet\t_\t_
5\t1 000\t_\tNUM\t_\t_\t2\tobl\t_\t_
5.1\tvu\tvoir\tVERB\t_\t_\t_\t_\t_\t_

"""


def test_multiword_tokens_replace_their_parts_and_spaces_go(tmp_path):
    (tmp_path / "f.conllu").write_text(SENTENCE)
    [(comments, sentence)] = convert(str(tmp_path / "f.conllu"), "fr")
    assert sentence == (["Je", "parle", "du", "1000"], ["PRON", "VERB", "ADP", "NUM"])
    assert comments == {"sent_id": "1"}


def test_the_part_nearest_the_root_gives_the_tag_then_the_precedence():
    words = [("a", "NOUN", 0), ("b", "VERB", 1), ("c", "PRON", 1)]
    assert merge_multiword(words, [(1, 2, "ab")], "fr")[1] == ["NOUN", "PRON"]  # a is the root itself
    assert merge_multiword(words, [(2, 3, "bc")], "fr")[1] == ["NOUN", "VERB"]
    assert merge_multiword([("a", "ADP", 3), ("b", "PRON", 3), ("c", "VERB", 0)], [(1, 2, "ab")], "xx")[1] == [
        "PRON",
        "VERB",
    ]
    assert merge_multiword([("a", "ADV", 3), ("b", "PRON", 3), ("c", "VERB", 0)], [(1, 2, "ab")], "it")[1] == [
        "ADV",
        "VERB",
    ]


def test_sentences_without_text_are_dropped(tmp_path):
    """As XTREME does: those whose words are all `_`, or all but one."""
    text = ""
    for forms in ("_ .", "_", "a", "_ _ .", "_ a b"):
        words = enumerate(forms.split(), 1)
        text += "".join(f"{n}\t{form}\t_\tNOUN\t_\t_\t0\troot\t_\t_\n" for n, form in words) + "\n"
    (tmp_path / "f.conllu").write_text(text)
    assert [words for _, (words, _) in convert(str(tmp_path / "f.conllu"), "fr")] == [["a"], ["_", "a", "b"]]


def test_multiword_tokens_that_overlap_are_an_error(tmp_path):
    (tmp_path / "f.conllu").write_text(SENTENCE.replace("4\tle", "4-5\tx\t_\t_\t_\t_\t_\t_\t_\t_\n4\tle"))
    with pytest.raises(InputError, match="f.conllu:6: multiword token '4-5'"):
        convert(str(tmp_path / "f.conllu"), "fr")


def test_missing_heads_and_odd_blank_lines_do_no_harm(tmp_path):
    words = "1\tGo\t_\tVERB\t_\t_\t_\t_\t_\t_\n2\thome\t_\tADV\t_\t_\t_\t_\t_\t_\n"
    (tmp_path / "f.conllu").write_text(f"\n\n{words}\t\n \n{words}\n\n{SENTENCE}")
    sentences = [sentence for _, sentence in convert(str(tmp_path / "f.conllu"), "fr")]
    assert sentences[:2] == [(["Go", "home"], ["VERB", "ADV"])] * 2 and len(sentences) == 3


def test_chinese_gsd_converts_to_xtremes_dev_file(shared, run, tmp_path):
    output = str(tmp_path / "zh.tsv")
    assert (
        run(
            "data/conllu",
            "--lang",
            "zh",
            "--input",
            os.path.join(shared, "ud25", "zh_gsd-ud-dev.conllu"),
            "--output",
            output,
        ).code
        == 0
    )
    ours = read_udpos(output)
    assert len(ours) == 500 and ours == read_udpos(os.path.join(shared, "xtreme", "udpos", "dev-zh.tsv"))[:500]


def test_german_and_french_gsd_convert_to_xtremes_files_but_for_the_later_release(shared):
    for lang in ("de", "fr"):
        ours = [sentence for _, sentence in convert(os.path.join(shared, "ud25", f"{lang}_gsd-ud-dev.conllu"), lang)]
        theirs = {
            " ".join(words): tags
            for words, tags in read_udpos(os.path.join(shared, "xtreme", "udpos", f"dev-{lang}.tsv"))
        }
        found = [(tags, theirs[" ".join(words)]) for words, tags in ours if " ".join(words) in theirs]
        assert len(found) > 0.9 * len(ours)
        assert sum(a == b for x, y in found for a, b in zip(x, y)) > 0.97 * sum(len(x) for x, _ in found)
