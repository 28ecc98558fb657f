"""eval.py's metrics are seqeval's, its intervals cover what they should, and its report holds what it promises."""

import hashlib
import importlib.util
import itertools
import json
import os
import random
import re
import shlex
import shutil
import warnings

import numpy as np
import pytest
from conftest import ROOT, SAMPLE

from data import metrics
from data.files import UPOS, read_pairs, read_udpos, write_lines, write_udpos
from evaluation import contrasts, figures, intervals, tables
from evaluation import runs as reading

ODD_TAGS = UPOS + ["O", "B-X", "I-X", "E-Y", "S-Y", "B", "I", "E", "S", ".", "I-A-B"]


# ---- metrics -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("width", [2, 3, 5])
def test_every_metric_is_a_ratio_of_sums(width):
    counts = np.random.default_rng(0).integers(1, 9, (20, width)).astype(float)
    ratios = reading.metric_ratios(counts)
    for name, value in reading.task_metrics(counts.sum(0)).items():
        numerator, denominator = ratios[name]
        assert value == pytest.approx(numerator.sum() / denominator.sum())


# ---- intervals ---------------------------------------------------------------------------------------


def found(value=0.02, df=2, training=0.004, examples=0.003):
    return {"value": value, "seeds": 3, "df": df, "training": training, "examples": examples}


def test_students_t_is_the_tables_and_scipys():
    for df, value in ((1, 12.7062), (2, 4.30265), (4, 2.77645), (9, 2.26216), (30, 2.04227)):
        assert intervals.student_quantile(0.05, df) == pytest.approx(value, rel=1e-5)
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for df, level in itertools.product((1, 2, 3.7, 7, 60, 200, 2000), (0.5, 0.05, 0.01, 1e-6)):
        assert intervals.student_quantile(level, df) == pytest.approx(stats.t.isf(level / 2, df), rel=1e-6)
    for top, df, ratio in itertools.product((1, 2, 4, 9), (3, 40, 2000), (0.5, 2, 6)):
        angle = np.arctan(np.sqrt(ratio * top / df))
        assert intervals.tail(angle, df, top) == pytest.approx(stats.f.sf(ratio, top, df), rel=1e-6)
    for x in (0.01, 0.5, 3, 500):
        assert intervals.trigamma(x) == pytest.approx(
            importlib.import_module("scipy.special").polygamma(1, x), rel=1e-6
        )


def test_an_interval_adds_both_kinds_of_chance_in_squares():
    entry = intervals.interval(found())
    assert entry["high"] - 0.02 == pytest.approx(((4.30265 * 0.004) ** 2 + (1.95996 * 0.003) ** 2) ** 0.5, rel=1e-5)
    assert entry["low"] + entry["high"] == pytest.approx(0.04)


@pytest.mark.parametrize("training, examples", [(0.004, 0.003), (0.004, 0.0), (0.0, 0.003)])
def test_p_is_the_level_at_which_the_interval_ends_at_zero(training, examples):
    """At a value of half the interval's width, p is 0.05; it falls with larger values."""
    half = intervals.interval(found(0.0, training=training, examples=examples))["high"]
    p = {value: intervals.p_value(found(value * half, 2, training, examples)) for value in (0.5, 1, -1, 2)}
    assert p[1] == p[-1] == pytest.approx(0.05, rel=1e-6) and p[0.5] > 0.05 > p[2]


def test_nothing_is_said_of_one_seed_one_example_and_no_difference():
    for unknown in (found(training=None), found(examples=None)):
        assert intervals.interval(unknown) == {"value": 0.02, "low": None, "high": None}
    [row] = intervals.family([found(training=None)])
    assert row["p"] is row["p_adjusted"] is row["detectable"] is None
    assert intervals.p_value(found(0.0, 2, 0.0, 0.0)) == 1 and intervals.p_value(found(0.1, 2, 0.0, 0.0)) < 1e-25


def test_holms_adjustment_is_the_recorded_one():
    """As R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives it."""
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    rows = intervals.family([found(), found(0.001), found(0.03, training=None)])
    assert rows[0]["p_adjusted"] == pytest.approx(2 * rows[0]["p"]) and rows[1]["p_adjusted"] == rows[1]["p"]
    assert rows[0]["detectable"] > intervals.detectable(found())  # at half the level


def test_the_error_by_the_choice_of_examples_is_the_bootstraps():
    """Of a ratio of sums over clusters: within 5 % of 4,000 bootstrap samples of clusters."""
    generator = np.random.default_rng(3)
    words = generator.integers(3, 30, 300).astype(float)
    right = np.minimum(words, generator.binomial(30, 0.5, 300) * np.repeat(generator.uniform(0.3, 1, 100), 3))
    clusters = np.repeat(np.arange(100), 3)
    score, influence = intervals.score_with_influence(right, words, clusters)
    error = intervals.estimator({("a", "hi"): {1: (score, influence)}}, {"hi": clusters})([(1, "a", "hi")])["examples"]
    groups = np.stack([right, words]).reshape(2, 100, 3).sum(2)
    drawn = groups[:, generator.integers(0, 100, (4000, 100))].sum(2)
    assert score == right.sum() / words.sum() and error == pytest.approx((drawn[0] / drawn[1]).std(), rel=0.05)


def test_translations_are_one_cluster():
    """An average over two languages with the same answers is as uncertain as one of them, else less by root 2."""
    right = np.random.default_rng(1).integers(0, 2, 200).astype(float)
    cell = {1: intervals.score_with_influence(right, np.ones(200), np.arange(200))}
    terms = [(0.5, "a", "hi"), (0.5, "a", "zh")]
    cells = {("a", "hi"): cell, ("a", "zh"): cell}
    same = intervals.estimator(cells, {"hi": np.arange(200), "zh": np.arange(200)})(terms)["examples"]
    other = intervals.estimator(cells, {"hi": np.arange(200), "zh": np.arange(200, 400)})(terms)["examples"]
    alone = intervals.estimator(cells, {"hi": np.arange(200)})([(1, "a", "hi")])["examples"]
    assert same == pytest.approx(alone) and other == pytest.approx(alone / 2**0.5)


def table(scores):
    """Return cells without chance in examples of scores, (conditions, seeds, languages); NaN is no run."""
    cells = {}
    for (key, seed, lang), score in np.ndenumerate(scores):
        if score == score:
            cells.setdefault((key, lang), {})[seed] = float(score), np.zeros(2)
    return cells


