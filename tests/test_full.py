"""PROFILE=full from an empty folder to its report: three families of models, real data served on this machine, one command.

FULL_GRID=1 takes every condition; without it, a few of each.
"""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from http.server import ThreadingHTTPServer

import pytest
from test_download import Handler, original_rows, tarred, zipped
from test_run_all import project, run_all, scripts  # noqa: F401
from test_translate import save_marian

from data.download import PAWSX_LANGS, UDPOS_LANGS, XNLI_LANGS
from data.files import read_udpos

TRAIN, DEV = 200, 12  # sentences, pairs or paragraphs of each file


def conllu(sentences):
    """The text of a treebank of these (words, tags)."""
    lines = []
    for words, tags in sentences:
        lines += [
            f"{k}\t{word}\t_\t{tag}\t_\t_\t{int(k > 1)}\t_\t_\t_" for k, (word, tag) in enumerate(zip(words, tags), 1)
        ] + [""]
    return "\n".join(lines) + "\n"


def archives(xtreme):
    """{path on the server: bytes} of archives like the real ones, made from the first lines of XTREME's files."""
    treebanks = {}
    for split, lang in ((split, lang) for split, langs in UDPOS_LANGS.items() for lang in langs):
        path = os.path.join(xtreme, "udpos", f"dev-{lang}.tsv")
        if split == "train" and lang == "en":
            path = os.path.join(xtreme, "udpos", "train-en.tsv")
        sentences = read_udpos(path if os.path.exists(path) else os.path.join(xtreme, "udpos", "dev-en.tsv"))
        name = f"ud-treebanks-v2.5/UD/{lang}_one-ud-{split}.conllu"
        treebanks[name] = conllu(sentences[: TRAIN if "train-en" in path else DEV])

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
    """The project with a table of files for data/download.py whose addresses are on this machine."""
    monkeypatch.setenv("no_proxy", "*")
    path = project / "data" / "sources.tsv"
    original = path.read_text()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        files = archives(os.path.join(shared, "xtreme"))
        path.write_text(
            "".join(
                f"{name}\t{len(body)}\t{hashlib.sha256(body).hexdigest()}\thttp://127.0.0.1:{web.server_port}/{name}\n"
                for name, body in files.items()
            )
        )
        web.files, web.ways, web.seen = {"/" + name: body for name, body in files.items()}, {}, []
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield web
        web.shutdown()
    path.write_text(original)


def test_the_full_grid_runs_from_nothing_to_its_report(served, project, tmp_path, tiny_bert, tiny_xlmr):  # noqa: F811
    other = shutil.copytree(tiny_xlmr, tmp_path / "tiny-infoxlm")
    for lang in ("fr", "de", "hi", "zh"):
        save_marian(tmp_path / f"opus-mt-en-{lang}")
    whole = os.environ.get("FULL_GRID") == "1"
    settings = {
        "PROFILE": "full",
        "DATA": str(tmp_path / "data"),
        "MT": str(tmp_path / "opus-mt-en-"),
        "MODELS": f"{tiny_bert} {tiny_xlmr} {other}",
        "TASKS": "udpos xnli pawsx",
        "ORDERS": "original identity random fr de hi zh" if whole else "original hi",
        "ALIGNERS": "pretrained separate joint" if whole else "joint",
        **{"SEEDS": "1", "EPOCHS": "1", "PAIR_EPOCHS": "1", "ALIGN_STEPS": "3", "MAX_DEV": "10"},
    }
    plan = run_all(project, tiny_bert, "--dry-run", **settings)
    assert (
        plan.returncode == 0 and "data/download.py" in plan.stdout.split("\n")[0] and not (tmp_path / "data").exists()
    )
    done = run_all(project, tiny_bert, **settings)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    with open(project / "report" / "full" / "results.json", encoding="utf-8") as stream:
        results = json.load(stream)["results"]
    assert len(results) == 9
    languages = {"udpos": 29, "xnli": 15, "pawsx": 7}
    conditions = {"udpos": 14, "xnli": 15, "pawsx": 15} if whole else dict.fromkeys(languages, 2)
    for result in results:
        assert (
            len(result["languages"]) == languages[result["task"]] and len(result["rows"]) == conditions[result["task"]]
        )
    assert scripts(run_all(project, tiny_bert, "--dry-run", **settings)) == []
    size = subprocess.run(["du", "-sm", str(project / "runs" / "full")], capture_output=True, text=True).stdout.split()[
        0
    ]
    assert int(size) < 200
