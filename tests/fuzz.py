"""Run the scripts on mutated inputs: every run must end well, or in one line `SCRIPT: error: ...` with exit code 2.

    python tests/fuzz.py --count 10000             # prints every case that does neither, and ends with 1 if there is one
    python tests/fuzz.py --first 812 --count 1     # one case again; --keep FOLDER leaves its files there

A case is a number: it seeds the choice of the script, of its input and of what is done to that. Scripts run in forks of this
process, which has imported them, on tiny models and a few sentences. After an error nothing may be left behind, after a
good end no temporary file; neither may a case take more than LIMIT seconds.
"""

import argparse
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests")]

LIMIT = 120  # seconds
Case = namedtuple("Case", "script arguments mutable")  # mutable: the files, below the template's folder, that are mutated

TAGGED = "I\tPRON\nsee\tVERB\nyou\tPRON\n\nHi\tINTJ\n\nThe\tDET\nold\tADJ\nman\tNOUN\n\n"
PAIRS = "I see (you).\tHi, man.\tneutral\nThe old man\tI don't know\tcontradiction\nHi!\tHi.\tentailment\n"
TRANSLATED = "Je te vois.\tSalut.\tneutral\nLe vieil homme\tJe ne sais pas\tcontradiction\nSalut !\tSalut.\tentailment\n"
PARALLEL = "I see you ||| je te vois\nHi ||| salut\nThe old man ||| le vieil homme\n"
CONLLU = (
    "# sent_id = 1\n1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_\n1\tde\tde\tADP\t_\t_\t3\tcase\t_\t_\n2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_\n"
    "3\tpain\tpain\tNOUN\t_\t_\t0\troot\t_\t_\n\n# sent_id = 2\n1\tHi\thi\tINTJ\t_\t_\t0\troot\t_\t_\n\n"
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
    "qa/train-en.json": squad("I see you. The old man is here.", ("a", "Who is here?", "old man"), ("b", "Who?", "you")),
    "qa/train-fr.json": squad("Je te vois. Le vieil homme est là.", ("a", "Qui est là ?", "vieil homme"), ("b", "Qui ?", "te")),
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
    Case("eval", EVAL, ["runs/original-none-1/scores.json", "runs/hi-joint-1/scores.json", "tiny/pretrained/enfr.json"]),
    Case("eval", EVAL, ["runs/original-none-1/dev-en.tsv", "udpos/dev/dev-en.tsv", "udpos/train-en.tsv.json"]),
    Case("eval", EVAL, ["udpos/train-en.tsv", "runs/xnli-1/scores.json", "runs/xnli-1/dev-en.tsv"]),
    Case("eval", EVAL, ["runs/qa-1/scores.json", "runs/qa-1/dev-en.json", "qa/dev/dev-en.json"]),
]
COSTLY = [
    Case("align", [*ALIGN, "--scores", "out/s", "--html", "out/h"], ["parallel.txt", "parallel.gold"]),
    Case("align", ALIGN, MODEL),
    Case("finetune_aligner", TUNE, ["parallel.txt", "out.checkpoint"]),
    Case("finetune_aligner", [*TUNE, "--gold", "parallel.gold", "--objectives", "so,mlm"], ["parallel.gold", *MODEL]),
    Case("train_pos", [*POS, *TWO_VIEWS], ["udpos/train-en.tsv", "udpos/second.tsv", "udpos/orders", "udpos/dev/dev-en.tsv"]),
    Case("train_pos", POS, ["checkpoints/train_pos"]),
    Case("train_pos", [*POS, "--save", "saved"], MODEL),
    Case("train_xnli", XNLI, ["xnli/train-en.tsv", "xnli/dev/dev-en.tsv"]),
    Case("train_xnli", XNLI, ["checkpoints/train_xnli"]),
    Case("train_qa", QA, ["qa/train-en.json", "qa/dev/dev-en.json"]),
    Case("train_qa", QA, ["checkpoints/train_qa"]),
]


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
            from data.cli import run_script

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


def import_scripts():
    """Import what the scripts need, so that forks start at once."""
    import torch

    torch.set_num_threads(1)
    for case in COSTLY + CHEAP:
        importlib.import_module(case.script.replace("/", "."))
    from transformers import AutoModel, AutoTokenizer  # noqa: F401


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
    must("reorder", ["--task", "udpos", "--input", "udpos/train-en.tsv", "--alignment", "links", "--output", "x", "--stats", "udpos/train-en.tsv.json"])
    for name, script, arguments in (
        ("original-none-1", "train_pos", POS),
        ("hi-joint-1", "train_pos", [*POS, "--order", "hi", "--aligner", "joint"]),
        ("xnli-1", "train_xnli", XNLI),
        ("qa-1", "train_qa", QA),
    ):
        must(script, [*arguments, "--output", os.path.join("runs", name)])
    os.makedirs(os.path.join(folder, "checkpoints"))
    for script, arguments in (("train_pos", POS), ("train_xnli", XNLI), ("train_qa", QA), ("finetune_aligner", TUNE)):
        for every in ("0", "1"):  # minutes, or steps
            shutil.rmtree(os.path.join(folder, "out"), ignore_errors=True)
            code, _, errors = run_forked(folder, script, [*arguments, "--save-every", every], keep_checkpoint)
            found = [os.path.join(folder, "out.checkpoint"), os.path.join(folder, "out", "checkpoint.pt")]
            found += [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names if "checkpoint" in name]
            found = [path for path in found if os.path.isfile(path) and os.sep + "checkpoints" + os.sep not in path]
            if code == 0 and found:
                break
        else:
            raise SystemExit(f"fuzz.py: {script} writes no checkpoint ({code}): {errors}")
        if script != "finetune_aligner":
            place = os.path.relpath(found[0], folder)
            CHECKPOINTS[f"checkpoints/{script}"] = place
            os.replace(found[0], os.path.join(folder, "checkpoints", script))
    shutil.rmtree(os.path.join(folder, "out"), ignore_errors=True)


