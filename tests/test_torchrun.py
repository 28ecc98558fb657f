"""torchrun trains on the same batches as one process: the gradients of two processes add up to those of one.

All train scripts run in two processes that are started once.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SAMPLE, without_dropout

from data.files import read_pairs, read_tag_predictions, read_udpos, write_pairs, write_udpos
from data.paragraphs import paragraph_sentences, reorder_paragraph
from data.squad import read_squad, write_squad

LAUNCHER = """
import importlib, json, os, sys
sys.path.insert(0, {root!r})
import torch, torch.distributed as dist

# One process group for all the scripts.
start, norms, clip = dist.init_process_group, [], torch.nn.utils.clip_grad_norm_
dist.init_process_group = lambda *arguments: dist.is_initialized() or start(*arguments)
stop, dist.destroy_process_group = dist.destroy_process_group, lambda: None
torch.nn.utils.clip_grad_norm_ = lambda *arguments: norms.append(clip(*arguments).item())
for script, *options in json.load(open({jobs!r})):
    sys.argv, norms[:] = [script + ".py", *options], []
    importlib.import_module(script).main()
    if dist.get_rank() == 0:
        json.dump(norms, open(options[-1] + ".norms", "w"))
    dist.barrier()
stop()
"""


def write_data(folder):
    """A few examples of every task; for question answering also every sentence in a random order."""
    for name, count in (("train-en", 40), ("dev-en", 8), ("dev-zh", 8)):
        sentences = read_udpos(os.path.join(SAMPLE, "udpos", f"{name}.tsv"))[:count]
        write_udpos(str(folder / "udpos" / f"{name}.tsv"), sentences)
        pairs = read_pairs(os.path.join(SAMPLE, "xnli", f"{name}.tsv"), "xnli")[:count]
        write_pairs(str(folder / "xnli" / f"{name}.tsv"), pairs)
    (folder / "xquad").mkdir()
    source = str(folder / "xquad" / "train.json")
    with open(os.path.join(SAMPLE, "squad", "train-v1.1.json"), encoding="utf-8") as stream:
        document = json.load(stream)
    for name, articles in (("train", 2), ("dev-en", 1)):
        content = {**document, "data": document["data"][:articles]}
        (folder / "xquad" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    second, lines = [], []
    shuffle = np.random.default_rng(3).permutation
    for paragraph in read_squad(source):
        sentences = paragraph_sentences(*paragraph)
        orders = [shuffle(len(sentence.spans)).tolist() for sentence in sentences]
        second.append(reorder_paragraph(paragraph, sentences, orders)[0])
        lines += [" ".join(map(str, order)) + "\n" for order in orders]
    write_squad(str(folder / "xquad" / "second.json"), second, source)
    (folder / "xquad" / "orders").write_text("".join(lines))


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
    second = ["--reordered", folder / "xquad" / "second.json", "--permutations", folder / "xquad" / "orders"]
    jobs = {
        "udpos": ["train_pos", *data("udpos", bert), *common, "--lr", "3e-3"],
        "xnli": ["train_xnli", "--task", "xnli", *data("xnli", xlmr), *common, "--lr", "1e-3"],
        "xquad": ["train_qa", "--task", "xquad", *data("xquad", long, "json", "train"), *common, *second]
        + ["--consistency", 2, "--batch-size", 5, "--lr", "1e-3"],
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for processes in (1, 2):
        made = [[*map(str, job), "--output", str(folder / f"{name}{processes}")] for name, job in jobs.items()]
        (folder / "jobs").write_text(json.dumps(made))
        (folder / "launcher.py").write_text(LAUNCHER.format(root=ROOT, jobs=str(folder / "jobs")))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
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


def test_two_processes_end_with_the_predictions_of_one(runs):
    for lang in ("en", "zh"):
        one, two = (read_tag_predictions(str(folder / f"dev-{lang}.tsv")) for folder in runs["udpos"][2:])
        flat = [(a, b) for x, y in zip(one, two) for a, b in zip(x, y)]
        assert sum(a != b for a, b in flat) <= 0.01 * len(flat)  # sums in another order may tip a tie


def test_scores_say_how_many_processes_there_were(runs):
    machines = [json.loads((folder / "scores.json").read_text())["machine"] for folder in runs["xnli"][2:]]
    assert [machine["world"] for machine in machines] == [1, 2]
    assert set(machines[0]) == {"precision", "threads", "world", "torch", "transformers", "device"}
