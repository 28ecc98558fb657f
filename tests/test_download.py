"""data/download.py and a server on this machine: archives become XTREME's files; connections and archives fail."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from conftest import ROOT

import data.download as download
import data.human  # noqa: F401  takes the lists of languages before a test replaces them
from data.files import read_pairs, read_udpos

NOWHERE = "http://127.0.0.1:9/{}"  # the discard port, where nothing listens


# ---- a server that can misbehave ----------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Serves server.files ({path: bytes}); server.ways ({path: {...}}) tells how each path misbehaves."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        path, asked = self.path, self.headers.get("Range")
        way, body = self.server.ways.get(path, {}), self.server.files.get(path)
        self.server.seen.append((path, asked))
        if way.get("status"):  # each status is answered once
            return self.send_error(way["status"].pop(0))
        if "to" in way or "once" in way:
            self.send_response(302)
            self.send_header("Location", way.pop("once", None) or way["to"])
            return self.end_headers()
        if body is None:
            return self.send_error(404)
        start = 0 if asked is None or way.get("no_range") else int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body) and asked:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Type", way.get("type", "application/octet-stream"))
        if not way.get("no_length"):
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = way["cut"].pop(0) if way.get("cut") else len(body)
        self.wfile.write(body[start : start + cut])
        if way.get("drip"):  # the rest so slowly that it takes half a minute
            with contextlib.suppress(OSError):
                for at in range(start + cut, len(body), 200):
                    self.wfile.write(body[at : at + 200])
                    time.sleep(0.05)


@pytest.fixture
def server(monkeypatch, tmp_path_factory):
    if not shutil.which("curl"):
        pytest.skip("curl is not here")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr(download, "SOURCES", str(tmp_path_factory.mktemp("table") / "sources.tsv"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.files, web.ways, web.seen = {}, {}, []
        web.address = f"http://127.0.0.1:{web.server_port}"
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield web
        web.shutdown()


def serve(server, files, addresses=("{}",)):
    """Let the script's table name files ({name: bytes}) at addresses of the server; the first one has them."""
    whole = [address if address.startswith("http") else f"{server.address}/{address}" for address in addresses]
    with open(download.SOURCES, "w") as stream:
        for name, content in files.items():
            server.files["/" + addresses[0].format(name)] = content
            row = [name, str(len(content)), hashlib.sha256(content).hexdigest(), *(a.format(name) for a in whole)]
            stream.write("\t".join(row) + "\n")


def zipped(files):
    """The bytes of a zip archive of {name: text or bytes}."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(files):
    """The bytes of a tar.gz archive of {name: text or bytes}."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def tree(folder):
    """Every file below a folder, hidden ones included."""
    return sorted(
        os.path.relpath(os.path.join(top, name), folder) for top, _, names in os.walk(folder) for name in names
    )


PAWSX = {
    "x-final/en/train.tsv": "id\tsentence1\tsentence2\tlabel\n1\tA dog .\tOne dog .\t1\n2\tA dog .\tA cat .\t0\n",
    "x-final/en/dev_2k.tsv": 'id\tsentence1\tsentence2\tlabel\n1\t He said "no" . \tNo , he said .\t1\n',
    "x-final/en/test_2k.tsv": "id\tsentence1\tsentence2\tlabel\n1\ta\tb\t0\n",
}


@pytest.fixture
def pawsx(server, monkeypatch):
    """A small PAWS-X in English alone, as the only file of the table."""
    monkeypatch.setattr(download, "PAWSX_LANGS", ["en"])
    server.content = tarred({**PAWSX, "x-final/en/filler": os.urandom(200_000)})
    serve(server, {"x-final.tar.gz": server.content})
    return server


