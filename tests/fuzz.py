"""Run the scripts on mutated inputs: every run must end well, or in one line `SCRIPT: error: ...` with exit code 2.

    python tests/fuzz.py --count 10000             # prints every case that does neither, and ends with 1 if there is
    python tests/fuzz.py --first 812 --count 1     # one case again; --keep FOLDER leaves its files there

A case is a number: it seeds the choice of the script, of its input and of what is done to that. Scripts run in forks
of this process, which has imported them, on tiny models and a few sentences; run_all.sh plans with odd settings.
After an error nothing may be left behind, after a good end no temporary file; neither may a case take more than LIMIT
seconds.
"""

import argparse
import gc
import importlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests")]

LIMIT = 120  # seconds
Case = namedtuple("Case", "script arguments mutable")  # mutable: the files that are mutated

TAGGED = "I\tPRON\nsee\tVERB\nyou\tPRON\n\nHi\tINTJ\n\nThe\tDET\nold\tADJ\nman\tNOUN\n\n"
PAIRS = "I see (you).\tHi, man.\tneutral\nThe old man\tI don't know\tcontradiction\nHi!\tHi.\tentailment\n"
TRANSLATED = "Je te vois.\tSalut.\tneutral\nLe vieil homme\tNon\tcontradiction\nSalut !\tSalut.\tentailment\n"
PARALLEL = "I see you ||| je te vois\nHi ||| salut\nThe old man ||| le vieil homme\n"
CONLLU = (
    "# sent_id = 1\n1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_\n1\tde\tde\tADP\t_\t_\t3\tcase\t_\t_\n"
    "2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_\n3\tpain\tpain\tNOUN\t_\t_\t0\troot\t_\t_\n\n"
    "# sent_id = 2\n1\tHi\thi\tINTJ\t_\t_\t0\troot\t_\t_\n\n"
)