def test_chance_in_training_is_pooled_over_conditions_and_seeds_are_blocks():
    scores = np.random.default_rng(2).normal(0, 1, (4, 3, 2)) + np.arange(3)[:, None] * 50
    rest = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean((0, 1))
    covariance, df, parts = intervals.pool_deviations(table(scores), [0, 1])
    assert df == 6 and covariance == pytest.approx(np.einsum("csl,csm->lm", rest, rest) / 6)
    assert [float(share) for _, share, _ in parts.values()] == pytest.approx([1.5] * 4)
    found = intervals.estimator(table(scores), {0: np.zeros(2, int), 1: np.zeros(2, int)})(contrasts.less(1, 0, [0, 1]))
    assert found["seeds"] == 3 and found["df"] <= 6
    two = intervals.estimator(table(scores[:2]), {0: np.zeros(2, int)})(contrasts.less(1, 0, [0]))
    own = scores[1, :, 0] - scores[0, :, 0]  # of two conditions it is the contrast's own deviation
    assert two["training"] == pytest.approx(own.std(ddof=1) / 3**0.5) and two["df"] == 2


def test_conditions_of_other_seeds_count_for_what_they_share():
    """A condition of one seed has an interval by the others' deviations; a seed that only one has says nothing."""
    scores = np.random.default_rng(3).normal(0, 1, (4, 4, 1))
    scores[3, 1:] = scores[1:, 3] = np.nan
    found = intervals.estimator(table(scores), {0: np.zeros(2, int)})(contrasts.less(3, 0, [0]))
    covariance, df, _ = intervals.pool_deviations(table(scores[:3, :3]), [0])
    assert found["seeds"] == 1 and found["training"] == pytest.approx((2 * covariance[0, 0]) ** 0.5)
    assert df == 4 == intervals.pool_deviations(table(scores), [0])[1]
    alone = intervals.estimator(table(scores[:, :1]), {0: np.zeros(2, int)})(contrasts.less(1, 0, [0]))
    assert alone["training"] is None and intervals.interval(alone)["low"] is None


def test_an_uneven_condition_is_found_and_shrinks_the_prior():
    scores = np.random.default_rng(4).normal(0, 1, (10, 5, 3))
    assert intervals.find_uneven(table(scores)) == []
    even = intervals.prior_df([intervals.pool_deviations(table(scores), [lang]) for lang in range(3)])
    scores[7, :, 1] *= 12
    [(key, lang, own, others, p)] = intervals.find_uneven(table(scores))
    assert (key, lang) == (7, 1) and own > 5 * others and p < 0.01
    uneven = intervals.prior_df([intervals.pool_deviations(table(scores), [lang]) for lang in range(3)])
    assert uneven < 15 < even
    pools = [intervals.pool_deviations(table(scores), [lang]) for lang in range(3)]
    covariance, df, parts = pools[1]
    squares = parts[7][0][0] / parts[7][1]  # of 30 comparisons this is one
    ratio = squares / ((df * covariance[0, 0] - 4 * squares) / (df - 4))
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    assert p == pytest.approx(30 * stats.f.sf(ratio, 4, df - 4), rel=1e-6, abs=0)


def test_a_contrast_is_moderated_by_its_own_deviation():
    scores = np.random.default_rng(4).normal(0, 1, (10, 5, 1))
    scores[7] *= 12
    covariance, df, _ = pool = intervals.pool_deviations(table(scores), [0])
    prior, own = intervals.prior_df([pool]), scores[7, :, 0] - scores[2, :, 0]
    found = intervals.estimator(table(scores), {0: np.zeros(2, int)})(contrasts.less(7, 2, [0]))
    variance = (prior * 2 * covariance[0, 0] + 4 * own.var(ddof=1)) / (prior + 4) / 5
    assert (
        found["training"] == pytest.approx(variance**0.5) and found["df"] == pytest.approx(prior + 4) and prior + 4 < df
    )


def test_controls_that_aligners_share_count_once():
    keys = [
        contrasts.BASELINE,
        ("hi", "joint"),
        ("zh", "joint"),
        ("hi", "manual"),
        ("hi+both", "joint"),
        ("reverse", "none"),
    ]
    keys += [("random-hi", "joint"), ("random-zh", "joint")]
    controls = {key: contrasts.find_control(key, dict.fromkeys(keys)) for key in keys}
    found = contrasts.overall_terms(keys, controls, ["hi", "zh"])
    assert [one[:2] for one in found] == [
        (name, aligner) for aligner in ("joint", "manual") for name in ("all orders", "all random orders")
    ]
    assert {key for _, key, _ in found[0][2]} == {("hi", "joint"), ("zh", "joint"), contrasts.BASELINE}
    assert sum(abs(weight) for weight, *_ in found[0][2]) == pytest.approx(2)
    controls[("zh", "joint")] = None
    assert [one[:2] for one in contrasts.overall_terms(keys, controls, ["hi"])][-1] == ("all orders", "manual")


def test_the_prior_of_variances_is_found():
    """Variances of 4 degrees, drawn around a scaled inverse chi square of 6 degrees: limma's estimate is near 6."""
    generator = np.random.default_rng(5)
    variances = 6 / generator.chisquare(6, 4000) * generator.chisquare(4, 4000) / 4
    parts = {n: (np.array([4 * one]), 4, 4) for n, one in enumerate(variances)}
    assert intervals.prior_df([(np.ones((1, 1)), 1, parts)]) == pytest.approx(6, rel=0.15)


def test_chance_that_seeds_and_examples_share_is_counted_once():
    """E^2 is SE^2 - (mean of SE_s^2 - SE^2) / (S - 1)."""
    changes = np.random.default_rng(6).normal(0, 1, (3, 50)) + np.random.default_rng(7).normal(0, 1, 50)
    cells = {("a", "hi"): {seed: (0.5, one) for seed, one in enumerate(changes)}}
    found = intervals.estimator(cells, {"hi": np.arange(50)})([(1, "a", "hi")])
    both, alone = (changes.mean(0) ** 2).sum(), (changes**2).sum(1).mean()
    assert found["examples"] ** 2 == pytest.approx(both - (alone - both) / 2) and found["examples"] ** 2 < both