@pytest.fixture
def fetch(run, tmp_path):
    """fetch('pawsx', ...) runs the script for tasks; its result, and the folder that it writes to."""
    folder = tmp_path / "data"

    def call(tasks, *arguments):
        done = run("data/download", "--output", folder, "--tasks", tasks, *arguments)
        return SimpleNamespace(**vars(done), folder=folder, archives=folder / "archives")

    return call


# ---- what comes out --------------------------------------------------------------------------------------


def original_rows(path):
    """The rows of an XTREME file before its csv quoting."""
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t"))


def test_xnli_comes_out_as_xtremes_files(shared, server, monkeypatch, fetch):
    theirs = os.path.join(shared, "xtreme", "xnli")
    tables = {}
    for split in ("dev", "test"):
        lines = ["language\tgold_label\tb1\tb2\tp1\tp2\tsentence1\tsentence2\tpromptID"]
        for lang in download.XNLI_LANGS:
            for one, other, *label in original_rows(os.path.join(theirs, f"{split}-{lang}.tsv")):
                lines.append("\t".join([lang, *(label or ["neutral"]), "", "", "", "", one, other, "7"]))
        tables[f"XNLI-1.0/xnli.{split}.tsv"] = "\n".join(lines) + "\n"
    mt = {
        f"XNLI-MT-1.0/multinli/multinli.train.{lang}.tsv": f"premise\thypo\tlabel\n{lang} 1\t{lang} 2\tcontradictory\n"
        for lang in ("en", "fr", "de", "hi", "zh", "ar")
    }
    serve(server, {"XNLI-1.0.zip": zipped(tables), "XNLI-MT-1.0.zip": zipped(mt)})
    done = fetch("xnli")
    assert done.code == 0 and done.err == "" and "35 files written" in done.out
    names = sorted(os.listdir(theirs))
    assert len(names) == 30 and all(
        read(done.folder / "xnli" / name) == read(os.path.join(theirs, name)) for name in names
    )


def test_the_training_set_of_xnli_stays_parallel_with_its_translations(server, monkeypatch, fetch, run, tmp_path):
    header = "premise\thypo\tlabel\n"
    english = header + 'A "dog" \tIt barks.\tcontradictory\nA\u2028 cat\x85.\tIt\u00a0sleeps.\tneutral\n'
    french = header + "Un « chien »\tIl aboie.\tcontradictory\nUn chat.\tIl dort.\tneutral\n"
    lines = {lang: english if lang == "en" else french for lang in ("en", "fr", "de", "hi", "zh")}
    mt = zipped({f"XNLI-MT-1.0/multinli/multinli.train.{lang}.tsv": content for lang, content in lines.items()})
    rows = "".join(f"{lang}\tneutral\t\t\t\t\ta\tb\n" for lang in download.XNLI_LANGS)
    xnli = zipped({f"XNLI-1.0/xnli.{split}.tsv": "header" + 7 * "\t" + "x\n" + rows for split in ("dev", "test")})
    serve(server, {"XNLI-1.0.zip": xnli, "XNLI-MT-1.0.zip": mt})
    done = fetch("xnli")
    folder = done.folder / "xnli"
    assert done.code == 0
    assert read(folder / "train-en.tsv").decode() == (
        '"A ""dog"""\tIt barks.\tcontradiction\r\nA\u2028 cat\x85.\tIt\u00a0sleeps.\tneutral\r\n'
    )
    assert read(folder / "translate-train" / "multinli.train.hi.tsv") == french.encode()
    assert read_pairs(str(folder / "test-sw.tsv"), "xnli") == [("a", "b", None)]
    arguments = ["--source", folder / "train-en.tsv", "--target", folder / "translate-train" / "multinli.train.fr.tsv"]
    assert run("data/split", "--task", "xnli", *arguments, "--output", tmp_path / "out", "--every").code == 0
    assert len((tmp_path / "out").read_text().split("\n")) == 5


