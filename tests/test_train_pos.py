"""train_pos.py learns, gives the same numbers for the same seed, tags every word, and trains data-parallel."""

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
from data.files import UPOS, read_udpos, write_udpos
from data.metrics import tagging_scores
from evaluation.runs import read_tag_predictions

UDPOS = os.path.join(SAMPLE, "udpos")


@pytest.fixture
def small(tmp_path):
    """A folder with 40 training sentences and 12 dev sentences each of en and zh."""
    folder = tmp_path / "data"
    for name, count in (("train-en", 40), ("dev-en", 12), ("dev-zh", 12)):
        write_udpos(str(folder / f"{name}.tsv"), read_udpos(os.path.join(UDPOS, f"{name}.tsv"))[:count])
    return folder


def train(run, model, data, output, *options):
    files = ["--train", data / "train-en.tsv", "--data-dir", data, "--output", output]
    done = run("train_pos", "--model", model, *files, "--lr", "3e-3", "--batch-size", "8", *options)
    assert done.code == 0, done.err
    with open(output / "scores.json", encoding="utf-8") as stream:
        return json.load(stream)


def test_it_learns_and_its_files_hold_what_other_tools_read(run, tmp_path, tiny_model, small):
    write_udpos(str(small / "dev-en.tsv"), read_udpos(str(small / "train-en.tsv")))
    options = ["--epochs", "40", "--order", "hi", "--aligner", "pretrained", "--seed", "3"]
    scores = train(run, tiny_model, small, tmp_path / "run", *options)
    assert scores["dev"]["en"]["accuracy"] > 0.6  # its own training data; the commonest tag is below 0.2
    said = [scores[key] for key in ("task", "order", "aligner", "seed", "metric")]
    assert said == ["udpos", "hi", "pretrained", 3, "accuracy"]
    assert set(scores["dev"]) == {"en", "zh"} and set(scores["dev"]["en"]) == {"accuracy", "f1", "count"}
    assert set(scores["train"]) == {"examples", "steps", "seconds", "tokens_per_second", "history"}
    assert scores["train"]["steps"] == 40 * 5
    for lang in ("en", "zh"):
        gold = [tags for _, tags in read_udpos(str(small / f"dev-{lang}.tsv"))]
        predicted = read_tag_predictions(str(tmp_path / "run" / f"dev-{lang}.tsv"))
        assert list(map(len, predicted)) == list(map(len, gold))
        assert tagging_scores(gold, predicted) == scores["dev"][lang]
        assert (tmp_path / "run" / f"dev-{lang}.tsv").read_text().endswith("\n\n")


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(run, tmp_path, tiny_xlmr, small):
    def result(name, seed):
        train(run, tiny_xlmr, small, tmp_path / name, "--epochs", "20", "--seed", seed)
        return [(tmp_path / name / f"dev-{lang}.tsv").read_bytes() for lang in ("en", "zh")]

    assert result("a", "1") == result("b", "1") != result("c", "2")


def test_trimmed_embeddings_give_the_very_same_scores(run, tmp_path, tiny_model, small, monkeypatch):
    """Trimmed to the rows in use or whole, the model computes the same predictions, batch by batch and step by step."""
    trimmed = train(run, tiny_model, small, tmp_path / "trimmed", "--epochs", "4", "--precision", "f32")
    sizes = []

    def keep_all(encoder, used):
        sizes.append(encoder.get_input_embeddings().num_embeddings)
        return common.np.arange(sizes[-1])

    monkeypatch.setattr(common, "trim_embeddings", keep_all)
    whole = train(run, tiny_model, small, tmp_path / "whole", "--epochs", "4", "--precision", "f32")
    assert sizes and whole["dev"] == trimmed["dev"]
    for lang in ("en", "zh"):
        assert (tmp_path / "whole" / f"dev-{lang}.tsv").read_bytes() == (
            tmp_path / "trimmed" / f"dev-{lang}.tsv"
        ).read_bytes()


