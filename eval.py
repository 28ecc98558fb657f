"""Score every run's predictions again and compare the word orders: the report that answers the question.

In:   a folder of runs (scores.json and dev-XX.tsv of the train scripts, at any depth) and the gold files they name
Out:  OUTPUT/results.json   everything, for programs
      OUTPUT/results.md     tables, for a README
      OUTPUT/results.html   one file that opens offline: verdicts, confidence intervals, heat map, reordered examples

    python eval.py --runs runs/sample --output report/sample

Every condition (a training order made by an aligner) is a row, every language a column. Scores are means over seeds.
A difference from original English, or from the random control that is as far from English order, comes with a 95 %
confidence interval of chance in training and of the choice of dev examples (lib/intervals.py says how), once there
are two seeds. The contrasts that answer the question were named before any run (docs/methods.md); their p values are
adjusted for their number.

Beside a run's training file FILE, FILE.json (what reorder.py prints) is read for its statistics where it is there.
With --alignments the error rates of the word aligners stand beside the scores of the tasks; --missing names what had
no data.
"""

import collections
import json
import math
import os

import numpy as np

from data.cli import Arguments, open_output, run_script
from data.metrics import metric_ratios, task_metrics
from data.tasks import TASKS
from lib import report
from lib.contrasts import (
    BASELINE,
    differences,
    find_contrasts,
    find_control,
    find_gaps,
    judge,
    row_rank,
    split_order,
)
from lib.intervals import LEVEL, normal_quantile, score_with_influence
from lib.runs import (
    check_comparable,
    count_run,
    describe_run,
    find_runs,
    read_alignments,
    read_dev,
    read_missing,
    read_statistics,
    run_settings,
)
from lib.tables import result_tables, unlearnt_lines, verdict


def mean_scores(scores, columns, seeds):
    """Return a condition's {column: {metric: mean over seeds}} and {column: {metric: deviation between seeds}}.

    scores: {(seed, language): {metric: number}}. A column of several languages needs all of them, each seed's mean
    first.
    """
    means, deviations = {}, {}
    for column, langs in columns.items():
        complete = [seed for seed in seeds if all((seed, lang) in scores for lang in langs)]
        found = [[scores[seed, lang] for lang in langs] for seed in complete]
        if found:
            values = {name: [np.mean([one[name] for one in row]) for row in found] for name in found[0][0]}
            means[column] = {name: float(np.mean(row)) for name, row in values.items()}
            if len(found) > 1:
                deviations[column] = {name: float(np.std(row, ddof=1)) for name, row in values.items()}
    return means, deviations


def score_runs(runs, dev, clusters):
    """Return {condition: {(seed, language): {metric: score}}} and {metric: data.intervals.estimate's cells} of runs."""
    scores, cells = collections.defaultdict(dict), collections.defaultdict(lambda: collections.defaultdict(dict))
    for run in runs:
        key = run["order"], run["aligner"]
        for lang, counts in count_run(run, dev).items():
            scores[key][run["seed"], lang] = {name: float(n) for name, n in task_metrics(counts.sum(0)).items()}
            for name, ratio in metric_ratios(counts).items():
                cells[name][key, lang][run["seed"]] = score_with_influence(*ratio, clusters[lang])
    return scores, cells


def find_unlearnt(task, dev, langs, scores):
    """Return (unlearnt, constant): {condition: {seed: accuracy}} of the runs that answer pairs not clearly better than
    one label for all would, and its accuracy; averages over `langs`.

    scores: score_runs'. Clearly: by more than 1.96 standard errors of guesses, as often right as that label, on the
    pairs of one language, since those of the others are their translations.
    """
    if TASKS[task].kind != "pairs" or not langs:
        return {}, None
    golds, unlearnt = [dev[lang][1] for lang in langs], collections.defaultdict(dict)
    constant = float(np.mean([max(collections.Counter(gold).values()) / len(gold) for gold in golds]))
    limit = constant + normal_quantile(LEVEL) * math.sqrt(constant * (1 - constant) / min(map(len, golds)))
    for key, found in scores.items():
        for seed in dict.fromkeys(seed for seed, _ in found):
            accuracy = float(np.mean([found[seed, lang]["accuracy"] for lang in langs]))
            if accuracy <= limit:
                unlearnt[key][seed] = accuracy
    return unlearnt, constant


