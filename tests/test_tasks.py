"""The table of tasks: gold labels, predictions and counts of every task, and the words of its training files."""

import json
import os

import numpy as np
import pytest
from conftest import SAMPLE

from data.cli import InputError
from data.metrics import task_metrics
from data.tasks import FORMATS, TASKS, training_words

FOLDERS = {"udpos": "udpos", "xnli": "xnli", "pawsx": "pawsx", "xquad": "xquad"}


@pytest.mark.parametrize("name", FOLDERS)
def test_gold_labels_as_predictions_are_right_in_every_metric(tmp_path, name):
    task = TASKS[name]
    files = task.dev_files(os.path.join(SAMPLE, FOLDERS[name]))
    assert "en" in files and list(files) == sorted(files)
    gold = task.read_gold(files["en"], 7)
    assert len(gold) == 7
    predictions = {key: answers[0] for key, answers in gold.items()} if task.kind == "qa" else gold
    path = str(tmp_path / task.predictions.format("en"))
    task.write_predictions(path, predictions)
    assert task.read_predictions(path, gold, files["en"]) == predictions
    counts = task.counts(gold, predictions, "en")
    assert len(counts) == 7
    metrics = task_metrics(counts.sum(0))
    assert tuple(metrics) == task.metrics and all(np.isclose(value, 1.0) for value in metrics.values())


@pytest.mark.parametrize("name", FOLDERS)
def test_predictions_of_other_examples_are_refused(tmp_path, name):
    task = TASKS[name]
    path = task.dev_files(os.path.join(SAMPLE, FOLDERS[name]))["en"]
    gold = task.read_gold(path, 5)
    kept = {key: answers[0] for key, answers in list(gold.items())[:4]} if task.kind == "qa" else gold[:4]
    task.write_predictions(str(tmp_path / "p"), kept)
    with pytest.raises(InputError, match=r"p: 4 .*fit the 5|p: 4 answers, not to the 5"):
        task.read_predictions(str(tmp_path / "p"), gold, path)


def test_training_words_are_those_that_reorder_orders():
    for name, path in (("udpos", "udpos/train-en.tsv"), ("xnli", "xnli/train-en.tsv"), ("xquad", "squad/train-v1.1.json")):
        path = os.path.join(SAMPLE, path)
        form = FORMATS["qa" if name == "xquad" else name]
        assert list(training_words(name, path)) == [words for words, _, _ in form.sentences(path)]


def test_predictions_of_answers_are_xtremes_json(tmp_path):
    TASKS["mlqa"].write_predictions(str(tmp_path / "p"), {"q": "तीन"})
    assert json.loads((tmp_path / "p").read_text(encoding="utf-8")) == {"q": "तीन"}
