"""A train script that is killed goes on from its checkpoint to the very same result; --save writes a model that
transformers loads."""

import argparse
import json
import os

import numpy as np
import pytest
import torch
from conftest import SAMPLE

import common
import training
import versions
from data.files import InputError, read_pairs, read_udpos, write_pairs, write_udpos

SCRIPTS = ["udpos", "xnli", "xquad"]


@pytest.fixture
def command(tmp_path, tiny_bert):
    """command('udpos') is a train script's name and its options on small data, without --output."""

    def make(task):
        folder = tmp_path / task
        if task == "xquad":
            folder.mkdir()
            sources = {"train-en": "squad/train-v1.1", "dev-en": "xquad/xquad.en", "dev-zh": "xquad/xquad.zh"}
            for name, source in sources.items():
                with open(os.path.join(SAMPLE, f"{source}.json"), encoding="utf-8") as stream:
                    document = json.load(stream)
                document["data"] = document["data"][: 3 if name == "train-en" else 1]
                (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
            data = ["--train", folder / "train-en.json", "--data-dir", folder, "--lr", "3e-3", "--batch-size", "8"]
            return "train_qa", "--task", task, "--model", tiny_bert, *data
        for name, count in (("train-en", 40), ("dev-en", 12), ("dev-zh", 12)):
            path, small = os.path.join(SAMPLE, task, f"{name}.tsv"), str(folder / f"{name}.tsv")
            if task == "udpos":
                write_udpos(small, read_udpos(path)[:count])
            else:
                write_pairs(small, read_pairs(path, task)[:count])
        options = ["--model", tiny_bert, "--train", folder / "train-en.tsv", "--data-dir", folder]
        options += ["--lr", "3e-3", "--batch-size", "8"]
        return ("train_pos", *options) if task == "udpos" else ("train_xnli", "--task", task, *options)

    return make


def predictions(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder) if name.startswith("dev-")}


@pytest.mark.parametrize("task", SCRIPTS)
def test_a_killed_run_goes_on_to_the_same_predictions_and_losses(run, tmp_path, command, monkeypatch, task):
    """Killed in the second epoch, amid a step; dropout is on, and the rate is high enough for every step to matter."""
    script, *options = command(task)
    options += ["--epochs", "6" if task == "xquad" else "3", "--save-every", "0", "--seed", "5"]
    assert run(script, *options, "--output", tmp_path / "whole").code == 0
    count, update = [0], training.update

    def killed(*arguments):
        count[0] += 1
        if count[0] == 8:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(training, "update", killed)
    assert run(script, *options, "--output", tmp_path / "cut").code == 130
    assert (tmp_path / "cut.checkpoint").exists() and not (tmp_path / "cut" / "scores.json").exists()
    count[0] = -100
    done = run(script, *options, "--output", tmp_path / "cut")
    assert done.code == 0 and "resuming after step 7" in done.err
    whole, cut = (json.loads((tmp_path / name / "scores.json").read_text())["train"] for name in ("whole", "cut"))
    assert count[0] == -100 + whole["steps"] - 7 and whole["steps"] > 10
    assert whole["history"] == cut["history"] and len(whole["history"]) > 8
    assert predictions(tmp_path / "cut") == predictions(tmp_path / "whole")
    assert not (tmp_path / "cut.checkpoint").exists()


def test_scores_never_stand_beside_the_predictions_of_another_run(run, tmp_path, command, monkeypatch):
    """A run that is killed while it replaces a former one's predictions leaves no scores.json."""
    script, *options = command("xnli")
    options += ["--epochs", "1", "--output", tmp_path / "run"]
    assert run(script, *options).code == 0 and (tmp_path / "run" / "scores.json").exists()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train_xnli.write_lines", killed)
    assert run(script, *options, "--lr", "1e-3").code != 0
    assert not (tmp_path / "run" / "scores.json").exists()


def test_a_rate_that_is_too_high_ends_in_one_line(run, tmp_path, command):
    script, *options = command("udpos")
    done = run(script, *options, "--epochs", "3", "--lr", "1e30", "--output", tmp_path / "run")
    last = done.err.strip().split("\n")[-1]
    assert done.code == 2 and last.startswith("train_pos.py: error: --lr: the loss is no longer finite at step")
    assert not (tmp_path / "run" / "scores.json").exists()


@pytest.mark.parametrize("task", SCRIPTS)
def test_a_checkpoint_of_another_training_is_not_used(run, tmp_path, command, monkeypatch, task):
    script, *options = command(task)
    options += ["--epochs", "1", "--output", tmp_path / "run"]
    monkeypatch.setattr(training, "write_scores", lambda *_: None)  # which would remove the checkpoint
    assert run(script, *options, "--save-every", "0").code == 0 and (tmp_path / "run.checkpoint").exists()
    assert "resuming after step" in run(script, *options).err
    for changed in (["--lr", "2e-3"], ["--seed", "2"], ["--epochs", "2"]):
        done = run(script, *options, *changed)
        assert done.code == 0 and "belongs to other code, settings, data or another model, and is not used" in done.err
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")  # dropout depends on the processes
        assert "is not used" in run(script, *options).err
    path = next((tmp_path / task).glob("train-en.*"))
    text = path.read_text().replace('"question": "', '"question": "So ').replace("\nis\t", "\nwas\t")
    path.write_text(text.replace(" is ", " was ", task == "xnli"))
    assert "is not used" in run(script, *options).err


