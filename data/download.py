"""Fetch what the full experiment needs, and write it in XTREME's layout under one folder.

In:   a network (0.9 GB for the default tasks), or files that were put into DATA/archives by hand
Out:  below DATA, for each task:
      udpos          udpos/{train,dev,test}-XX.tsv: Universal Dependencies 2.5, 33 languages; test files have words alone
      xnli           xnli/{train-en,dev-XX,test-XX}.tsv: 15 languages; test files have no labels; and its training set translated,
                     xnli/translate-train/multinli.train.XX.tsv, fr de hi zh, line by line parallel to train-en.tsv
      pawsx          pawsx/{train-en,dev-XX,test-XX}.tsv: 7 languages; test files have no labels
      translations   pawsx/translate-train/en-XX-translated.tsv, XTREME's, fr de zh (it has none into Hindi); with squad also
                     squad/translate-train/squad.translate.train.en-XX.json, de hi zh; it translated tydiqa into none of the four
      pud            pud/XX_pud-ud-test.conllu: the PUD treebanks of UD 2.5, en fr de hi zh
      squad          squad/{train,dev}-v1.1.json
      tydiqa         tydiqa/tydiqa.goldp.en.train.json, tydiqa.goldp.XX.dev.json: 9 languages
      xquad          xquad/xquad.XX.json: 11 languages
      mlqa           mlqa/MLQA_V1/dev/dev-context-XX-question-XX.json: 7 languages, question and context in the same one

    python data/download.py --output DATA
    python data/download.py --output DATA --tasks squad,xquad,translations --jobs 8
    python data/download.py --list              every file, its size and sha256, its addresses, and where to put it by hand

Run again after an interruption it goes on where it was: partial downloads stay as DATA/archives/NAME.part, and what is written
already is neither fetched nor converted again. What could not be had is named at the end, a line for a file, exit code 2, after all
else is written. Converting udpos needs, by estimate, 0.7 GB of memory (German training data) and 2 GB of disk for a while.

Text is written as XTREME's utils_preprocess.py writes it, its csv quoting included: a field that holds a quotation mark stands
in quotation marks, and those inside are doubled. TyDiQA's dev files keep their answers, which XTREME takes away.
"""

import concurrent.futures
import contextlib
import csv
import functools
import gzip
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib

from tqdm import tqdm

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.cli import Arguments, InputError, open_output, positive, run_script
from data.conllu import convert
from data.files import PAIR_LABEL_ALIASES, write_udpos

