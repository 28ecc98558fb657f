"""eval.py's metrics are seqeval's, its intervals cover what they should, and its report holds what it promises."""

import json
import os
import random
import shutil
import warnings

import numpy as np
import pytest
from conftest import SAMPLE

import eval as report
from data import metrics
from data.files import UPOS, read_pairs, read_udpos, write_lines, write_udpos

ODD_TAGS = UPOS + ["O", "B-X", "I-X", "E-Y", "S-Y", "B", "I", "E", "S", ".", "I-A-B"]


@pytest.mark.parametrize("tags", [UPOS, ODD_TAGS, ["X", "SYM", "INTJ", "SCONJ", "CCONJ"]])
def test_f1_and_accuracy_equal_seqeval_to_the_last_digit(tags):
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    generator = random.Random(0)
    for _ in range(400):
        gold = [
            [generator.choice(tags) for _ in range(generator.randint(1, 12))] for _ in range(generator.randint(1, 6))
        ]
        predicted = [
            [tag if generator.random() < 0.7 else generator.choice(tags) for tag in sentence] for sentence in gold
        ]
        scores = metrics.tagging_scores(gold, predicted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seqeval warns of tags without a prefix, which UPOS tags are
            assert scores["f1"] == seqeval.f1_score(gold, predicted)
        assert scores["accuracy"] == seqeval.accuracy_score(gold, predicted)


def test_entities_are_seqevals_recorded_ones():
    assert metrics.spans([["DET", "NOUN", "NOUN", "SYM", "SYM"], ["CCONJ", "X"], ["X", "INTJ"]]) == {
        ("ET", 0, 0),
        ("OUN", 1, 2),
        ("YM", 3, 3),
        ("YM", 4, 4),
        ("CONJ", 6, 6),
        ("_", 7, 9),
        ("NTJ", 10, 10),
    }


def make_run(folder, order, aligner, seed, gold, predicted, data_dir, **args):
    for lang, tags in predicted.items():
        write_lines(str(folder / f"dev-{lang}.tsv"), ("\n".join(sentence) + "\n" for sentence in tags))
    scores = {lang: metrics.tagging_scores(gold[lang], predicted[lang]) for lang in predicted}
    (folder / "scores.json").write_text(
        json.dumps(
            {
                "task": "udpos",
                "model": "m",
                "order": order,
                "aligner": aligner,
                "seed": seed,
                "metric": "accuracy",
                "dev": scores,
                "train": {"examples": 1, "steps": 1, "seconds": 1.0, "tokens_per_second": 10.0},
                "args": {
                    "train": str(folder / "train.tsv"),
                    "data_dir": str(data_dir),
                    "max_dev": None,
                    "epochs": 1,
                    **args,
                },
            }
        )
    )


@pytest.fixture
def runs(tmp_path):
    """Original (90 % right), hi (95 % on hi), random: on the sample's dev sets of en and hi."""
    generator = random.Random(5)
    data = os.path.join(SAMPLE, "udpos")
    gold = {lang: [tags for _, tags in read_udpos(os.path.join(data, f"dev-{lang}.tsv"))] for lang in ("en", "hi")}

    def noisy(lang, share):
        return [[tag if generator.random() < share else generator.choice(UPOS) for tag in tags] for tags in gold[lang]]

    for order, aligner, share in (
        ("original", "none", 0.80),
        ("hi", "pretrained", 0.95),
        ("random", "pretrained", 0.80),
    ):
        folder = tmp_path / "runs" / order
        folder.mkdir(parents=True)
        make_run(folder, order, aligner, 1, gold, {"en": noisy("en", 0.9), "hi": noisy("hi", share)}, data)
        words = ["one", "two", "<b>", "four", "five", "six", "seven"]
        write_udpos(str(folder / "train.tsv"), [(words if order == "original" else words[::-1], ["NUM"] * 7)])
        if order != "original":
            (folder / "train.tsv.json").write_text(
                json.dumps({"sentences": 1, "words": 7, "aligned": 0.9, "moved": 0.5, "kendall_tau": 0.4})
            )
    return tmp_path / "runs"


def test_the_report_compares_with_the_baseline_and_with_the_control(run, tmp_path, runs):
    done = run("eval", "--runs", runs, "--output", tmp_path / "report")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "report" / "results.json").read_text())["results"][0]
    rows = {row["order"]: row for row in result["rows"]}
    assert [row["order"] for row in result["rows"]] == ["original", "hi", "random"]
    assert rows["hi"]["target"] == "hi" and rows["original"]["difference"] == {}
    for other, key in (("difference", "original"), ("against_control", "random")):
        entry = rows["hi"][other]["hi"]["accuracy"]
        assert 0 < entry["low"] < entry["value"] < entry["high"]
        assert entry["value"] == pytest.approx(
            rows["hi"]["scores"]["hi"]["accuracy"] - rows[key]["scores"]["hi"]["accuracy"]
        )
    noise = rows["random"]["difference"]["hi"]["accuracy"]
    assert noise["low"] < 0 < noise["high"]
    assert rows["hi"]["scores"]["mean_not_english"] == rows["hi"]["scores"]["hi"]
    text = (tmp_path / "report" / "results.md").read_text()
    assert (
        done.out.strip() == text.strip()
        and "raised the score on that language for hi (pretrained)" in text
        and "one seed" in text
    )
    page = (tmp_path / "report" / "results.html").read_text()
    assert "&lt;b&gt;" in page and "<b>two" not in page and "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "it does better there than mere disorder" in page and "Kendall" in page


