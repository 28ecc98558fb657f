"""Fetch what the full experiment needs, and write it in XTREME's layout under one folder.

In:   a network (0.9 GB for the default tasks) and curl, or files that were put into DATA/archives by hand
Out:  below DATA, for each task:
      udpos          udpos/{train,dev,test}-XX.tsv: Universal Dependencies 2.5, 33 languages; no tags in test files
      xnli           xnli/{train-en,dev-XX,test-XX}.tsv: 15 languages; no labels in test files. Its training set in
                     fr de hi zh, line by line parallel to train-en.tsv: xnli/translate-train/multinli.train.XX.tsv
      pawsx          pawsx/{train-en,dev-XX,test-XX}.tsv: 7 languages; no labels in test files
      translations   pawsx/translate-train/en-XX-translated.tsv, XTREME's, fr de zh (none into Hindi); with squad also
                     squad/translate-train/squad.translate.train.en-XX.json, de hi zh (and tydiqa into none of the four)
      pud            pud/XX_pud-ud-test.conllu: the PUD treebanks of UD 2.5, en fr de hi zh
      squad          squad/{train,dev}-v1.1.json
      tydiqa         tydiqa/tydiqa.goldp.en.train.json, tydiqa.goldp.XX.dev.json: 9 languages
      xquad          xquad/xquad.XX.json: 11 languages
      mlqa           mlqa/MLQA_V1/dev/dev-context-XX-question-XX.json: 7 languages, both sides in the same one

    python data/download.py --output DATA --tasks squad,xquad,translations --jobs 8
    python data/download.py --list              every file, its size, sha256 and addresses, where to put it by hand

Run again after an interruption, it goes on from there: partial downloads stay as DATA/archives/NAME.part, and files
that are written are not made again. What could not be fetched is named at the end, a line a file, with exit code 2.
data/sources.tsv has a line for each file: name, bytes, sha256 and addresses, tabs between. udpos needs, by estimate,
0.7 GB of memory and 2 GB of disk for a while.

Text is written as XTREME's utils_preprocess.py writes it, its csv quoting included: a field that holds a quotation mark
is put in quotation marks, and those inside are doubled. TyDiQA's dev files keep their answers, which XTREME removes.
"""

import contextlib
import csv
import functools
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile

from tqdm import tqdm

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from data.conllu import convert
from data.files import (
    PAIR_LABEL_ALIASES, Arguments, InputError, one_line, open_output, positive, read_lines, remove, run_script,
    write_udpos,
)  # fmt: skip

SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sources.tsv")
RETRIES = 3  # attempts that bring nothing new before an address is given up
PAUSE = 2.0  # seconds between attempts that bring nothing new
TIMEOUT = 30  # seconds without a byte

WITHOUT_TEXT = {"ar_nyuad", "en_esl", "fr_ftb", "ja_bccwj"}  # UD may not give their words away: every form is `_`

DEV_LANGS = "af ar bg de el en es et eu fa fi fr he hi hu id it ja ko mr nl pt ru ta te tr ur vi zh".split()
UDPOS_LANGS = {"train": [*DEV_LANGS, "kk"], "dev": DEV_LANGS, "test": [*DEV_LANGS, "kk", "th", "tl", "yo"]}
ORDER_LANGS = "fr de hi zh".split()
XNLI_LANGS = "ar bg de el en es fr hi ru sw th tr ur vi zh".split()
PAWSX_LANGS = "de en es fr ja ko zh".split()
TYDIQA_NAMES = "arabic bengali english finnish indonesian korean russian swahili telugu".split()
TYDIQA_LANGS = dict(zip("ar bn en fi id ko ru sw te".split(), TYDIQA_NAMES))
XQUAD_LANGS = "ar de el en es hi ru th tr vi zh".split()
MLQA_LANGS = "ar de en es hi vi zh".split()
TASKS = "udpos xnli pawsx pud squad tydiqa xquad mlqa translations".split()
DEFAULT_TASKS = "udpos,xnli,pawsx,translations"