def test_trimming_keeps_every_vector_and_the_pad_id(tiny_model):
    encoder = common.load_encoder(tiny_model)
    before = encoder.get_input_embeddings().weight.detach().clone()
    pad_id = encoder.config.pad_token_id
    ids = torch.tensor([[0, 9, 70, 300, 2], [0, 70, 2, pad_id, pad_id]])
    mask = ids != pad_id
    with torch.inference_mode():
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    new_id = common.trim_embeddings(encoder, ids.flatten().tolist())
    rows = encoder.get_input_embeddings().weight.detach()
    assert len(rows) < 10 < len(before) and new_id[pad_id] == pad_id
    assert torch.equal(rows[new_id[70]], before[70])
    with torch.inference_mode():
        assert torch.equal(
            encoder(input_ids=torch.from_numpy(new_id)[ids], attention_mask=mask).last_hidden_state, hidden
        )


def test_long_sentences_are_cut_between_words_and_every_word_is_tagged(run, tmp_path, tiny_model, small):
    tokenizer = common.load_tokenizer(tiny_model)
    sentences = [["bread"] * 50, ["x" * 300, "a"], ["I", "\u200b", "see"], ["ok"]]
    made = train_pos.segments(tokenizer, sentences, 16, "content")
    assert all(len(ids) <= 16 for ids, _, _ in made)
    assert [sum(len(positions) for _, positions, number in made if number == n) for n in range(4)] == [50, 2, 3, 1]
    for ids, positions, _ in made:
        assert positions == sorted(set(positions)) and all(0 < position < len(ids) - 1 for position in positions)
    write_udpos(str(small / "dev-zh.tsv"), [(words, ["NOUN"] * len(words)) for words in sentences])
    scores = train(run, tiny_model, small, tmp_path / "run", "--epochs", "1", "--max-length", "16")
    assert scores["dev"]["zh"]["count"] == 56


def test_the_label_sits_on_the_first_subword_that_says_something(tiny_xlmr):
    tokenizer = common.load_tokenizer(tiny_xlmr)
    bare = common.bare_subword(tokenizer)
    words = [word for word in read_udpos(os.path.join(UDPOS, "dev-zh.tsv"))[0][0]]
    [(ids, positions, _)] = train_pos.segments(tokenizer, [words], 128, "content")
    [(same, first, _)] = train_pos.segments(tokenizer, [words], 128, "first")
    assert ids == same and bare in [ids[k] for k in first] and bare not in [ids[k] for k in positions]
    assert all(a == b or (ids[a] == bare and b > a) for a, b in zip(first, positions))


def test_max_dev_and_langs_narrow_the_test(run, tmp_path, tiny_bert, small):
    scores = train(run, tiny_bert, small, tmp_path / "run", "--epochs", "1", "--langs", "zh", "--max-dev", "5")
    assert set(scores["dev"]) == {"zh"} and len(read_tag_predictions(str(tmp_path / "run" / "dev-zh.tsv"))) == 5


def test_a_sentence_without_end_is_trained_in_parts(run, tmp_path, tiny_bert, small, monkeypatch):
    """A file without one blank line: parts of bounded size, the same loss; the gradients of the parts add up."""
    sentences = read_udpos(str(small / "train-en.tsv"))
    tokenizer = common.load_tokenizer(tiny_bert)
    long = [([w for words, _ in sentences for w in words], [t for _, tags in sentences for t in tags])]
    examples = train_pos.make_examples(tokenizer, [long + sentences[:3]] * 2, 64, "content", UPOS)
    for budget in (100, 600, 10**6):
        parts = list(train_pos.split_batch([0, 1, 2, 3], examples, budget))
        assert all(sum(len(ids) for ids, *_ in part) <= budget for part, _ in parts)
        seen = sorted(id(segment) for part, _ in parts for segment in part)
        assert seen == sorted(id(segment) for example in examples for order in example for segment in order)
        sizes = [sum(len(ids) for segments in example for ids, *_ in segments) for example in examples]
        assert sorted(n for _, whole in parts for n in whole) == [n for n in range(4) if sizes[n] <= budget]
        for part, whole in parts:  # those that are whole come first, one order after the other
            inside = [segment for order in (0, 1) for n in whole for segment in examples[n][order]]
            assert all(one is two for one, two in zip(part, inside))
    write_udpos(str(small / "train-en.tsv"), long + sentences[:3])
    options = ["--epochs", "2", "--precision", "f32", "--save", "--head", "random"]
    results = []
    for budget in (200, 10**6):
        monkeypatch.setattr(train_pos, "TRAIN_BUDGET", {"cpu": budget})
        model = without_dropout(tiny_bert, tmp_path / f"model{budget}")
        train(run, model, small, tmp_path / str(budget), *options)
        results.append(load_file(tmp_path / str(budget) / "model" / "model.safetensors"))
    assert all(torch.allclose(results[0][key], results[1][key], atol=2e-4) for key in results[0])