def test_intervals_cover_a_known_truth_and_are_no_wider_than_they_need_be():
    """As tests/bench/check_intervals.py, small; the former intervals are too wide, those of sentences too narrow."""
    spec = importlib.util.spec_from_file_location("bench", os.path.join(ROOT, "tests", "bench", "check_intervals.py"))
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)

    def holds(method):
        found = bench.coverage(4, 3, 30, method, items=200)
        return 0.92 <= found["covered"] <= 0.98 and found["width"] < 3.5, found

    assert holds(bench.pooled)[0], holds(bench.pooled)
    for method in (bench.unpooled, bench.sentences_only):
        assert not holds(method)[0], holds(method)


# ---- clusters ------------------------------------------------------------------------------------------


def test_premises_and_paragraphs_are_clusters_in_all_languages_alike():
    langs = ["en", "de", "hi"]
    dev, clusters = reading.read_dev("xnli", os.path.join(SAMPLE, "xnli"), 31, langs)
    premises = [one for one, *_ in read_pairs(os.path.join(SAMPLE, "xnli", "dev-en.tsv"), "xnli")][:31]
    assert [clusters["en"].tolist()] * 3 == [clusters[lang].tolist() for lang in langs] and len(dev["hi"][1]) == 31
    same = [[one == other for other in premises] for one in premises]
    assert (clusters["en"][:, None] == clusters["en"]).tolist() == same and len(set(premises)) < 31

    dev, clusters = reading.read_dev("xquad", os.path.join(SAMPLE, "xquad"), None, langs)
    assert clusters["en"].tolist() == clusters["hi"].tolist()
    assert 1 < len(set(clusters["en"].tolist())) < len(dev["en"][1]) == len(clusters["en"])

    _, clusters = reading.read_dev("udpos", os.path.join(SAMPLE, "udpos"), 30, langs)
    assert len(np.unique(np.concatenate([*clusters.values()]))) == 90


# ---- runs ------------------------------------------------------------------------------------------------


def make_run(folder, order, aligner, seed, gold, predicted, data_dir, **args):
    folder.mkdir(parents=True)
    for lang, tags in predicted.items():
        write_lines(str(folder / f"dev-{lang}.tsv"), ("\n".join(sentence) + "\n" for sentence in tags))
    scores = {lang: metrics.tagging_scores(gold[lang], predicted[lang]) for lang in predicted}
    content = {"task": "udpos", "model": "m", "order": order, "aligner": aligner, "seed": seed, "metric": "accuracy"}
    content |= {"dev": scores, "train": {"examples": 1, "steps": 1, "seconds": 1.0, "tokens_per_second": 10.0}}
    content |= {"machine": {"precision": "f32", "threads": seed, "torch": "2"}}
    args = {"train": f"{folder.parent}/{order}.tsv", "data_dir": data_dir, "max_dev": None, "epochs": 1, **args}
    (folder / "scores.json").write_text(json.dumps({**content, "args": args}))


def read_run(folder):
    return json.loads((folder / "scores.json").read_text())


def edit_run(folder, **changes):
    (folder / "scores.json").write_text(json.dumps({**read_run(folder), **changes}))


def edit_args(folder, **changes):
    edit_run(folder, args={**read_run(folder)["args"], **changes})


