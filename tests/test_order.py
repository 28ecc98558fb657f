"""By gold tag, the contrast on function words, and closeness of orders: equal to other computations of the same."""

import itertools
import json
import os
import random

import numpy as np
import pytest
import reorder
from conftest import SAMPLE
from test_eval import make_run, report, rows_of  # noqa: F401 (a fixture)

from data.files import UPOS, read_udpos, write_lines, write_udpos
from evaluation import closeness, figures, tags

ORDERS = ["original", "hi", "random-hi", "ja", "random-ja"]


@pytest.fixture(scope="module")
def gold():
    folder = os.path.join(SAMPLE, "udpos")
    found = {lang: read_udpos(os.path.join(folder, f"dev-{lang}.tsv")) for lang in ("en", "de", "fr", "hi")}
    return {lang: [sentence for _, sentence in sentences] for lang, sentences in found.items()}


@pytest.fixture
def runs(gold, tmp_path):
    """Three seeds of original English, the orders of two verb-last languages and their controls, with order files."""
    generator, folder = random.Random(3), tmp_path / "runs"
    for order, seed in itertools.product(ORDERS, (1, 2, 3)):
        predicted = {
            lang: [[tag if generator.random() < 0.8 else generator.choice(UPOS) for tag in one] for one in sentences]
            for lang, sentences in gold.items()
        }
        aligner = "none" if order == "original" else "pretrained"
        data = os.path.join(SAMPLE, "udpos")
        run = folder / f"{order}-{seed}"
        make_run(run, order, aligner, seed, gold, predicted, data)
        scores = json.loads((run / "scores.json").read_text())
        scores["args"]["train"] = str(folder / ("train-en.tsv" if order == "original" else f"train-{order}.tsv"))
        (run / "scores.json").write_text(json.dumps(scores))
    for order in ORDERS:
        write_udpos(str(folder / f"train-{order.replace('original', 'en')}.tsv"), [(["a", "b"], ["NUM"] * 2)])
    shuffled = np.random.default_rng(1)
    for lang in ("hi", "ja", "de", "fr"):
        lines = [" ".join(map(str, shuffled.permutation(size))) for size in (1, 5, 9, 12)]
        write_lines(str(folder / f"train-{lang}.tsv.order"), lines)
    return folder


def test_contributions_add_up_to_the_difference_and_shares_to_one(report, runs, gold):  # noqa: F811
    [result] = report(runs)[0]["results"]
    rows = {row["order"]: row for row in result["rows"]}
    for (order, row), lang in itertools.product(rows.items(), gold):
        found = row["by_tag"][lang]
        assert sum(result["tags"][lang].values()) == pytest.approx(1, abs=1e-12)
        accuracy = sum(result["tags"][lang][tag] * entry["accuracy"] for tag, entry in found.items())
        assert accuracy == pytest.approx(row["scores"][lang]["accuracy"], abs=1e-12)
        if order == "original":
            assert all(entry["contribution"] is None for entry in found.values())
            continue
        total = sum(entry["contribution"]["value"] for entry in found.values())
        assert total == pytest.approx(row["difference"][lang]["accuracy"]["value"], abs=1e-12)
        assert all(one["contribution"]["low"] <= one["contribution"]["high"] for one in found.values())


def test_the_contrast_on_function_words_is_that_of_the_definition(report, runs, gold):  # noqa: F811
    [result] = report(runs)[0]["results"]
    rows = {row["order"]: row["by_tag"] for row in result["rows"]}

    def gain(order):
        def contribution(lang):
            found = rows[order][lang]
            return sum(found[tag]["contribution"]["value"] for tag in tags.FUNCTION_WORDS[lang] if tag in found)

        return contribution("hi") - np.mean([contribution(lang) for lang in ("en", "de", "fr")])

    [one] = [one for one in result["contrasts"] if one["name"] == "function words"]
    expected = np.mean([gain(order) - gain(f"random-{order}") for order in ("hi", "ja")])
    assert one["value"] == pytest.approx(expected, abs=1e-12) and one["low"] < one["value"] < one["high"]
    single = {one["order"]: one for one in result["contrasts"] if one["name"] == "function words of one order"}
    assert list(single) == ["hi", "ja"]
    for order, one in single.items():
        assert one["value"] == pytest.approx(gain(order), abs=1e-12)
    least = min(single.values(), key=lambda one: one["p"])
    assert least["p_adjusted"] == pytest.approx(min(1, 2 * least["p"]))  # a family of their own
    pairs = [(("hi", "a"), ("random-hi", "a"))]
    assert all(tags.function_word_terms(some, langs) == [] for some, langs in (([], ["hi", "en"]), (pairs, ["en"])))
    assert tags.function_word_terms(pairs, ["hi"]) == []


