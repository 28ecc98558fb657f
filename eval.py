"""Score every run's predictions again and compare the word orders: the report that answers the question.

In:   a folder of runs (scores.json and dev-XX.tsv of the train scripts, at any depth) and the gold files they name
Out:  OUTPUT/results.json   everything, for programs
      OUTPUT/results.md     tables, for a README
      OUTPUT/results.html   one file that opens offline: verdicts, confidence intervals, heat map, reordered examples

    python eval.py --runs runs/sample --output report/sample

Every condition (a training order made by an aligner) is a row, every language a column. Scores are means over seeds.
Differences from original English and from the random control come with 95 % confidence intervals for chance in training
and the choice of dev examples. The contrasts were named before any run; p values are adjusted (docs/methods.md).

If FILE.json (what reorder.py prints) lies beside a run's training file FILE, its statistics are in the report.
--alignments adds the error rates of the word aligners, --missing what the data lack.
"""

import collections
import json
import math
import os

import numpy as np

from data.files import Arguments, open_output, run_script
from evaluation import page
from evaluation.closeness import find_closeness, fit_closeness
from evaluation.contrasts import (
    BASELINE, condition_name, differences, find_contrasts, find_control, find_gaps, row_rank, split_order,
)  # fmt: skip
from evaluation.intervals import LEVEL, estimator, find_uneven, normal_quantile, score_with_influence
from evaluation.runs import (
    KINDS, METRICS, check_comparable, count_run, describe_run, find_runs, metric_ratios, read_alignments, read_dev,
    read_missing, read_statistics, task_metrics,
)  # fmt: skip
from evaluation.tables import missing_lines, result_tables, verdict
from evaluation.tags import VERB_LAST, add_contributions, by_tag, function_word_terms, tag_shares


def mean_scores(scores, columns, seeds):
    """Return a condition's {column: {metric: mean over seeds}} and {column: {metric: deviation between seeds}}.

    scores: {(seed, language): {metric: number}}; columns: {name: the languages that it averages}. A seed counts in a
    column if it has all of its languages, whose mean is taken first.
    """
    means, deviations = {}, {}
    for column, langs in columns.items():
        complete = [seed for seed in seeds if all((seed, lang) in scores for lang in langs)]
        for name in scores[complete[0], langs[0]] if complete else ():
            values = [np.mean([scores[seed, lang][name] for lang in langs]) for seed in complete]
            means.setdefault(column, {})[name] = float(np.mean(values))
            if len(values) > 1:
                deviations.setdefault(column, {})[name] = float(np.std(values, ddof=1))
    return means, deviations


def score_runs(runs, dev, clusters):
    """Return {condition: {(seed, language): {metric: score}}} and cells of intervals.estimator of runs.

    The cells are {metric: cells} and, by tags.add_contributions, {tag: cells}.
    """
    scores = collections.defaultdict(dict)
    cells, tag_cells = (collections.defaultdict(lambda: collections.defaultdict(dict)) for _ in range(2))
    for run in runs:
        key = run["order"], run["aligner"]
        for lang, (counts, right) in count_run(run, dev).items():
            scores[key][run["seed"], lang] = task_metrics(counts.sum(0))
            for name, ratio in metric_ratios(counts).items():
                cells[name][key, lang][run["seed"]] = score_with_influence(*ratio, clusters[lang])
            if right:
                add_contributions(tag_cells, key, run["seed"], lang, right, counts[:, 1], clusters[lang])
    return scores, cells, tag_cells


