"""Data of human translations: one layout of what lies in a folder, what is missing said, nothing written in error."""

import json
import os
import shutil

import pytest

from data.files import read_pairs, read_parallel, read_pharaoh, read_udpos
from data.words import split_text


def treebank(*sentences):
    """CoNLL-U of sentences, each (id, "word/TAG ..."); du:de+le/TAG is a multiword token of two nodes."""
    text = ""
    for identifier, words in sentences:
        text, node = text + f"# sent_id = {identifier}\n", 0
        for word in words.split(" "):
            form, tag = word.rsplit("/", 1)
            fused, _, parts = form.partition(":")
            parts = parts.split("+") if parts else [fused]
            if len(parts) > 1:
                text += f"{node + 1}-{node + len(parts)}\t{fused}" + "\t_" * 8 + "\n"
            for part in parts:
                node += 1
                text += f"{node}\t{part}\t_\t{tag}\t_\t_\t{0 if node == 1 else 1}\t_\t_\t_\n"
        text += "\n"
    return text


EN_PUD = treebank(("a", "I/PRON like/VERB London/PROPN"), ("b", "don't:do+n't/AUX go/VERB"), ("c", "Yes/INTJ"))
FR_PUD = treebank(("a", "J'/PRON aime/VERB Londres/PROPN"), ("b", "du:de+le/ADP n'/ADV allez/VERB"), ("c", "Oui/INTJ"))
TASKS = "udpos xnli pawsx".split()
LINKS = [{"3": ["3"], "2": ["2", "X"], "X": ["1"]}, {"2": ["2", "4"], "3": ["4"]}]


def pairs(prefix, premises, labels=("neutral", "contradiction")):
    """XNLI rows in a language: two hypotheses for each premise."""
    rows = (f"{prefix} premise {n}.\t{prefix} hypothesis {n} {label}." for n in premises for label in labels)
    return "".join(f"{row}\t{label}\n" for row, label in zip(rows, list(labels) * len(premises)))


def unlabelled(text):
    return "".join(line.rsplit("\t", 1)[0] + "\n" for line in text.splitlines())


FILES = {
    "UD_English-PUD/en_pud-ud-test.conllu": EN_PUD,
    "deep/er/fr_pud.conllu": FR_PUD,
    "links/en-fr/alignment.json": json.dumps(LINKS),
    "links/en-fr/sent_ids.txt": "a\nb\n",
    "x/tags/dev-en.tsv": "I\tPRON\n\nsee\tVERB\n\n",
    "x/tags/dev-fr.tsv": "je\tPRON\n\n",
    "x/nli/dev-en.tsv": pairs("en", range(5)),
    "x/nli/dev-fr.tsv": pairs("fr", range(5)),
    "x/nli/dev-tr.tsv": pairs("tr", range(5)),
    "x/nli/test-en.tsv": unlabelled(pairs("en", range(4, 7))),
    "x/nli/test-fr.tsv": unlabelled(pairs("fr", range(4, 7))),
    "x/paws/dev-en.tsv": "A\tB\t0\nC\tD\t1\nE\tB\t0\nF\tG\t1\nH\tI\t1\nJ\tK\t0\n",
    "x/paws/dev-fr.tsv": "a\tb\t0\nNS\td\t1\ne\tb\t0\nf\tg\t1\nh\ti\t1\nj\tk\t0\n",
    "g/enfr.src-tgt": "a ||| b\n",
    "g/enfr.gold": "1-1\n",
}


@pytest.fixture
def human(run, tmp_path, monkeypatch):
    """human(options, **changes) makes the data of FILES; a change of None leaves a file out. Returns run's result."""

    def call(*options, **changes):
        monkeypatch.chdir(tmp_path)
        for name in ("in", "out"):
            shutil.rmtree(name, ignore_errors=True)
        for path, text in {**FILES, **changes}.items():
            if text is not None:
                os.makedirs(os.path.dirname(f"in/{path}"), exist_ok=True)
                with open(f"in/{path}", "w", encoding="utf-8") as stream:
                    stream.write(text)
        return run("data/human", "--input", "in", "--langs", "fr", "--output", "out", *options)

    return call


def missing():
    with open("out/missing.json", encoding="utf-8") as stream:
        return [(item["task"], item["language"], item["what"]) for item in json.load(stream)]