# ---- what there is to do ---------------------------------------------------------------------------


def plan(tasks):
    """Return what tasks consist of: a list of (task, file of known_files(), targets below the data folder, convert).

    convert(data, path, targets) writes targets from the file; it raises ValueError or LookupError where it cannot.
    """
    steps = []

    def add(task, archive, write, targets):
        """Add targets, {target: member of the archive}, that write(stream of a member, its targets) makes."""
        steps.append((task, archive, list(targets), functools.partial(convert_members, targets, write)))

    def add_copies(task, folder, names):
        for name in names:
            add(task, name, copy, {f"{folder}/{name}": name})

    treebanks, mt = "ud-treebanks-v2.5.tgz", "XNLI-MT-1.0/multinli"
    targets = [f"udpos/{split}-{lang}.tsv" for split, langs in UDPOS_LANGS.items() for lang in langs]
    steps.append(("udpos", treebanks, targets, convert_udpos))
    names = [f"{lang}_pud-ud-test.conllu" for lang in ("en", *ORDER_LANGS)]
    add("pud", treebanks, copy, {f"pud/{name}": name for name in names})

    tests = itertools.product(("dev", "test"), XNLI_LANGS)
    targets = {f"xnli/{split}-{lang}.tsv": f"XNLI-1.0/xnli.{split}.tsv" for split, lang in tests}
    add("xnli", "XNLI-1.0.zip", write_xnli, targets)
    names = [f"multinli.train.{lang}.tsv" for lang in ORDER_LANGS]
    add("xnli", "XNLI-MT-1.0.zip", write_xnli_train, {"xnli/train-en.tsv": f"{mt}/multinli.train.en.tsv"})
    add("xnli", "XNLI-MT-1.0.zip", copy, {f"xnli/translate-train/{name}": f"{mt}/{name}" for name in names})

    tests = itertools.product(("dev", "test"), PAWSX_LANGS)
    targets = {f"pawsx/{split}-{lang}.tsv": f"x-final/{lang}/{split}_2k.tsv" for split, lang in tests}
    add("pawsx", "x-final.tar.gz", write_pawsx, {"pawsx/train-en.tsv": "x-final/en/train.tsv", **targets})
    add_copies("translations", "pawsx/translate-train", [f"en-{lang}-translated.tsv" for lang in ("fr", "de", "zh")])

    train, dev = "tydiqa-goldp-v1.1-train.json", "tydiqa-goldp-v1.1-dev"
    add("tydiqa", train, write_tydiqa, {"tydiqa/tydiqa.goldp.en.train.json": train})
    names = {code: f"{dev}/tydiqa-goldp-dev-{lang}.json" for code, lang in TYDIQA_LANGS.items()}
    targets = {f"tydiqa/tydiqa.goldp.{code}.dev.json": name for code, name in names.items()}
    add("tydiqa", f"{dev}.tgz", write_tydiqa, targets)
    names = [f"MLQA_V1/dev/dev-context-{lang}-question-{lang}.json" for lang in MLQA_LANGS]
    add("mlqa", "MLQA_V1.zip", copy, {f"mlqa/{name}": name for name in names})
    add_copies("squad", "squad", ["train-v1.1.json", "dev-v1.1.json"])
    add_copies("xquad", "xquad", [f"xquad.{lang}.json" for lang in XQUAD_LANGS])
    if "squad" in tasks:
        names = [f"squad.translate.train.en-{lang}.json" for lang in ("de", "hi", "zh")]
        add_copies("translations", "squad/translate-train", names)
    return [step for step in steps if step[0] in tasks]


# ---- reading archives --------------------------------------------------------------------------------


def members(path):
    """Yield (name, binary stream) of every file in a zip or tar archive; any other file is its own single member."""
    if path.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as stream:
                    yield info.filename, stream
    elif path.endswith((".tgz", ".tar.gz")):
        with tarfile.open(path, "r:gz") as archive:
            yield from ((info.name, archive.extractfile(info)) for info in archive if info.isreg())
    else:
        with open(path, "rb") as stream:
            yield os.path.basename(path), stream


