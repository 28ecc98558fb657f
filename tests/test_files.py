"""Readers and writers keep every byte; the sample data has XTREME's layout; real XTREME files load."""

import os
import platform
import subprocess
import sys
import unicodedata

import pytest
from conftest import ROOT, SAMPLE

from data.files import (
    UPOS, InputError, check_count, check_folder, dev_files, file_style, format_links, iterate_pairs, list_files,
    read_pairs, read_parallel, read_pharaoh, read_udpos, temporary_name, whole, write_lines, write_pairs,
    write_parallel, write_udpos,
)  # fmt: skip

LANGS = ["en", "fr", "de", "hi", "zh"]


def written(tmp_path, write, *arguments):
    path = str(tmp_path / "written")
    write(path, *arguments)
    with open(path, "rb") as stream:
        return stream.read()


@pytest.mark.parametrize(
    "text",
    [
        "a\tNOUN\n\nb\tVERB\nc\u2028d\tX\n",
        "a\tNOUN\n\nb\u00a0\x85\tX\n\n",
        "a\tX",
        "a\tX\r\n\r\nb\tX\r\n",
        "a\nb\n\nc\n\n",
    ],
)
def test_udpos_files_keep_every_byte(tmp_path, text):
    path = str(tmp_path / "in.tsv")
    (tmp_path / "in.tsv").write_bytes(text.encode())
    assert written(tmp_path, write_udpos, read_udpos(path), file_style(path)) == text.encode()


def test_udpos_is_split_at_newlines_and_tabs_only(tmp_path):
    (tmp_path / "in.tsv").write_bytes("a\x0bb\x85c\u2028d\u3000e\tX\n".encode())
    assert read_udpos(str(tmp_path / "in.tsv")) == [(["a\x0bb\x85c\u2028d\u3000e"], ["X"])]


@pytest.mark.parametrize(
    "task, text",
    [("xnli", '"a\tb"\tneutral\r\nc\td\tentailment\r\n'), ("pawsx", "a\tb\t0\nc\td\t1"), ("xnli", "a\tb\nc\td\n")],
)
def test_pair_files_keep_every_byte(tmp_path, task, text):
    path = str(tmp_path / "in.tsv")
    (tmp_path / "in.tsv").write_bytes(text.encode())
    assert written(tmp_path, write_pairs, read_pairs(path, task), file_style(path)) == text.encode()


@pytest.mark.parametrize(
    "text",
    ["\na\tX\nb\tX\n\nc\tX\n", "a\tX\nb\tX\n\nc\tX\n\n\n\n", "a\tX\nb\tX\n\n\n\nc\tX", "\t\na\tX\nb\tX\n \t\nc\tX\n\t"],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_blank_lines_separate_sentences_like_one(tmp_path, text, newline):
    (tmp_path / "in.tsv").write_bytes(text.replace("\n", newline).encode())
    assert read_udpos(str(tmp_path / "in.tsv")) == [(["a", "b"], ["X", "X"]), (["c"], ["X"])]


def test_blank_lines_around_pairs_are_passed_over(tmp_path):
    (tmp_path / "in.tsv").write_text("\n\na\tb\tneutral\nc\td\tneutral\n\n\n")
    assert read_pairs(str(tmp_path / "in.tsv"), "xnli") == [("a", "b", "neutral"), ("c", "d", "neutral")]


def test_bars_in_words_do_not_end_a_side(tmp_path):
    pairs = [(["a", "|||", "b"], ["x||||y"]), (["||", "|"], ["|||"])]
    write_parallel(str(tmp_path / "p"), pairs)
    read = list(read_parallel(str(tmp_path / "p")))
    assert read == [(["a", "|", "b"], ["x|y"]), (["||", "|"], ["|"])]


def test_contradictory_is_contradiction(tmp_path):
    (tmp_path / "in.tsv").write_text("a\tb\tcontradictory\n")
    assert read_pairs(str(tmp_path / "in.tsv"), "xnli") == [("a", "b", "contradiction")]


def test_parallel_text_and_links_keep_every_byte(tmp_path):
    for name, text, read, write in [
        ("p", "a b ||| c\n ||| d\ne ||| \n", read_parallel, write_parallel),
        ("l", "0-0 1-2\n\n3-1\n", read_pharaoh, lambda path, links: write_lines(path, map(format_links, links))),
    ]:
        (tmp_path / name).write_text(text)
        assert written(tmp_path, write, list(read(str(tmp_path / name)))) == text.encode()


def test_a_byte_order_mark_is_no_word(tmp_path):
    (tmp_path / "in").write_bytes(b"\xef\xbb\xbfa\tX\n")
    assert read_udpos(str(tmp_path / "in")) == [(["a"], ["X"])]


def test_standard_output_by_name_is_written_on_where_it_stands(tmp_path):
    for name in ("/dev/stdout", "/dev/fd/1", "-"):
        code = f"from data.files import *\nprint(1)\nwith open_output('{name}') as f: f.write('2\\n')\nprint(3)"
        with open(tmp_path / "all", "a") as stream:
            assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=stream).returncode == 0
    assert (tmp_path / "all").read_text() == 3 * "1\n2\n3\n"