def test_the_fitted_head_is_logistic_regression(tiny_bert, small):
    """At its optimum the gradient is 0, and it says the training words' tags better than random weights do."""
    tokenizer, model = common.load_tokenizer(tiny_bert), training.load_with_head(tiny_bert, "TokenClassification", UPOS)
    sentences = read_udpos(str(small / "train-en.tsv"))
    examples = train_pos.make_examples(tokenizer, [sentences], 64, "content", UPOS)
    inputs, tags = [], torch.tensor([tag for [segments] in examples for *_, inside in segments for tag in inside])

    def accuracy():
        model.eval()
        scores = [train_pos.word_scores(model, segments, tokenizer.pad_token_id, "f32") for [segments] in examples]
        return (torch.cat(scores).argmax(1) == tags).float().mean().item()

    before, layer = accuracy(), training.last_layer(model)
    words = train_pos.pass_words(model, examples, tokenizer.pad_token_id, "f32", np.random.default_rng(1))
    training.fit_last_layer(model, words, 0)
    assert accuracy() > max(0.4, before + 0.2)
    hook = layer.register_forward_pre_hook(lambda _, states: inputs.append(states[0]))
    with torch.inference_mode():
        for [segments] in examples:
            _, _, places = train_pos.collate(segments, tokenizer.pad_token_id, model.device)
            train_pos.word_scores(model, segments, tokenizer.pad_token_id, "f32")
            inputs[-1] = inputs[-1][places]
    hook.remove()
    model.zero_grad()
    loss = F.cross_entropy(layer(torch.cat(inputs).clone()), tags) + training.L2_PENALTY * layer.weight.square().sum()
    loss.backward()
    assert layer.weight.grad.abs().max() < 0.02 and not any(p.grad is not None for p in model.base_model.parameters())
    size = [len(words) for words, _ in sentences]
    assert sum(size) == len(tags) < train_pos.FITTED_WORDS


def test_the_rate_rises_in_the_warm_up_and_falls_to_0():
    rates = [[training.linear_schedule(step, 10, warmup) for step in range(10)] for warmup in (0, 0.2)]
    assert rates[0] == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])  # transformers', without any
    assert rates[1] == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_the_loss_is_recorded_twenty_times_and_said_in_a_log(run, tmp_path, tiny_bert, small, monkeypatch):
    """Each record is the mean of the steps since the last one, and the rate of its step."""
    seen, update = [], training.update

    def note(optimizer, rate):
        seen.append(rate)
        update(optimizer, rate)

    losses, record = [], training.record_loss

    def keep(state, *rest):
        losses.append(float(state["loss"]))
        record(state, *rest)

    monkeypatch.setattr(training, "update", note)
    monkeypatch.setattr(training, "record_loss", keep)
    files = ["--train", small / "train-en.tsv", "--data-dir", small, "--output", tmp_path / "run", "--langs", "en"]
    done = run("train_pos", "--model", tiny_bert, *files, "--lr", "3e-3", "--batch-size", "8", "--epochs", "10")
    history = json.loads((tmp_path / "run" / "scores.json").read_text())["train"]["history"]
    assert [entry["step"] for entry in history] == [-(-5 * n // 2) for n in range(1, 21)]  # of 50 steps
    for entry, before in zip(history, [0, *(entry["step"] for entry in history)]):
        assert entry["loss"] == pytest.approx(np.mean(losses[before : entry["step"]]), rel=1e-4)
        assert entry["lr"] == seen[entry["step"] - 1]
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    lines = [line for line in done.err.splitlines() if ": step " in line]
    assert lines[0].startswith("train_pos.py: step 3 of 50: loss ") and len(lines) == len(history)