# The addresses of each group of files, tried in this order, {} being the file's name; then the files: bytes and sha256, None where
# nobody published them. The addresses are those of XTREME's scripts/download_data.sh (google-research/xtreme) and their mirrors;
# sizes and sums those of tensorflow/datasets (checksums.tsv, url_checksums/) and huggingface/datasets (urls_checksums, dataset_infos.json).
SOURCES = [
    (
        [  # LINDAT's handle 11234/1-3105. Since its move to new software the second, older address may answer with a web page.
            "https://lindat.mff.cuni.cz/repository/server/api/core/bitstreams/handle/11234/1-3105/{}",
            "https://lindat.mff.cuni.cz/repository/xmlui/bitstream/handle/11234/1-3105/{}",
        ],
        {"ud-treebanks-v2.5.tgz": (355216681, "5ff973e44345a5f69b94cc1427158e14e851c967d58773cc2ac5a1d3adaca409")},
    ),
    (
        [
            "https://dl.fbaipublicfiles.com/XNLI/{}",
            "https://s3.amazonaws.com/xnli/{}",
            "https://bert-data.bj.bcebos.com/{}",
        ],
        {
            "XNLI-1.0.zip": (17865352, "4ba1d5e1afdb7161f0f23c66dc787802ccfa8a25a3ddd3b165a35e50df346ab1"),
            "XNLI-MT-1.0.zip": (466098360, "f732517ba2fb1d550e9f3c2aabaef6017c91ee2dcec90e878f138764d224db05"),
        },
    ),
    (
        ["https://storage.googleapis.com/paws/pawsx/{}"],
        {"x-final.tar.gz": (30282057, "4146db499101d66e68ae4c8ed3cf9dadecd625f44b7d8cf3d4a0fe93afc4fd9f")},
    ),
    (
        ["https://storage.googleapis.com/xtreme_translations/PAWSX/translate-train/{}"],
        {
            "en-fr-translated.tsv": (23800400, "8df00128e3cd760d55d64096b9c98022d042772cc76ca9d9d0074869e5760fd4"),
            "en-de-translated.tsv": (23425271, "c053578bf6c9a03af67022759cb309ca5f786e2bebf6c770a4170ec35809b320"),
            "en-zh-translated.tsv": (22493202, "39ae17a36e7b1e4ce31e2d56e76c49d7b27509175883de4c0d7508fae25d1306"),
        },
    ),
    (
        [
            "https://rajpurkar.github.io/SQuAD-explorer/dataset/{}",
            "https://raw.githubusercontent.com/rajpurkar/SQuAD-explorer/master/dataset/{}",
        ],
        {
            "train-v1.1.json": (30288272, "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
            "dev-v1.1.json": (4854279, "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"),
        },
    ),
    (
        ["https://storage.googleapis.com/xtreme_translations/SQuAD/translate-train/{}"],
        {
            "squad.translate.train.en-de.json": (
                93188862,
                "3c125cb2a31e8ad167c4590ece8fdfd16018a5bbf9475dbfac034c1816a4ab02",
            ),
            "squad.translate.train.en-hi.json": (
                348849738,
                "fdfd8c59359943c6a55022403e7dfa047e7ee1dea734086a3c73c1adbb44d254",
            ),
            "squad.translate.train.en-zh.json": (
                128888478,
                "411e4023e4f3627ccb4873edfb77b36e97470b4226a076e6a632544c92353d24",
            ),
        },
    ),
    (
        ["https://storage.googleapis.com/tydiqa/v1.1/{}"],
        {
            "tydiqa-goldp-v1.1-train.json": (
                58004076,
                "cefc8e09ff2548d9b10a678d3a6bbbe5bc036be543f92418819ea676c97be23b",
            ),
            "tydiqa-goldp-v1.1-dev.tgz": (1725055, "5a415d019a345794c8a83191ecfe4a761eaab69dab79c3c9813d4379e1cc5519"),
        },
    ),
    (
        [
            "https://raw.githubusercontent.com/google-deepmind/xquad/master/{}",
            "https://github.com/deepmind/xquad/raw/master/{}",
        ],
        {
            "xquad.ar.json": (1582988, "abdabd7afed5c635d99cca0f3f0d0c9d9ed0bc77451e963c2e4e0638c29e486d"),
            "xquad.de.json": (669810, "990b5d746746ed65ed4702ea5f35f99ffa4e2f1c390c07d003642acd937916f9"),
            "xquad.el.json": (1918889, "821cf0f88e73fa258fd2f548b19b6ec39f7025059e16f6f9fc8cd797c9c3663e"),
            "xquad.en.json": (609383, "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29"),
            "xquad.es.json": (684322, "dcbae93ec3a9f4b9e78fd834a171d6f96c1a875e10e15b7530b7e4ef4971e37e"),
            "xquad.hi.json": (1680538, "df2cce3532b37e9beb8979704b5c9a4bf874358f105395a298b89427b43b9d24"),
            "xquad.ru.json": (1896368, "208d5b1aa154c52b1b5c5eda16281e455e8fd198cdb9af3f469f0d6037d973bf"),
            "xquad.th.json": (1809143, "5cdda11d0e1e075f7872abf4e6ae830388ce7f617964d542308e9ae4257e0f43"),
            "xquad.tr.json": (729506, "92179a564774b7696100d144c1e10870d0a966b6fccbdd254a65b9d2ab1971cc"),
            "xquad.vi.json": (911401, "f619a1eb11fb42d3ab0834259e488a65f585447ef6154437bfb7199d85161a04"),
            "xquad.zh.json": (808652, "691d0b3359bc6b8faa8de931dfdfe21d50a65861ae348e32a0d1a0190b0c8835"),
        },
    ),
    (
        ["https://dl.fbaipublicfiles.com/MLQA/{}"],
        {"MLQA_V1.zip": (75719050, "246e8089933d13007fe80684d5c5c0713d6834cf8b3b4a0ec7c66f0a0d2baac8")},
    ),
]

# Where UD's archive cannot be had: each file of each treebank at its git tag r2.5.
TAG = "r2.5"
UD_GIT = "https://raw.githubusercontent.com/UniversalDependencies/UD_{language}-{treebank}/r2.5/{name}"
# The treebanks of XTREME's languages in release 2.5, after UniversalDependencies/docs-automation, valdan/releases.json. One that
# stands without a colon has train, dev and test. The splits are those of release 2.7 (huggingface/datasets, universal_dependencies.py,
# which reads the git tags) but for et_ewt, which had no dev set yet; the dev and test counts of de en et it ru tr agree with those that
# huggingface/datasets' xtreme has of the 2.5 archive. Not established: whether German HDT's training set, one file in the archive,
# stood in four files at the tag r2.5, as it does at r2.7.
UD_TREEBANKS = {
    "af": "Afrikaans AfriBooms",
    "ar": "Arabic PADT PUD:test",
    "bg": "Bulgarian BTB",
    "de": "German GSD HDT:train-a-1,train-a-2,train-b-1,train-b-2,dev,test LIT:test PUD:test",
    "el": "Greek GDT",
    "en": "English EWT GUM LinES PUD:test ParTUT Pronouns:test",
    "es": "Spanish AnCora GSD PUD:test",
    "et": "Estonian EDT EWT:train,test",
    "eu": "Basque BDT",
    "fa": "Persian Seraji",
    "fi": "Finnish FTB PUD:test TDT",
    "fr": "French FQB:test GSD PUD:test ParTUT Sequoia Spoken",
    "he": "Hebrew HTB",
    "hi": "Hindi HDTB PUD:test",
    "hu": "Hungarian Szeged",
    "id": "Indonesian GSD PUD:test",
    "it": "Italian ISDT PUD:test ParTUT PoSTWITA TWITTIRO VIT",
    "ja": "Japanese GSD Modern:test PUD:test",
    "kk": "Kazakh KTB:train,test",
    "ko": "Korean GSD Kaist PUD:test",
    "mr": "Marathi UFAL",
    "nl": "Dutch Alpino LassySmall",
    "pt": "Portuguese Bosque GSD PUD:test",
    "ru": "Russian GSD PUD:test SynTagRus Taiga",
    "ta": "Tamil TTB",
    "te": "Telugu MTG",
    "th": "Thai PUD:test",
    "tl": "Tagalog TRG:test",
    "tr": "Turkish GB:test IMST PUD:test",
    "ur": "Urdu UDTB",
    "vi": "Vietnamese VTB",
    "yo": "Yoruba YTB:test",
    "zh": "Chinese CFL:test GSD GSDSimp HK:test PUD:test",
}
# Treebanks of these languages whose words UD may not give away: every form is `_`, and XTREME drops such sentences.
WITHOUT_TEXT = {"ar_nyuad", "en_esl", "fr_ftb", "ja_bccwj"}

XNLI_LANGS = "ar bg de el en es fr hi ru sw th tr ur vi zh".split()
PAWSX_LANGS = "de en es fr ja ko zh".split()
TYDIQA_LANGS = dict(
    ar="arabic",
    bn="bengali",
    en="english",
    fi="finnish",
    id="indonesian",
    ko="korean",
    ru="russian",
    sw="swahili",
    te="telugu",
)
XQUAD_LANGS = "ar de el en es hi ru th tr vi zh".split()
MLQA_LANGS = "ar de en es hi vi zh".split()
TASKS = "udpos xnli pawsx pud squad tydiqa xquad mlqa translations".split()
DEFAULT_TASKS = "udpos,xnli,pawsx,translations"

RETRIES = 3  # attempts in a row that bring nothing new before an address is given up
PAUSE = 2.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 30.0  # seconds without a byte

# What reading a damaged archive, or one that holds something else than expected, raises.
DAMAGED = (
    ValueError,
    LookupError,
    RuntimeError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
)


# ---- what there is to do ---------------------------------------------------------------------------


def treebank_files():
    """The files of UD_TREEBANKS at their git tag: {name under archives: (udpos file that it is part of, address)}."""
    files = {}
    for lang, text in UD_TREEBANKS.items():
        language, *treebanks = text.split()
        for treebank, _, splits in (item.partition(":") for item in treebanks):
            for split in (splits or "train,dev,test").split(","):
                name = f"{lang}_{treebank.lower()}-ud-{split}.conllu"
                address = UD_GIT.format(language=language, treebank=treebank, name=name)
                # The tag before the name keeps data/pud.py, which looks for en_pud*.conllu at any depth, from finding these.
                files[f"{TAG}-{name}"] = (f"udpos/{split.split('-')[0]}-{lang}.tsv", address)
    return files


def known_files():
    """Every file that can be fetched: {name: (bytes or None, sha256 or None, addresses)}."""
    files = {
        name: (*known, [address.format(name) for address in group])
        for group, names in SOURCES
        for name, known in names.items()
    }
    return {**files, **{name: (None, None, [address]) for name, (_, address) in treebank_files().items()}}


def plan(tasks):
    """The steps that tasks consist of, a list of (task, {target: files}, convert, {target: files to use where those cannot be had}).

    Targets are paths below the data folder; files are names of known_files(). convert(data, paths, targets) writes targets
    from their files; it raises one of DAMAGED for what it cannot read or convert.
    """
    steps = []

    def add(task, archive, members, write, instead=None):
        files = {target: [archive or member] for target, member in members.items()}
        steps.append((task, files, functools.partial(convert_members, members, write), instead or {}))

    treebanks = "ud-treebanks-v2.5.tgz"
    if "udpos" in tasks:
        git = {}
        for name, (target, _) in treebank_files().items():
            git.setdefault(target, []).append(name)
        steps.append(("udpos", {target: [treebanks] for target in git}, convert_udpos, git))
    if "pud" in tasks:
        names = {
            f"pud/{lang}_pud-ud-test.conllu": f"{lang}_pud-ud-test.conllu" for lang in ("en", "fr", "de", "hi", "zh")
        }
        git = {target: [f"{TAG}-{name}"] for target, name in names.items()}
        add("pud", treebanks, names, copy, git)
        if "udpos" not in tasks:  # five small files rather than the whole archive
            task, files, convert_pud, git = steps.pop()
            steps.append((task, git, convert_pud, files))
    if "xnli" in tasks:
        names = {
            f"xnli/{split}-{lang}.tsv": f"XNLI-1.0/xnli.{split}.tsv" for split in ("dev", "test") for lang in XNLI_LANGS
        }
        add("xnli", "XNLI-1.0.zip", names, write_xnli)
        folder = "XNLI-MT-1.0/multinli"
        add("xnli", "XNLI-MT-1.0.zip", {"xnli/train-en.tsv": f"{folder}/multinli.train.en.tsv"}, write_xnli_train)
        names = [f"multinli.train.{lang}.tsv" for lang in ("fr", "de", "hi", "zh")]
        add("xnli", "XNLI-MT-1.0.zip", {f"xnli/translate-train/{name}": f"{folder}/{name}" for name in names}, copy)
    if "pawsx" in tasks:
        names = {
            f"pawsx/{split}-{lang}.tsv": f"x-final/{lang}/{split}_2k.tsv"
            for split in ("dev", "test")
            for lang in PAWSX_LANGS
        }
        add("pawsx", "x-final.tar.gz", {"pawsx/train-en.tsv": "x-final/en/train.tsv", **names}, write_pawsx)
    if "translations" in tasks:
        names = [f"en-{lang}-translated.tsv" for lang in ("fr", "de", "zh")]
        add("translations", None, {f"pawsx/translate-train/{name}": name for name in names}, copy)
    if "squad" in tasks:
        add("squad", None, {f"squad/{name}": name for name in ("train-v1.1.json", "dev-v1.1.json")}, copy)
        if "translations" in tasks:
            names = [f"squad.translate.train.en-{lang}.json" for lang in ("de", "hi", "zh")]
            add("translations", None, {f"squad/translate-train/{name}": name for name in names}, copy)
    if "tydiqa" in tasks:
        add("tydiqa", None, {"tydiqa/tydiqa.goldp.en.train.json": "tydiqa-goldp-v1.1-train.json"}, write_tydiqa)
        folder = "tydiqa-goldp-v1.1-dev"
        names = {
            f"tydiqa/tydiqa.goldp.{code}.dev.json": f"{folder}/tydiqa-goldp-dev-{lang}.json"
            for code, lang in TYDIQA_LANGS.items()
        }
        add("tydiqa", "tydiqa-goldp-v1.1-dev.tgz", names, write_tydiqa)
    if "xquad" in tasks:
        add("xquad", None, {f"xquad/xquad.{lang}.json": f"xquad.{lang}.json" for lang in XQUAD_LANGS}, copy)
    if "mlqa" in tasks:
        names = [f"MLQA_V1/dev/dev-context-{lang}-question-{lang}.json" for lang in MLQA_LANGS]
        add("mlqa", "MLQA_V1.zip", {f"mlqa/{name}": name for name in names}, copy)
    return steps


# ---- fetching --------------------------------------------------------------------------------------


def flaw(path, size, sha256):
    """What is wrong with a file, in words; None where it has the size and sum (None: not known)."""
    if size is not None and os.path.getsize(path) != size:
        return f"it has {os.path.getsize(path):,} bytes, not {size:,}"
    if sha256 is not None:
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            return f"it has another sha256 than the known {sha256[:16]}..."
    return None


def request(address, part, size, stop):
    """One request for what a partial download lacks. None when it is whole now; else why not, and whether to try again: (reason, again)."""
    start = os.path.getsize(part) if os.path.exists(part) else 0
    headers = {
        "User-Agent": "data/download.py",
        "Accept-Encoding": "identity",
        **({"Range": f"bytes={start}-"} if start else {}),
    }
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT) as response:
            if response.status != 206:
                start = 0  # the whole file comes, asked for or not
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else size
            if response.headers.get_content_type() == "text/html":
                return "a web page is there instead", False
            if size not in (None, total):
                return f"it has {total:,} bytes there, not {size:,}", False
            name = os.path.basename(part).removesuffix(".part")
            bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, leave=False, disable=None)
            with open(part, "ab" if start else "wb") as stream, bar:
                while chunk := response.read1(1 << 16):
                    stream.write(chunk)
                    bar.update(len(chunk))
                    if stop.is_set():
                        return "interrupted", False
        if total is not None and os.path.getsize(part) < total:
            return "the connection was cut", True
        return None
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the server's file ends before our part does
            os.remove(part)
        return f"HTTP {error.code} {error.reason}".strip(), error.code >= 500 or error.code in (408, 416, 429)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return " ".join(str(getattr(error, "reason", "") or error or type(error).__name__).split())[:100], True


