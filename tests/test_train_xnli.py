"""train_xnli.py learns, keeps labels in place, gives the same numbers for the same seed, and trains data-parallel."""

import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SAMPLE

import common
import train_xnli
import training
from data.files import PAIR_LABELS, read_pairs, write_pairs

XNLI = os.path.join(SAMPLE, "xnli")


@pytest.fixture
def small(tmp_path):
    """A folder with 45 training pairs and 15 dev pairs each of en and zh."""
    folder = tmp_path / "data"
    for name, count in (("train-en", 45), ("dev-en", 15), ("dev-zh", 15)):
        write_pairs(str(folder / f"{name}.tsv"), read_pairs(os.path.join(XNLI, f"{name}.tsv"), "xnli")[:count])
    return folder


def train(run, model, data, output, *options, task="xnli"):
    done = run(
        "train_xnli", "--task", task, "--model", model, "--train", data / "train-en.tsv", "--data-dir", data,
        "--output", output, "--lr", "2e-3", "--batch-size", "8", *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    with open(output / "scores.json", encoding="utf-8") as stream:
        return json.load(stream)


def test_it_learns_and_its_files_hold_what_other_tools_read(run, tmp_path, tiny_model, small):
    write_pairs(str(small / "dev-en.tsv"), read_pairs(str(small / "train-en.tsv"), "xnli"))
    options = ["--epochs", "60", "--order", "hi", "--aligner", "joint", "--seed", "3", "--head", "random"]
    scores = train(run, tiny_model, small, tmp_path / "run", *options)
    assert scores["dev"]["en"]["accuracy"] > 0.8  # its own training data; chance is a third
    said = [scores[key] for key in ("task", "order", "aligner", "seed", "metric")]
    assert said == ["xnli", "hi", "joint", 3, "accuracy"]
    assert set(scores["dev"]) == {"en", "zh"} and set(scores["dev"]["en"]) == {"accuracy", "count"}
    assert set(scores["train"]) == {"examples", "steps", "seconds", "tokens_per_second", "history"}
    assert scores["train"]["steps"] == 60 * 6
    for lang in ("en", "zh"):
        gold = [label for *_, label in read_pairs(str(small / f"dev-{lang}.tsv"), "xnli")]
        predicted = (tmp_path / "run" / f"dev-{lang}.tsv").read_text().splitlines()
        right = sum(a == b for a, b in zip(gold, predicted))
        assert len(gold) == len(predicted) and set(predicted) <= set(PAIR_LABELS["xnli"])
        assert scores["dev"][lang] == {"accuracy": right / len(gold), "count": len(gold)}


def test_the_old_spelling_of_contradiction_is_the_same_label(run, tmp_path, tiny_bert, small):
    results = []
    for name in ("new", "old"):
        train(run, tiny_bert, small, tmp_path / name, "--epochs", "2")
        results.append([(tmp_path / name / f"dev-{lang}.tsv").read_bytes() for lang in ("en", "zh")])
        text = (small / "train-en.tsv").read_text()
        (small / "train-en.tsv").write_text(text.replace("\tcontradiction", "\tcontradictory"))
    assert "contradictory" in text.replace("\tcontradiction", "\tcontradictory") and results[0] == results[1]


def test_pawsx_has_two_labels(run, tmp_path, tiny_xlmr):
    folder = tmp_path / "data"
    for name in ("train-en", "dev-de"):
        write_pairs(str(folder / f"{name}.tsv"), read_pairs(os.path.join(SAMPLE, "pawsx", f"{name}.tsv"), "pawsx")[:20])
    scores = train(run, tiny_xlmr, folder, tmp_path / "run", "--epochs", "1", "--max-dev", "12", task="pawsx")
    predicted = (tmp_path / "run" / "dev-de.tsv").read_text().splitlines()
    assert scores["dev"]["de"]["count"] == len(predicted) == 12 and set(predicted) <= {"0", "1"}


def test_inputs_are_those_of_the_models_own_tokenizer(tmp_path, tiny_model):
    tokenizer = common.load_tokenizer(tiny_model)
    rows = read_pairs(os.path.join(XNLI, "dev-en.tsv"), "xnli")[:30]
    inputs = train_xnli.read_inputs(os.path.join(XNLI, "dev-en.tsv"), "xnli", tokenizer, 24, 30)
    assert len(inputs.lengths) == 30 and inputs.lengths.max() == 24
    for n, (one, two, label) in enumerate(rows):
        expected = tokenizer(one, two, truncation="longest_first", max_length=24, return_token_type_ids=True)
        place = slice(inputs.first[n], inputs.first[n] + inputs.lengths[n])
        assert inputs.ids[place].tolist() == expected["input_ids"]
        assert inputs.types[place].tolist() == expected["token_type_ids"]
        assert PAIR_LABELS["xnli"][inputs.labels[n]] == label


def test_each_family_gets_the_head_of_xtremes_baselines(tiny_bert, tiny_xlmr):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    for folder in (tiny_bert, tiny_xlmr):
        config = AutoConfig.from_pretrained(folder, num_labels=3)
        theirs = AutoModelForSequenceClassification.from_pretrained(folder, config=config).eval()
        model = training.load_with_head(folder, "SequenceClassification", PAIR_LABELS["xnli"])
        if config.model_type == "bert":  # the checkpoint's pooler, not a new one
            assert torch.equal(model.bert.pooler.dense.weight, theirs.bert.pooler.dense.weight)
        theirs.classifier.load_state_dict(model.classifier.state_dict())
        tokenizer = common.load_tokenizer(folder)
        inputs = train_xnli.read_inputs(os.path.join(XNLI, "dev-en.tsv"), "xnli", tokenizer, 128, 7)
        with torch.inference_mode():
            ours = train_xnli.label_scores(model, inputs, list(range(7)), tokenizer.pad_token_id, "f32")
            rows = read_pairs(os.path.join(XNLI, "dev-en.tsv"), "xnli")[:7]
            encoded = tokenizer(
                [row[0] for row in rows], [row[1] for row in rows], padding=True, return_tensors="pt",
                return_token_type_ids=config.type_vocab_size > 1, return_attention_mask=True,
            )  # fmt: skip
            assert torch.allclose(ours, theirs(**encoded).logits, atol=1e-5)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(run, tmp_path, tiny_bert, small):
    def result(name, seed):
        train(run, tiny_bert, small, tmp_path / name, "--epochs", "8", "--seed", seed)
        return [(tmp_path / name / f"dev-{lang}.tsv").read_bytes() for lang in ("en", "zh")]

    assert result("a", "1") == result("b", "1") != result("c", "2")


def test_trimmed_embeddings_give_the_very_same_scores(run, tmp_path, tiny_model, small, monkeypatch):
    trimmed = train(run, tiny_model, small, tmp_path / "trimmed", "--epochs", "3", "--precision", "f32")
    monkeypatch.setattr(
        common, "trim_embeddings", lambda encoder, used: np.arange(encoder.get_input_embeddings().num_embeddings)
    )
    whole = train(run, tiny_model, small, tmp_path / "whole", "--epochs", "3", "--precision", "f32")
    assert whole["dev"] == trimmed["dev"]
    for lang in ("en", "zh"):
        one, other = ((tmp_path / name / f"dev-{lang}.tsv").read_bytes() for name in ("whole", "trimmed"))
        assert one == other


def test_real_files_load(shared):
    for task, folder, count in (("xnli", "xnli", 2490), ("pawsx", "pawsx", 2000)):
        path = os.path.join(shared, "xtreme", folder)
        names = [name for name in os.listdir(path) if name.startswith("dev-")]
        assert len(names) == {"xnli": 15, "pawsx": 4}[task]
        labels = [[label for *_, label in read_pairs(os.path.join(path, name), task)] for name in names]
        assert all(len(found) == count for found in labels)
        if task == "xnli":  # line i is the same pair in every language
            assert all(found == labels[0] for found in labels)


def test_the_fitted_head_is_logistic_regression(tiny_model, small, monkeypatch):
    """At its optimum the gradient is 0, for the pairs that it is fitted to; of more than so many a sample is drawn."""
    tokenizer = common.load_tokenizer(tiny_model)
    model = training.load_with_head(tiny_model, "SequenceClassification", PAIR_LABELS["xnli"])
    inputs = train_xnli.read_inputs(str(small / "train-en.tsv"), "xnli", tokenizer, 64)
    layer, states = training.last_layer(model), []

    def passes():
        return train_xnli.pass_pairs(model, inputs, tokenizer.pad_token_id, "f32", np.random.default_rng(1))

    training.fit_last_layer(model, passes(), 0)
    hook = layer.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    with torch.inference_mode():
        labels = torch.cat([found for _, found in passes()])
    hook.remove()
    assert torch.bincount(labels).tolist() == np.bincount(inputs.labels).tolist() == [15, 15, 15]
    scores = layer(torch.cat(states).clone())
    assert (scores.argmax(1) == labels).float().mean() > 0.5  # chance is a third
    (F.cross_entropy(scores, labels.clone()) + training.L2_PENALTY * layer.weight.square().sum()).backward()
    assert layer.weight.grad.abs().max() < 0.02 and not any(p.grad is not None for p in model.base_model.parameters())
    monkeypatch.setattr(train_xnli, "FITTED_PAIRS", 10)
    with torch.inference_mode():
        assert sum(len(found) for _, found in passes()) == 10