def squad(context, *questions):
    """SQuAD's JSON of one paragraph. questions: (id, question, answer)."""
    entries = [
        {"id": name, "question": asked, "answers": [{"text": answer, "answer_start": context.index(answer)}]}
        for name, asked, answer in questions
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": [{"context": context, "qas": entries}]}]})


FILES = {
    "udpos/train-en.tsv": TAGGED,
    "udpos/second.tsv": "you\tPRON\nsee\tVERB\nI\tPRON\n\nHi\tINTJ\n\nman\tNOUN\nold\tADJ\nThe\tDET\n\n",
    "udpos/orders": "2 1 0\n0\n2 1 0\n",
    "udpos/dev/dev-en.tsv": TAGGED,
    "xnli/train-en.tsv": PAIRS,
    "xnli/train-fr.tsv": TRANSLATED,
    "xnli/five.tsv": "".join(
        "\t".join(one.split("\t")[:2] + other.split("\t")) + "\n"
        for one, other in zip(PAIRS.splitlines(), TRANSLATED.splitlines())
    ),
    "xnli/bars.txt": "I see ( you ) . ||| Je te vois .\nHi , man . ||| Salut .\nThe old man ||| Le vieil homme\n"
    "I don't know ||| Je ne sais pas\nHi ! ||| Salut !\nHi . ||| Salut .\n",
    "xnli/dev/dev-en.tsv": PAIRS,
    "xnli/links": "0-1 1-0\n0-0\n0-2 2-0\n\n1-0\n0-0 1-1\n",
    "text": "I see you\n\nThe old man\n",
    "links": "0-0 1-2 2-1\n\n0-1 1-2 2-2\n",
    "qa/train-en.json": squad("I see you. The old man is here.", ("a", "Who is?", "old man"), ("b", "Who?", "you")),
    "qa/train-fr.json": squad("Je te vois. L'homme est là.", ("a", "Qui est là ?", "L'homme"), ("b", "Qui ?", "te")),
    "qa/links": "0-1 1-0\n0-1 1-0 2-3\n\n0-0\n",
    "qa/dev/dev-en.json": squad("The old man sees.", ("c", "Who sees?", "old man")),
    "parallel.txt": PARALLEL,
    "parallel.gold": "1-1 2p3 3-2\n1-1\n1-1 2-2 3-3\n",
    "fr.conllu": CONLLU,
}
TRAIN = ["--model", "model", "--epochs", "1", "--batch-size", "2", "--output", "out", "--max-length", "64"]
POS = ["--train", "udpos/train-en.tsv", "--data-dir", "udpos/dev", *TRAIN]
XNLI = ["--task", "xnli", "--train", "xnli/train-en.tsv", "--data-dir", "xnli/dev", *TRAIN]
QA = ["--task", "xquad", "--train", "qa/train-en.json", "--data-dir", "qa/dev", *TRAIN]
TUNE = ["--model", "model", "--train", "parallel.txt", "--output", "out", "--max-steps", "2", "--batch-size", "2"]
TWO_VIEWS = ["--reordered", "udpos/second.tsv", "--permutations", "udpos/orders", "--consistency", "1"]
ALIGN = ["--model", "model", "--input", "parallel.txt", "--output", "out/x", "--gold", "parallel.gold"]
EVAL = ["--runs", "runs", "--output", "out", "--alignments", "tiny/pretrained/enfr.json"]
MODEL = ["model/config.json", "model/tokenizer.json", "model/tokenizer_config.json", "model/model.safetensors"]
MODEL += ["model/align.json"]


def reorder(task, source, links, *options):
    arguments = ["--task", task, "--input", source, "--alignment", links, "--output", "out/x", "--stats", "out/s"]
    return Case("reorder", [*arguments, *options], [source, links])


def split(task, source, target, *options):
    arguments = ["--task", task, "--source", source, "--target", target, "--output", "out/x"]
    return Case("data/split", [*arguments, *options], [source, target])


SETTINGS = Case("run_all", ["--dry-run"], [])
CHEAP = [
    reorder("udpos", "udpos/train-en.tsv", "links", "--permutations", "out/p"),
    reorder("udpos", "udpos/train-en.tsv", "links", "--random", "--unaligned", "nearest"),
    reorder("xnli", "xnli/train-en.tsv", "xnli/links"),
    reorder("xnli", "xnli/train-en.tsv", "xnli/links", "--reverse"),
    reorder("text", "text", "links", "--identity"),
    reorder("qa", "qa/train-en.json", "qa/links", "--permutations", "out/p"),
    split("xnli", "xnli/train-en.tsv", "xnli/train-fr.tsv", "--every"),
    split("xnli", "xnli/train-en.tsv", "xnli/five.tsv"),
    split("xnli", "xnli/train-en.tsv", "xnli/bars.txt", "--every"),
    split("text", "text", "links"),
    split("qa", "qa/train-en.json", "qa/train-fr.json", "--every"),
    Case("data/conllu", ["--lang", "fr", "--input", "fr.conllu", "--output", "out/x"], ["fr.conllu"]),
    Case("eval", EVAL, ["runs/original-none-1/scores.json", "runs/hi-joint-1/scores.json", "udpos/train-en.tsv.json"]),
    Case("eval", EVAL, ["runs/original-none-1/dev-en.tsv", "udpos/dev/dev-en.tsv", "tiny/pretrained/enfr.json"]),
    Case("eval", EVAL, ["udpos/train-en.tsv", "runs/xnli-1/scores.json", "runs/xnli-1/dev-en.tsv"]),
    Case("eval", EVAL, ["runs/qa-1/scores.json", "runs/qa-1/dev-en.json", "qa/dev/dev-en.json"]),
    SETTINGS,
]
COSTLY = [
    Case("align", [*ALIGN, "--scores", "out/s", "--html", "out/h"], ["parallel.txt", "parallel.gold"]),
    Case("align", ALIGN, MODEL),
    Case("finetune_aligner", TUNE, ["parallel.txt"]),
    Case("finetune_aligner", TUNE, ["checkpoint"]),
    Case("finetune_aligner", [*TUNE, "--objectives", "so,mlm"], ["parallel.txt", *MODEL]),
    Case("train_pos", [*POS, *TWO_VIEWS], ["udpos/train-en.tsv", "udpos/second.tsv", "udpos/orders"]),
    Case("train_pos", POS, ["udpos/dev/dev-en.tsv"]),
    Case("train_pos", POS, ["checkpoint"]),
    Case("train_pos", [*POS, "--save"], MODEL),
    Case("train_xnli", XNLI, ["xnli/train-en.tsv", "xnli/dev/dev-en.tsv"]),
    Case("train_xnli", XNLI, ["checkpoint"]),
    Case("train_qa", QA, ["qa/train-en.json", "qa/dev/dev-en.json"]),
    Case("train_qa", QA, ["checkpoint"]),
]
CASES = CHEAP * 3 + COSTLY


# ---- running a script ------------------------------------------------------------------------------------------


def run_forked(folder, script, arguments, hook=None):
    """Run a script's main in a fork in a folder: (exit code, stdout, stderr); the code is None after LIMIT seconds."""
    streams = [os.path.join(folder, f".{name}") for name in ("stdout", "stderr")]
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            for number, path in enumerate(streams, 1):
                os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            sys.argv = [f"{script.split('/')[-1]}.py", *arguments]
            if hook:
                hook()
            from data.files import run_script

            run_script(importlib.import_module(script.replace("/", ".")).main)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    deadline, code = time.monotonic() + LIMIT, None
    while code is None and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.002)
    if code is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    texts = []
    for path in streams:
        with open(path, encoding="utf-8", errors="replace") as stream:
            texts.append(stream.read())
        os.remove(path)
    return code, *texts