def order_contrasts(keys, controls, langs, train, cells, tag_cells, clusters):
    """Return the contrasts by tag and tau, [(name, key, column, estimate)]: primary ones and others; and {order:
    {language: tau}} of the first aligner that has order files.

    train: {condition: training file}; cells: the main metric's; tag_cells: score_runs'.
    """
    primary, single, closeness = [], [], {}
    function_words = estimator(tag_cells["function words"], clusters)
    for aligner in dict.fromkeys(key[1] for key in keys):
        pairs = [(key, controls[key]) for key in keys if key[0] in VERB_LAST and key[1] == aligner and controls[key]]
        if terms := function_word_terms(pairs, langs):
            primary.append(("function words", (None, aligner), "function words", function_words(terms)))
        if tau := find_closeness(train, langs, aligner):
            closeness = closeness or {key[0]: row for key, row in tau.items()}
            if fit := fit_closeness(tau, cells):
                terms, p = fit
                value = estimator(cells, clusters)(terms) | {"p_languages": p}
                primary.append(("closeness", (None, aligner), "tau", value))
    for key in keys:
        random, lang, _ = split_order(key[0])
        pairs = [(key, BASELINE)] if lang in VERB_LAST and not random and BASELINE in keys else []
        if terms := function_word_terms(pairs, langs):
            single.append(("function words of one order", key, "function words", function_words(terms)))
    return [[one for one in some if one[-1]] for some in (primary, single)], closeness


def find_unlearnt(task, dev, langs, scores):
    """Return ({condition: {seed: accuracy}} of unlearnt runs, sentences on them). scores: score_runs'.

    A run on pairs is unlearnt if its accuracy is at most 1.96 standard errors above that of the majority labels, both
    averaged over `langs`, for the pairs of one language, since those of the others are their translations.
    """
    if KINDS[task] != "pairs" or not langs:
        return {}, []
    golds, unlearnt, lines = [dev[lang][1] for lang in langs], {}, []
    majority = float(np.mean([max(collections.Counter(gold).values()) / len(gold) for gold in golds]))
    limit = majority + normal_quantile(LEVEL) * math.sqrt(majority * (1 - majority) / min(map(len, golds)))
    for key, found in scores.items():
        seeds = dict.fromkeys(seed for seed, _ in found)
        accuracy = {seed: float(np.mean([found[seed, lang]["accuracy"] for lang in langs])) for seed in seeds}
        if low := {seed: value for seed, value in accuracy.items() if value <= limit}:
            unlearnt[key], said = low, f"is not clearly more accurate than the majority label ({100 * majority:.1f} %)"
            texts = ", ".join(f"{100 * value:.1f} % with seed {seed}" for seed, value in low.items())
            lines.append(f"{condition_name(key)} {said}: {texts}.")
    return unlearnt, lines