def test_several_models_stand_side_by_side_first(run, tmp_path, runs):
    shutil.copytree(runs, runs / "other")
    for path in (runs / "other").glob("*/scores.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "model": "<m2>"}))
    assert run("eval", "--runs", runs, "--output", tmp_path / "report").code == 0
    text = (tmp_path / "report" / "results.md").read_text()
    lines = [line for line in text.split("\n") if line.startswith("| udpos |")]
    assert len(lines) == 2 and all(
        line.endswith("| 1 better, 0 worse, 0 not clear | 1 better, 0 worse, 0 not clear |") for line in lines
    )
    page = (tmp_path / "report" / "results.html").read_text()
    assert page.index("<th>&lt;m2&gt;") < page.index("<h2>udpos") and "<m2>" not in page


def test_seeds_are_pooled_and_their_deviation_is_kept(run, tmp_path, runs):
    shutil.copytree(runs / "hi", runs / "hi2")
    scores = json.loads((runs / "hi2" / "scores.json").read_text())
    (runs / "hi2" / "scores.json").write_text(json.dumps({**scores, "seed": 2}))
    shutil.copy(
        runs / "original" / "dev-hi.tsv", runs / "hi2" / "dev-hi.tsv"
    )  # the second seed is no better than the baseline
    run("eval", "--runs", runs, "--output", tmp_path / "report")
    rows = {
        row["order"]: row
        for row in json.loads((tmp_path / "report" / "results.json").read_text())["results"][0]["rows"]
    }
    one, base = (
        json.loads((runs / "hi" / "scores.json").read_text())["dev"]["hi"]["accuracy"],
        rows["original"]["scores"]["hi"]["accuracy"],
    )
    assert rows["hi"]["seeds"] == [1, 2] and rows["hi"]["scores"]["hi"]["accuracy"] == pytest.approx((one + base) / 2)
    assert rows["hi"]["seed_deviation"]["hi"]["accuracy"] == pytest.approx(abs(one - base) / 2**0.5)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        words = generator.integers(5, 15, 80)
        counts = np.zeros((2, 80, 5))
        for n, share in enumerate((0.80, 0.85)):
            counts[n, :, 0], counts[n, :, 1] = generator.binomial(words, share), words
        drawn = report.bootstrap(counts, 300, generator)["accuracy"]
        entry = report.interval(0.0, drawn[1] - drawn[0])
        covered += entry["low"] <= 0.05 <= entry["high"]
    assert 0.89 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda runs: (runs / "hi" / "scores.json").write_text("{"), "is not what a train script writes"),
        (lambda runs: (runs / "hi" / "dev-hi.tsv").write_text("NOUN\n\n"), "which do not fit"),
        (lambda runs: (runs / "hi" / "dev-hi.tsv").unlink(), "cannot be read"),
        (lambda runs: (runs / "hi" / "dev-hi.tsv").write_text("NOMEN\n\n"), "unknown tag"),
        (
            lambda runs: (runs / "hi" / "scores.json").write_text(
                (runs / "hi" / "scores.json").read_text().replace('"epochs": 1', '"epochs": 9')
            ),
            "different --epochs",
        ),
        (
            lambda runs: (runs / "random" / "scores.json").write_text((runs / "hi" / "scores.json").read_text()),
            "one run for each seed",
        ),
    ],
)
def test_runs_that_cannot_be_compared_end_in_one_line(run, tmp_path, runs, change, message):
    change(runs)
    done = run("eval", "--runs", runs, "--output", tmp_path / "report")
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1 and not (tmp_path / "report").exists()