def test_pawsx_comes_out_as_xtremes_files(shared, server, monkeypatch, fetch):
    theirs, langs = os.path.join(shared, "xtreme", "pawsx"), ["de", "en", "fr", "zh"]
    monkeypatch.setattr(download, "PAWSX_LANGS", langs)
    members = {"x-final/en/train.tsv": PAWSX["x-final/en/train.tsv"]}
    for name in sorted(os.listdir(theirs)):
        split, lang = name[:-4].split("-")
        rows = [
            "\t".join([str(i), one, other, *(label or "0")])
            for i, (one, other, *label) in enumerate(original_rows(f"{theirs}/{name}"), 1)
        ]
        members[f"x-final/{lang}/{split}_2k.tsv"] = "id\tsentence1\tsentence2\tlabel\n" + "\n".join(rows) + "\n"
    serve(server, {"x-final.tar.gz": tarred(members)})
    done = fetch("pawsx")
    assert done.code == 0 and len(members) == 9
    assert all(read(done.folder / "pawsx" / name) == read(os.path.join(theirs, name)) for name in os.listdir(theirs))
    assert read_pairs(str(done.folder / "pawsx" / "train-en.tsv"), "pawsx") == [
        ("A dog .", "One dog .", "1"),
        ("A dog .", "A cat .", "0"),
    ]


def test_pawsx_is_quoted_as_xtreme_does(pawsx, fetch):
    done = fetch("pawsx")
    assert read(done.folder / "pawsx" / "dev-en.tsv") == b'"He said ""no"" ."\tNo , he said .\t1\r\n'
    assert read(done.folder / "pawsx" / "test-en.tsv") == b"a\tb\r\n"


def word(number, form, tag, head=0):
    return f"{number}\t{form}\t_\t{tag}\t_\t_\t{head}\t_\t_\t_\n"


def treebank(*words):
    """A CoNLL-U file with one sentence of each word."""
    return "".join(f"# text = {form}\n{word(1, form, 'NOUN')}\n" for form in words)


UD = {
    "UD_English-GUM/en_gum-ud-dev.conllu": treebank("gum"),
    "UD_English-GUM/en_gum-ud-test.conllu": treebank("gum"),
    "UD_English-EWT/en_ewt-ud-train.conllu": treebank("one")
    + word(1, "broken", "NOUN").replace("\t_\n", "\n")
    + "\n"
    + treebank("three"),
    "UD_English-EWT/en_ewt-ud-dev.conllu": treebank("new\u00a0 york", "b\u200cc"),
    "UD_English-EWT/en_ewt-ud-test.conllu": treebank("a"),
    "UD_English-ESL/en_esl-ud-dev.conllu": treebank("_"),
    "UD_English-PUD/en_pud-ud-test.conllu": treebank("pud"),
    "UD_English-EWT/not-to-release/en_ewt.conllu": "no treebank",
    "UD_Tagalog-TRG/tl_trg-ud-test.conllu": treebank("isa"),
    "UD_Old_English-X/ang_x-ud-dev.conllu": treebank("other"),
}
UD_FILES = {
    "dev-en.tsv": "new\u00a0york\tNOUN\n\nbc\tNOUN\n\ngum\tNOUN\n",
    "test-en.tsv": "a\n\ngum\n\npud\n",
    "test-tl.tsv": "isa\n",
    "train-en.tsv": "one\tNOUN\n\nthree\tNOUN\n",
}


@pytest.fixture
def ud(server, monkeypatch):
    """A small UD release in its archive."""
    monkeypatch.setattr(download, "UDPOS_LANGS", {"train": ["en"], "dev": ["en"], "test": ["en", "tl"]})
    serve(server, {"ud-treebanks-v2.5.tgz": tarred({f"./ud-treebanks-v2.5/{name}": text for name, text in UD.items()})})
    return server


def check_udpos(folder):
    assert {name: (folder / "udpos" / name).read_text() for name in os.listdir(folder / "udpos")} == UD_FILES