def listed():
    return sorted(f"{place}/{name}".removeprefix("out/") for place, _, names in os.walk("out") for name in names)


def read(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return stream.read()


def test_one_layout_of_files_that_lie_at_any_depth(human):
    done = human()
    assert done.code == 0, done.err
    names = "dev-en.tsv dev-fr.tsv train-en.tsv train-en-fr.txt".split()
    every = [f"{task}/{name}" for task in TASKS for name in names]
    every += ["udpos/manual-fr.align", "xnli/dev-tr.tsv", "align/enfr.gold", "align/enfr.src-tgt"]
    assert listed() == sorted([*every, "asked.txt", "missing.json", "parallel/en-fr.txt"])
    assert read("out/asked.txt") == f"fr {','.join(TASKS)}\n"
    for name in ("align/enfr.gold", "align/enfr.src-tgt"):
        assert read(f"out/{name}") == FILES[f"g/{name.split('/')[1]}"]
    assert read("out/udpos/dev-fr.tsv") == FILES["x/tags/dev-fr.tsv"] and not os.path.islink("out/udpos/dev-fr.tsv")


def test_everything_missing_is_one_line_and_one_item(human):
    done = human()
    assert len(done.err.splitlines()) == len(missing()) > 0
    assert ("udpos", "hi", "no dev-hi.tsv to test on") in [(t, l, w.split(";")[0]) for t, l, w in missing()]
    assert ("pawsx", "fr", "1 of 8 training sentences have no translation") in missing()
    assert not [item for item in missing() if item[:2] == ("udpos", "kk")]  # it has no dev set anywhere
    human("--langs", "fr,hi", **{"x/nli/dev-hi.tsv": pairs("hi", range(5))})
    kinds = {(task, what.split(",")[0].split(";")[0]) for task, lang, what in missing() if lang == "hi"}
    assert kinds >= {
        ("udpos", "no treebank hi_pud*.conllu"),
        ("pawsx", "no dev-hi.tsv"),
        ("parallel", "no test-hi.tsv of XNLI to tune aligners on"),
        ("align", "no enhi or hien .src-tgt and .gold to score aligners by"),
    }
    assert os.path.exists("out/xnli/train-en-hi.txt") and not os.path.exists("out/pawsx/train-en-hi.txt")
    distinct = dict.fromkeys(read("out/xnli/train-en-hi.txt").splitlines())
    assert read("out/parallel/en-hi.txt").splitlines() == list(distinct)


def test_manual_links_count_words_as_the_converted_treebanks_do(human):
    human("--tasks", "udpos")
    links = [sorted(links) for links in read_pharaoh("out/udpos/manual-fr.align")]
    assert links == [[(1, 1), (2, 2)], [(0, 0), (0, 2), (1, 2)], []]
    assert read_udpos("out/udpos/train-en.tsv")[1] == (["don't", "go"], ["AUX", "VERB"])
    assert list(read_parallel("out/udpos/train-en-fr.txt"))[1] == (["don't", "go"], ["du", "n'", "allez"])


def test_xnli_trains_on_the_first_four_fifths_of_dev_and_tests_on_the_other_premises(human):
    human("--tasks", "xnli")
    rows = read_pairs("in/x/nli/dev-en.tsv", "xnli")
    assert read_pairs("out/xnli/train-en.tsv", "xnli") == rows[:8]
    for lang in ("en", "fr", "tr"):
        assert read_pairs(f"out/xnli/dev-{lang}.tsv", "xnli") == read_pairs(f"in/x/nli/dev-{lang}.tsv", "xnli")[8:]
    french = read_pairs("in/x/nli/dev-fr.tsv", "xnli")
    assert list(read_parallel("out/xnli/train-en-fr.txt")) == [
        (split_text(text), split_text(other)) for row, its in zip(rows[:8], french) for text, other in zip(row[:2], its)
    ]


def test_aligners_learn_from_unlabelled_sentences_that_no_test_uses(human):
    human("--tasks", "xnli")
    pairs = list(read_parallel("out/parallel/en-fr.txt"))
    assert len(pairs) == 6 and all(source[-1] == "." for source, _ in pairs)  # premises 5 and 6, once each
    assert {source[2] for source, _ in pairs} == {"5", "6"} and {target[0] for _, target in pairs} == {"fr"}


def test_where_xnlis_test_has_labels_it_is_trained_on_and_dev_tested_on(human):
    labelled = {f"x/nli/test-{lang}.tsv": pairs(lang, range(5, 9)) for lang in ("en", "fr")}
    assert human("--tasks", "xnli", **labelled).code == 0
    assert read("out/xnli/train-en.tsv") == labelled["x/nli/test-en.tsv"]
    assert read("out/xnli/dev-fr.tsv") == FILES["x/nli/dev-fr.tsv"]
    assert len(list(read_parallel("out/xnli/train-en-fr.txt"))) == 16
    assert not [what for _, _, what in missing() if "labels" in what]
    assert len(list(read_parallel("out/parallel/en-fr.txt"))) == 12  # the same, each once


def test_xnlis_own_release_brings_the_labels_of_test(human):
    header = "language\tgold_label\tb1\tb2\tp1\tp2\tsentence1\tsentence2\tpromptID\n"
    row = "{0}\tcontradictory\t\t\t\t\t{0} one {1}\t{0} two {1} \t7\n"
    release = "".join(row.format(lang, n) for lang in ("en", "fr") for n in range(3))
    assert human("--tasks", "xnli", **{"XNLI-1.0/xnli.test.tsv": header + release}).code == 0
    assert read("out/xnli/train-en.tsv").splitlines()[1] == "en one 1\ten two 1\tcontradiction"
    assert read("out/xnli/train-en-fr.txt").splitlines()[3] == "en two 1 ||| fr two 1"
    assert read("out/xnli/dev-tr.tsv") == FILES["x/nli/dev-tr.tsv"]
    assert len(list(read_parallel("out/parallel/en-fr.txt"))) == 6
    assert human("--tasks", "xnli", **{"XNLI-1.0/xnli.test.tsv": header + release + "\n"}).code == 0
    for bad in ("en\tneutral\n", row.format("en", 0).replace("en one 0", " ")):
        done = human("--tasks", "xnli", **{"XNLI-1.0/xnli.test.tsv": header + bad})
        assert done.code == 2 and "xnli.test.tsv:2: expected XNLI's columns" in done.err
    done = human("--tasks", "xnli", **{"XNLI-1.0/xnli.test.tsv": header + row.format("fr", 0)})
    assert done.code == 2 and "xnli.test.tsv: has no rows of en" in done.err


def test_pairs_of_paws_that_share_a_sentence_are_on_one_side(human):
    human("--tasks", "pawsx")
    # A-B and E-B are one group, though a pair stands between them; of six rows four and a half fit.
    assert [row[0] for row in read_pairs("out/pawsx/train-en.tsv", "pawsx")] == ["A", "C", "E", "F"]
    assert [row[0] for row in read_pairs("out/pawsx/dev-fr.tsv", "pawsx")] == ["h", "j"]
    assert list(read_parallel("out/pawsx/train-en-fr.txt"))[2] == (["C"], [])  # NS: nobody translated it


def test_without_xnli_tagging_is_made_and_its_translations_tune_the_aligners(human):
    gone = {path: None for path in FILES if path.startswith(("x/nli", "x/paws"))}
    assert human("--tasks", "udpos", **gone).code == 0
    assert read("out/parallel/en-fr.txt") == read("out/udpos/train-en-fr.txt")
    done = human(**gone)
    assert done.code == 2 and done.err.count("\n") == 1 and not os.path.exists("out")
    assert "xnli: XTREME's dev-en.tsv is not there" in done.err and "XNLI-1.0.zip" in done.err


BAD = [
    ({"UD_English-PUD/en_pud-ud-test.conllu": None}, "en_pud*.conllu is not there; get it by data/download.py"),
    ({"deep/er/fr_pud.conllu": None}, "udpos: no PUD treebank of fr is there"),
    ({"fr_pud.conllu": FR_PUD.replace("aime", "adore")}, "in/deep/er/fr_pud.conllu"),
    ({"deep/er/fr_pud.conllu": FR_PUD.replace("= b", "= z")}, "fr_pud.conllu: sentence z is not in in/UD_English"),
    ({"deep/er/fr_pud.conllu": FR_PUD + FR_PUD}, "fr_pud.conllu: 6 sentences, but 3 sent_ids"),
    ({"links/en-fr/sent_ids.txt": "a\nb\nc\n"}, "alignment.json: 2 sentences, but in/links/en-fr/sent_ids.txt has 3"),
    ({"links/en-fr/sent_ids.txt": "a\nq\n"}, "sent_ids.txt:2: q: 'q' is not in the treebanks"),
    ({"links/en-fr/alignment.json": '[{"9": ["1"]}, {}]'}, "sent_ids.txt:1: a: '9' is not in the treebanks"),
    ({"links/en-fr/alignment.json": '["1"]'}, "alignment.json: no manual links; expected a JSON list"),
    ({"links/en-fr/alignment.json": '[{"1": [["1"]]}, {}]'}, "alignment.json: no manual links; expected a JSON list"),
    ({"links/en-fr/alignment.json": '[{"1": "23"}, {}]'}, "alignment.json: no manual links; expected a JSON list"),
    ({"links/en-fr/sent_ids.txt": "a\na\n"}, "sent_ids.txt:2: a stands there before; expected every sentence once"),
    ({"x/tags/dev-en.tsv": "I\tFOO\n\n"}, "in/x/tags/dev-en.tsv is of no task, since 'FOO' is no tag or label"),
    ({"y/dev-en.tsv": FILES["x/tags/dev-en.tsv"], "y/dev-fr.tsv": "tu\tPRON\n\n"}, "y/dev-fr.tsv: another dev-fr.tsv of"),
    ({"x/tags/dev-en.tsv": None}, "udpos: XTREME's dev-en.tsv is not there; get it by data/download.py --tasks udpos"),
    ({"y/dev-en.tsv": "You\tPRON\n\n"}, "in/y/dev-en.tsv: another dev-en.tsv of udpos than in/x/tags/dev-en.tsv"),
    ({"x/nli/dev-fr.tsv": pairs("fr", range(4))}, "x/nli/dev-fr.tsv: 8 pairs, but the English file has 10"),
    ({"x/nli/dev-fr.tsv": pairs("fr", range(5), ["neutral", "no"])}, "x/nli/dev-fr.tsv:2: unknown label 'no'"),
    ({"x/paws/dev-en.tsv": "A\tB\t0\n" * 6}, "x/paws/dev-en.tsv: its first pairs share sentences"),
]


@pytest.mark.parametrize("changes, said", BAD, ids=[said for _, said in BAD])
def test_what_is_wrong_is_one_line_and_nothing_is_written(human, changes, said):
    done = human(**changes)
    assert (done.code, done.err.count("\n")) == (2, 1) and said in done.err, done.err
    assert not os.path.exists("out")


def test_a_sentence_that_a_translation_lacks_keeps_its_english_order(human, run, tiny_bert):
    partly = FR_PUD[: FR_PUD.index("# sent_id = b")] + FR_PUD[FR_PUD.index("# sent_id = c") :]
    links = json.dumps(LINKS[:1])
    changes = {"links/en-fr/alignment.json": links, "links/en-fr/sent_ids.txt": "a\n", "deep/er/fr_pud.conllu": partly}
    assert human("--tasks", "udpos", **changes).code == 0
    assert list(read_parallel("out/udpos/train-en-fr.txt"))[1] == (["don't", "go"], [])
    assert ("udpos", "fr", "1 of 3 sentences lack a translation and stay English") in missing()
    text = "out/udpos/train-en-fr.txt"
    done = run("align", "--model", tiny_bert, "--input", text, "--output", "links", "--precision", "f32")
    assert done.code == 0 and read("links").splitlines()[1] == ""
    for control in ([], ["--random"]):
        files = ["--task", "udpos", "--input", "out/udpos/train-en.tsv", "--alignment", "links", "--output", "made"]
        assert run("reorder", *files, *control).code == 0
        assert read_udpos("made")[1] == read_udpos("out/udpos/train-en.tsv")[1]
    tuned = ["--train", text, "--output", "tuned", "--max-steps", "1", "--batch-size", "2"]
    assert run("finetune_aligner", "--model", tiny_bert, *tuned).code == 0


def test_a_treebank_in_another_order_is_read_by_its_sent_ids(human):
    human("--tasks", "udpos")
    before = {path: read(f"out/{path}") for path in listed()}
    parts = FR_PUD.split("\n\n")[:3]
    human("--tasks", "udpos", **{"deep/er/fr_pud.conllu": "\n\n".join(parts[::-1]) + "\n\n"})
    assert {path: read(f"out/{path}") for path in listed()} == before


def test_a_language_that_xtreme_lacks_is_tested_on_where_its_dev_file_lies(human):
    more = {"deep/er/cs_pud.conllu": FR_PUD, "x/tags/dev-cs.tsv": "ano\tINTJ\n\n", "x/nli/dev-cs.tsv": pairs("cs", range(5))}
    assert human("--langs", "fr,cs", **more).code == 0
    assert read("out/udpos/dev-cs.tsv") == more["x/tags/dev-cs.tsv"] and os.path.exists("out/xnli/dev-cs.tsv")
    assert ("pawsx", "cs", "no dev-cs.tsv to test on; XTREME's pawsx has none") in missing()


def test_what_a_former_run_made_of_other_data_does_not_stay(human, run):
    human("--langs", "fr")
    before = listed()
    os.remove("in/deep/er/fr_pud.conllu")
    for name in ("fr_pud", "hi_pud"):
        shutil.copy("in/UD_English-PUD/en_pud-ud-test.conllu", f"in/deep/er/{name}.conllu")
    os.remove("in/deep/er/fr_pud.conllu")
    open("out/udpos/mine.txt", "w").close()
    assert run("data/human", "--input", "in", "--langs", "hi", "--tasks", "udpos", "--output", "out").code == 0
    assert "udpos/train-en-fr.txt" in before and not {"udpos/train-en-fr.txt", "parallel/en-fr.txt"} & {*listed()}
    assert {name for name in before if name.startswith("xnli/")} <= {*listed()}  # another task's, whose runs need it
    assert {"udpos/mine.txt", "udpos/train-en-hi.txt", "udpos/dev-fr.tsv"} <= {*listed()}


def test_two_copies_of_a_file_are_one(human):
    assert human(**{"again/fr_pud.conllu": FR_PUD, "again/dev-en.tsv": FILES["x/tags/dev-en.tsv"]}).code == 0


def test_links_are_followed_once_and_the_output_is_no_input(human, run):
    human()
    first = {path: read(f"out/{path}") for path in listed()}
    os.makedirs("all/runs")
    os.symlink(os.path.abspath("in"), "all/data")
    os.symlink(os.path.abspath("all"), "in/x/round")
    os.rename("out", "all/runs/out")
    done = run("data/human", "--input", "all", "--langs", "fr", "--output", "all/runs/out")
    assert done.code == 0, done.err
    os.rename("all/runs/out", "out")
    assert {path: read(f"out/{path}") for path in listed()} == first


def test_the_real_data_gives_three_tasks(shared, run, tmp_path):
    done = run("data/human", "--input", shared, "--langs", "fr,zh", "--output", tmp_path)
    assert done.code == 0, done.err
    out = str(tmp_path)
    english = read_udpos(f"{out}/udpos/train-en.tsv")
    assert len(english) == 1000 and len(read_pairs(f"{out}/xnli/train-en.tsv", "xnli")) == 1992
    for lang, linked in (("fr", 999), ("zh", 998)):  # of Chinese, one more has no links
        pairs = list(read_parallel(f"{out}/udpos/train-en-{lang}.txt"))
        assert [source for source, _ in pairs] == [words for words, _ in english] and all(target for _, target in pairs)
        assert len(list(read_parallel(f"{out}/xnli/train-en-{lang}.txt"))) == 2 * 1992
        assert len(list(read_parallel(f"{out}/parallel/en-{lang}.txt"))) > 6000
        links = list(read_pharaoh(f"{out}/udpos/manual-{lang}.align"))
        assert len(links) == 1000 and sum(map(bool, links)) == linked
        assert all(i < len(source) and j < len(target) for (source, target), s in zip(pairs, links) for i, j in s)
    for task, tests in (("udpos", 29), ("xnli", 15), ("pawsx", 4)):
        assert len([name for name in os.listdir(f"{out}/{task}") if name.startswith("dev-")]) == tests
    train, dev = (read_pairs(f"{out}/pawsx/{name}.tsv", "pawsx") for name in ("train-en", "dev-en"))
    assert len(train) + len(dev) == 2000 and len(train) in range(1590, 1601)
    assert not {text for row in train for text in row[:2]} & {text for row in dev for text in row[:2]}
    assert not {row[0] for row in read_pairs(f"{out}/xnli/train-en.tsv", "xnli")} & {
        row[0] for row in read_pairs(f"{out}/xnli/dev-en.tsv", "xnli")
    }
