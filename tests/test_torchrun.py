"""torchrun works on the same batches as one process: links are the same, gradients of two processes add up to those
of one.

All scripts run in two processes that are started once, and in this process.
"""

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, SAMPLE, without_dropout
from safetensors.torch import load_file

from data.files import read_pairs, read_udpos, write_pairs, write_udpos
from evaluation.runs import read_tag_predictions

LAUNCHER = """
import json, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import torch.distributed as dist
from test_torchrun import run_jobs

# One process group for all the scripts.
start = dist.init_process_group
dist.init_process_group = lambda *arguments: dist.is_initialized() or start(*arguments)
stop, dist.destroy_process_group = dist.destroy_process_group, lambda: None
run_jobs(json.load(open({jobs!r})))
stop()
"""


def run_jobs(jobs):
    """Run scripts in this process, [[script, option, ...]]; the norms of their gradients go to OUTPUT.norms."""
    clip = torch.nn.utils.clip_grad_norm_
    for script, *options in jobs:
        norms = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *rest: norms.append(clip(*rest).item()))
            patch.setattr(sys, "argv", [script + ".py", *options])
            importlib.import_module(script).main()
        if os.environ.get("RANK", "0") == "0":
            with open(options[-1] + ".norms", "w") as stream:
                json.dump(norms, stream)