def test_udpos_files_hold_all_treebanks_of_a_language_in_sorted_order(ud, fetch):
    done = fetch("udpos")
    assert done.code == 0 and done.err == "" and "en_ewt-ud-train.conllu: 1 sentences left out" in done.out
    check_udpos(done.folder)
    assert tree(done.folder) == [f"udpos/{name}" for name in sorted(UD_FILES)]  # no archive, no temporary folder
    assert len(ud.seen) == 1


def test_udpos_of_a_real_treebank_is_xtremes(shared, server, monkeypatch, fetch):
    monkeypatch.setattr(download, "UDPOS_LANGS", {"dev": ["zh"]})
    content = read(os.path.join(shared, "ud25", "zh_gsd-ud-dev.conllu"))
    serve(
        server,
        {"ud-treebanks-v2.5.tgz": tarred({"ud-treebanks-v2.5/UD_Chinese-GSD/zh_gsd-ud-dev.conllu": content})},
    )
    done = fetch("udpos")
    ours = read(done.folder / "udpos" / "dev-zh.tsv")
    theirs = os.path.join(shared, "xtreme", "udpos", "dev-zh.tsv")
    assert done.code == 0 and read(theirs).startswith(ours + b"\n")
    assert read_udpos(str(done.folder / "udpos" / "dev-zh.tsv")) == read_udpos(theirs)[:500]


def test_a_treebank_that_cannot_be_converted_is_named_and_the_others_are(ud, monkeypatch, fetch):
    content = tarred(
        {
            f"ud-treebanks-v2.5/{name}": text.replace("\tNOUN\t", "\tN\t" if "tl_" in name else "\tNOUN\t")
            for name, text in UD.items()
        }
    )
    serve(ud, {"ud-treebanks-v2.5.tgz": content})
    done = fetch("udpos")
    assert done.code == 2 and done.err.count("\n") == 1 and "tl_trg-ud-test.conllu:2: unknown tag 'N'" in done.err
    assert sorted(os.listdir(done.folder / "udpos")) == sorted(UD_FILES.keys() - {"test-tl.tsv"}) and len(ud.seen) == 1


def test_a_part_without_treebanks_is_named(ud, fetch):
    serve(ud, {"ud-treebanks-v2.5.tgz": tarred({name: text for name, text in UD.items() if "tl_" not in name})})
    done = fetch("udpos")
    assert done.code == 2 and done.err.count("\n") == 1 and "(no tl_*-ud-test.conllu in it)" in done.err


def test_pud_comes_as_it_is_and_is_what_human_reads(shared, ud, fetch, run, tmp_path):
    members = {
        f"ud-treebanks-v2.5/UD_X-PUD/{lang}_pud-ud-test.conllu": read(os.path.join(shared, "pud", f"{lang}_pud.conllu"))
        for lang in ("en", "fr", "de", "hi", "zh")
    }
    others = {name: text for name, text in UD.items() if "PUD" not in name}
    serve(ud, {"ud-treebanks-v2.5.tgz": tarred(others | members)})
    done = fetch("udpos,pud")
    assert done.code == 0 and len(ud.seen) == 1
    assert all(read(done.folder / "pud" / os.path.basename(name)) == content for name, content in members.items())
    made = run("data/human", "--input", done.folder, "--tasks", "udpos", "--output", tmp_path / "human")
    assert made.code == 0 and (tmp_path / "human" / "udpos" / "train-en-hi.txt").exists()