def transfer(address, part, size, stop):
    """Bring a file from an address into `part`, which may hold its beginning. Returns None, or why it could not be had.

    A cut connection is taken up where it was cut, after a pause, until RETRIES attempts in a row bring nothing new.
    """
    most = os.path.getsize(part) if os.path.exists(part) else 0
    if size is not None and most >= size:
        return None  # its sum is checked next
    idle = 0
    while not stop.is_set():
        failed = request(address, part, size, stop)
        if not failed:
            return None
        reason, again = failed
        now = os.path.getsize(part) if os.path.exists(part) else 0
        idle = 0 if now > most else idle + 1
        most = max(most, now)
        if not again or idle == RETRIES:
            return reason
        stop.wait(PAUSE * 2 ** max(0, idle - 1))
    return "interrupted"


def fetch(name, known, archives, stop):
    """Make sure that a file is in the archives folder, with its known size and sum. Returns None, or why it could not be had."""
    size, sha256, addresses = known
    path = os.path.join(archives, name)
    part, reasons = path + ".part", []
    if os.path.exists(path):
        wrong = flaw(path, size, sha256)
        if wrong is None:
            return None
        reasons.append(f"the file there is wrong, {wrong}")
    for address in addresses:
        for _ in range(2):  # what arrives damaged is fetched once more, from its start
            reason = transfer(address, part, size, stop)
            if reason is None:
                reason = flaw(part, size, sha256)
                if reason is None:
                    os.replace(part, path)
                    return None
                os.remove(part)
            else:
                break
        reasons.append(reason)
    return ", ".join(dict.fromkeys(reasons))


