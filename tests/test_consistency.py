"""--reordered and --consistency: two views of every example, and the divergence of the predictions for them."""

import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SAMPLE, without_dropout
from safetensors.torch import load_file

import common
import train_pos
import training
from data.files import read_pairs, read_udpos, write_lines, write_pairs, write_udpos

COUNT = 24


@pytest.fixture
def views(tmp_path):
    """views('udpos'): a folder with train-en.tsv, a small dev-en.tsv, and second.tsv, every sentence backwards, with
    its permutations."""

    def make(task):
        folder = tmp_path / task
        if task == "udpos":
            rows = read_udpos(os.path.join(SAMPLE, task, "train-en.tsv"))[:COUNT]
            write_udpos(str(folder / "train-en.tsv"), rows)
            write_udpos(str(folder / "dev-en.tsv"), read_udpos(os.path.join(SAMPLE, task, "dev-en.tsv"))[:10])
            write_udpos(str(folder / "second.tsv"), [(words[::-1], tags[::-1]) for words, tags in rows])
            write_lines(str(folder / "orders"), (" ".join(map(str, reversed(range(len(words))))) for words, _ in rows))
        else:
            rows = read_pairs(os.path.join(SAMPLE, task, "train-en.tsv"), task)[:COUNT]
            write_pairs(str(folder / "train-en.tsv"), rows)
            write_pairs(str(folder / "dev-en.tsv"), read_pairs(os.path.join(SAMPLE, task, "dev-en.tsv"), task)[:20])
            turned = [(*(" ".join(text.split()[::-1]) for text in row[:2]), row[2]) for row in rows]
            write_pairs(str(folder / "second.tsv"), turned)
        return folder

    return make


def train(run, task, model, folder, name, *options):
    """The bytes of the predictions, and what train_*.py says; a rate at which every step shows."""
    script = ("train_pos",) if task == "udpos" else ("train_xnli", "--task", task)
    data = ["--train", folder / "train-en.tsv", "--data-dir", folder, "--output", folder / name, "--epochs", "2"]
    data += ["--lr", "3e-3", "--batch-size", "5", "--precision", "f32", "--save"]
    done = run(*script, "--model", model, *data, *options)
    assert done.code == 0, done.err
    weights = (folder / name / "model" / "model.safetensors").read_bytes()
    return (folder / name / "dev-en.tsv").read_bytes(), weights


def second(task, folder):
    return ["--reordered", folder / "second.tsv"] + (["--permutations", folder / "orders"] if task == "udpos" else [])


@pytest.mark.parametrize("task", ["udpos", "xnli"])
def test_weight_0_gives_the_very_same_weights_as_without(run, tiny_bert, views, task):
    folder = views(task)
    plain = train(run, task, tiny_bert, folder, "plain")
    assert train(run, task, tiny_bert, folder, "zero", "--consistency", "0") == plain
    both = train(run, task, tiny_bert, folder, "both", *second(task, folder))
    zero = train(run, task, tiny_bert, folder, "both-zero", *second(task, folder), "--consistency", "0")
    assert zero == both != plain
    assert train(run, task, tiny_bert, folder, "one", *second(task, folder), "--consistency", "1")[1] != both[1]


@pytest.mark.parametrize("task", ["udpos", "xnli"])
def test_equal_views_without_dropout_add_nothing(run, tmp_path, tiny_bert, views, task):
    """And so the weights are those of training without it; with dropout, which is R-Drop, they are not."""
    folder = views(task)
    same = ["--reordered", folder / "train-en.tsv"]
    dropped = [
        train(run, task, tiny_bert, folder, f"drop{weight}", *same, "--consistency", weight)[1] for weight in ("0", "5")
    ]
    assert dropped[0] != dropped[1]
    model = without_dropout(tiny_bert, tmp_path / "model")
    for name, weight in (("none", "0"), ("five", "5")):
        train(run, task, model, folder, name, *same, "--consistency", weight)
    none, five = (load_file(folder / name / "model" / "model.safetensors") for name in ("none", "five"))
    # Sums in other places of a batch. A key's bias has no gradient but rounding, which AdamW's first steps blow up.
    assert all(torch.allclose(none[key], five[key], atol=1e-4) for key in none if "key.bias" not in key)


def test_a_word_is_compared_with_itself(run, tiny_bert, views, monkeypatch):
    """With scores that do not depend on the order, views in two orders have no divergence: nothing is added."""
    folder = views("udpos")

    def scores(model, batch, pad_id, precision):
        ids, _, places = train_pos.collate(batch, pad_id, model.device)
        return training.last_layer(model)(model.get_input_embeddings()(ids[places]))

    monkeypatch.setattr(train_pos, "word_scores", scores)
    options = [*second("udpos", folder), "--head", "random"]
    without = train(run, "udpos", tiny_bert, folder, "without", *options)
    assert train(run, "udpos", tiny_bert, folder, "with", *options, "--consistency", "5") == without