def test_tydiqa_comes_out_as_xtremes_training_file(shared, server, monkeypatch, fetch):
    theirs = os.path.join(shared, "xtreme", "tydiqa", "tydiqa.goldp.en.train.json")
    document = json.loads(read(theirs))
    articles = []
    for i, article in enumerate(document["data"]):
        [paragraph] = article["paragraphs"]
        qas = [{**qa, "id": f"english--{i}-{qa['id']}"} for qa in paragraph["qas"]]
        articles.append({"title": "t", "paragraphs": [{"context": paragraph["context"], "qas": qas}]})
    finnish = {"question": "Mikä?", "id": "finnish--3-0", "answers": [{"text": "Se", "answer_start": 0}]}
    articles.insert(1, {"title": "t", "paragraphs": [{"context": "Se.", "qas": [finnish]}]})
    dev = {"version": "v", "data": [articles[1]]}
    members = {
        f"tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-{lang}.json": json.dumps(dev)
        for lang in download.TYDIQA_LANGS.values()
    }
    train = json.dumps({"version": document["version"], "data": articles}).encode()
    serve(server, {"tydiqa-goldp-v1.1-train.json": train, "tydiqa-goldp-v1.1-dev.tgz": tarred(members)})
    done = fetch("tydiqa")
    assert done.code == 0 and len(os.listdir(done.folder / "tydiqa")) == 10
    assert read(done.folder / "tydiqa" / "tydiqa.goldp.en.train.json") == read(theirs)
    written = json.loads(read(done.folder / "tydiqa" / "tydiqa.goldp.fi.dev.json"))
    assert written == {"data": [{"paragraphs": [{"context": "Se.", "qas": [finnish]}]}], "version": "v"}


def test_question_answering_and_translations_come_as_they_are(server, monkeypatch, fetch):
    texts = {
        name: f"{name} ü\r\nwithout a line end".encode()
        for _, name, _, _ in download.plan(download.TASKS)
        if name.endswith(".json") or "-translated" in name
    }
    mlqa = {
        f"MLQA_V1/dev/dev-context-{one}-question-{two}.json": f"{one} {two}"
        for one in ("en", "zh")
        for two in ("en", "zh")
    }
    monkeypatch.setattr(download, "MLQA_LANGS", ["en", "zh"])
    serve(
        server,
        {**texts, "MLQA_V1.zip": zipped({**mlqa, "MLQA_V1/test/test-context-en-question-en.json": "x"})},
    )
    done = fetch("squad,xquad,mlqa,translations")
    assert done.code == 0
    expected = [f"mlqa/MLQA_V1/dev/dev-context-{lang}-question-{lang}.json" for lang in ("en", "zh")]
    expected += [f"pawsx/translate-train/en-{lang}-translated.tsv" for lang in ("de", "fr", "zh")]
    expected += ["squad/dev-v1.1.json", "squad/train-v1.1.json"] + [
        f"squad/translate-train/squad.translate.train.en-{lang}.json" for lang in ("de", "hi", "zh")
    ]
    assert tree(done.folder) == sorted(expected + [f"xquad/xquad.{lang}.json" for lang in download.XQUAD_LANGS])
    assert all(read(done.folder / name) == texts[os.path.basename(name)] for name in expected[2:])
    assert (done.folder / expected[1]).read_text() == "zh zh"


# ---- what is there already ---------------------------------------------------------------------------------


def test_a_second_run_fetches_and_writes_nothing(pawsx, fetch):
    done = fetch("pawsx")
    assert done.code == 0 and tree(done.folder) == ["pawsx/dev-en.tsv", "pawsx/test-en.tsv", "pawsx/train-en.tsv"]
    before, requests = os.stat(done.folder / "pawsx" / "dev-en.tsv"), len(pawsx.seen)
    done = fetch("pawsx")
    assert done.code == 0 and "0 files written, 3 were there already" in done.out
    assert len(pawsx.seen) == requests and os.stat(done.folder / "pawsx" / "dev-en.tsv").st_ino == before.st_ino


def test_only_what_is_missing_is_written_again(pawsx, fetch):
    done = fetch("pawsx")
    os.remove(done.folder / "pawsx" / "test-en.tsv")
    (done.folder / "pawsx" / "dev-en.tsv").write_text("mine")
    done = fetch("pawsx")
    assert done.code == 0 and "1 files written, 2 were there already" in done.out
    assert read(done.folder / "pawsx" / "test-en.tsv") == b"a\tb\r\n"
    assert read(done.folder / "pawsx" / "dev-en.tsv") == b"mine" and not done.archives.exists()