def fetch_all(names, archives, jobs):
    """Fetch files, `jobs` at a time. Returns {name: why} for those that could not be had."""
    known, stop = known_files(), threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        futures = {name: pool.submit(fetch, name, known[name], archives, stop) for name in names}
        return {name: reason for name, future in futures.items() if (reason := future.result())}
    finally:
        stop.set()  # after an interruption the threads end at their next bytes
        pool.shutdown(cancel_futures=True)


# ---- reading archives --------------------------------------------------------------------------------


def members(path):
    """Yield (name, binary stream) of every file in a zip or tar archive; any other file is its own single member.

    Nothing is unpacked. Members whose names lead out of a folder, and links, are passed over.
    """
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if (
                    not info.is_dir() and (info.external_attr >> 28) != 0xA and stays_inside(info.filename)
                ):  # 0xA: a symbolic link
                    with archive.open(info) as stream:
                        yield info.filename, stream
    elif path.endswith((".tgz", ".tar.gz")):
        with tarfile.open(path, "r:gz") as archive:
            for info in archive:
                if info.isreg() and stays_inside(info.name):
                    yield info.name, archive.extractfile(info)
    else:
        with open(path, "rb") as stream:
            yield os.path.basename(path).removeprefix(f"{TAG}-"), stream


def stays_inside(name):
    """Whether a member's name is a path below the folder that it would be unpacked to."""
    return not name.startswith(("/", "\\")) and ":" not in name and ".." not in re.split(r"[/\\]", name)