@pytest.fixture
def resumed(tmp_path):
    """resumed(script): training.resume of a training of one layer: (state, save, layer)."""

    def call(script="train_pos.py", data=(1, 2), weight=1.0, **options):
        layer = torch.nn.Linear(2, 2)
        for parameter in layer.parameters():
            torch.nn.init.constant_(parameter, weight)
        args = argparse.Namespace(**{"output": str(tmp_path / "x"), "lr": 1e-4, "save": False} | options)
        optimizer = torch.optim.AdamW(layer.parameters())
        return *training.resume(script, args, [np.array(data)], {"model": layer}, optimizer), layer

    return call


def test_a_checkpoint_belongs_to_the_training_that_wrote_it(resumed, tmp_path, monkeypatch, capfd):
    """A comment in the code changes nothing; a number in it, an option, the data or the first weights do."""
    monkeypatch.setattr(versions, "ROOT", str(tmp_path))
    script = tmp_path / "train.py"
    script.write_text("x = 1\n")
    state, save, layer = resumed(script)
    state |= {"step": 3, "seconds": 1.5, "history": [{"step": 3, "loss": 0.5, "lr": 0.1}], "losses": torch.tensor(0.25)}
    torch.nn.init.constant_(layer.weight, 7.0)
    save()
    again, _, layer = resumed(script, save=True)
    assert again == state and torch.equal(layer.weight, torch.full((2, 2), 7.0))
    script.write_text("x = 1  # of one\n\n")
    assert resumed(script)[0]["step"] == 3
    assert "resuming after step 3" in capfd.readouterr().err
    for changed in ({"lr": 2e-4}, {"data": (1, 3)}, {"weight": 2.0}):
        assert resumed(script, **changed)[0]["step"] == 0, changed
        assert "is not used" in capfd.readouterr().err
    script.write_text("x = 2\n")
    assert resumed(script)[0]["step"] == 0


def test_a_full_disk_is_said_in_one_line(run, tmp_path, command, monkeypatch):
    """torch.save raises a RuntimeError then."""
    script, *options = command("udpos")

    def full(_, path):
        open(path, "w").close()
        raise RuntimeError("[enforce fail at inline_container.cc:783] . PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr(torch, "save", full)
    done = run(script, *options, "--output", tmp_path / "run", "--epochs", "1", "--save-every", "0")
    assert done.code == 2 and "run.checkpoint: cannot be written" in done.err.splitlines()[-1]
    assert [name for name in os.listdir(tmp_path) if "run" in name] == []


@pytest.mark.parametrize("task", SCRIPTS)
def test_a_torn_checkpoint_is_named(run, tmp_path, command, task):
    script, *options = command(task)
    (tmp_path / "run.checkpoint").write_bytes(b"PK\x03\x04 torn")
    done = run(script, *options, "--output", tmp_path / "run", "--epochs", "1")
    assert done.code == 2 and "run.checkpoint: cannot be read as a checkpoint" in done.err and "remove it" in done.err


@pytest.mark.parametrize("lost", ["weights", "optimizer", "state", "step"])
def test_a_checkpoint_that_lacks_something_is_named(resumed, tmp_path, lost):
    resumed()[1]()
    saved = torch.load(tmp_path / "x.checkpoint", weights_only=True)
    del (saved["state"] if lost == "step" else saved)[lost]
    torch.save(saved, tmp_path / "x.checkpoint")
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        resumed()


@pytest.mark.parametrize("task", ["udpos", "xnli"])
@pytest.mark.parametrize("family", ["bert", "xlmr"])
def test_the_saved_model_predicts_what_the_run_did(run, tmp_path, command, tiny_bert, tiny_xlmr, task, family):
    import transformers

    script, *options = command(task)
    options[options.index(tiny_bert)] = model = {"bert": tiny_bert, "xlmr": tiny_xlmr}[family]
    done = run(script, *options, "--output", tmp_path / "run", "--epochs", "6", "--precision", "f32", "--save")
    assert done.code == 0, done.err
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    dev, text = tmp_path / task / "dev-en.tsv", (tmp_path / "run" / "dev-en.tsv").read_text()
    with torch.inference_mode():
        if task == "udpos":
            tagger = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "run" / "model")
            bare, found = common.bare_subword(tokenizer), []
            for words, _ in read_udpos(str(dev)):
                encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
                tags = tagger(**encoded).logits[0].argmax(-1).tolist()
                ids, owner = encoded["input_ids"][0].tolist(), encoded.word_ids()
                for word in range(len(words)):
                    places = [k for k, index in enumerate(owner) if index == word]
                    place = next((k for k in places if ids[k] != bare), places[0])
                    found.append(tagger.config.id2label[tags[place]])
            assert found == text.split()
        else:
            classifier = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
            rows = read_pairs(str(dev), task)
            scores = [
                classifier(**tokenizer(one, two, return_token_type_ids=family == "bert", return_tensors="pt")).logits[0]
                for one, two, _ in rows
            ]
            assert [classifier.config.id2label[int(score.argmax())] for score in scores] == text.split()
    assert len(tokenizer) == len(transformers.AutoTokenizer.from_pretrained(model))