def test_tau_between_orders_is_kendalls():
    generator = np.random.default_rng(2)
    first, second = ([generator.permutation(size) for size in (1, 2, 7, 12, 7)] for _ in range(2))
    (one, weights), (two, _) = closeness.pair_signs(first), closeness.pair_signs(second)
    places = [np.argsort(b)[a] for a, b in zip(first, second)]  # where the k-th word of one order stands in the other
    expected = np.mean([reorder.kendall_tau(place) for place in places if len(place) > 1])
    assert float(weights @ (one * two)) == pytest.approx(expected, rel=1e-6)


def table(generator, tau, gamma, deviations, seeds):
    """Return cells of scores with a known gamma: {(condition, language): {seed: (score, no influence)}}."""
    orders, langs = tau.shape
    noise = generator.normal(0, 1, (orders, langs, seeds)) * deviations[:, None] + generator.normal(
        0, 1, (langs, seeds)
    )
    scores = (
        noise + gamma * tau[..., None] + generator.normal(0, 5, (orders, 1, 1)) + generator.normal(0, 9, (langs, 1))
    )
    return {
        ((str(c), "x"), str(m)): {seed: (float(scores[c, m, seed]), np.zeros(2)) for seed in range(seeds)}
        for c, m in np.ndindex(orders, langs)
    }


def named_tau(tau):
    return {(str(c), "x"): {str(m): float(value) for m, value in enumerate(row)} for c, row in enumerate(tau)}


def test_gamma_is_that_of_weighted_least_squares_and_p_that_of_all_permutations():
    generator = np.random.default_rng(4)
    tau, deviations = generator.uniform(0, 1, (5, 6)), generator.uniform(0.5, 2, 6)
    cells = table(generator, tau, 1.0, deviations, 3)
    terms, p = closeness.fit_closeness(named_tau(tau), cells)
    scores = np.array([[[cells[(str(c), "x"), str(m)][s][0] for s in range(3)] for m in range(6)] for c in range(5)])
    rest = scores - scores.mean(2, keepdims=True) - scores.mean(0) + scores.mean((0, 2))[:, None]
    spread, means = (rest**2).sum((0, 2)) / 8, scores.mean(2)

    def fit(tau):
        design = np.array([[*np.eye(5)[c], *np.eye(6)[m], tau[c, m]] for c, m in np.ndindex(5, 6)])
        weights = np.tile(1 / spread, 5)
        root = weights[:, None] ** 0.5
        gamma = np.linalg.lstsq(design * root, means.ravel() * root[:, 0], rcond=None)[0][-1]
        left = (
            tau.ravel()
            - design[:, :-1] @ np.linalg.lstsq(design[:, :-1] * root, tau.ravel() * root[:, 0], rcond=None)[0]
        )
        return gamma, abs(gamma) * (weights @ left**2) ** 0.5

    value = sum(weight * np.mean([cells[key, lang][s][0] for s in range(3)]) for weight, key, lang in terms)
    gamma, z = fit(tau)
    assert value == pytest.approx(gamma, abs=1e-9)
    some = list(itertools.permutations(range(6)))
    assert p == pytest.approx(np.mean([fit(tau[:, list(order)])[1] >= z - 1e-9 for order in some]), abs=1e-12)