def text(stream):
    """The text of a binary stream, UTF-8, whose lines end at "\\n" and nowhere else."""
    return io.TextIOWrapper(stream, encoding="utf-8", newline="\n")


def convert_members(names, write, data, paths, targets):
    """Write each target from the member that `names` ({target: member}) names for it; write(stream, targets of that member)."""
    left = {}
    for target in targets:
        left.setdefault(names[target], []).append(os.path.join(data, target))
    for path in paths:
        for name, stream in members(path):
            found = next((wanted for wanted in left if name == wanted or name.endswith("/" + wanted)), None)
            if found:
                write(stream, left.pop(found))
            if not left:
                return
    raise ValueError(f"no {next(iter(left))} in it")


# ---- converting: XTREME's utils_preprocess.py ----------------------------------------------------------


def copy(stream, targets):
    """Write a member as it is."""
    with open_output(targets[0]) as out:
        shutil.copyfileobj(text(stream), out)


def read_table(stream, columns):
    """Yield the fields of each line of a table but the first, its header. Raises ValueError for a line with too few."""
    for number, line in enumerate(text(stream), 1):
        fields = [field.strip() for field in line.strip().split("\t")]
        if len(fields) < columns:
            raise ValueError(f"line {number} has {len(fields)} columns, {columns} or more were expected")
        if number > 1:
            yield fields


