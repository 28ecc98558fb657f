"""PROFILE=full from an empty folder: real data served on this machine; with FULL=1 the whole grid to its report."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from http.server import ThreadingHTTPServer

import pytest
from test_download import Handler, original_rows, tarred, zipped
from test_run_all import option, plan, project, run_all, scripts  # noqa: F401
from test_translate import save_marian

from data.download import PAWSX_LANGS, UDPOS_LANGS, XNLI_LANGS
from data.files import read_udpos

WHOLE = os.environ.get("FULL") == "1"
TRAIN, DEV = 200, 12  # sentences, pairs or paragraphs of each file


def conllu(sentences):
    """The text of a treebank of these (words, tags)."""
    lines = []
    for words, tags in sentences:
        rows = enumerate(zip(words, tags), 1)
        lines += [f"{k}\t{word}\t_\t{tag}\t_\t_\t{int(k > 1)}\t_\t_\t_" for k, (word, tag) in rows] + [""]
    return "\n".join(lines) + "\n"


def archives(xtreme):
    """{name: bytes} of archives like the real ones, made from the first lines of XTREME's files."""
    treebanks = {}
    for split, lang in ((split, lang) for split, langs in UDPOS_LANGS.items() for lang in langs if WHOLE):
        path = os.path.join(xtreme, "udpos", "train-en.tsv" if (split, lang) == ("train", "en") else f"dev-{lang}.tsv")
        sentences = read_udpos(path if os.path.exists(path) else os.path.join(xtreme, "udpos", "dev-en.tsv"))
        most = TRAIN if "train-en" in path else DEV
        treebanks[f"ud-treebanks-v2.5/UD_{lang}/{lang}_some-ud-{split}.conllu"] = conllu(sentences[:most])

    def rows(task, name, most):
        return original_rows(os.path.join(xtreme, task, name))[:most]

    def table(header, lines):
        return "\n".join("\t".join(line) for line in [header, *lines]) + "\n"

    xnli = {}
    for split, most in (("dev", DEV), ("test", TRAIN)):
        lines = [
            [lang, *(label or ["neutral"]), "", "", "", "", one, other, "7"]
            for lang in XNLI_LANGS
            for one, other, *label in rows("xnli", f"{split}-{lang}.tsv", most)
        ]
        xnli[f"XNLI-1.0/xnli.{split}.tsv"] = table(
            "language gold_label b1 b2 p1 p2 sentence1 sentence2 promptID".split(), lines
        )
    names = {"contradiction": "contradictory"}
    mt = {
        f"XNLI-MT-1.0/multinli/multinli.train.{lang}.tsv": table(
            ["premise", "hypo", "label"],
            [[a, b, names.get(label, label)] for a, b, label in rows("xnli", f"dev-{lang}.tsv", TRAIN)],
        )
        for lang in ("en", "fr", "de", "hi", "zh")
    }
    pawsx, header = {}, ["id", "sentence1", "sentence2", "label"]
    for lang in PAWSX_LANGS:
        there = lang if lang in ("en", "de", "fr", "zh") else "en"
        for split in ("dev", "test"):
            lines = [["1", a, b, *(label or ["0"])] for a, b, *label in rows("pawsx", f"{split}-{there}.tsv", DEV)]
            pawsx[f"x-final/{lang}/{split}_2k.tsv"] = table(header, lines)
    english = rows("pawsx", "dev-en.tsv", TRAIN)
    pawsx["x-final/en/train.tsv"] = table(header, [["1", *row] for row in english])
    files = {
        "ud-treebanks-v2.5.tgz": tarred(treebanks),
        "XNLI-1.0.zip": zipped(xnli),
        "XNLI-MT-1.0.zip": zipped(mt),
        "x-final.tar.gz": tarred(pawsx),
    }
    for lang in ("fr", "de", "zh"):
        both = zip(english, rows("pawsx", f"dev-{lang}.tsv", TRAIN))
        files[f"en-{lang}-translated.tsv"] = "".join(
            "\t".join([a, b, c, d, label]) + "\n" for (a, b, label), (c, d, _) in both
        ).encode()
    return files