def test_files_below_a_folder_are_listed_once_whatever_links_there_are(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for path in ("in/b", "in/deep/a", "other/c"):
        (tmp_path / path).touch()
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "else").symlink_to(tmp_path / "other")
    os.mkfifo(tmp_path / "in" / "pipe")
    found = [os.path.relpath(path, tmp_path / "in") for path in list_files(tmp_path / "in")]
    assert found == ["b", "deep/a", "else/c"]
    assert list_files(tmp_path / "in", [tmp_path / "other", tmp_path / "in" / "deep"]) == [str(tmp_path / "in" / "b")]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "out").write_text("old\n")

    def lines():
        yield "new"
        raise InputError("half way")

    with pytest.raises(InputError):
        write_lines(str(tmp_path / "out"), lines())
    assert os.listdir(tmp_path) == ["out"] and (tmp_path / "out").read_text() == "old\n"


def test_temporary_files_of_killed_runs_are_swept_by_the_next_one(tmp_path):
    path = str(tmp_path / "out")
    gone = subprocess.Popen(["true"])
    gone.wait()
    swept = temporary_name(path, gone.pid)
    kept = [
        temporary_name(path, os.getppid()),  # still runs
        temporary_name(path, gone.pid).replace(platform.node(), platform.node() + "x"),  # another machine's
        temporary_name(path + ".order", gone.pid),  # another target's
        temporary_name(path, "1x"),
    ]
    for name in [swept, *kept]:
        open(name, "w").close()
    write_lines(path, ["new"])
    assert sorted(os.listdir(tmp_path)) == sorted(map(os.path.basename, [path, *kept]))


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(InputError), whole(str(tmp_path / "out")) as folder:
        os.mkdir(folder)
        raise InputError("half way")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["old"]
    with whole(str(tmp_path / "out")) as folder:
        os.mkdir(folder)
        open(os.path.join(folder, "new"), "w").close()
        assert os.listdir(tmp_path / "out") == ["old"]
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["new"]


def test_counts_and_folders_that_do_not_fit_are_told(tmp_path):
    check_count("x", 3, 3, "y")
    with pytest.raises(InputError, match="^x: 2 pairs, but y has 3; expected one for each"):
        check_count("x", 2, 3, "y", "pairs")
    check_folder(str(tmp_path), "anything")
    with pytest.raises(InputError, match="no: no such folder; expected a folder with treebanks"):
        check_folder(str(tmp_path / "no"), "treebanks")


def test_test_files_are_refused_where_labels_are_needed(tmp_path):
    (tmp_path / "words").write_text("I\nsee\n")
    (tmp_path / "pairs").write_text("a\tb\n")
    assert read_udpos(str(tmp_path / "words")) == [(["I", "see"], None)]
    assert list(iterate_pairs(str(tmp_path / "pairs"), "xnli")) == [("a", "b", None)]
    with pytest.raises(InputError, match="words:1: no tags; expected word<TAB>TAG"):
        read_udpos(str(tmp_path / "words"), tagged=True)
    with pytest.raises(InputError, match="pairs:1: no label; expected sentence1"):
        list(iterate_pairs(str(tmp_path / "pairs"), "xnli", labelled=True))