CHECKPOINTS = {}  # of every file in checkpoints/ the place where its script looks for it


# ---- mutations ---------------------------------------------------------------------------------------------------

TOKENS = [
    b"\t", b"\n", b"\n\n", b"\r\n", b"\r", b" ", b"  ", b"|||", b" ||| ", b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b'"', b'""', b"{",
    b"}", b"[", b",", b"-", b"-1", b"0", b"1", b"99", b"999999999", b"9" * 400, b"1e999", b"NaN", b"null", b"_", b".", b"0-0", b"5-5", b"1p1",
    "\u2028".encode(), "\u200b".encode(), "❤\ufe0f".encode(), "e\u0301".encode(), "〇中".encode(), b"</s>", b"[SEP]", b"[PAD]",
    b"X", b"NOUN", b"neutral", b"#", b"# a = b\n", b"x" * 3000, b"\\ud83d", b"\\u0000",
]  # fmt: skip
VALUES = [None, True, 0, -1, 1, 7, 2**70, 0.5, 1e308, float("nan"), float("inf"), "", "x", "model", "\ud800", [], [[]], {}, {"x": 1}, [0]]


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
        lambda: b"",
    ])()  # fmt: skip


def mutate(folder, case, generator):
    """Mutate one of a case's files, once to three times; returns the words for what was done."""
    names = [name for name in case.mutable if os.path.isfile(os.path.join(folder, name))]
    name = generator.choice(names)
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
        other = generator.choice(sorted(FILES))
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


# ---- cases -------------------------------------------------------------------------------------------------------


def listing(folder):
    """The files below a folder."""
    return sorted(os.path.relpath(os.path.join(parent, name), folder) for parent, _, names in os.walk(folder) for name in names)


def copy_template(template, folder):
    """Copy a template; the model's files, which are not written to but replaced, are linked."""
    for name in listing(template):
        target = os.path.join(folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(os.path.join(template, name), target)


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
    if len(lines) != 1 or not lines[0].startswith(f"{name}: error: "):
        return f"{len(lines)} lines on stderr"
    if set(after) - set(before):
        return f"left {sorted(set(after) - set(before))[0]}"
    return "printed something" if output else None


def run_case(number, template, cases, keep=None):
    """Run a case in a folder of its own: (script and mutation, fault or None, stderr)."""
    generator = random.Random(number)
    case = generator.choice(cases)
    folder = keep or tempfile.mkdtemp(prefix="fuzz.")
    try:
        copy_template(template, folder)
        what = mutate(folder, case, generator)
        for name in case.mutable:
            if name in CHECKPOINTS:
                target = os.path.join(folder, CHECKPOINTS[name])
                os.makedirs(os.path.dirname(target), exist_ok=True)
                if os.path.exists(os.path.join(folder, name)):
                    os.replace(os.path.join(folder, name), target)
        if case.script != "finetune_aligner" and os.path.exists(os.path.join(folder, "out.checkpoint")) and "checkpoints/" not in str(case.mutable):
            os.remove(os.path.join(folder, "out.checkpoint"))
        before = listing(folder)
        code, output, errors = run_forked(folder, case.script, case.arguments)
        return f"{case.script} ({what})", fault(case.script, code, output, errors, before, listing(folder)), errors
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def run_cases(numbers, cases=None, keep=None, tell=print):
    """Run cases by their numbers; tells of every fault and returns how many there were."""
    import_scripts()
    faults, cases = 0, cases or CHEAP * 2 + COSTLY
    with tempfile.TemporaryDirectory(prefix="fuzz.template.") as template:
        build_template(template)
        for number in numbers:
            what, wrong, errors = run_case(number, template, cases, keep)
            if wrong:
                faults += 1
                tell(f"case {number}: {what}: {wrong}: " + " | ".join(errors.strip().split("\n")[-3:])[-600:], flush=True)
            if number % 500 == 499:
                tell(f"{number + 1} done, {faults} faults", flush=True)
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", metavar="FOLDER", help="where to leave the files of a single case")
    args = parser.parse_args()
    faults = run_cases(range(args.first, args.first + args.count), keep=args.keep)
    print(f"{args.count} cases, {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