def keep_checkpoint():
    """Make a training end, in this process, once it has written a checkpoint."""
    replace = os.replace

    def last(source, target, **more):
        replace(source, target, **more)
        if "checkpoint" in os.path.basename(str(target)):
            os._exit(0)

    os.replace = last


def import_scripts(cases):
    """Import what the scripts of cases need, so that forks start at once."""
    for case in cases:
        if case is SETTINGS:
            continue
        importlib.import_module(case.script.replace("/", "."))
    if "torch" in sys.modules:
        from transformers import AutoModel, AutoTokenizer  # noqa: F401

        sys.modules["torch"].set_num_threads(1)
    gc.collect()
    gc.freeze()  # or every fork would copy the pages whose objects are counted


def build_template(folder):
    """Write the inputs of every case into a folder: FILES, a tiny model, checkpoints, runs and an aligner's scores."""
    from conftest import build_tiny_bert

    for name, text in FILES.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    build_tiny_bert(os.path.join(folder, "model"))
    with open(os.path.join(folder, "model", "align.json"), "w") as stream:
        json.dump({"method": "argmax", "layer": 2, "similarity": "cosine"}, stream)

    def must(script, arguments, hook=None):
        code, _, errors = run_forked(folder, script, arguments, hook)
        if code != 0:
            raise SystemExit(f"fuzz.py: the template's {script} ended with {code}: {errors}")

    scores = os.path.join("tiny", "pretrained", "enfr.json")
    must("align", [*ALIGN[:-4], "--output", "x.align", "--gold", "parallel.gold", "--scores", scores])
    must("reorder", [*CHEAP[0].arguments, "--stats", "udpos/train-en.tsv.json"])
    for name, script, arguments in (
        ("original-none-1", "train_pos", POS),
        ("hi-joint-1", "train_pos", [*POS, "--order", "hi", "--aligner", "joint"]),
        ("xnli-1", "train_xnli", XNLI),
        ("qa-1", "train_qa", QA),
    ):
        must(script, [*arguments, "--output", os.path.join("runs", name)])
    for script, arguments in (("train_pos", POS), ("train_xnli", XNLI), ("train_qa", QA), ("finetune_aligner", TUNE)):
        shutil.rmtree(os.path.join(folder, "out"), ignore_errors=True)
        must(script, [*arguments, "--save-every", "0"], keep_checkpoint)
        (place,) = [name for name in listing(folder) if "checkpoint" in name and "=" not in name]
        os.replace(os.path.join(folder, place), os.path.join(folder, f"checkpoint={script}={place.replace('/', '=')}"))
    shutil.rmtree(os.path.join(folder, "out"), ignore_errors=True)


# ---- mutations ---------------------------------------------------------------------------------------------------