def text(stream):
    """Return the text of a binary stream, UTF-8, whose lines end at "\\n" and nowhere else."""
    return io.TextIOWrapper(stream, encoding="utf-8", newline="\n")


def convert_members(names, write, data, path, targets):
    """Call write(stream, targets) for every member that targets are made from. names: {target: member}."""
    left = {}
    for target in targets:
        left.setdefault(names[target], []).append(os.path.join(data, target))
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
    """Yield the fields of each line of a table after its header. Raises ValueError for a line with too few."""
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


def write_xnli(stream, targets):
    """Write the languages XX of xnli.dev.tsv to dev-XX.tsv, those of xnli.test.tsv to test-XX.tsv, without labels."""
    rows = {}
    for fields in read_table(stream, 8):
        rows.setdefault(fields[0], []).append((fields[6], fields[7], PAIR_LABEL_ALIASES.get(fields[1], fields[1])))
    for target in targets:
        split, lang = os.path.basename(target).removesuffix(".tsv").split("-")
        if lang not in rows:
            raise ValueError(f"no rows of language {lang} in it")
        write_table(target, (row[:2] if split == "test" else row for row in rows[lang]))


def write_xnli_train(stream, targets):
    """Write multinli.train.en.tsv to train-en.tsv, a line for a line."""
    rows = read_table(stream, 3)
    write_table(targets[0], ((fields[0], fields[1], PAIR_LABEL_ALIASES.get(fields[2], fields[2])) for fields in rows))


def write_pawsx(stream, targets):
    """Write train.tsv, dev_2k.tsv or test_2k.tsv of a language, the last without labels."""
    end = 3 if os.path.basename(targets[0]).startswith("test-") else 4
    write_table(targets[0], (fields[1:end] for fields in read_table(stream, 4)))


def write_tydiqa(stream, targets):
    """Write TyDiQA's questions, each with its own context: all of a dev file, the English ones of the training file."""
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
    broken = 0
    with open(path, "wb") as out:
        for blank, lines in itertools.groupby(stream, lambda line: not line.strip()):
            lines = [b"\n"] if blank else list(lines)
            whole = blank or all(line.startswith(b"#") or line.count(b"\t") == 9 for line in lines)
            broken += not whole
            out.writelines(lines if whole else [])
    return broken


def unpack_treebanks(archive, parts, folder):
    """Write the CoNLL-U files of parts (a set such as {dev-hi}) into a folder. Returns {part: their paths, sorted}."""
    files = {part: [] for part in parts}
    for name, stream in tqdm(members(archive), unit=" files", desc="reading treebanks", leave=False, disable=None):
        match = re.fullmatch(r"(?:.*/)?((([a-z]+)_\w+)-ud-(train|dev|test)[\w-]*\.conllu)", name)
        if match and match[2] not in WITHOUT_TEXT and f"{match[4]}-{match[3]}" in files:
            path = os.path.join(folder, match[1])
            files[f"{match[4]}-{match[3]}"].append(path)
            if broken := save_sentences(stream, path):
                print(f"{match[1]}: {broken} sentences left out, which have lines of other than ten columns")
    return {part: sorted(paths) for part, paths in files.items()}


def convert_udpos(data, archive, targets):
    """Write udpos files from UD's archive. An error of one file is raised after the others are written."""
    failed, part_of = [], {target: os.path.basename(target).removesuffix(".tsv") for target in targets}
    work = os.path.join(os.path.dirname(archive), ".udpos")
    remove(work)  # a killed run may have left it
    os.mkdir(work)
    try:
        files = unpack_treebanks(archive, set(part_of.values()), work)
        for target, part in tqdm(part_of.items(), unit=" files", desc="udpos", leave=False, disable=None):
            split, lang = part.split("-")
            try:
                sentences = [sentence for path in files[part] for _, sentence in convert(path, lang)]
                if not sentences:
                    raise InputError(f"no {lang}_*-ud-{split}.conllu in it")
                rows = ((words, None if split == "test" else tags) for words, tags in sentences)
                write_udpos(os.path.join(data, target), rows, ("\n", "\n"))
            except InputError as error:
                failed.append(str(error).replace(work + os.sep, ""))
    finally:
        remove(work)
    if failed:
        raise ValueError("; ".join(failed))