def test_closeness_errs_in_five_per_cent_of_tables_and_finds_what_is_there(monkeypatch):
    """15 languages, 12 orders, 3 seeds; languages whose tau varies most also vary most between seeds, as measured."""
    monkeypatch.setattr(closeness, "DRAWS", 199)
    generator = np.random.default_rng(5)
    late = np.array([1.0] * 4 + [0.0] * 11)  # languages that put verbs last
    orders = np.array([0.0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0.5])
    tau = 0.9 - 0.4 * abs(orders[:, None] - late) + generator.uniform(-0.05, 0.05, (12, 15))
    deviations = 0.3 + 0.9 * late
    rates = {}
    for gamma in (0.0, 1.0):
        p = [
            closeness.fit_closeness(named_tau(tau), table(generator, tau, gamma, deviations, 3))[1] for _ in range(120)
        ]
        rates[gamma] = np.mean(np.array(p) <= 0.05)
    assert 0.01 <= rates[0.0] <= 0.09 and rates[1.0] > 0.8, rates


def test_small_tables_say_nothing_of_closeness():
    generator = np.random.default_rng(6)
    tau = generator.uniform(0, 1, (3, 5))
    cells = table(generator, tau, 0, np.ones(5), 2)
    assert closeness.fit_closeness(named_tau(tau), cells)
    assert closeness.fit_closeness(named_tau(tau[:1]), cells) is None
    assert closeness.fit_closeness(named_tau(tau[:, :3]), cells) is None
    assert closeness.fit_closeness(named_tau(np.ones((3, 5))), cells) is None
    assert closeness.fit_closeness({}, cells) is None
    one = {key: {0: found[0]} for key, found in cells.items()}
    assert closeness.fit_closeness(named_tau(tau), one) is None


def test_the_report_has_closeness_where_order_files_are(report, runs):  # noqa: F811
    content, text, page = report(runs)
    [result] = content["results"]
    tau = result["closeness"]
    assert list(tau) == ["original", "hi", "ja"] and tau["hi"]["hi"] == pytest.approx(1) == tau["original"]["en"]
    assert set(tau["original"]) == {"en", "de", "fr", "hi"} and tau["hi"]["en"] == tau["original"]["hi"]
    [one] = [one for one in result["contrasts"] if one["name"] == "closeness"]
    assert one["p"] * 24 == pytest.approx(round(one["p"] * 24)) and one["p"] == one["p_languages"]  # 4!
    assert "| closeness | mean (pretrained) | a unit of tau |" in text.replace("all orders", "mean")
    assert "Gain against closeness" in page and "From English order to that of Hindi" in page
    assert page.count('class="adp"') >= 2 and "By tag: hi (pretrained) and its control" in page
    (runs / "train-de.tsv.json").write_text('{"aligned": 0.2, "moved": 0.1, "kendall_tau": 0.9}\n')
    [result] = report(runs)[0]["results"]
    assert set(result["closeness"]["original"]) == {"en", "fr", "hi"}
    os.remove(runs / "train-de.tsv.json")
    (runs / "train-fr.tsv.order").write_text("0 1 2\n")  # of other sentences
    (runs / "train-de.tsv.order").write_text("0 x\n")
    [result] = report(runs)[0]["results"]
    assert set(result["closeness"]["original"]) == {"en", "hi"}
    assert "closeness" not in {one["name"] for one in result["contrasts"]}


def test_bars_reach_as_far_as_the_gains_and_the_losses():
    drawn = figures.stacked({"adp": 0.02, "noun": -0.01, "verb": 0.01}, lambda value: 50 + 1000 * value, 3)
    places = [(part.split('"')[1], part.split('"')[3], part.split('"')[9]) for part in drawn.split("<rect")[1:]]
    assert ("50.00%", "20.00%", "adp") in places and ("70.00%", "10.00%", "verb") in places
    assert ("40.00%", "10.00%", "noun") in places


def test_right_words_are_counted_by_their_gold_tag():
    found = tags.right_by_tag([["ADP", "NOUN"], ["ADP"]], [["ADP", "VERB"], ["NOUN"]])
    assert {tag: column.tolist() for tag, column in found.items()} == {"ADP": [1, 0], "NOUN": [0, 0]}
    assert not set(tags.BEHIND) & set(tags.NOT_BEHIND)