MARKS = ["\t", "\n", "\n\n", "\r\n", "\r", " ", "  ", "|||", " ||| ", "\0", "\ufeff", "\u2028", "\u200b", "❤\ufe0f"]
SIGNS = '" "" { } [ , - -1 0 1 99 999999999 1e999 NaN null _ . 0-0 5-5 1p1 </s> [SEP] [PAD] X NOUN neutral # 〇中'.split()
TOKENS = [text.encode() for text in [*MARKS, *SIGNS, "# a = b\n", "\\ud83d", "\\u0000", "x" * 3000, "9" * 400]]
SIZES = [1, 1, 2, 3, 127, 128, 129, 257]  # lines: about the limits of batches (links.PAIRS)
TOKENS += [b"\x1f\x8b", b"version https://git-lfs.github.com/spec/v1\n", b"a ||| b\n", b"a\tX\n"]
TOKENS += [b"\xff", b"\xc3", bytes(range(128, 160))]
VALUES = [None, True, 0, -1, 1, 7, 2**70, 0.5, float("nan"), float("inf"), "", "x", "model", "\ud800", [], [0], {}]


def json_places(value, place=()):
    """Yield the place of every node of a JSON value, as a tuple of keys."""
    yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from json_places(inner, (*place, key))


def mutate_json(text, generator):
    """Return JSON text with a node replaced, left out or doubled; None where the text is no JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    places = [place for _, place in zip(range(2000), json_places(value))]
    *way, key = generator.choice(places) or (None,)
    new = generator.choice(VALUES)
    if key is None:
        return json.dumps(new)
    owner = value
    for step in way:
        owner = owner[step]
    if generator.random() < 0.3:
        del owner[key]
    elif isinstance(owner, dict) and generator.random() < 0.2:
        owner[f"{key}x"] = owner.pop(key)
    else:
        owner[key] = new
    return json.dumps(value)


def mutate_bytes(content, generator):
    """Return bytes with one thing done to them."""
    lines = content.splitlines(keepends=True) or [b""]
    k, place = generator.randrange(len(lines)), generator.randrange(len(content) + 1)
    if len(content) > 100_000:  # a model's weights: what matters is at the start, or the length
        place = generator.choice([generator.randrange(300), place])
    stop = place + generator.choice([1, 1, 2, 5, 30])
    count = generator.choice(SIZES) if len(content) < 10_000 else len(lines)
    return generator.choice([
        lambda: content[:place] + generator.choice(TOKENS) + content[place:],
        lambda: content[:place] + generator.choice(TOKENS) + content[stop:],
        lambda: content[:place] + content[stop:],
        lambda: content[:place],
        lambda: content[:place] + bytes([generator.randrange(256)]) + content[place + 1 :],
        lambda: b"".join(lines[:k] + lines[k + 1 :]),
        lambda: b"".join(lines[: k + 1] + lines[k:]),
        lambda: b"".join(generator.sample(lines, len(lines))),
        lambda: b"".join(lines[:k] + [generator.choice(TOKENS)] + lines[k + 1 :]),
        lambda: b"".join(lines[:k] + [generator.choice(TOKENS) + b"\n"] + lines[k:]),
        lambda: b"\t".join(reversed(lines[k].split(b"\t"))).join([b"".join(lines[:k]), b"".join(lines[k + 1 :])]),
        lambda: content + content,
        lambda: lines[k],
        lambda: b"".join((lines * (1 + count // len(lines)))[:count]),
        lambda: b"",
    ])()  # fmt: skip


def mutate(folder, case, generator):
    """Mutate one of a case's files, once to three times; returns the words for what was done."""
    name = generator.choice(case.mutable)
    path = os.path.join(folder, name)
    roll = generator.random()
    if roll < 0.01:
        os.remove(path)
        return f"{name}: removed"
    if roll < 0.02:
        os.remove(path)
        os.mkdir(path)
        return f"{name}: a folder"
    if roll < 0.05:
        other = generator.choice(sorted(FILES.keys() - {name}))
        shutil.copyfile(os.path.join(folder, other), path)
        return f"{name}: is {other}"
    with open(path, "rb") as stream:
        content = stream.read()
    times = generator.choice([1, 1, 1, 2, 3])
    for _ in range(times):
        text = None
        if name.endswith(".json") and generator.random() < 0.6:
            text = mutate_json(content.decode("utf-8", "replace"), generator)
        content = mutate_bytes(content, generator) if text is None else text.encode("utf-8", "surrogatepass")
    with open(path, "wb") as stream:
        stream.write(content)
    return f"{name}: {times} changes"