# ---- fetching ------------------------------------------------------------------------------------------


def known_files():
    """Return every file that can be fetched: {name: (bytes, sha256, addresses)}."""
    rows = [line.split("\t") for line in read_lines(SOURCES) if not line.startswith("#")]
    return {name: (int(size), sha256, addresses) for name, size, sha256, *addresses in rows}


def flaw(path, size, sha256):
    """Return what is wrong with a file, in words; None where it has the size and sum."""
    if size_of(path) != size:
        return f"it has {size_of(path):,} bytes, not {size:,}"
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return None if digest.hexdigest() == sha256 else f"it has another sha256 than the known {sha256[:16]}..."


def size_of(path):
    """Return a file's bytes, 0 where there is none."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def curl(addresses, jobs):
    """Fetch files, {path: address}, each from where it ends, `jobs` at a time, in one attempt each.

    Returns {path: (HTTP status, curl's exit code, its message)}. Raises InputError where there is no curl.
    """
    meter, errors = ([], None) if sys.stderr.isatty() else (["--silent"], subprocess.DEVNULL)
    options = [*meter, "--fail", "--location", "--continue-at", "-", "--connect-timeout", str(TIMEOUT)]
    options += ["--speed-time", str(TIMEOUT), "--speed-limit", "1", "--write-out"]
    options += ["%{filename_effective}\\t%{http_code}\\t%{exitcode}\\t%{errormsg}\\n"]
    for path, address in addresses.items():
        options += ["--output", path, address]
    try:
        for parallel in (["--parallel", "--parallel-max", str(jobs)], []):  # before curl 7.66 one at a time
            done = subprocess.run(["curl", *parallel, *options], stdout=subprocess.PIPE, stderr=errors, text=True)
            if done.returncode != 2:  # an option that it does not know
                break
    except FileNotFoundError:
        raise InputError("curl: not found; install it, or put the files that --list names there by hand") from None
    lines = (line.split("\t") for line in done.stdout.splitlines())
    return {path: (int(status), int(code or -1), message) for path, status, code, message in lines}


def fetch_all(names, archives, jobs):
    """Fetch files into the archives folder, with the known sizes and sums. Returns {name: why} of those that fail.

    A cut connection is taken up where it was cut. An address is given up when RETRIES attempts brought nothing new, or
    one shows that it has no such file or another one.
    """
    known, reasons, left = known_files(), {}, {}  # left: {name: the address of each attempt to come}
    for name in names:
        path = os.path.join(archives, name)
        wrong = flaw(path, *known[name][:2])
        if wrong:
            left[name] = [address for address in known[name][2] for _ in range(RETRIES)]
            reasons[name] = [f"the file there is wrong, {wrong}"] if os.path.exists(path) else []
    while left:
        parts = {name: os.path.join(archives, name + ".part") for name in left}
        before = {name: size_of(part) for name, part in parts.items()}
        answers = curl({part: left[name][0] for name, part in parts.items()}, jobs)
        for name, part in parts.items():
            reason, final = judge(part, before[name], answers.get(part, (0, -1, "")), *known[name][:2])
            if reason is None:
                os.replace(part, os.path.join(archives, name))
                del left[name], reasons[name]
            elif final or size_of(part) <= before[name]:
                reasons[name].append(reason)
                address, *others = left[name]
                left[name] = [other for other in others if not final or other != address]
        left = {name: attempts for name, attempts in left.items() if attempts}
        if any(size_of(parts[name]) <= before[name] for name in left):
            time.sleep(PAUSE)
    return {name: ", ".join(dict.fromkeys(why)) for name, why in reasons.items()}


def judge(part, before, answer, size, sha256):
    """Return (why a file is not whole or None, whether to give up the address). Removes what is wrong.

    before: the bytes that were there before the attempt; answer: what curl() returned of it.
    """
    (status, code, message), reached = answer, size_of(part)
    if reached < size and code:
        if code == 33 or status == 416:  # no ranges there, or a shorter file: from its start
            remove(part)
        return message or f"curl ended with code {code}", 400 <= status < 500 and status not in (408, 416, 429)
    wrong = flaw(part, size, sha256)
    if wrong:
        remove(part)
    return wrong, before == 0 or reached < size  # else its beginning may have been of another file


# ---- the run -----------------------------------------------------------------------------------------


def absent(data, targets):
    """Return the targets that are not written yet."""
    return [target for target in targets if not os.path.exists(os.path.join(data, target))]


def make(step, data, failures):
    """Write the missing targets of a step, unless its file is among `failures` ({name: why}). Returns what is wrong."""
    _, name, targets, convert_step = step
    path, missing, addresses = os.path.join(data, "archives", name), absent(data, targets), known_files()[name][2]
    if missing and name in failures:
        where = f"get it from {' or '.join(addresses)} and put it there under this name, then run this again"
        return f"{path}: could not be had ({failures[name]}); {where}"
    try:
        return convert_step(data, path, missing) if missing else None
    except (ValueError, LookupError) as error:
        reason = one_line(error) or type(error).__name__
        return f"{path}: cannot be converted ({reason}); expected the file that was at {addresses[0]}"


def clean(data, steps):
    """Remove the archives whose targets are all written, and their folder where these are all."""
    needed = {name for _, name, targets, _ in steps if absent(data, targets)}
    for name in {name for _, name, _, _ in steps} - needed:
        for ending in ("", ".part"):
            remove(os.path.join(data, "archives", name + ending))
    if not needed:
        with contextlib.suppress(OSError):  # other tasks' files are there
            os.rmdir(os.path.join(data, "archives"))


def print_list(data):
    """Print task, path, bytes, sha256 and address of every file, tabs between; a line for each address."""
    print("task\tput it by hand into\tbytes\tsha256\taddress")
    for task, name in dict.fromkeys(step[:2] for step in plan(TASKS)):
        *facts, addresses = known_files()[name]
        for address in addresses:
            print(task, os.path.join(data, "archives", name), *facts, address, sep="\t")


def main():
    parser = Arguments(__doc__)
    add = parser.add_argument
    add("--output", metavar="DATA", help="folder to write to")
    add("--tasks", default=DEFAULT_TASKS, help=f"what to fetch, of {', '.join(TASKS)}")
    add("--jobs", type=positive, default=4, help="files to fetch at once")
    add("--list", action="store_true", help="print every file and its addresses, and fetch nothing")
    args = parser.parse_args()
    tasks = args.tasks.split(",")
    for task in tasks:
        if task not in TASKS:
            parser.error(f"argument --tasks: unknown task {task!r}; expected some of {','.join(TASKS)}")
    if args.list:
        return print_list(args.output or "DATA")
    if not args.output:
        parser.error("the following arguments are required: --output")

    steps, archives = plan(tasks), os.path.join(args.output, "archives")
    targets = [target for _, _, some, _ in steps for target in some]
    missing = absent(args.output, targets)
    if missing:
        os.makedirs(archives, exist_ok=True)
    failures = fetch_all({name for _, name, some, _ in steps if absent(args.output, some)}, archives, args.jobs)
    problems = [problem for step in steps if (problem := make(step, args.output, failures))]

    clean(args.output, steps)
    left = absent(args.output, missing)
    print(f"{args.output}: {len(missing) - len(left)} files written, {len(targets) - len(missing)} were there already")
    for problem in problems[:-1]:
        print(f"{parser.prog}: error: {problem}", file=sys.stderr)
    if problems:
        raise InputError(problems[-1])


if __name__ == "__main__":
    run_script(main)