def test_pairs_are_scored_compared_and_shown(run, tmp_path):
    """xnli: accuracy of the predictions, the difference from original, and its interval, beside the aligners' scores."""
    generator = random.Random(3)
    data = os.path.join(SAMPLE, "xnli")
    gold = [label for *_, label in read_pairs(os.path.join(data, "dev-hi.tsv"), "xnli")]
    for order, right in (("original", 0.4), ("hi", 0.95)):
        folder = tmp_path / "runs" / order
        predicted = [label if generator.random() < right else generator.choice(gold) for label in gold]
        write_lines(str(folder / "dev-hi.tsv"), predicted)
        scores = {"hi": metrics.pair_scores(gold, predicted)}
        assert scores["hi"]["accuracy"] == sum(a == b for a, b in zip(gold, predicted)) / len(gold)
        content = {
            "task": "xnli",
            "model": "m",
            "order": order,
            "aligner": "none" if order == "original" else "joint",
            "seed": 1,
        }
        content |= {"metric": "accuracy", "dev": scores, "train": {"tokens_per_second": 1.0}}
        content |= {"args": {"train": os.path.join(data, "train-en.tsv"), "data_dir": data, "max_dev": None}}
        (folder / "scores.json").write_text(json.dumps(content))
    aligner = tmp_path / "m" / "joint" / "enhi.json"
    aligner.parent.mkdir(parents=True)
    aligner.write_text(
        json.dumps({"methods": {"argmax": {"aer": 0.1, "precision": 0.9, "recall": 0.8, "f1": 0.85, "pairs": 40}}})
    )
    done = run("eval", "--runs", tmp_path / "runs", "--output", tmp_path / "report", "--alignments", aligner)
    assert done.code == 0, done.err
    with open(tmp_path / "report" / "results.json", encoding="utf-8") as stream:
        results = json.load(stream)
    [result] = results["results"]
    difference = result["rows"][1]["difference"]["hi"]["accuracy"]
    assert result["task"] == "xnli" and 0 < difference["low"] < difference["value"] < difference["high"]
    assert results["alignments"]["m"][0]["aligner"] == "joint" and "| joint | argmax | **10.0 (90, 80)** |" in done.out
    assert "10.0<small>90, 80" in (tmp_path / "report" / "results.html").read_text()
    write_lines(str(tmp_path / "runs" / "hi" / "dev-hi.tsv"), ["entailment"])
    done = run("eval", "--runs", tmp_path / "runs", "--output", tmp_path / "report")
    assert done.code == 2 and "1 labels, which do not fit the 45 sentences" in done.err