def compare(runs):
    """Return the results of one task and model, with a row for each condition. `runs` as find_runs returns them."""
    settings, notes = check_comparable(runs)
    runs = sorted(runs, key=lambda run: (row_rank((run["order"], run["aligner"])), run["seed"]))
    task, first = runs[0]["task"], runs[0]["args"]
    conditions = collections.defaultdict(list)
    for run in runs:
        conditions[run["order"], run["aligner"]].append(run)
    langs = sorted({lang for run in runs for lang in run["dev"]}, key=lambda lang: (lang != "en", lang))
    shared = [lang for lang in langs if all(lang in run["dev"] for run in runs)]
    averages = {"mean": shared, "mean_not_english": [lang for lang in shared if lang != "en"]}
    averages = {name: members for name, members in averages.items() if members}
    columns = {lang: [lang] for lang in langs} | averages

    dev, clusters = read_dev(task, first["data_dir"], first.get("max_dev"), langs)
    scores, cells, tag_cells = score_runs(runs, dev, clusters)
    metric = METRICS[KINDS[task]][0]
    estimates, tag_estimates = (
        {name: estimator(part, clusters) for name, part in some.items()} for some in (cells, tag_cells)
    )
    shares = tag_shares(dev) if tag_cells else {}
    statistics = {key: read_statistics(members) for key, members in conditions.items()}
    tau = {key: found.get("kendall_tau") for key, found in statistics.items()}
    controls = {key: find_control(key, tau) for key in conditions}
    rows = []
    for key, members in conditions.items():
        random, lang, _ = split_order(key[0])
        means, deviations = mean_scores(scores[key], columns, [run["seed"] for run in members])
        baseline, control = BASELINE if BASELINE in conditions else None, controls[key]
        rows.append({
            "order": key[0], "aligner": key[1], "seeds": [run["seed"] for run in members],
            "target": lang if lang in langs and not random else None,
            "train": members[0]["args"].get("reordered") or members[0]["args"]["train"],
            "statistics": statistics[key],
            "tokens_per_second": float(np.mean([run["train"]["tokens_per_second"] for run in members])),
            "scores": means, "seed_deviation": deviations,
            "difference": differences(key, baseline, columns, estimates),
            "control": control and {"order": control[0], "aligner": control[1], "kendall_tau": tau[control]},
            "against_control": differences(key, control, columns, estimates),
            "by_tag": by_tag(key, baseline, tag_cells, tag_estimates, shares),
        })  # fmt: skip
    averaged = averages.get("mean_not_english", [])
    keys, train = list(conditions), {(row["order"], row["aligner"]): row["train"] for row in rows}
    more, closeness = order_contrasts(keys, controls, langs, train, cells[metric], tag_cells, clusters)
    contrasts = find_contrasts(keys, controls, langs, averaged, estimates[metric], more)
    uneven = [
        f"{condition_name(key)} varies more between seeds in {lang} (by {100 * own:.1f} points) than others do "
        f"({100 * others:.1f}; p = {p:.2g}); the intervals allow for that in part."
        for key, lang, own, others, p in find_uneven(cells[metric])
    ]
    unlearnt, unlearnt_lines = find_unlearnt(task, dev, shared, scores)
    tested = {key: {run["seed"]: list(run["dev"]) for run in members} for key, members in conditions.items()}
    return {
        "task": task, "model": runs[0]["model"], "metric": metric,
        "languages": langs, "averaged": shared, "columns": list(columns),
        "examples": {lang: len(clusters[lang]) for lang in langs},
        "clusters": {lang: len(np.unique(clusters[lang])) for lang in langs},
        "tags": shares, "closeness": closeness, "settings": settings, "machines": machines(runs), "rows": rows,
        "runs": [
            describe_run(run, {lang: scores[run["order"], run["aligner"]][run["seed"], lang] for lang in run["dev"]})
            for run in runs
        ],
        "contrasts": [{**row, "metric": metric} for row in contrasts],
        "learnt": BASELINE not in conditions or len(unlearnt.get(BASELINE, ())) < len(conditions[BASELINE]),
        "gaps": find_gaps(tested, langs, controls, statistics) + unlearnt_lines + uneven + notes,
    }  # fmt: skip


def machines(runs):
    """Return {'torch': [versions], 'device': …, 'commit': …} of what runs were trained with, each value once."""
    found = collections.defaultdict(list)
    for run in runs:
        for name, value in {**run.get("machine", {}), "commit": run.get("commit")}.items():
            if value is not None and value not in found[name]:
                found[name].append(value)
    return dict(found)


def main():
    parser = Arguments(__doc__)
    add = parser.add_argument
    add("--runs", required=True, nargs="+", metavar="DIR",
        help="folders that hold the runs, at any depth; run eval.py where they were trained")  # fmt: skip
    add("--output", required=True, metavar="DIR", help="folder to write the report to")
    add("--alignments", nargs="+", metavar="FILE",
        help="the aligners' scores that align.py --scores wrote; their paths end in MODEL/ALIGNER/PAIR.json"
    )  # fmt: skip
    add("--missing", metavar="FILE", help="list of what the data lack, for the report, as data/human.py writes it")
    args = parser.parse_args()

    groups = collections.defaultdict(list)
    for run in find_runs(*args.runs):
        groups[run["task"], run["model"]].append(run)
    alignments = read_alignments(args.alignments or [])
    missing = read_missing(args.missing) if args.missing else []

    results = [compare(runs) for runs in groups.values()]
    for result in results:
        result["missing"] = [row for row in missing if row["task"] == result["task"]]
        result["gaps"] = missing_lines(result["missing"]) + result["gaps"]
        result["verdict"] = verdict(result)
        result["tables"] = result_tables(result)
    content = {"results": results, "alignments": alignments, "missing": missing}

    text = page.markdown(**content)
    report = {"json": json.dumps(content, indent=1), "html": page.results_page(**content), "md": text}
    for kind, written in report.items():
        with open_output(os.path.join(args.output, f"results.{kind}")) as stream:
            stream.write(written)
    print(text)


if __name__ == "__main__":
    run_script(main)