EFFECTS = {  # fraction of right tags in en, hi, zh; the order's own language gains .05 over its control
    "original": (0.9, 0.8, 0.8),
    "hi": (0.9, 0.95, 0.78),
    "random-hi": (0.9, 0.75, 0.78),
    "zh": (0.9, 0.78, 0.85),
    "random-zh": (0.9, 0.78, 0.8),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of original English, two orders and their controls on the sample's dev sets of en, hi and zh."""
    runs, generator = tmp_path_factory.mktemp("trained") / "runs", random.Random(5)
    data = os.path.join(SAMPLE, "udpos")
    sentences = {lang: read_udpos(os.path.join(data, f"dev-{lang}.tsv")) for lang in ("en", "hi", "zh")}
    gold = {lang: [tags for _, tags in found] for lang, found in sentences.items()}
    words = ["one", "two", "<b>", "four", "five", "six", "seven"]
    for order, seed in itertools.product(EFFECTS, (1, 2)):
        predicted = {
            lang: [[tag if generator.random() < right else generator.choice(UPOS) for tag in tags] for tags in truth]
            for (lang, truth), right in zip(gold.items(), EFFECTS[order])
        }
        aligner = "none" if order == "original" else "pretrained"
        make_run(runs / f"{order}-{seed}", order, aligner, seed, gold, predicted, data)
    for order in EFFECTS:
        write_udpos(str(runs / f"{order}.tsv"), [(words if order == "original" else words[::-1], ["NUM"] * 7)])
        if order != "original":
            statistics = {"sentences": 1, "words": 7, "aligned": 0.9, "moved": 0.5, "kendall_tau": 0.4}
            (runs / f"{order}.tsv.json").write_text(json.dumps(statistics))
    return runs


@pytest.fixture
def runs(trained, tmp_path):
    """A copy of the runs that a test may change."""
    shutil.copytree(trained, tmp_path / "runs")
    for path in (tmp_path / "runs").glob("*/scores.json"):
        path.write_text(path.read_text().replace(str(trained), str(tmp_path / "runs")))
    return tmp_path / "runs"


@pytest.fixture
def report(run, tmp_path):
    """report(folders and options of eval.py) writes the report and returns (results.json, results.md, results.html)."""

    def call(*arguments):
        done = run("eval", "--runs", *arguments, "--output", tmp_path / "report")
        assert done.code == 0, done.err
        texts = [(tmp_path / "report" / f"results.{kind}").read_text() for kind in ("json", "md", "html")]
        assert done.out.strip() == texts[1].strip()
        return json.loads(texts[0]), *texts[1:]

    return call


def rows_of(content):
    return {row["order"]: row for row in content["results"][0]["rows"]}


# ---- the comparison ----------------------------------------------------------------------------------


def test_the_report_compares_with_the_baseline_and_with_the_control(report, runs):
    content, text, page = report(runs)
    rows = rows_of(content)
    assert list(rows) == ["original", "hi", "random-hi", "zh", "random-zh"]
    assert rows["hi"]["target"] == "hi" and rows["original"]["difference"] == {} and not rows["random-hi"]["target"]
    assert rows["hi"]["seeds"] == [1, 2] and rows["hi"]["control"]["order"] == "random-hi"
    for other, key in (("difference", "original"), ("against_control", "random-hi")):
        entry = rows["hi"][other]["hi"]["accuracy"]
        assert entry["low"] < entry["value"] < entry["high"]
        score, less = (rows[order]["scores"]["hi"]["accuracy"] for order in ("hi", key))
        assert entry["value"] == pytest.approx(score - less)
    scores = rows["zh"]["scores"]
    assert scores["mean_not_english"]["f1"] == pytest.approx((scores["hi"]["f1"] + scores["zh"]["f1"]) / 2)
    assert "&lt;b&gt;" in page and "<b>two" not in page and "http" not in page
    assert "Kendall" in page and "(prefers-color-scheme: dark)" in page


def test_the_contrasts_are_the_named_ones(report, runs):
    content, text, _ = report(runs)
    found = content["results"][0]["contrasts"]
    assert [(one["name"], one["order"]) for one in found] == [
        *((name, None) for name in ("primary", "function words", "all orders", "all random orders")),
        *(("own language", order) for order in ("hi", "zh")),
        *(("own language against control", order) for order in ("hi", "zh")),
        *(("average", order) for order in ("hi", "random-hi", "zh", "random-zh")),
        ("function words of one order", "hi"),
    ]
    rows, total = rows_of(content), 0.0
    for own, other in (("hi", "zh"), ("zh", "hi")):
        gain = {lang: rows[own]["against_control"][lang]["accuracy"]["value"] for lang in (own, other)}
        total += (gain[own] - gain[other]) / 2
    assert found[0]["value"] == pytest.approx(total)
    for one in found:
        assert one["low"] < one["value"] < one["high"] and 0 < one["p"] <= one["p_adjusted"]
        assert one["metric"] == "accuracy" and one["aligner"] == "pretrained"
        assert (one["p"] < 0.05) == (one["low"] > 0 or one["high"] < 0) and one["detectable"] > 0 and one["seeds"] == 2
    means = {
        order: rows[order]["difference"]["mean_not_english"]["accuracy"]["value"]
        for order in EFFECTS
        if order != "original"
    }
    assert found[2]["value"] == pytest.approx((means["hi"] + means["zh"]) / 2)
    assert found[3]["value"] == pytest.approx((means["random-hi"] + means["random-zh"]) / 2)
    own = [one for one in found if one["name"].startswith("own language")]
    assert min(one["p_adjusted"] for one in own) == pytest.approx(min(1, 4 * min(one["p"] for one in own)))
    assert own[0]["value"] == rows["hi"]["difference"]["hi"]["accuracy"]["value"]


def test_contrasts_of_each_kind_are_those_computed_by_hand(report, runs):
    """From the files, by numpy and scipy alone, with docs/methods.md's formulas."""
    stats, special = (
        pytest.importorskip(f"scipy.{name}", reason="scipy is not installed") for name in ("stats", "special")
    )
    conditions, langs, size = list(EFFECTS), ["en", "hi", "zh"], None
    scores, influences = np.zeros((5, 2, 3)), {}
    for (c, order), s, (k, lang) in itertools.product(enumerate(conditions), (0, 1), enumerate(langs)):
        gold = open(os.path.join(SAMPLE, "udpos", f"dev-{lang}.tsv"), encoding="utf-8").read().strip().split("\n\n")
        tags = (runs / f"{order}-{s + 1}" / f"dev-{lang}.tsv").read_text().strip().split("\n\n")
        truth = [[line.split("\t")[1] for line in sentence.split("\n")] for sentence in gold]
        right = np.array([sum(a == b for a, b in zip(one, two.split("\n"))) for one, two in zip(truth, tags)])
        words, size = np.array([len(one) for one in truth]), len(truth)
        scores[c, s, k] = right.sum() / words.sum()
        influences[c, s, k] = (right - scores[c, s, k] * words) / words.sum() * (size / (size - 1)) ** 0.5
    rest = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean((0, 1))
    covariance = np.einsum("csl,csm->lm", rest, rest) / 4
    logs = np.log(np.maximum((rest**2).sum(1) / (4 / 5), 1e-3 * covariance.diagonal()))
    excess = np.mean(logs.var(0, ddof=1) - special.polygamma(1, 0.5))
    low, high = 1e-3, 1e4
    while excess > 1e-4 and high - low > 1e-12:
        low, high = (
            (low, (low + high) / 2) if special.polygamma(1, (low + high) / 2) < excess else ((low + high) / 2, high)
        )
    prior = low + high if excess > 1e-4 else np.inf

    def numbers(weights):  # (conditions, languages)
        values = (weights[:, None] * scores).sum((0, 2))
        pooled, own = sum(one @ covariance @ one for one in weights), values.var(ddof=1)
        variance = pooled if prior == np.inf else (prior * pooled + own) / (prior + 1)
        parts = [[sum(weights[c, k] * influences[c, s, k] for c in range(5)) for k in range(3)] for s in (0, 1)]
        examples = sum((one * two).sum() for one, two in zip(*parts))  # sentences of languages are their own clusters
        t = stats.t.isf(0.025, min(4, prior + 1))
        half = (t**2 * variance / 2 + stats.norm.isf(0.025) ** 2 * max(examples, 0)) ** 0.5
        return values.mean(), values.mean() - half, values.mean() + half

    base = np.zeros((5, 3))
    own, control, average, orders, primary = (base.copy() for _ in range(5))
    own[[1, 0], 1] = control[[1, 2], 1] = 1, -1
    average[[2, 0], 1:] = [[0.5], [-0.5]]
    orders[[1, 3, 0], 1:] = [[0.25], [0.25], [-0.5]]
    primary[1:, 1:] = np.array([[1, -1], [-1, 1], [-1, 1], [1, -1]]) / 2
    found = {(one["name"], one["order"]): one for one in report(runs)[0]["results"][0]["contrasts"]}
    for key, weights in (
        (("own language", "hi"), own), (("own language against control", "hi"), control), (("primary", None), primary),
        (("average", "random-hi"), average), (("all orders", None), orders),
    ):  # fmt: skip
        assert [found[key][name] for name in ("value", "low", "high")] == pytest.approx(numbers(weights), abs=1e-9)


def test_one_seed_has_no_interval_and_no_mark_and_the_report_says_why(report, runs):
    for folder in runs.glob("*-2"):
        shutil.rmtree(folder)
    content, text, page = report(runs)
    entries = [content["results"][0]["contrasts"][0], rows_of(content)["hi"]["difference"]["hi"]["accuracy"]]
    assert all(entry["low"] is entry["high"] is None for entry in entries) and "NaN" not in json.dumps(content)
    assert "with one seed, chance in training cannot be" in text and not re.search(r"± \d", text) and "\\*" not in text
    assert 'class="mark"' not in page


def test_seeds_are_paired_by_number_and_only_those_of_both_conditions_count(report, runs):
    edit_run(runs / "original-2", seed=3)
    content, text, _ = report(runs)
    entry = rows_of(content)["hi"]["difference"]["hi"]["accuracy"]
    one, base = (read_run(runs / f"{order}-1")["dev"]["hi"] for order in ("hi", "original"))
    assert entry["value"] == pytest.approx(one["accuracy"] - base["accuracy"]) and entry["low"] < entry["high"]
    assert "original was not trained with seed 2, as others were" in text
    both = [read_run(runs / f"hi-{seed}")["dev"]["hi"]["f1"] for seed in (1, 2)]
    row = rows_of(content)["hi"]
    assert row["scores"]["hi"]["f1"] == pytest.approx(np.mean(both))  # F1 of several seeds is the mean of F1s
    assert row["seed_deviation"]["hi"]["f1"] == pytest.approx(np.std(both, ddof=1))


def test_a_run_is_what_its_scores_say(report, runs):
    (runs / "zh-1").rename(runs / "original-none-9")
    assert rows_of(report(runs)[0])["zh"]["seeds"] == [1, 2]


def test_a_control_of_the_same_aligner_comes_first_and_then_the_nearest():
    tau = {("hi", "joint"): 0.4, ("random-hi", "pretrained"): 0.45, ("random-hi", "separate"): 0.41}
    tau |= {("random-zh", "joint"): 0.4}
    assert contrasts.find_control(("hi", "joint"), tau) == ("random-hi", "separate")
    assert contrasts.find_control(("hi", "joint"), {**tau, ("random-hi", "joint"): 0.9}) == ("random-hi", "joint")
    trained = {("hi+consistency", "joint"): 0.4, ("random-hi+consistency", "pretrained"): None}
    key = "hi+consistency", "joint"
    assert contrasts.find_control(key, {**tau, **trained}) == ("random-hi+consistency", "pretrained")
    assert contrasts.find_control(("random-hi", "joint"), {**tau, ("random-hi", "joint"): 0.4}) is None


@pytest.mark.parametrize("tau, far", [(0.31, False), (0.29, True)])
def test_the_taus_of_an_order_and_its_control_are_in_a_table_and_a_gap_only_if_far_apart(report, runs, tau, far):
    (runs / "random-hi.tsv.json").write_text(json.dumps({"aligned": 0.9, "moved": 0.5, "kendall_tau": tau}))
    content, text, _ = report(runs)
    assert f"| hi (pretrained) | 90.0 | 50.0 | 0.40 | random-hi (pretrained) | {tau} | 1 2 |" in text
    assert bool(content["results"][0]["gaps"]) == far == ("random-hi (pretrained), of 0.29" in text)


def test_an_order_without_a_control_is_named(report, runs):
    for seed in (1, 2):
        shutil.rmtree(runs / f"random-zh-{seed}")
    content, text, _ = report(runs)
    [gap] = content["results"][0]["gaps"]
    assert gap.startswith("zh (pretrained) has no control, random-zh") and gap in text
    assert content["results"][0]["contrasts"][0]["name"] == "function words"  # one control makes no primary contrast
    assert "Whether an order helps its own language was not tested." in text


@pytest.mark.parametrize("aligned, few", [(0.013, True), (0.34, False)])
def test_an_order_of_few_links_is_named(report, runs, aligned, few):
    (runs / "hi.tsv.json").write_text(json.dumps({"aligned": aligned, "moved": 0.5, "kendall_tau": 0.4}))
    gaps = report(runs)[0]["results"][0]["gaps"]
    said = "only 1.3 % of its words aligned, so it says little about the word order of its translation."
    assert gaps == [f"hi (pretrained) has {said}"] * few


def test_statistics_are_means_over_the_seeds_files(report, runs):
    (runs / "other.tsv.json").write_text(json.dumps({"aligned": 0.9, "moved": 0.5, "kendall_tau": 0.41}))
    edit_args(runs / "random-hi-2", train=str(runs / "other.tsv"))
    assert rows_of(report(runs)[0])["random-hi"]["statistics"]["kendall_tau"] == pytest.approx(0.405)


@pytest.mark.parametrize("order", ["original", "hi", "random-zh"])
def test_runs_tested_in_fewer_languages_are_named_and_leave_the_averages(report, runs, order):
    dev = read_run(runs / f"{order}-1")["dev"]
    edit_run(runs / f"{order}-1", dev={lang: dev[lang] for lang in ("en", "hi")})
    content, text, _ = report(runs)
    rows = rows_of(content)
    assert "was not tested in zh with every seed: no average has this language" in text
    assert rows["hi"]["scores"]["mean_not_english"] == rows["hi"]["scores"]["hi"]
    entry = rows["random-zh" if order == "random-zh" else "zh"]["difference"]["zh"]["accuracy"]
    assert entry["low"] < entry["high"]  # also of one shared seed, by the others' deviations


def test_runs_without_a_common_language_are_reported(report, runs):
    for order, lang in (("original", "en"), ("hi", "hi"), ("random-hi", "hi"), ("zh", "zh"), ("random-zh", "zh")):
        for seed in (1, 2):
            dev = read_run(runs / f"{order}-{seed}")["dev"]
            edit_run(runs / f"{order}-{seed}", dev={lang: dev[lang]})
    content, _, _ = report(runs)
    assert content["results"][0]["columns"] == ["en", "hi", "zh"] and rows_of(content)["hi"]["difference"] == {}
    assert rows_of(content)["hi"]["against_control"].keys() == {"hi"}


def test_what_the_data_lacks_is_said(report, runs, tmp_path):
    rows = [{"task": "udpos", "language": "fr", "what": "no XX_pud*.conllu"}]
    rows += [{"task": "xnli", "language": "", "what": "no <dev>"}]
    (tmp_path / "missing.json").write_text(json.dumps(rows))
    content, text, page = report(runs, "--missing", tmp_path / "missing.json")
    assert content["missing"] == rows and content["results"][0]["missing"] == rows[:1]
    assert "- udpos: fr: no XX_pud*.conllu" in text and "## Not in this report\n\n- xnli: no <dev>" in text
    assert "xnli: no &lt;dev&gt;" in page


def test_the_headline_says_what_was_found_and_what_could_have_been():
    numbers = {"value": 0.013, "p_adjusted": 0.04, "detectable": 0.025, "low": 0.001}
    one = {"name": "all random orders", "aligner": "joint", **numbers}
    worse, unclear = {**one, "value": -0.013}, {**one, "p_adjusted": 0.06}
    other, primary = {**worse, "value": -0.005, "aligner": "manual"}, {**unclear, "name": "primary"}
    unknown = {**unclear, "p_adjusted": None, "detectable": None, "low": None}
    found, none = "Random word order", "Random word order: no effect detected; "
    for rows, text in (
        ([one], f"{found} gains 1.3 points (joint links, p = 0.04)."),
        ([worse], f"{found} costs 1.3 points (joint links, p = 0.04)."),
        ([worse, other], f"{found} costs 1.3 points (joint links, p = 0.04) and 0.5 points (manual links, p = 0.04)."),
        ([unclear], f"{none}2.5 points (joint links) would likely have been."),
        ([other, unclear], f"{found} costs 0.5 points (manual links, p = 0.04). {none}2.5 points (joint links) would "
         "likely have been."),
        ([{**unclear, "detectable": 2}], f"{none}100.0 points (joint links) would likely have been."),
    ):  # fmt: skip
        said = tables.headline({"learnt": True, "contrasts": rows})
        assert said == f"{text} Whether an order helps its own language was not tested."
    assert tables.headline({"learnt": True, "contrasts": [primary]}) == (
        "A word order was not seen to help its own language more than others; 2.5 points (joint links) likely would "
        "have been."
    )
    words = [primary, {**worse, "name": "function words"}]
    assert tables.headline({"learnt": True, "contrasts": words}).endswith(
        " A verb-last order harms function words where they stand behind their word, by 1.3 points (joint links, p = 0.04)."
    )
    words[1]["p_adjusted"] = 0.06
    assert "function words" not in tables.headline({"learnt": True, "contrasts": words})
    assert "with one seed" in tables.headline({"learnt": True, "contrasts": [unknown]})
    assert tables.headline({"learnt": False, "contrasts": [one]}) == tables.UNLEARNT
    two = [{**one, "order": "hi"}, {**one, "order": "rdrop", "aligner": "none"}, {**worse, "order": "zh"}]
    assert tables.tally(two) == "2 higher (hi joint, rdrop), 1 lower (zh joint), 0 not significant"
    assert tables.tally([{**unclear, "order": "hi"}]) == "0 higher, 0 lower, 1 not significant"


@pytest.mark.parametrize("low, high", [(-0.031, 0.052), (0, 0.0004), (-1, 30)])
def test_an_axis_has_round_ticks_and_zero(low, high):
    found = figures.ticks(low, high)
    assert 0 in found and 3 <= len(found) <= 7 and low <= found[0] and found[-1] <= high
    assert len({round(two - one, 9) for one, two in itertools.pairwise(found)}) == 1


def test_a_label_stands_where_no_circle_and_no_label_is():
    taken = [(100, 50, 6), (121, 50, 6)]
    assert figures.free_place(100, 50, 7, 1, taken) == (84, 50)  # the other side: its own has a circle
    across, down = figures.free_place(100, 50, 7, 1, taken)  # lower: both sides are taken
    assert down > 50 and len(taken) == 4
    assert all(abs(x - across) >= 7 + half or abs(y - down) >= 11 for x, y, half in taken[:3])


def test_every_run_can_be_found_and_repeated(report, run, tmp_path, tiny_bert):
    folder, data = tmp_path / "runs" / "original-none-0", os.path.join(SAMPLE, "udpos")
    options = ["--model", tiny_bert, "--train", f"{data}/train-en.tsv", "--data-dir", data, "--output", folder]
    options += ["--epochs", "1", "--langs", "en,hi", "--max-dev", "4", "--seed", "0", "--warmup", "0"]
    options += ["--precision", "f32"]
    assert run("train_pos", *options).code == 0
    scores = json.loads((folder / "scores.json").read_text())
    content, text, page = report(tmp_path / "runs")
    [one] = content["results"][0]["runs"]
    assert "<polyline" in page and one["train"]["history"] and one["commit"] == scores["commit"]
    assert (one["order"], one["seed"], one["train"]) == ("original", 0, scores["train"])
    assert one["scores"]["hi"]["f1"] == pytest.approx(scores["dev"]["hi"]["f1"])
    files = b"".join(path.read_bytes() for path in sorted(folder.glob("dev-*")))
    assert one["predictions_sha256"] == hashlib.sha256(files).hexdigest() and one["predictions_sha256"][:16] in text
    shutil.rmtree(folder)
    _, script, *words = shlex.split(one["command"])
    assert run(script.removesuffix(".py"), *words).code == 0
    [again] = report(tmp_path / "runs")[0]["results"][0]["runs"]
    assert [again[key] for key in ("command", "predictions_sha256")] == [one["command"], one["predictions_sha256"]]


def test_scores_of_aligners_are_checked(run, runs, tmp_path):
    path = tmp_path / "m" / "joint" / "enfr.json"
    path.parent.mkdir(parents=True)
    scores = {"aer": 0.1, "precision": 0.9, "recall": 0.8, "f1": 0.85}
    for change in ({"pairs": float("inf")}, {"pairs": 3, "methods": {"argmax": scores | {"aer": 10**400}}}):
        path.write_text(json.dumps({"methods": {"argmax": scores}} | change))
        done = run("eval", "--runs", runs, "--output", tmp_path / "report", "--alignments", path)
        assert done.code == 2 and str(path) in done.err and done.err.count("\n") == 1


def test_several_models_stand_side_by_side_first(report, runs):
    shutil.copytree(runs, runs / "other")
    for path in (runs / "other").glob("*/scores.json"):
        edit_run(path.parent, model="<m2>")
    content, text, page = report(runs)
    assert len(content["results"]) == 2 == sum(line.startswith("**udpos, ") for line in text.split("\n"))
    assert page.count('class="verdict"') == 2 and page.rindex('class="verdict"') < page.index("<table")
    assert "&lt;m2&gt;" in page and "<m2>" not in page


def test_tables_are_the_same_in_json_markdown_and_html(report, runs):
    content, text, page = report(runs)
    found = content["results"][0]["tables"]
    titles = {table["title"] for table in found}
    assert {"Contrasts in accuracy, percentage points", "Accuracy, percent", "F1, percent"} <= titles
    for table in found:
        assert f"### {table['title']}" in text and f"<h3>{table['title']}</h3>".replace("'", "&#x27;") in page
        for row in table["rows"]:
            assert len(row) == len(table["header"])
            assert "| " + " | ".join(markdown_cell(one) for one in row) + " |" in text


def markdown_cell(cell):
    text = (cell["text"] + " " + cell.get("small", "")).strip() + "\\*" * cell.get("mark", False)
    return f"**{text}**" if cell.get("target") else text


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda runs: (runs / "hi-1" / "scores.json").write_text("{"), "is not what a train script writes"),
        (lambda runs: edit_run(runs / "hi-1", commit=1), "is not what a train script writes"),
        (lambda runs: edit_run(runs / "hi-1", machine=[]), "is not what a train script writes"),
        (lambda runs: (runs / "hi-1" / "dev-hi.tsv").write_text("NOUN\n\n"), "1 sentences, but "),
        (lambda runs: add_to_first_line(runs / "hi-1" / "dev-hi.tsv", "NOUN\n"), "sentence 1: "),
        (lambda runs: (runs / "hi-1" / "dev-hi.tsv").unlink(), "cannot be read"),
        (lambda runs: (runs / "hi-1" / "dev-hi.tsv").write_text("NOMEN\n\n"), "unknown tag"),
        (lambda runs: edit_run(runs / "hi-1", train={"tokens_per_second": 10**400}), "is not what a train"),
        (lambda runs: edit_args(runs / "hi-1", max_dev="7"), "is not what a train script writes"),
        (lambda runs: edit_run(runs / "hi-1", train={"tokens_per_second": 1, "history": [1]}), "is not what a train"),
        (lambda runs: edit_args(runs / "hi-1", epochs=9), "different --epochs"),
        (lambda runs: [edit_args(runs / f"hi-{n}", head=n) for n in (1, 2)], "different --head"),
        (lambda runs: [edit_args(runs / f"hi-{n}", label_smoothing=0.1 * n) for n in (1, 2)], "different --label-sm"),
        (lambda runs: edit_run(runs / "hi-1", machine={"precision": "bf16"}), "different --precision"),
        (lambda runs: [edit_args(runs / f"hi-{n}", consistency=n) for n in (1, 2)], "different --consistency"),
        (lambda runs: edit_run(runs / "hi-2", seed=1), "with seed 1; expected one run for each seed"),
        (lambda runs: edit_run(runs / "hi-1", dev={"xx": {}}), "no dev file of xx"),
    ],
)
def test_runs_that_cannot_be_compared_end_in_one_line(run, tmp_path, runs, change, message):
    change(runs)
    done = run("eval", "--runs", runs, "--output", tmp_path / "report")
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1 and not (tmp_path / "report").exists()