def write_data(folder):
    """Write a few examples of every task."""
    for name, count in (("train-en", 40), ("dev-en", 8), ("dev-zh", 8)):
        sentences = read_udpos(os.path.join(SAMPLE, "udpos", f"{name}.tsv"))[:count]
        write_udpos(str(folder / "udpos" / f"{name}.tsv"), sentences)
        pairs = read_pairs(os.path.join(SAMPLE, "xnli", f"{name}.tsv"), "xnli")[:count]
        write_pairs(str(folder / "xnli" / f"{name}.tsv"), pairs)
    (folder / "xquad").mkdir()
    with open(os.path.join(SAMPLE, "squad", "train-v1.1.json"), encoding="utf-8") as stream:
        document = json.load(stream)
    for name, articles in (("train", 2), ("dev-en", 1)):
        content = {**document, "data": document["data"][:articles]}
        (folder / "xquad" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def long_model(model, folder):
    """A tiny model without dropout, of random weights, that takes whole contexts."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config = AutoConfig.from_pretrained(without_dropout(model, folder))
    config.max_position_embeddings = 600
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 600
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_bert, tiny_xlmr):
    """{name: (norms of one process, of two, folder of one, of two)}; batches do not divide by two."""
    folder = tmp_path_factory.mktemp("torchrun")
    write_data(folder)
    bert, xlmr = (without_dropout(model, folder / name) for model, name in ((tiny_bert, "bert"), (tiny_xlmr, "xlmr")))
    long = long_model(tiny_bert, folder / "long")

    def data(task, model, kind="tsv", train="train-en"):
        return ["--model", model, "--train", folder / task / f"{train}.{kind}", "--data-dir", folder / task]

    common = ["--epochs", 1, "--batch-size", 7, "--precision", "f32"]
    jobs = {
        "udpos": ["train_pos", *data("udpos", bert), *common, "--lr", "3e-3"],
        "xnli": ["train_xnli", "--task", "xnli", *data("xnli", xlmr), *common, "--lr", "1e-3"],
        "xquad": ["train_qa", "--task", "xquad", *data("xquad", long, "json", "train"), *common]
        + ["--batch-size", 5, "--lr", "1e-3"],
    }
    for name, count, odd in (("fr", 24, 0), ("zh", 30, 0), ("zh", 60, 1)):  # odd: repeated pairs and empty sides
        with open(os.path.join(SAMPLE, "udpos", f"train-en-{name}.txt"), encoding="utf-8") as stream:
            lines = stream.read().splitlines()[:count]
        lines += ["a ||| ", *lines[:7], "b c ||| d"] * odd
        (folder / f"{name}{count}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tuning = ["--train", folder / "fr24.txt", folder / "zh30.txt", "--batch-size", 6, "--max-steps", 6, "--lr", "1e-3"]
    jobs["tune"] = ["finetune_aligner", "--model", tiny_xlmr, *tuning, "--objectives", "so,co,contrast,psi,tlm"]
    jobs["align"] = ["align", "--model", tiny_xlmr, "--input", folder / "zh60.txt", "--method", "itermax"]
    # One example, which the other process has none of, and pairs of one subword.
    (folder / "one.tsv").write_text("a\tNOUN\n")
    (folder / "pair.tsv").write_text("a\ta\tneutral\n")
    (folder / "one.txt").write_text("a ||| b\n")
    (folder / "two.txt").write_text("a ||| b\nb ||| c\n")
    document = json.loads((folder / "xquad" / "train.json").read_text(encoding="utf-8"))
    paragraph = document["data"][0]["paragraphs"][0]
    document["data"] = [{"title": "", "paragraphs": [{**paragraph, "qas": paragraph["qas"][:1]}]}]
    (folder / "one.json").write_text(json.dumps(document), encoding="utf-8")
    for name, task, model, path in (
        ("udpos-one", "udpos", bert, "one.tsv"), ("xnli-one", "xnli", xlmr, "pair.tsv"),
        ("xquad-one", "xquad", long, "one.json"),
    ):  # fmt: skip
        jobs[name] = [*jobs[task], "--train", folder / path, "--save"]
    jobs["tune-two"] = [*jobs["tune"][:3], "--train", folder / "two.txt", "--batch-size", 2, "--max-steps", 2]
    jobs["tune-two"] += ["--objectives", "so,co,contrast,psi,mlm"]
    for name in ("one", "two"):
        jobs[f"align-{name}"] = [*jobs["align"], "--input", folder / f"{name}.txt"]
    for name in ("tune", "align", "tune-two"):
        jobs[name] += ["--precision", "f32"]

    made = {n: [[*map(str, job), "--output", str(folder / f"{name}{n}")] for name, job in jobs.items()] for n in (1, 2)}
    run_jobs(made[1])
    (folder / "jobs").write_text(json.dumps(made[2]))
    (folder / "launcher.py").write_text(LAUNCHER.format(root=ROOT, jobs=str(folder / "jobs")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder / "launcher.py")], capture_output=True, text=True, env=environment, timeout=580
    )
    assert done.returncode == 0, done.stderr
    return {
        name: [
            *(json.loads((folder / f"{name}{processes}.norms").read_text()) for processes in (1, 2)),
            *(folder / f"{name}{processes}" for processes in (1, 2)),
        ]
        for name in jobs
    }


@pytest.mark.parametrize("name, steps", [("udpos", 6), ("xnli", 6), ("xquad", 2)])
def test_two_processes_have_the_gradients_of_one(runs, name, steps):
    """AdamW and clipping would hide a wrong scale in what comes out. The fitted head is one for all processes."""
    one, two, *_ = runs[name]
    assert len(one) == steps and two == pytest.approx(one, rel=1e-2) and two[:3] == pytest.approx(one[:3], rel=2e-4)


def test_two_processes_tune_as_one_does(runs):
    """The same links and batches, and gradients of all objectives, contrast with the sentences of both included."""
    folders = runs["tune"][2:]
    one, two = (json.loads((folder / "finetuning.json").read_text())["history"] for folder in folders)
    assert [entry["loss"] for entry in two] == pytest.approx([entry["loss"] for entry in one], abs=1e-4)
    # The gradient of a key's bias is 0 but for rounding, which AdamW's first steps blow up; it changes no score.
    one, two = (load_file(str(folder / "model.safetensors")) for folder in folders)
    apart = {name: (one[name] - two[name]).abs().max().item() for name in one if "key.bias" not in name}
    assert max(apart.values()) < 2e-4, {name: value for name, value in apart.items() if value >= 2e-4}


def test_two_processes_find_the_links_of_one(runs):
    """Shared out over processes, repeated pairs, empty sides and the lexicon of all of the text included."""
    one, two = (path.read_bytes() for path in runs["align"][2:])
    assert one == two and one.count(b"\n") == 69


def test_two_processes_end_with_the_predictions_of_one(runs):
    for lang in ("en", "zh"):
        one, two = (read_tag_predictions(str(folder / f"dev-{lang}.tsv")) for folder in runs["udpos"][2:])
        flat = [(a, b) for x, y in zip(one, two) for a, b in zip(x, y)]
        assert sum(a != b for a, b in flat) <= 0.01 * len(flat)  # sums in another order may tip a tie


def test_scores_say_how_many_processes_there_were(runs):
    machines = [json.loads((folder / "scores.json").read_text())["machine"] for folder in runs["xnli"][2:]]
    assert [machine["world"] for machine in machines] == [1, 2]
    assert set(machines[0]) == {"precision", "threads", "world", "torch", "transformers", "device"}


def test_two_processes_do_with_one_example(runs):
    for name, count in (("align-one", 1), ("align-two", 2)):
        one, two = (path.read_text() for path in runs[name][2:])
        assert one == two == "0-0\n" * count
    for name in ("udpos-one", "xnli-one", "xquad-one"):
        one, two = (json.loads((folder / "scores.json").read_text()) for folder in runs[name][2:])
        assert one["train"]["examples"] == two["train"]["examples"] == 1 and set(one["dev"]) == set(two["dev"])
    one, two = (json.loads((folder / "finetuning.json").read_text())["history"] for folder in runs["tune-two"][2:])
    assert [entry["loss"] for entry in two] == pytest.approx([entry["loss"] for entry in one], abs=1e-3)