# ---- settings of run_all.sh ----------------------------------------------------------------------------------------

WORDS = {
    "PROFILE": "sample human full", "DATA": "data/sample data", "MODELS": "a/b bert-base-multilingual-cased awesome",
    "LANGS": "fr de hi zh ja", "ALIGNERS": "pretrained separate joint manual joint+itermax", "SEEDS": "1 2 3",
    "ORDERS": "original identity reverse rdrop hi random random-hi hi+both hi+consistency random+nearest fr+previous",
    "TASKS": "udpos xnli pawsx qa", "POS": "--epochs 2", "TUNE": "--max-steps 5", "ALIGN": "--layer 3", "JOBS": "1 2",
    "CONSISTENCY": "1 0.5", "MT": "Helsinki-NLP/opus-mt-en-",
}  # fmt: skip
ODD = ["", "*", "?", "[a-z]", "..", "/", "-", "-n", "--help", "-1", "0", "a b", "a\nb", '"', "'", "\\", "\t", "é", "〇"]
ODD += ["x" * 300, "+", "hi+", "+hi", "random-", "random-xx", "hi+both+both", "a\x1fb", "~", "&", "|", "%s", "9" * 20]
ODD += ["$(touch hit)", "`touch hit`", "; touch hit", "\x7f", "1e999"]
OPTIONS = [["--wave", "train"], ["--wave", "cooking"], ["--wave", "train", "--share", "3/2"], ["--share", "1/2"], ["+"]]


def run_settings(generator):
    """Let run_all.sh plan, with settings of right and wrong words: (their text, fault or None, exit code, stderr)."""
    settings, options = {}, []
    if generator:
        for name in generator.sample(sorted(WORDS), generator.choice([1, 2, 3, 4])):
            words = generator.choices(WORDS[name].split(), k=generator.choice([1, 1, 2, 3]))
            if generator.random() < 0.5:
                words.insert(generator.randrange(len(words) + 1), generator.choice(ODD))
            settings[name] = " ".join(words)
        options = generator.choice([[], [], [], *OPTIONS, [generator.choice(ODD)]])
    environment = {name: value for name, value in os.environ.items() if name not in WORDS} | settings
    command, hit = ["bash", "run_all.sh", "--dry-run", *options], os.path.join(ROOT, "hit")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    note = r"(stages\.py|run_all\.sh): (?!error: )"
    lines = [line for line in done.stderr.split("\n") if line and not re.match(note, line)]
    wrong = None
    if os.path.exists(hit):
        os.remove(hit)
        wrong = "a word of a setting was run"
    elif done.returncode == 0 and lines or done.returncode not in (0, 2):
        wrong = f"ended with {done.returncode}"
    elif done.returncode == 2 and (len(lines) != 1 or not re.match(r"(run_all\.sh|stages\.py): error: ", lines[0])):
        wrong = f"{len(lines)} lines on stderr"
    elif done.returncode == 2 and done.stdout:
        wrong = "printed something"
    for line in done.stdout.splitlines():
        shlex.split(line)
    return f"run_all.sh ({settings} {options})", wrong, done.returncode, done.stderr


# ---- cases -------------------------------------------------------------------------------------------------------


def listing(folder):
    """The files below a folder."""
    found = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(os.path.relpath(path, folder) for path in found)


