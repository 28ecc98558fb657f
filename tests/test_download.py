"""data/download.py against a server on this machine: real archives come out as XTREME's files; connections, servers and archives fail."""

import contextlib
import csv
import hashlib
import io
import json
import os
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
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setattr(download, "UD_GIT", NOWHERE.replace("{}", "{name}"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        web.files, web.ways, web.seen = {}, {}, []
        web.address = f"http://127.0.0.1:{web.server_port}"
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield web
        web.shutdown()


def serve(server, monkeypatch, files, addresses=("{}",), known=True):
    """Let the script's table name these files ({name: bytes}) at these addresses of the server, the first of which has them."""
    for name, content in files.items():
        server.files["/" + addresses[0].format(name)] = content
    entries = {
        name: (len(content), hashlib.sha256(content).hexdigest()) if known else (None, None)
        for name, content in files.items()
    }
    whole = [address if address.startswith("http") else f"{server.address}/{address}" for address in addresses]
    monkeypatch.setattr(download, "SOURCES", [(whole, entries)])


def zipped(files):
    """The bytes of a zip archive of {name: text or bytes}."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(files, links=None):
    """The bytes of a tar.gz archive of {name: text or bytes} and of symbolic links {name: what it points to}."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
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
    serve(server, monkeypatch, {"x-final.tar.gz": server.content})
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
    serve(server, monkeypatch, {"XNLI-1.0.zip": zipped(tables), "XNLI-MT-1.0.zip": zipped(mt)})
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
    serve(server, monkeypatch, {"XNLI-1.0.zip": xnli, "XNLI-MT-1.0.zip": mt})
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
    serve(server, monkeypatch, {"x-final.tar.gz": tarred(members)})
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


TREEBANKS = {"en": "English EWT GUM:dev,test PUD:test", "tl": "Tagalog TRG:test"}
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
    """A small UD release in its archive, and at its git tag."""
    monkeypatch.setattr(download, "UD_TREEBANKS", TREEBANKS)
    monkeypatch.setattr(download, "UD_GIT", server.address + "/UD_{language}-{treebank}/r2.5/{name}")
    for name, content in UD.items():
        server.files["/" + name.replace("/", "/r2.5/", 1)] = content.encode()
    serve(
        server,
        monkeypatch,
        {"ud-treebanks-v2.5.tgz": tarred({f"./ud-treebanks-v2.5/{name}": content for name, content in UD.items()})},
    )
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
    monkeypatch.setattr(download, "UD_TREEBANKS", {"zh": "Chinese GSD:dev"})
    content = read(os.path.join(shared, "ud25", "zh_gsd-ud-dev.conllu"))
    serve(
        server,
        monkeypatch,
        {"ud-treebanks-v2.5.tgz": tarred({"ud-treebanks-v2.5/UD_Chinese-GSD/zh_gsd-ud-dev.conllu": content})},
    )
    done = fetch("udpos")
    ours = read(done.folder / "udpos" / "dev-zh.tsv")
    theirs = os.path.join(shared, "xtreme", "udpos", "dev-zh.tsv")
    assert done.code == 0 and read(theirs).startswith(ours + b"\n")
    assert read_udpos(str(done.folder / "udpos" / "dev-zh.tsv")) == read_udpos(theirs)[:500]


def test_without_the_archive_the_git_tag_serves(ud, fetch):
    ud.files.pop("/ud-treebanks-v2.5.tgz")
    done = fetch("udpos")
    assert done.code == 0 and done.err == ""
    check_udpos(done.folder)
    assert not done.archives.exists()


def test_a_file_missing_at_the_git_tag_costs_its_own_output_alone(ud, fetch):
    ud.files.pop("/ud-treebanks-v2.5.tgz")
    ud.files.pop("/UD_English-EWT/r2.5/en_ewt-ud-train.conllu")
    done = fetch("udpos")
    assert (
        done.code == 2
        and done.err.count("\n") == 1
        and "r2.5-en_ewt-ud-train.conllu: could not be had (HTTP 404" in done.err
    )
    assert sorted(os.listdir(done.folder / "udpos")) == sorted(UD_FILES.keys() - {"train-en.tsv"})
    assert not any(name.startswith("archives/") for name in tree(done.folder))


def test_a_treebank_that_cannot_be_converted_is_named_and_the_others_are(ud, monkeypatch, fetch):
    content = tarred(
        {
            f"ud-treebanks-v2.5/{name}": text.replace("\tNOUN\t", "\tN\t" if "tl_" in name else "\tNOUN\t")
            for name, text in UD.items()
        }
    )
    serve(ud, monkeypatch, {"ud-treebanks-v2.5.tgz": content})
    done = fetch("udpos")
    assert done.code == 2 and done.err.count("\n") == 1 and "tl_trg-ud-test.conllu:2: unknown tag 'N'" in done.err
    assert sorted(os.listdir(done.folder / "udpos")) == sorted(UD_FILES.keys() - {"test-tl.tsv"}) and len(ud.seen) == 1


@pytest.mark.parametrize("tasks, requests", [("pud", 5), ("udpos,pud", 1)])
def test_pud_comes_from_the_git_tag_or_from_the_archive_that_is_fetched_anyway(
    shared, ud, monkeypatch, fetch, run, tmp_path, tasks, requests
):
    languages = dict(en="English", fr="French", de="German", hi="Hindi", zh="Chinese")
    monkeypatch.setattr(download, "UD_TREEBANKS", {lang: f"{name} PUD:test" for lang, name in languages.items()})
    members = {}
    for lang, name in languages.items():
        content = read(os.path.join(shared, "pud", f"{lang}_pud.conllu"))
        members[f"ud-treebanks-v2.5/UD_{name}-PUD/{lang}_pud-ud-test.conllu"] = content
        ud.files[f"/UD_{name}-PUD/r2.5/{lang}_pud-ud-test.conllu"] = content
    serve(ud, monkeypatch, {"ud-treebanks-v2.5.tgz": tarred(members)})
    done = fetch(tasks, "--keep-archives")
    assert done.code == 0 and len(ud.seen) == requests
    assert all(read(done.folder / "pud" / os.path.basename(name)) == content for name, content in members.items())
    assert (
        run("data/pud", "--input", done.folder, "--output", tmp_path / "pud").code == 0
    )  # kept archives do not confuse it


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
    serve(server, monkeypatch, {"tydiqa-goldp-v1.1-train.json": train, "tydiqa-goldp-v1.1-dev.tgz": tarred(members)})
    done = fetch("tydiqa")
    assert done.code == 0 and len(os.listdir(done.folder / "tydiqa")) == 10
    assert read(done.folder / "tydiqa" / "tydiqa.goldp.en.train.json") == read(theirs)
    written = json.loads(read(done.folder / "tydiqa" / "tydiqa.goldp.fi.dev.json"))
    assert written == {"data": [{"paragraphs": [{"context": "Se.", "qas": [finnish]}]}], "version": "v"}


def test_question_answering_and_translations_come_as_they_are(server, monkeypatch, fetch):
    texts = {
        name: f"{name} ü\r\nwithout a line end".encode()
        for name in download.known_files()
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
        monkeypatch,
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


def test_only_what_is_missing_is_written_again_and_kept_archives_are_used(pawsx, fetch):
    done = fetch("pawsx", "--keep-archives")
    assert read(done.archives / "x-final.tar.gz") == pawsx.content
    os.remove(done.folder / "pawsx" / "test-en.tsv")
    (done.folder / "pawsx" / "dev-en.tsv").write_text("mine")
    done = fetch("pawsx", "--keep-archives")
    assert done.code == 0 and len(pawsx.seen) == 1 and (done.archives / "x-final.tar.gz").exists()
    assert (
        read(done.folder / "pawsx" / "test-en.tsv") == b"a\tb\r\n"
        and read(done.folder / "pawsx" / "dev-en.tsv") == b"mine"
    )


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


def test_a_part_that_is_whole_already_but_of_unknown_size_is_fetched_again(pawsx, monkeypatch, fetch, tmp_path):
    serve(pawsx, monkeypatch, {"x-final.tar.gz": pawsx.content}, known=False)
    os.makedirs(tmp_path / "data" / "archives")
    (tmp_path / "data" / "archives" / "x-final.tar.gz.part").write_bytes(pawsx.content)
    done = fetch("pawsx")
    assert done.code == 0 and [asked for _, asked in pawsx.seen] == [f"bytes={len(pawsx.content)}-", None]


def test_a_server_without_ranges_sends_it_whole_again(pawsx, fetch):
    pawsx.ways["/x-final.tar.gz"] = {"cut": [70_000], "no_range": True}
    done = fetch("pawsx")
    assert done.code == 0 and len(pawsx.seen) == 2


def test_a_server_that_names_no_length_is_checked_by_the_known_size(pawsx, fetch):
    pawsx.ways["/x-final.tar.gz"] = {"cut": [70_000], "no_length": True}
    done = fetch("pawsx")
    assert done.code == 0 and [asked for _, asked in pawsx.seen] == [None, "bytes=70000-"]


def test_a_connection_that_brings_nothing_is_given_up_and_its_part_kept(pawsx, fetch):
    pawsx.ways["/x-final.tar.gz"] = {"cut": [70_000] + [0] * 10}
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "(the connection was cut)" in done.err
    assert len(pawsx.seen) == 1 + download.RETRIES
    assert read(done.archives / "x-final.tar.gz.part") == pawsx.content[:70_000]


def test_busy_servers_are_asked_again_and_redirects_followed(pawsx, fetch):
    pawsx.files["/elsewhere"] = pawsx.files.pop("/x-final.tar.gz")
    pawsx.ways = {"/x-final.tar.gz": {"to": "/elsewhere"}, "/elsewhere": {"status": [503, 429], "cut": [100]}}
    done = fetch("pawsx")
    assert done.code == 0 and pawsx.seen[-1] == ("/elsewhere", "bytes=100-")


@pytest.mark.parametrize(
    "way, times", [({}, 1), ({"status": [403]}, 1), ({"type": "text/html"}, 1), ({"size": 10}, 1), ({"damaged": 1}, 2)]
)
def test_an_address_without_the_right_file_is_passed_over(pawsx, monkeypatch, fetch, way, times):
    serve(pawsx, monkeypatch, {"x-final.tar.gz": pawsx.content}, ["good/{}"])
    download.SOURCES[0][0].insert(0, pawsx.address + "/bad/{}")
    if way:
        pawsx.files["/bad/x-final.tar.gz"] = pawsx.content[: way.get("size")]
        pawsx.ways["/bad/x-final.tar.gz"] = way
    if "damaged" in way:
        pawsx.files["/bad/x-final.tar.gz"] = b"x" + pawsx.content[1:]
    done = fetch("pawsx")
    assert done.code == 0 and [path.split("/")[1] for path, _ in pawsx.seen] == ["bad"] * times + ["good"]


def test_an_interruption_ends_it_soon_and_keeps_the_part(pawsx, tmp_path):
    pawsx.ways["/x-final.tar.gz"] = {"cut": [70_000], "drip": True}
    folder = tmp_path / "data"
    entry = (len(pawsx.content), hashlib.sha256(pawsx.content).hexdigest())
    program = (
        "import sys, data.download as d\n"
        f"d.PAWSX_LANGS, d.SOURCES = ['en'], [([{pawsx.address + '/{}'!r}], {{'x-final.tar.gz': {entry!r}}})]\n"
        f"sys.argv = ['download.py', '--output', {str(folder)!r}, '--tasks', 'pawsx']\n"
        "d.run_script(d.main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "no_proxy": "*"}
    )
    part = folder / "archives" / "x-final.tar.gz.part"
    deadline = time.time() + 20
    while not (part.exists() and part.stat().st_size >= 60_000) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert process.returncode == 130 and err.decode() == "download.py: interrupted\n"
    assert tree(folder) == ["archives/x-final.tar.gz.part"]
    assert pawsx.content.startswith(part.read_bytes())


# ---- when it cannot be had -----------------------------------------------------------------------------------


def test_without_a_network_one_line_says_what_to_put_where(pawsx, monkeypatch, fetch):
    serve(pawsx, monkeypatch, {"x-final.tar.gz": pawsx.content}, [NOWHERE, NOWHERE.replace("{}", "other/{}")])
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "refused" in done.err
    where = str(done.archives / "x-final.tar.gz")
    assert done.err.startswith(f"download.py: error: {where}: could not be had")
    assert all(address.format("x-final.tar.gz") in done.err for address in download.SOURCES[0][0])
    (done.archives / "x-final.tar.gz").write_bytes(pawsx.content)
    done = fetch("pawsx")
    assert done.code == 0 and not done.archives.exists()


def test_a_wrong_file_put_by_hand_is_named_and_stays(pawsx, monkeypatch, fetch, tmp_path):
    serve(pawsx, monkeypatch, {"x-final.tar.gz": pawsx.content}, [NOWHERE])
    os.makedirs(tmp_path / "data" / "archives")
    (tmp_path / "data" / "archives" / "x-final.tar.gz").write_bytes(b"x" * len(pawsx.content))
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "the file there is wrong, it has another sha256" in done.err
    assert tree(done.folder) == ["archives/x-final.tar.gz"]


def test_what_can_be_had_is_written_before_the_error(pawsx, monkeypatch, fetch):
    download.SOURCES.append(([NOWHERE], {f"en-{lang}-translated.tsv": (1, None) for lang in ("fr", "de", "zh")}))
    done = fetch("translations,pawsx")
    assert done.code == 2 and done.err.count("\n") == 3 and done.err.count("-translated.tsv: could not be had") == 3
    assert tree(done.folder) == ["pawsx/dev-en.tsv", "pawsx/test-en.tsv", "pawsx/train-en.tsv"]


def test_without_a_network_the_git_tag_is_not_tried_file_by_file(ud, monkeypatch, fetch):
    serve(ud, monkeypatch, {"ud-treebanks-v2.5.tgz": b"x"}, [NOWHERE])
    path = "/UD_English-EWT/r2.5/en_ewt-ud-train.conllu"
    ud.ways[path] = {"cut": [0] * 10}
    done = fetch("udpos")
    assert done.code == 2 and done.err.count("\n") == 1 and "ud-treebanks-v2.5.tgz: could not be had" in done.err
    assert ud.seen == [(path, None)] * download.RETRIES


def test_where_the_git_tag_has_none_the_archive_alone_is_named(ud, monkeypatch, fetch):
    ud.files.clear()
    done = fetch("udpos")
    assert (
        done.code == 2 and done.err.count("\n") == 1 and "ud-treebanks-v2.5.tgz: could not be had (HTTP 404" in done.err
    )


# ---- archives --------------------------------------------------------------------------------------------------


GOOD = tarred({"x-final/en/filler": os.urandom(100_000).hex(), **PAWSX})
BAD = {
    "cut": GOOD[:60_000],
    "overwritten": GOOD[:60_000] + b"\0" * 400 + GOOD[60_400:],
    "no archive": b"not found",
    "incomplete": tarred({name: content for name, content in PAWSX.items() if "dev" not in name}),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_damaged_archive_is_fetched_once_more_then_named(pawsx, monkeypatch, fetch, damage):
    serve(pawsx, monkeypatch, {"x-final.tar.gz": BAD[damage]}, known=False)
    done = fetch("pawsx")
    assert (
        done.code == 2
        and done.err.count("\n") == 1
        and "x-final.tar.gz: cannot be converted, fetched twice (" in done.err
    )
    assert len(pawsx.seen) == 2 and not any("archives" in name or "tmp" in name for name in tree(done.folder))
    pawsx.files["/x-final.tar.gz"] = GOOD
    assert fetch("pawsx").code == 0


def test_a_damaged_archive_is_mended_by_the_second_download(pawsx, monkeypatch, fetch):
    serve(pawsx, monkeypatch, {"x-final.tar.gz": GOOD}, known=False)
    pawsx.files["/first"], pawsx.ways["/x-final.tar.gz"] = BAD["cut"], {"once": "/first"}
    assert fetch("pawsx").code == 0 and len(pawsx.seen) == 3


def test_an_archive_with_the_right_sum_is_not_fetched_again(pawsx, monkeypatch, fetch):
    serve(pawsx, monkeypatch, {"x-final.tar.gz": BAD["incomplete"]})
    done = fetch("pawsx")
    assert (
        done.code == 2
        and done.err.count("\n") == 1
        and "cannot be converted (no x-final/en/dev_2k.tsv in it)" in done.err
    )
    assert len(pawsx.seen) == 1 and "archives/x-final.tar.gz" in tree(done.folder)


def test_members_that_lead_elsewhere_and_links_are_passed_over(server, monkeypatch, fetch, tmp_path):
    monkeypatch.setattr(download, "PAWSX_LANGS", ["en"])
    (tmp_path / "secret").write_text("id\ta\tb\tlabel\n1\tsecret\tsecret\t1\n")
    evil = {
        f"{start}/x-final/en/{name}.tsv": "id\ta\tb\tl\n1\tevil\tevil\t1\n"
        for start in ("../evil", "/tmp/dl-evil")
        for name in ("train", "dev_2k")
    }
    serve(
        server,
        monkeypatch,
        {"x-final.tar.gz": tarred({**evil, **PAWSX}, {"a/x-final/en/dev_2k.tsv": str(tmp_path / "secret")})},
    )
    done = fetch("pawsx")
    assert done.code == 0 and tree(tmp_path) == [
        "data/pawsx/dev-en.tsv",
        "data/pawsx/test-en.tsv",
        "data/pawsx/train-en.tsv",
        "secret",
    ]
    assert not any(b"evil" in read(path) or b"secret" in read(path) for path in (done.folder / "pawsx").iterdir())


def test_a_link_in_place_of_a_member_is_no_member(server, monkeypatch, fetch, tmp_path):
    (tmp_path / "secret").write_text("secret")
    link = zipfile.ZipInfo("MLQA_V1/dev/dev-context-en-question-en.json")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    monkeypatch.setattr(download, "MLQA_LANGS", ["en"])
    serve(
        server,
        monkeypatch,
        {
            "MLQA_V1.zip": zipped(
                {"../MLQA_V1/dev/dev-context-en-question-en.json": "evil", link: str(tmp_path / "secret")}
            )
        },
    )
    done = fetch("mlqa")
    assert (
        done.code == 2
        and done.err.count("\n") == 1
        and "no MLQA_V1/dev/dev-context-en-question-en.json in it" in done.err
    )
    assert tree(tmp_path) == ["data/archives/MLQA_V1.zip", "secret"]


def test_a_malformed_table_leaves_nothing_half_written(server, monkeypatch, fetch):
    monkeypatch.setattr(download, "PAWSX_LANGS", ["en"])
    broken = {**PAWSX, "x-final/en/dev_2k.tsv": PAWSX["x-final/en/dev_2k.tsv"] + "2\tno more\n"}
    serve(server, monkeypatch, {"x-final.tar.gz": tarred(broken)})
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and "line 3 has 2 columns" in done.err
    assert tree(done.folder) == ["archives/x-final.tar.gz", "pawsx/train-en.tsv"]


# ---- the table and the command line ------------------------------------------------------------------------------


def test_the_table_names_every_file_of_every_task(run):
    known = download.known_files()
    for _, files, _, instead in download.plan(download.TASKS):
        assert files.keys() == (instead or files).keys()
        assert all(name in known for names in (*files.values(), *instead.values()) for name in names)
    for group, names in download.SOURCES:
        assert all(address.startswith("https://") and address.count("{}") == 1 for address in group)
        assert all(size > 0 and len(bytes.fromhex(sha256)) == 32 for size, sha256 in names.values())
    targets = {target for step in download.plan(download.DEFAULT_TASKS.split(",")) for target in step[1]}
    udpos = {target[6:] for target in targets if target.startswith("udpos/")}
    assert len(udpos) == 33 + 29 + 30 and {"test-th.tsv", "train-kk.tsv", "dev-mr.tsv"} < udpos
    assert not udpos & {f"dev-{lang}.tsv" for lang in ("kk", "th", "tl", "yo")}
    done = run("data/download", "--list", "--output", "here")
    assert (
        done.code == 0
        and done.err == ""
        and all(address in done.out for _, _, group in known.values() for address in group)
    )
    assert f"here/archives/XNLI-1.0.zip\t17865352\t{download.SOURCES[1][1]['XNLI-1.0.zip'][1]}\thttps://" in done.out


def test_every_dev_language_of_xtreme_is_written(shared):
    udpos = {target[6:] for target in download.plan(["udpos"])[0][1]}
    assert set(os.listdir(os.path.join(shared, "xtreme", "udpos"))) <= udpos


@pytest.mark.parametrize("arguments", [["--tasks", "pos"], ["--tasks", ""], [], ["--jobs", "0"]])
def test_a_wrong_command_line_is_one_line(run, tmp_path, arguments):
    done = run("data/download", *(["--output", tmp_path / "data"] if arguments else []), *arguments)
    assert done.code == 2 and done.err.count("\n") == 1 and not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_is_one_line(pawsx, fetch, tmp_path):
    (tmp_path / "data").write_text("a file")
    done = fetch("pawsx")
    assert done.code == 2 and done.err.count("\n") == 1 and pawsx.seen == []