@pytest.fixture
def served(shared, project, monkeypatch):  # noqa: F811
    """The project with a table of sources whose addresses are on this machine."""
    monkeypatch.setenv("no_proxy", "*")
    path = project / "data" / "sources.tsv"
    original = path.read_text()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        files = archives(os.path.join(shared, "xtreme"))
        web.files, web.ways, web.seen = {"/" + name: body for name, body in files.items()}, {}, []
        with open(path, "w") as stream:
            for name, body in files.items():
                address = f"http://127.0.0.1:{web.server_port}/{name}"
                print(name, len(body), hashlib.sha256(body).hexdigest(), address, sep="\t", file=stream)
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield web
        web.shutdown()
    path.write_text(original)


def test_data_are_fetched_and_put_beside_their_translations(served, project, tmp_path):  # noqa: F811
    data = tmp_path / "my data"
    settings = {"PROFILE": "full", "DATA": str(data), "TASKS": "xnli pawsx", "ORDERS": "original fr", "SEEDS": "1"}
    settings |= {"LANGS": "fr", "MODELS": "some/encoder", "ALIGNERS": "joint"}
    before = plan(project, **settings)
    assert list(scripts(before).items())[:3] == [("download", 1), ("split", 3), ("finetune_aligner", 2)]
    done = run_all(project, "--setup", **settings)
    assert done.returncode == 0 and len(list((data / "xnli").glob("dev-*.tsv"))) == 15, done.stdout + done.stderr
    after = plan(project, **settings)  # data that lie there are not fetched again
    assert after == before[1:]
    for number in (number for number, words in enumerate(after, 1) if "data/split.py" in words):
        done = run_all(project, "--only", str(number), **settings)
        assert done.returncode == 0, done.stdout + done.stderr
    assert plan(project, **settings) == [words for words in after if "data/split.py" not in words]
    for task, sentences in {"xnli": 2 * TRAIN, "pawsx": 2 * TRAIN}.items():
        lines = (project / f"runs/full/data/{task}/train-en-fr.txt").read_text().splitlines()
        assert len(lines) == sentences and all(" ||| " in line for line in lines)
    os.remove(data / "pawsx/train-en.tsv")
    assert [option(words, "--output") for words in plan(project, **settings)][0] == str(data)


@pytest.mark.skipif(not WHOLE, reason="a quarter of an hour; FULL=1 does it")
def test_the_full_grid_runs_from_nothing_to_its_report(served, project, tmp_path, tiny_bert, tiny_xlmr):  # noqa: F811
    other = shutil.copytree(tiny_xlmr, tmp_path / "tiny-infoxlm")
    for lang in ("fr", "de", "hi", "zh"):
        save_marian(tmp_path / f"opus-mt-en-{lang}")
    settings = {
        "PROFILE": "full", "DATA": str(tmp_path / "data"), "MT": str(tmp_path / "opus-mt-en-"), "SEEDS": "1",
        "MODELS": f"{tiny_bert} {tiny_xlmr} {other}", "TUNE": "--max-steps 3", "POS": "--epochs 1 --max-dev 10",
        "PAIRS": "--epochs 1 --max-dev 10",
    }  # fmt: skip
    done = run_all(project, **settings)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    with open(project / "report" / "full" / "results.json", encoding="utf-8") as stream:
        results = json.load(stream)["results"]
    assert len(results) == 9
    # original, 4 orders by 3 aligners, 4 controls at least, and identity of pairs
    conditions, languages = {"udpos": 17, "xnli": 18, "pawsx": 18}, {"udpos": 29, "xnli": 15, "pawsx": 7}
    for result in results:
        assert len(result["languages"]) == languages[result["task"]]
        assert len(result["rows"]) >= conditions[result["task"]]
    assert plan(project, **settings) == []
    size = subprocess.run(["du", "-sm", str(project / "runs" / "full")], capture_output=True, text=True).stdout
    assert int(size.split()[0]) < 200