def test_the_divergence_is_the_formula():
    generator = np.random.default_rng(0)
    p, q = (values / values.sum(1, keepdims=True) for values in generator.random((2, 7, 4)))
    expected = [sum(a * np.log(a / b) + b * np.log(b / a) for a, b in zip(*rows)) / 2 for rows in zip(p, q)]
    found = training.symmetric_divergence(torch.tensor(p).log(), torch.tensor(q).log())
    assert found.numpy() == pytest.approx(np.array(expected))


def test_its_gradient_is_right_through_a_model(tiny_bert):
    encoder = common.load_encoder(tiny_bert).double()
    torch.manual_seed(0)
    classifier = torch.nn.Linear(32, 5).double()
    ids = torch.tensor([[2, 9, 17, 30, 3], [2, 30, 17, 9, 3]])
    same, weight = torch.tensor([3, 2, 1]), encoder.encoder.layer[1].attention.self.query.weight

    def loss():
        scores = F.log_softmax(classifier(encoder(input_ids=ids).last_hidden_state), 2)
        return training.symmetric_divergence(scores[0, same], scores[1, 1:4]).sum()

    loss().backward()
    gradient = weight.grad.clone()
    for place in ((0, 0), (5, 11), (31, 2)):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[place] += step
                values.append(loss().item())
                weight[place] -= step
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient[place].item(), rel=1e-4, abs=1e-9)


def test_views_that_do_not_fit_are_named(run, tiny_bert, views):
    folder = views("udpos")
    options = ["--model", tiny_bert, "--train", folder / "train-en.tsv", "--data-dir", folder]
    options += ["--output", folder / "run"]

    def error(*more, script=("train_pos",)):
        done = run(*script, *options, *more)
        assert done.code == 2 and done.err.count("\n") == 1, done.err
        return done.err

    alone = error("--consistency", "1")
    assert "--consistency: compares two views of every example; expected --reordered FILE too" in alone
    assert "--permutations: belongs to a second view" in error("--permutations", folder / "orders")
    assert "second.tsv: sentence 1 is not that of" in error("--reordered", folder / "second.tsv")
    lines = (folder / "orders").read_text().split("\n")
    (folder / "orders").write_text("\n".join([lines[0], "9" * 5000, *lines[2:]]))
    assert "orders:2: does not fit the sentence" in error(*second("udpos", folder))
    (folder / "orders").write_text("\n".join([lines[0], "0 0 1", *lines[2:]]))
    assert "orders:2: does not fit the sentence; expected the numbers 0 to" in error(*second("udpos", folder))
    (folder / "orders").write_text("\n".join(lines[:5]) + "\n")
    assert "orders: 5 lines, but" in error(*second("udpos", folder))
    write_udpos(str(folder / "second.tsv"), read_udpos(str(folder / "second.tsv"))[:9])
    assert "second.tsv: 9 sentences, but" in error("--reordered", folder / "second.tsv")
    pairs = views("xnli")
    options[3:6] = [pairs / "train-en.tsv", "--data-dir", pairs]
    rows = read_pairs(str(pairs / "second.tsv"), "xnli")
    write_pairs(str(pairs / "second.tsv"), rows[:1] + [(rows[1][0], "Quite another sentence .", rows[1][2])] + rows[2:])
    other = error("--reordered", pairs / "second.tsv", script=("train_xnli", "--task", "xnli"))
    assert "second.tsv:2: is not line 2 of" in other
    write_pairs(str(pairs / "second.tsv"), rows[:9])
    other = error("--reordered", pairs / "second.tsv", script=("train_xnli", "--task", "xnli"))
    assert "second.tsv: other labels, or another number of pairs" in other


def test_reorder_writes_the_permutations_of_what_it_wrote(run, tmp_path, views):
    folder = views("udpos")
    rows = read_udpos(str(folder / "train-en.tsv"))
    links = (" ".join(f"{i}-{(7 * i) % len(words)}" for i in range(len(words))) for words, _ in rows)
    write_lines(str(folder / "align"), links)
    files = ["--input", folder / "train-en.tsv", "--alignment", folder / "align"]
    files += ["--output", folder / "new.tsv", "--permutations", folder / "new.orders"]
    for control in ([], ["--random"]):
        done = run("reorder", "--task", "udpos", *files, *control)
        assert done.code == 0 and json.loads(done.out)["moved"] > 0.3
        orders = [list(map(int, line.split())) for line in (folder / "new.orders").read_text().splitlines()]
        moved = [tuple([side[i] for i in order] for side in row) for row, order in zip(rows, orders)]
        assert moved == read_udpos(str(folder / "new.tsv"))