def add_to_first_line(path, text):
    path.write_text(text + path.read_text())


@pytest.mark.parametrize("value, said", [(0.0, False), (None, False), (False, False), (0.1, True), ("fitted", True)])
def test_an_option_that_some_runs_do_not_name_is_taken_to_be_the_others(report, runs, value, said):
    for order in ("hi", "random-hi"):
        edit_args(runs / f"{order}-1", new_option=value)
    result = report(runs)[0]["results"][0]
    assert result["settings"]["new_option"] == value
    assert result["gaps"] == [f"Some runs do not name --new-option and are taken to have {value}."] * said


def test_a_new_dev_set_changes_no_report_of_runs_that_were_tested_before(report, runs, tmp_path):
    shutil.copytree(os.path.join(SAMPLE, "udpos"), tmp_path / "data")
    for folder in runs.glob("*-?"):
        edit_args(folder, data_dir=str(tmp_path / "data"))
    before = report(runs)[0]
    for lang in ("aa", "es", "xx"):
        shutil.copy(tmp_path / "data" / "dev-hi.tsv", tmp_path / "data" / f"dev-{lang}.tsv")
    assert report(runs)[0] == before


def test_runs_of_several_folders_are_read_once_each(report, runs):
    for order in EFFECTS:
        (runs / order).mkdir()
        for seed in (1, 2):
            (runs / f"{order}-{seed}").rename(runs / order / str(seed))
    (runs / "unfinished").mkdir()
    once = report(runs)[0]
    assert len(once["results"][0]["runs"]) == 10
    folders = [*(runs / order for order in EFFECTS), runs / "hi" / "1", runs / "unfinished", f"{runs}/../runs/zh"]
    again = report(*folders)[0]
    assert json.dumps(again, sort_keys=True) == json.dumps(once, sort_keys=True)


