"""Gold labels, predictions and counts of every task as the report reads them, and the words of its examples."""

import json
import os

import numpy as np
import pytest
from conftest import SAMPLE

from data.files import TAGS, InputError, write_lines
from data.formats import FORMATS
from data.squad import read_squad
from evaluation import runs

TASKS = ["udpos", "xnli", "pawsx", "xquad"]


def predicted_run(folder, task, predictions):
    """Write English tags, labels or {question id: answer} as the train scripts do; return the run."""
    if runs.KINDS[task] == "qa":
        (folder / "dev-en.json").write_text(json.dumps(predictions, ensure_ascii=False), encoding="utf-8")
    else:
        tagged = runs.KINDS[task] == "tagging"
        lines = ["\n".join(tags) + "\n" for tags in predictions] if tagged else predictions
        write_lines(str(folder / "dev-en.tsv"), lines)
    return {"task": task, "folder": str(folder), "dev": {"en": {}}}


def right_predictions(task, gold):
    return {key: answers[0] for key, answers in gold.items()} if runs.KINDS[task] == "qa" else gold


@pytest.mark.parametrize("task", TASKS)
def test_gold_labels_as_predictions_are_right_in_every_metric(tmp_path, task):
    dev, clusters = runs.read_dev(task, os.path.join(SAMPLE, task), 7, ["en", "hi" if task != "pawsx" else "zh"])
    gold_path, gold = dev["en"]
    assert len(gold) == 7 == len(clusters["en"]) and os.path.basename(gold_path).split(".")[0] in ("dev-en", "xquad")
    counts, _ = runs.count_run(predicted_run(tmp_path, task, right_predictions(task, gold)), dev)["en"]
    assert len(counts) == 7
    metrics = runs.task_metrics(counts.sum(0))
    assert [*metrics] == runs.METRICS[runs.KINDS[task]] and all(np.isclose(value, 1.0) for value in metrics.values())


@pytest.mark.parametrize("task", TASKS)
def test_predictions_of_other_examples_are_refused(tmp_path, task):
    dev, _ = runs.read_dev(task, os.path.join(SAMPLE, task), 5, ["en"])
    right = right_predictions(task, dev["en"][1])
    kept = dict([*right.items()][:4]) if task == "xquad" else right[:4]
    with pytest.raises(InputError, match=r"tsv: 4 (sentences|labels), but .* has 5|json: 4 answers, not to the 5"):
        runs.count_run(predicted_run(tmp_path, task, kept), dev)


def test_a_further_task_of_tagging_is_its_tags_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(TAGS, "ner", ["O", "B-PER"])
    monkeypatch.setattr(runs, "KINDS", {**runs.KINDS, "ner": "tagging"})  # which is made from TAGS at the import
    (tmp_path / "gold").mkdir()
    (tmp_path / "gold" / "dev-en.tsv").write_text("a\tO\nb\tB-PER\n\nc\tO\n")
    dev, _ = runs.read_dev("ner", str(tmp_path / "gold"), None, ["en"])
    counts, _ = runs.count_run(predicted_run(tmp_path, "ner", [["O", "O"], ["O"]]), dev)["en"]
    assert runs.task_metrics(counts.sum(0))["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("task, name", [("udpos", "train-en.tsv"), ("xnli", "train-en.tsv"), ("pawsx", "train-en.tsv")])
def test_words_of_the_examples_are_the_same_in_every_order(tmp_path, task, name):
    source, target = os.path.join(SAMPLE, task, name), str(tmp_path / name)
    sentences = [(words, range(len(words))[::-1], rest) for words, _, rest in FORMATS[task].sentences(source)]
    FORMATS[task].write(target, iter(sentences), source)
    original, moved = (list(runs.training_words(task, path)) for path in (source, target))
    assert len(original) == len(moved) == len(sentences) > 20
    same = [sorted(one) == sorted(other) for one, other in zip(original, moved)]
    assert np.mean(same) == 1


def test_words_of_question_answering_are_the_questions():
    path = os.path.join(SAMPLE, "squad", "train-v1.1.json")
    questions = [text for _, found in read_squad(path) for _, text, _ in found]
    found = list(runs.training_words("xquad", path))
    assert len(found) == len(questions) and found[0][-1] == "?"
    assert ["".join(words) for words in found] == ["".join(text.split()) for text in questions]


def test_english_is_split_at_marks_and_not_in_words():
    text = "The 3.5-mile, well-known route (it's 10,000 ft) ends."
    words = "The|3.5-mile|,|well-known|route|(|it's|10,000|ft|)|ends|.".split("|")
    assert runs.ENGLISH_WORD.findall(text) == words