def write_table(target, rows):
    """Write rows as XTREME does, by Python's csv: lines end in "\\r\\n", fields with quotation marks are quoted."""
    with open_output(target) as out:
        csv.writer(out, delimiter="\t").writerows(rows)


def is_test(target):
    """Whether a target is a test file, which has no labels."""
    return os.path.basename(target).startswith("test-")


def write_xnli(stream, targets):
    """Write the languages XX of xnli.dev.tsv to dev-XX.tsv, those of xnli.test.tsv to test-XX.tsv, without labels."""
    rows = {}
    for fields in read_table(stream, 8):
        rows.setdefault(fields[0], []).append((fields[6], fields[7], PAIR_LABEL_ALIASES.get(fields[1], fields[1])))
    for target in targets:
        lang = os.path.basename(target)[:-4].split("-")[1]
        if lang not in rows:
            raise ValueError(f"no rows of language {lang} in it")
        write_table(target, (row[:2] if is_test(target) else row for row in rows[lang]))


def write_xnli_train(stream, targets):
    """Write multinli.train.en.tsv to train-en.tsv, a line for a line."""
    rows = read_table(stream, 3)
    write_table(targets[0], ((fields[0], fields[1], PAIR_LABEL_ALIASES.get(fields[2], fields[2])) for fields in rows))


def write_pawsx(stream, targets):
    """Write train.tsv, dev_2k.tsv or test_2k.tsv of a language, the last without labels."""
    write_table(targets[0], (fields[1 : 3 if is_test(targets[0]) else 4] for fields in read_table(stream, 4)))