def test_commits_and_losses_are_kept_and_shown(report, runs):
    def losses(folder, *values):
        history = [{"step": 10 * n, "loss": loss, "lr": 0.1} for n, loss in enumerate(values, 1)]
        edit_run(folder, train={**read_run(folder)["train"], "history": history})

    losses(runs / "original-1", 2.0, 1.0, 0.5)
    losses(runs / "hi-1", 2.5, float("nan"), 1.0)
    for seed, commit in ((1, "0123abc"), (2, None)):
        edit_run(runs / f"original-{seed}", commit=commit)
    content, text, page = report(runs)
    [result] = content["results"]
    assert [run.get("commit", "") for run in result["runs"][:3]] == ["0123abc", None, ""]
    assert result["machines"]["commit"] == ["0123abc"] and "| commit | 0123abc |" in text
    assert result["runs"][0]["train"]["history"][2] == {"step": 30, "loss": 0.5, "lr": 0.1}
    assert page.count("<polyline") == 2 and "<summary>Training losses" in page and "<svg" not in text
    lines = page.split("<polyline")[1:]
    assert "hi (pretrained), seed 1" in lines[0] and lines[0].split('"')[1].count(",") == 2  # NaN is left out
    assert "original, seed 1" in lines[1] and lines[1].split('"')[1].count(",") == 3  # drawn last, above the others
    assert "NaN" not in json.dumps(content)