# ---- servers and connections -------------------------------------------------------------------------------


def test_a_cut_connection_is_taken_up_where_it_was_cut(pawsx, fetch):
    pawsx.ways["/x-final.tar.gz"] = {"cut": [70_000, 50_000]}
    done = fetch("pawsx")
    assert done.code == 0 and [asked for _, asked in pawsx.seen] == [None, "bytes=70000-", "bytes=120000-"]


def test_a_part_of_an_earlier_run_is_completed(pawsx, fetch, tmp_path):
    os.makedirs(tmp_path / "data" / "archives")
    (tmp_path / "data" / "archives" / "x-final.tar.gz.part").write_bytes(pawsx.content[:90_000])
    done = fetch("pawsx")
    assert done.code == 0 and pawsx.seen == [("/x-final.tar.gz", "bytes=90000-")]


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * 1_000_000])
def test_a_part_of_something_else_is_thrown_away(pawsx, fetch, tmp_path, part):
    os.makedirs(tmp_path / "data" / "archives")
    (tmp_path / "data" / "archives" / "x-final.tar.gz.part").write_bytes(part)
    done = fetch("pawsx")
    assert done.code == 0 and pawsx.seen[-1] == ("/x-final.tar.gz", None)


def test_a_part_that_is_whole_already_is_used(pawsx, fetch, tmp_path):
    os.makedirs(tmp_path / "data" / "archives")
    (tmp_path / "data" / "archives" / "x-final.tar.gz.part").write_bytes(pawsx.content)
    done = fetch("pawsx")
    assert done.code == 0 and [asked for _, asked in pawsx.seen] == [f"bytes={len(pawsx.content)}-"]


def test_a_server_without_ranges_sends_it_whole_again(pawsx, fetch):
    pawsx.ways["/x-final.tar.gz"] = {"cut": [70_000], "no_range": True}
    done = fetch("pawsx")
    assert done.code == 0 and [asked for _, asked in pawsx.seen] == [None, "bytes=70000-", None]


def test_a_connection_that_brings_nothing_is_given_up_and_its_part_kept(pawsx, fetch):
    pawsx.ways["/x-final.tar.gz"] = {"cut": [70_000] + [0] * 10}
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "could not be had (" in done.err
    assert len(pawsx.seen) == 1 + download.RETRIES
    assert read(done.archives / "x-final.tar.gz.part") == pawsx.content[:70_000]


def test_busy_servers_are_asked_again_and_redirects_followed(pawsx, fetch):
    pawsx.files["/elsewhere"] = pawsx.files.pop("/x-final.tar.gz")
    pawsx.ways = {"/x-final.tar.gz": {"to": "/elsewhere"}, "/elsewhere": {"status": [503, 429], "cut": [100]}}
    done = fetch("pawsx")
    assert done.code == 0 and pawsx.seen[-1] == ("/elsewhere", "bytes=100-")


@pytest.mark.parametrize("way", [{}, {"status": [403]}, {"page": 1}, {"size": 10}, {"damaged": 1}], ids=str)
def test_an_address_without_the_right_file_is_passed_over(pawsx, fetch, way):
    serve(pawsx, {"x-final.tar.gz": pawsx.content}, ["good/{}"])
    with open(download.SOURCES) as stream:
        row = stream.read()
    with open(download.SOURCES, "w") as stream:
        stream.write(row.replace(pawsx.address + "/good", f"{pawsx.address}/bad/x-final.tar.gz\t{pawsx.address}/good"))
    if way:
        pawsx.files["/bad/x-final.tar.gz"] = pawsx.content[: way.get("size")]
        pawsx.ways["/bad/x-final.tar.gz"] = way
    if "damaged" in way:
        pawsx.files["/bad/x-final.tar.gz"] = b"x" + pawsx.content[1:]
    if "page" in way:
        pawsx.files["/bad/x-final.tar.gz"] = b"<html>"
    done = fetch("pawsx")
    assert done.code == 0 and [path.split("/")[1] for path, _ in pawsx.seen] == ["bad", "good"]