def copy_template(template, folder, mutable):
    """Put the files of a template into a folder, copies of the mutable ones, links to others: scripts replace files."""
    for name in listing(template):
        target = os.path.join(folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        copy = name in mutable or name.split("=")[0] in mutable
        (shutil.copyfile if copy else os.link)(os.path.join(template, name), target)


def fault(script, code, output, errors, before, after):
    """Say what is wrong with how a run ended, None where nothing is."""
    name = f"{script.split('/')[-1]}.py"
    if code is None:
        return f"ran more than {LIMIT} s"
    if "Traceback" in errors or code not in (0, 2):
        return f"ended with {code}"
    if code == 0:
        left = [path for path in set(after) - set(before) if re.search(r"\.tmp|checkpoint", path)]
        return f"left {left[0]}" if left else None
    lines = [line for line in errors.split("\n") if line and not re.match(rf"{re.escape(name)}: (?!error: )", line)]
    if "panicked at" in errors:  # tokenizers prints where it stopped
        lines = [line for line in lines if line.startswith(name)]
    if len(lines) != 1 or not lines[0].startswith(f"{name}: error: "):
        return f"{len(lines)} lines on stderr"
    if set(after) - set(before):
        return f"left {sorted(set(after) - set(before))[0]}"
    return "printed something" if output else None


def put_checkpoint(folder, script):
    """Move a script's checkpoint to where the script looks for it; returns the place."""
    prefix = f"checkpoint={script}="
    name = next(name for name in os.listdir(folder) if name.startswith(prefix))
    place = name.removeprefix(prefix).replace("=", "/")
    os.makedirs(os.path.dirname(os.path.join(folder, place)), exist_ok=True)
    os.replace(os.path.join(folder, name), os.path.join(folder, place))
    return place


def run_case(case, template, generator=None, keep=None):
    """Run a case in a folder of its own, as it is without a generator: (its name, fault or None, exit code, stderr)."""
    if case is SETTINGS:
        return run_settings(generator)
    folder = keep or tempfile.mkdtemp(prefix="fuzz.")
    try:
        copy_template(template, folder, case.mutable)
        if case.mutable == ["checkpoint"]:
            case = case._replace(mutable=[put_checkpoint(folder, case.script)])
        what = mutate(folder, case, generator) if generator else "as it is"
        before = listing(folder)
        code, output, errors = run_forked(folder, case.script, case.arguments)
        wrong = fault(case.script, code, output, errors, before, listing(folder))
        return f"{case.script} ({what})", wrong, code, errors
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def run_group(group, numbers, template, keep=None):
    """Run every case of a group as it is, then those that numbers choose, and print faults: [faults, {code: cases}].

    Faults are lines; a case as it is must end with 0.
    """
    faults, codes = [], Counter()
    chosen = [(None, case) for case in group]
    chosen += [(number, case) for number in numbers if (case := random.Random(number).choice(CASES)) in group]
    for number, case in chosen:
        generator = random.Random(f"{number}") if number is not None else None
        what, wrong, code, errors = run_case(case, template, generator, keep)
        codes[str(code)] += 1
        if wrong or code and not generator:
            last = " | ".join(errors.strip().split("\n")[-3:])[-600:]
            faults.append(f"case {number}: {what}: {wrong}: {last}")
            print(faults[-1], flush=True)
        if sum(codes.values()) % 500 == 0:
            print(f"{sum(codes.values())} of {len(chosen)}: {len(faults)} faults, exit codes {dict(codes)}", flush=True)
    return faults, codes


def run_cases(numbers, keep=None):
    """Run the cases of these numbers in two processes, with and without torch: (faults, {exit code: cases})."""
    with tempfile.TemporaryDirectory(prefix="fuzz.template.") as template:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                import_scripts(COSTLY + CHEAP)
                build_template(template)
                os.write(writer, b"ready\n")
                os.write(writer, json.dumps(run_group(COSTLY, numbers, template, keep)).encode())
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader) as stream:
            if not stream.readline():
                raise SystemExit("fuzz.py: no template")
            import_scripts(CHEAP)
            faults, codes = run_group(CHEAP, numbers, template, keep)
            others, more = json.loads(stream.read() or '[["the process with torch ended"], {}]')
        os.waitpid(child, 0)
    return faults + others, Counter(codes) + Counter(more)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", metavar="FOLDER", help="where to leave the files of a single case")
    args = parser.parse_args()
    faults, codes = run_cases(range(args.first, args.first + args.count), args.keep)
    print(f"{args.count} cases, {len(faults)} faults, exit codes {dict(codes)}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