def test_runs_without_losses_have_no_curves(report, runs):
    assert "Training losses" not in report(runs)[2]


def test_settings_that_change_no_number_may_differ(report, runs):
    edit_args(runs / "hi-1", save_every=0, output="elsewhere", langs="en,hi,zh", save=True, consistency=0.0)
    for seed in (1, 2):
        edit_args(runs / f"random-hi-{seed}", consistency=1.0)
    content, _, _ = report(runs)
    assert content["results"][0]["machines"] == {"precision": ["f32"], "threads": [1, 2], "torch": ["2"]}


def test_runs_of_other_sizes_are_not_compared(run, runs, tmp_path):
    edit_run(runs / "hi-1", train={**read_run(runs / "hi-1")["train"], "examples": 7})
    done = run("eval", "--runs", runs, "--output", tmp_path / "report")
    assert done.code == 2 and "trained on 7 and 1 examples" in done.err and done.err.count("\n") == 1


def test_a_run_that_lacks_a_language_changes_no_primary_contrast(report, runs):
    before = report(runs)[0]["results"][0]["contrasts"][0]
    shutil.copytree(runs / "original-1", runs / "original-3")
    dev = {lang: score for lang, score in read_run(runs / "original-1")["dev"].items() if lang != "hi"}
    edit_run(runs / "original-3", seed=3, dev=dev)
    after = report(runs)[0]["results"][0]["contrasts"][0]
    assert after == {name: pytest.approx(value) for name, value in before.items()} and before["name"] == "primary"