def compare(runs):
    """Return the results of one task and model, with a row for each condition. `runs` as find_runs returns them."""
    check_comparable(runs)
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
    scores, cells = score_runs(runs, dev, clusters)
    metric = TASKS[task].metrics[0]
    statistics = {key: read_statistics(members) for key, members in conditions.items()}
    tau = {key: found.get("kendall_tau") for key, found in statistics.items()}
    controls = {key: find_control(key, tau) for key in conditions}
    rows = []
    for key, members in conditions.items():
        random, lang, _ = split_order(key[0])
        means, deviations = mean_scores(scores[key], columns, [run["seed"] for run in members])
        baseline, control = BASELINE if BASELINE in conditions else None, controls[key]
        rows.append({
            "order": key[0],
            "aligner": key[1],
            "seeds": [run["seed"] for run in members],
            "target": lang if lang in langs and not random else None,
            "train": members[0]["args"].get("reordered") or members[0]["args"]["train"],
            "statistics": statistics[key],
            "tokens_per_second": float(np.mean([run["train"]["tokens_per_second"] for run in members])),
            "scores": means,
            "seed_deviation": deviations,
            "difference": differences(key, baseline, columns, cells, clusters),
            "control": control and {"order": control[0], "aligner": control[1]},
            "against_control": differences(key, control, columns, cells, clusters),
        })  # fmt: skip
    contrasts = judge(find_contrasts(list(conditions), controls, langs, averages), cells[metric], clusters)
    unlearnt, constant = find_unlearnt(task, dev, shared, scores)
    tested = {key: {run["seed"]: list(run["dev"]) for run in members} for key, members in conditions.items()}
    return {
        "task": task,
        "model": runs[0]["model"],
        "metric": metric,
        "languages": langs,
        "averaged": shared,
        "columns": list(columns),
        "examples": {lang: len(clusters[lang]) for lang in langs},
        "clusters": {lang: len(np.unique(clusters[lang])) for lang in langs},
        "settings": run_settings(runs[0]),
        "machines": machines(runs),
        "rows": rows,
        "runs": [
            describe_run(run, {lang: scores[run["order"], run["aligner"]][run["seed"], lang] for lang in run["dev"]})
            for run in runs
        ],
        "contrasts": [{**row, "metric": metric} for row in contrasts],
        "learnt": BASELINE not in conditions or len(unlearnt.get(BASELINE, ())) < len(conditions[BASELINE]),
        "gaps": find_gaps(tested, langs, controls, tau) + unlearnt_lines(unlearnt, constant),
    }


def machines(runs):
    """Return {'torch': [versions], 'device': …} of what runs were trained on, each value once."""
    found = collections.defaultdict(list)
    for run in runs:
        for name, value in run.get("machine", {}).items():
            if value not in found[name]:
                found[name].append(value)
    return dict(found)


def main():
    parser = Arguments(__doc__)
    parser.add_argument(
        "--runs",
        required=True,
        nargs="+",
        metavar="DIR",
        help="folders that hold the runs, at any depth; run eval.py where they were trained",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write the report to")
    parser.add_argument(
        "--alignments",
        nargs="+",
        metavar="FILE",
        help="the aligners' scores that align.py --scores wrote, named MODEL/ALIGNER/PAIR.json at their end",
    )
    parser.add_argument(
        "--missing", metavar="FILE", help="what the data lacks, which the report says: data/human.py writes this list"
    )
    args = parser.parse_args()

    groups = collections.defaultdict(list)
    for folder in args.runs:
        for run in find_runs(folder):
            groups[run["task"], run["model"]].append(run)
    alignments = read_alignments(args.alignments or [])
    missing = read_missing(args.missing) if args.missing else []

    results = [compare(runs) for runs in groups.values()]
    for result in results:
        result["missing"] = [row for row in missing if row["task"] == result["task"]]
        result["verdict"] = verdict(result)
        result["tables"] = result_tables(result)
    content = {"results": results, "alignments": alignments, "missing": missing}

    text = report.markdown(**content)
    with open_output(os.path.join(args.output, "results.json")) as stream:
        json.dump(content, stream, indent=1)
    with open_output(os.path.join(args.output, "results.html")) as stream:
        stream.write(report.results_page(**content))
    with open_output(os.path.join(args.output, "results.md")) as stream:
        stream.write(text)
    print(text)


if __name__ == "__main__":
    run_script(main)