def write_tydiqa(stream, targets):
    """Write TyDiQA's questions, each with a context of its own: all of a dev file; the English ones of the training file."""
    train = targets[0].endswith(".train.json")
    document, questions = json.load(text(stream)), []
    for paragraph in (paragraph for article in document["data"] for paragraph in article["paragraphs"]):
        for qa in paragraph["qas"]:
            lang, *_, number = qa["id"].split("-")
            if not train or lang == "english":
                question = {"answers": qa["answers"], "question": qa["question"], "id": number if train else qa["id"]}
                questions.append({"paragraphs": [{"context": paragraph["context"], "qas": [question]}]})
    with open_output(targets[0]) as out:
        json.dump({"data": questions, "version": document["version"]}, out)


def save_sentences(stream, path):
    """Write the sentences of a CoNLL-U stream to a file, without those that have a line of other than ten columns.

    Returns how many these are. Release 2.5 has one, in ru_syntagrus-ud-train.conllu.
    """
    broken, sentence, whole = 0, [], True
    with open(path, "wb") as out:
        for line in itertools.chain(stream, [b"\n"]):
            if line.strip():
                sentence.append(line)
                whole = whole and (line.startswith(b"#") or line.count(b"\t") == 9)
            elif sentence:
                broken += not whole
                out.writelines([*sentence, b"\n"] if whole else [])
                sentence, whole = [], True
    return broken


def convert_udpos(data, paths, targets):
    """Write udpos files from UD's archive, or from treebanks' own files. What one file raises is raised after the others are written."""
    parts = {os.path.basename(target)[:-4]: [] for target in targets}  # {dev-XX: CoNLL-U files}
    with tempfile.TemporaryDirectory(prefix=".udpos.", dir=os.path.dirname(paths[0])) as work:
        every = (member for path in paths for member in members(path))
        for name, stream in tqdm(every, unit=" files", desc="reading treebanks", leave=False, disable=None):
            match = re.fullmatch(r"(?:.*/)?((([a-z]+)_\w+)-ud-(train|dev|test)[\w-]*\.conllu)", name)
            if match and match[2] not in WITHOUT_TEXT and f"{match[4]}-{match[3]}" in parts:
                parts[f"{match[4]}-{match[3]}"].append(match[1])
                broken = save_sentences(stream, os.path.join(work, match[1]))
                if broken:
                    print(f"{match[1]}: {broken} sentences left out, which have lines of other than ten columns")
        failed = [f"no *-ud-{part.replace('-', '*.conllu of ')} in it" for part, files in parts.items() if not files]
        for target in tqdm(targets, unit=" files", desc="udpos", leave=False, disable=None):
            split, lang = os.path.basename(target)[:-4].split("-")
            files = [os.path.join(work, name) for name in sorted(parts[f"{split}-{lang}"])]
            try:
                sentences = [sentence for path in files for _, sentence in convert(path, lang)]
            except InputError as error:
                failed.append(str(error).replace(work + os.sep, ""))
                continue
            if sentences:
                rows = ((words, None if split == "test" else tags) for words, tags in sentences)
                write_udpos(os.path.join(data, target), rows, ("\n", "\n"))
    if failed:
        raise ValueError("; ".join(failed))


# ---- the run -----------------------------------------------------------------------------------------


def absent(data, targets):
    """The targets that are not written yet."""
    return [target for target in targets if not os.path.exists(os.path.join(data, target))]


def files_of(targets, files):
    """The names of the files that targets are made from, each once."""
    return list(dict.fromkeys(name for target in targets for name in files.get(target, [])))


def by_hand(archives, failures):
    """Lines that tell which files could not be had ({name: why}), where they are, and where to put them."""
    known = known_files()
    return [
        f"{os.path.join(archives, name)}: could not be had ({reason}); get it from {' or '.join(known[name][2])} and put it there "
        "under this name, then run this again"
        for name, reason in failures.items()
    ]