def test_english_alone_is_no_average_of_other_languages(report, runs):
    for folder in runs.iterdir():
        if folder.is_dir():
            edit_run(folder, dev={"en": read_run(folder)["dev"]["en"]})
    content, _, _ = report(runs)
    assert content["results"][0]["columns"] == ["en", "mean"] and content["results"][0]["contrasts"] == []


def test_an_order_without_a_seed_for_all_languages_has_no_primary_contrast_and_that_is_said(report, runs):
    for seed in (1, 2):
        run = read_run(runs / f"zh-{seed}")
        edit_run(runs / f"zh-{seed}", dev={lang: score for lang, score in run["dev"].items() if lang != "hi"})
    content, text, _ = report(runs)
    assert "primary" not in {one["name"] for one in content["results"][0]["contrasts"]}
    assert "There is no primary contrast of pretrained: it needs a seed" in text


@pytest.mark.parametrize("text", ["{", "{}", '[{"task": "udpos"}]', '[{"task": 1, "language": "", "what": ""}]', "[1]"])
def test_a_list_of_what_is_missing_is_checked(run, tmp_path, runs, text):
    (tmp_path / "missing.json").write_text(text)
    done = run("eval", "--runs", runs, "--output", tmp_path / "report", "--missing", tmp_path / "missing.json")
    assert done.code == 2 and "no list of what is missing" in done.err and done.err.count("\n") == 1


def test_pairs_are_scored_compared_and_shown(run, report, tmp_path):
    """xnli: accuracy of the predictions, the difference from original, its interval, and the aligners' scores."""
    generator, data = random.Random(3), os.path.join(SAMPLE, "xnli")
    gold = [label for *_, label in read_pairs(os.path.join(data, "dev-hi.tsv"), "xnli")]
    for (order, right), seed in itertools.product((("original", 0.6), ("hi", 0.95)), (1, 2)):
        folder = tmp_path / "runs" / f"{order}-{seed}"
        predicted = [label if generator.random() < right else generator.choice(gold) for label in gold]
        write_lines(str(folder / "dev-hi.tsv"), predicted)
        scores = {"hi": metrics.pair_scores(gold, predicted)}
        assert scores["hi"]["accuracy"] == sum(a == b for a, b in zip(gold, predicted)) / len(gold)
        aligner = "none" if order == "original" else "joint"
        content = {"task": "xnli", "model": "m", "order": order, "aligner": aligner, "seed": seed, "metric": "accuracy"}
        content |= {"dev": scores, "commit": None, "train": {"tokens_per_second": 1.0}}
        content |= {"args": {"train": os.path.join(data, "train-en.tsv"), "data_dir": data, "max_dev": None}}
        (folder / "scores.json").write_text(json.dumps(content))
    aligner = tmp_path / "m" / "joint" / "enhi.json"
    aligner.parent.mkdir(parents=True)
    aligner.write_text(
        json.dumps({"methods": {"argmax": {"aer": 0.1, "precision": 0.9, "recall": 0.8, "f1": 0.85, "pairs": 40}}})
    )
    content, text, page = report(tmp_path / "runs", "--alignments", aligner)
    [result] = content["results"]
    difference = result["rows"][1]["difference"]["hi"]["accuracy"]
    assert result["task"] == "xnli" and difference["low"] < difference["value"] < difference["high"]
    assert result["examples"] == {"hi": 45} and result["clusters"] == {"hi": 15}
    assert content["alignments"]["m"][0]["aligner"] == "joint" and "| joint | argmax | **10.0 (90, 80)** |" in text
    assert "10.0<small>(90, 80)" in page
    assert result["learnt"] and not result["gaps"][1:] and result["verdict"][0] != tables.UNLEARNT
    most = max(map(gold.count, gold)) / len(gold)
    for seed in (1, 2):  # original English as bad as one label for all
        path = tmp_path / "runs" / f"original-{seed}" / "dev-hi.tsv"
        write_lines(str(path), ["neutral"] * (len(gold) - 1) + ["contradiction"])
        content, text, page = report(tmp_path / "runs")
        [result] = content["results"]
        failed, would = f"the majority label ({100 * most:.1f} %): ", f" with seed {seed}."
        [gap] = [gap for gap in result["gaps"] if gap.startswith("original is not clearly more accurate than")]
        assert failed in gap and gap.endswith(would) and gap.count("with seed") == seed
        assert result["learnt"] == (seed == 1) and (tables.UNLEARNT == result["verdict"][0]) == (seed == 2)
    assert tables.UNLEARNT in text and tables.UNLEARNT in page
    write_lines(str(tmp_path / "runs" / "hi-1" / "dev-hi.tsv"), ["entailment"])
    done = run("eval", "--runs", tmp_path / "runs", "--output", tmp_path / "report")
    assert done.code == 2 and "1 labels, but " in done.err and " has 45" in done.err
