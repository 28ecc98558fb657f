"""train_pos.py learns, gives the same numbers for the same seed, tags every word, and trains data-parallel."""

import json
import os

import pytest
import torch
from conftest import SAMPLE, gradient_norms, without_dropout

import common
import subwords
import train_pos
from data.files import read_tag_predictions, read_udpos, write_udpos
from data.metrics import tagging_scores

UDPOS = os.path.join(SAMPLE, "udpos")


@pytest.fixture
def small(tmp_path):
    """A folder with 40 training sentences and 12 dev sentences each of en and zh."""
    folder = tmp_path / "data"
    for name, count in (("train-en", 40), ("dev-en", 12), ("dev-zh", 12)):
        write_udpos(str(folder / f"{name}.tsv"), read_udpos(os.path.join(UDPOS, f"{name}.tsv"))[:count])
    return folder


def train(run, model, data, output, *options):
    done = run(
        "train_pos",
        "--model",
        model,
        "--train",
        data / "train-en.tsv",
        "--data-dir",
        data,
        "--output",
        output,
        "--lr",
        "3e-3",
        "--batch-size",
        "8",
        *options,
    )
    assert done.code == 0, done.err
    with open(output / "scores.json", encoding="utf-8") as stream:
        return json.load(stream)


def test_it_learns_and_its_files_hold_what_other_tools_read(run, tmp_path, tiny_model, small):
    write_udpos(str(small / "dev-en.tsv"), read_udpos(str(small / "train-en.tsv")))
    scores = train(
        run,
        tiny_model,
        small,
        tmp_path / "run",
        "--epochs",
        "40",
        "--order",
        "hi",
        "--aligner",
        "pretrained",
        "--seed",
        "3",
    )
    assert scores["dev"]["en"]["accuracy"] > 0.6  # its own training data; the commonest tag is below 0.2
    assert (scores["task"], scores["order"], scores["aligner"], scores["seed"], scores["metric"]) == (
        "udpos",
        "hi",
        "pretrained",
        3,
        "accuracy",
    )
    assert set(scores["dev"]) == {"en", "zh"} and set(scores["dev"]["en"]) == {"accuracy", "f1", "count"}
    assert (
        set(scores["train"]) == {"examples", "steps", "seconds", "tokens_per_second"}
        and scores["train"]["steps"] == 40 * 5
    )
    for lang in ("en", "zh"):
        gold = [tags for _, tags in read_udpos(str(small / f"dev-{lang}.tsv"))]
        predicted = read_tag_predictions(str(tmp_path / "run" / f"dev-{lang}.tsv"))
        assert (
            list(map(len, predicted)) == list(map(len, gold)) and tagging_scores(gold, predicted) == scores["dev"][lang]
        )
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


def test_the_label_sits_on_the_first_piece_that_says_something(tiny_xlmr):
    tokenizer = common.load_tokenizer(tiny_xlmr)
    bare = subwords.bare_piece(tokenizer)
    words = [word for word in read_udpos(os.path.join(UDPOS, "dev-zh.tsv"))[0][0]]
    [(ids, positions, _)] = train_pos.segments(tokenizer, [words], 128, "content")
    [(same, first, _)] = train_pos.segments(tokenizer, [words], 128, "first")
    assert ids == same and bare in [ids[k] for k in first] and bare not in [ids[k] for k in positions]
    assert all(a == b or (ids[a] == bare and b > a) for a, b in zip(first, positions))


def test_max_dev_and_langs_narrow_the_test(run, tmp_path, tiny_bert, small):
    scores = train(run, tiny_bert, small, tmp_path / "run", "--epochs", "1", "--langs", "zh", "--max-dev", "5")
    assert set(scores["dev"]) == {"zh"} and len(read_tag_predictions(str(tmp_path / "run" / "dev-zh.tsv"))) == 5


def test_two_processes_train_on_the_same_batches(tmp_path, tiny_bert, small):
    """Without dropout two processes end with the predictions of one: the batches are the same, and gradients are added up."""
    model = without_dropout(tiny_bert, tmp_path / "model")
    data = ["--model", model, "--train", small / "train-en.tsv", "--data-dir", small]
    norms = gradient_norms(tmp_path, "train_pos", 29517, *data, "--epochs", 2, "--batch-size", 7, "--lr", "3e-3")
    assert len(norms[0]) == 12 and norms[1] == pytest.approx(norms[0], rel=1e-2)
    assert norms[1][:3] == pytest.approx(norms[0][:3], rel=1e-4)
    for lang in ("en", "zh"):
        one, two = (read_tag_predictions(str(tmp_path / name / f"dev-{lang}.tsv")) for name in ("1", "2"))
        flat = [(a, b) for x, y in zip(one, two) for a, b in zip(x, y)]
        assert sum(a != b for a, b in flat) <= 0.01 * len(flat)  # sums in another order may tip a tie