def make(step, data, jobs, failures):
    """Write the missing targets of a step whose files were fetched, but for `failures` ({name: why}). Returns problems, a line each."""
    _, files, convert_step, instead = step
    archives, known = os.path.join(data, "archives"), known_files()
    missing = absent(data, files)
    failures = {name: failures[name] for name in files_of(missing, files) if name in failures}
    if failures and instead:
        names = files_of(missing, instead)
        if all(
            reason.startswith("HTTP") for reason in fetch_all(names[:1], archives, 1).values()
        ):  # the first one finds a network
            others = fetch_all(names, archives, jobs)
            if len(others) < len(names):
                files, failures = instead, others
    problems = by_hand(archives, failures)

    ready = [target for target in missing if failures.keys().isdisjoint(files[target])]
    for attempt in (1, 2):
        names = files_of(ready, files)
        try:
            if ready:
                convert_step(data, [os.path.join(archives, name) for name in names], ready)
            return problems
        except DAMAGED as error:
            reason = " ".join(str(error).split()) or type(error).__name__
        ready = absent(data, ready)
        unsure = [
            name for name in files_of(ready, files) if known[name][1] is None
        ]  # one with the right sha256 is not to blame
        for name in unsure:
            os.remove(os.path.join(archives, name))
        if attempt == 2 or not unsure:
            break
        failures = fetch_all(unsure, archives, jobs)
        if failures:
            return problems + by_hand(archives, failures)
    where = os.path.join(archives, names[0]) if len(names) == 1 else f"{archives}: {names[0]} and {len(names) - 1} more"
    fetched = ", fetched twice" if unsure else ""
    return problems + [
        f"{where}: cannot be converted{fetched} ({reason}); expected the file that was at {known[names[0]][2][0]}"
    ]


def print_list(data):
    """Print every file of every task: task, path, bytes, sha256 and address, separated by tabs; a line for each address."""
    print("task\tput it by hand into\tbytes\tsha256\taddress")
    known = known_files()
    for task, files, _, instead in plan(TASKS):
        for name in dict.fromkeys(files_of(files, files) + files_of(files, instead)):
            size, sha256, addresses = known[name]
            for address in addresses:
                print(task, os.path.join(data, "archives", name), size or "-", sha256 or "-", address, sep="\t")


def main():
    parser = Arguments(__doc__)
    parser.add_argument("--output", metavar="DATA", help="folder to write to")
    parser.add_argument("--tasks", default=DEFAULT_TASKS, help=f"what to fetch, of {', '.join(TASKS)}")
    parser.add_argument("--jobs", type=positive, default=4, help="files to fetch at a time")
    parser.add_argument(
        "--keep-archives", action="store_true", help="keep what was fetched in DATA/archives when it is converted"
    )
    parser.add_argument(
        "--list", action="store_true", help="print every file with its addresses and where it goes, and fetch nothing"
    )
    args = parser.parse_args()
    tasks = args.tasks.split(",")
    for task in tasks:
        if task not in TASKS:
            parser.error(
                f"argument --tasks: unknown task {task!r}; expected some of {', '.join(TASKS)}, separated by commas"
            )
    if args.list:
        return print_list(args.output or "DATA")
    if not args.output:
        parser.error("the following arguments are required: --output")

    archives = os.path.join(args.output, "archives")
    steps = plan(tasks)
    targets = [target for _, files, _, _ in steps for target in files]
    missing = absent(args.output, targets)
    if missing:
        os.makedirs(archives, exist_ok=True)
    names = dict.fromkeys(name for _, files, _, _ in steps for name in files_of(absent(args.output, files), files))
    failures = fetch_all(names, archives, args.jobs)
    problems = [problem for step in steps for problem in make(step, args.output, args.jobs, failures)]

    left = absent(args.output, missing)
    if not args.keep_archives:
        used, needed = (
            {name for _, files, _, instead in steps for name in files_of(some, files) + files_of(some, instead)}
            for some in (missing, left)
        )
        for path in (os.path.join(archives, name + end) for name in used - needed for end in ("", ".part")):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    if not problems:
        with contextlib.suppress(OSError):
            os.rmdir(archives)  # where it is empty
    print(f"{args.output}: {len(missing) - len(left)} files written, {len(targets) - len(missing)} were there already")
    if problems:
        *others, last = dict.fromkeys(problems)
        for problem in others:
            print(f"{parser.prog}: error: {problem}", file=sys.stderr)
        raise InputError(last)


if __name__ == "__main__":
    run_script(main)