def test_dev_files_are_found_by_language(tmp_path):
    with pytest.raises(InputError, match="no dev-XX.tsv in this folder"):
        dev_files(str(tmp_path))
    for name in ("dev-hi.tsv", "dev-en.tsv", "dev-.tsv", "test-fr.tsv", "dev-fr.txt"):
        (tmp_path / name).touch()
    assert dev_files(str(tmp_path)) == {lang: str(tmp_path / f"dev-{lang}.tsv") for lang in ("en", "hi")}
    assert list(dev_files(str(tmp_path))) == ["en", "hi"]


# ---- the sample ---------------------------------------------------------------------------------


def test_sample_training_data_is_parallel_and_well_formed():
    english = read_udpos(os.path.join(SAMPLE, "udpos", "train-en.tsv"))
    assert len(english) >= 240
    assert all(5 <= len(words) <= 18 and set(tags) <= set(UPOS) for words, tags in english)
    assert len({" ".join(words) for words, _ in english}) == len(english)
    assert set(UPOS) - {tag for _, tags in english for tag in tags} <= {"SYM", "X"}
    for lang in LANGS[1:]:
        pairs = list(read_parallel(os.path.join(SAMPLE, "udpos", f"train-en-{lang}.txt")))
        assert [source for source, _ in pairs] == [words for words, _ in english]
        assert all(3 <= len(target) <= 40 for _, target in pairs)
        gold_pairs = list(read_parallel(os.path.join(SAMPLE, "align", f"en{lang}.src-tgt")))
        assert len(gold_pairs) >= 40 and all(pair in pairs for pair in gold_pairs)


SCRIPTS = {"hi": "DEVANAGARI", "zh": "CJK"}


@pytest.mark.parametrize("lang", LANGS)
def test_sample_dev_data_has_sixty_sentences_of_its_language(lang):
    dev = read_udpos(os.path.join(SAMPLE, "udpos", f"dev-{lang}.tsv"))
    assert len(dev) >= 60 and len({" ".join(words) for words, _ in dev}) == len(dev)
    letters = [letter for words, _ in dev for word in words for letter in word if letter.isalpha()]
    assert sum(unicodedata.name(letter).startswith(SCRIPTS.get(lang, "LATIN")) for letter in letters) > 0.95 * len(
        letters
    )
    side = {"en": 0}.get(lang, 1)
    train = {
        " ".join(pair[side])
        for pair in read_parallel(os.path.join(SAMPLE, "udpos", f"train-en-{'fr' if lang == 'en' else lang}.txt"))
    }
    assert not train & {" ".join(words) for words, _ in dev}


# ---- real files -----------------------------------------------------------------------------------


def test_all_real_udpos_files_load_and_keep_every_byte(shared, tmp_path):
    folder = os.path.join(shared, "xtreme", "udpos")
    names = [name for name in sorted(os.listdir(folder)) if name.startswith("dev-")]
    assert len(names) == 29
    for name in names:
        path = os.path.join(folder, name)
        with open(path, "rb") as stream:
            assert written(tmp_path, write_udpos, read_udpos(path), file_style(path)) == stream.read(), name


@pytest.mark.parametrize("task, languages, rows", [("xnli", 15, 2490), ("pawsx", 4, 2000)])
def test_all_real_pair_files_load_and_keep_every_byte(shared, tmp_path, task, languages, rows):
    folder = os.path.join(shared, "xtreme", task)
    names = sorted(os.listdir(folder))
    assert sum(name.startswith("dev-") for name in names) == languages
    for name in names:
        path = os.path.join(folder, name)
        read = read_pairs(path, task)
        assert name.startswith("test-") or len(read) == rows
        with open(path, "rb") as stream:
            assert written(tmp_path, write_pairs, read, file_style(path)) == stream.read(), name