def test_an_interruption_ends_it_soon_and_keeps_the_part(pawsx, tmp_path):
    pawsx.ways["/x-final.tar.gz"] = {"cut": [70_000], "drip": True}
    folder = tmp_path / "data"
    program = (
        "import sys, data.download as d\n"
        f"d.PAWSX_LANGS, d.SOURCES = ['en'], {download.SOURCES!r}\n"
        f"sys.argv = ['download.py', '--output', {str(folder)!r}, '--tasks', 'pawsx']\n"
        "d.run_script(d.main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "no_proxy": "*"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    part = folder / "archives" / "x-final.tar.gz.part"
    deadline = time.time() + 20
    while not (part.exists() and part.stat().st_size >= 60_000) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.decode() == "download.py: interrupted\n"
    assert tree(folder) == ["archives/x-final.tar.gz.part"]
    assert pawsx.content.startswith(part.read_bytes())


# ---- when it cannot be had -----------------------------------------------------------------------------------


def test_without_a_network_one_line_says_what_to_put_where(pawsx, monkeypatch, fetch):
    serve(pawsx, {"x-final.tar.gz": pawsx.content}, [NOWHERE, NOWHERE.replace("{}", "other/{}")])
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "onnect" in done.err
    where = str(done.archives / "x-final.tar.gz")
    assert done.err.startswith(f"download.py: error: {where}: could not be had")
    assert all(address in done.err for address in download.known_files()["x-final.tar.gz"][2])
    (done.archives / "x-final.tar.gz").write_bytes(pawsx.content)
    done = fetch("pawsx")
    assert done.code == 0 and not done.archives.exists()


def test_a_wrong_file_put_by_hand_is_named_and_stays(pawsx, monkeypatch, fetch, tmp_path):
    serve(pawsx, {"x-final.tar.gz": pawsx.content}, [NOWHERE])
    os.makedirs(tmp_path / "data" / "archives")
    (tmp_path / "data" / "archives" / "x-final.tar.gz").write_bytes(b"x" * len(pawsx.content))
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "the file there is wrong, it has another sha256" in done.err
    assert tree(done.folder) == ["archives/x-final.tar.gz"]


def test_what_can_be_had_is_written_before_the_error(pawsx, monkeypatch, fetch):
    with open(download.SOURCES, "a") as stream:
        for name in (f"en-{lang}-translated.tsv" for lang in ("fr", "de", "zh")):
            stream.write(f"{name}\t1\t00\t{NOWHERE.format(name)}\n")
    done = fetch("translations,pawsx")
    assert done.code == 2 and done.err.count("\n") == 3 and done.err.count("-translated.tsv: could not be had") == 3
    assert tree(done.folder) == ["pawsx/dev-en.tsv", "pawsx/test-en.tsv", "pawsx/train-en.tsv"]


def test_a_curl_that_cannot_do_several_at_once_does_one_after_the_other(server, monkeypatch, fetch, tmp_path):
    """Curl before 7.66, as Red Hat 8 has it; it reports no messages either."""
    old = tmp_path / "bin" / "curl"
    old.parent.mkdir()
    report = "%{filename_effective}\\\\t%{http_code}\\\\t\\\\t\\\\n"
    old.write_text(
        f"""#!{sys.executable}
import os, sys
if "--parallel" in sys.argv:
    sys.exit(2)
arguments = ["{report}" if "exitcode" in word else word for word in sys.argv[1:]]
os.execv({shutil.which("curl")!r}, ["curl", *arguments])
"""
    )
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    serve(server, {f"xquad.{lang}.json": os.urandom(100_000).hex().encode() for lang in download.XQUAD_LANGS})
    server.ways = {"/xquad.de.json": {"cut": [20_000]}, "/xquad.hi.json": {"status": [503]}}
    done = fetch("xquad")
    assert done.code == 0 and len(os.listdir(done.folder / "xquad")) == 11, done.err
    assert len(server.seen) == 13 and ("/xquad.de.json", "bytes=20000-") in server.seen


def test_without_curl_one_line_says_so(pawsx, monkeypatch, fetch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "curl: not found; install it" in done.err
    (done.archives / "x-final.tar.gz").write_bytes(pawsx.content)
    assert fetch("pawsx").code == 0


# ---- archives --------------------------------------------------------------------------------------------------


def test_an_archive_with_the_right_sum_is_not_fetched_again(pawsx, monkeypatch, fetch):
    serve(pawsx, {"x-final.tar.gz": tarred({name: text for name, text in PAWSX.items() if "dev" not in name})})
    done = fetch("pawsx")
    assert (
        done.code == 2
        and done.err.count("\n") == 1
        and "cannot be converted (no x-final/en/dev_2k.tsv in it)" in done.err
    )
    assert len(pawsx.seen) == 1 and "archives/x-final.tar.gz" in tree(done.folder)


def test_a_malformed_table_leaves_nothing_half_written(server, monkeypatch, fetch):
    monkeypatch.setattr(download, "PAWSX_LANGS", ["en"])
    broken = {**PAWSX, "x-final/en/dev_2k.tsv": PAWSX["x-final/en/dev_2k.tsv"] + "2\tno more\n"}
    serve(server, {"x-final.tar.gz": tarred(broken)})
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "line 3 has 2 columns" in done.err
    assert tree(done.folder) == ["archives/x-final.tar.gz", "pawsx/train-en.tsv"]


# ---- the table and the command line ------------------------------------------------------------------------------


def test_the_table_names_every_file_of_every_task(run):
    known = download.known_files()
    assert {name for _, name, _, _ in download.plan(download.TASKS)} == known.keys()
    for size, sha256, addresses in known.values():
        assert size > 0 and len(bytes.fromhex(sha256)) == 32
        assert addresses and all(address.startswith("https://") for address in addresses)
    targets = {target for step in download.plan(download.DEFAULT_TASKS.split(",")) for target in step[2]}
    udpos = {target[6:] for target in targets if target.startswith("udpos/")}
    assert len(udpos) == 33 + 29 + 30 and {"test-th.tsv", "train-kk.tsv", "dev-mr.tsv"} < udpos
    assert not udpos & {f"dev-{lang}.tsv" for lang in ("kk", "th", "tl", "yo")}
    done = run("data/download", "--list", "--output", "here")
    assert done.code == 0 and done.err == ""
    assert all(address in done.out for _, _, addresses in known.values() for address in addresses)
    assert f"here/archives/XNLI-1.0.zip\t17865352\t{known['XNLI-1.0.zip'][1]}\thttps://" in done.out


def test_every_dev_language_of_xtreme_is_written(shared):
    udpos = {target[6:] for target in download.plan(["udpos"])[0][2]}
    assert set(os.listdir(os.path.join(shared, "xtreme", "udpos"))) <= udpos


@pytest.mark.parametrize("arguments", [["--tasks", "pos"], ["--tasks", ""], [], ["--jobs", "0"]])
def test_a_wrong_command_line_is_one_line(run, tmp_path, arguments):
    done = run("data/download", *(["--output", tmp_path / "data"] if arguments else []), *arguments)
    assert done.code == 2 and done.err.count("\n") == 1 and not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_is_one_line(pawsx, fetch, tmp_path):
    (tmp_path / "data").write_text("a file")
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and pawsx.seen == []
