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
import hashlib
import json
import math
import os
import shlex
import sys

import numpy as np

from data.cli import Arguments, InputError, open_output, run_script
from data.files import iterate_pairs, read_lines
from data.metrics import metric_ratios, task_metrics
from data.squad import read_squad
from data.tasks import TASKS
from lib import report
from lib.contrasts import (
    BASELINE,
    aligner_rank,
    differences,
    find_contrasts,
    find_control,
    find_gaps,
    judge,
    row_rank,
    split_order,
)
from lib.intervals import score_with_influence
from lib.tables import result_tables, verdict

SCRIPTS = {"tagging": "train_pos.py", "pairs": "train_xnli.py", "qa": "train_qa.py"}
# What may differ between runs that are compared: the condition itself, and what changes no number.
FREE = "train reordered permutations consistency order aligner seed output langs save save_every model task".split()


# ---- runs ------------------------------------------------------------------------------------------


def valid(run):
    """Return whether an object is what a train script writes to scores.json."""
    kinds = {"model": str, "order": str, "aligner": str, "seed": int, "dev": dict, "args": dict}
    try:
        return (
            run["metric"] in TASKS[run["task"]].metrics
            and bool(run["dev"])
            and all(isinstance(run[key], kind) for key, kind in kinds.items())
            and all(isinstance(run["args"][key], str) for key in ("train", "data_dir"))
            and (run["args"].get("max_dev") is None or type(run["args"]["max_dev"]) is int)
            and 0 < (run["args"].get("max_dev") or 1) <= sys.maxsize
            and isinstance(run["args"].get("reordered") or "", str)
            and isinstance(run.get("machine", {}), dict)
            and min(finite([run["train"]["tokens_per_second"], run["train"].get("seconds", 1)])) > 0
        )
    except (ValueError, KeyError, TypeError):
        return False


def find_runs(folder):
    """Return the runs below a folder by path: scores.json as dicts, with 'folder' added. Raises InputError."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder; expected one with runs of the train scripts")
    runs = []
    for path, folders, files in os.walk(folder):
        folders.sort()
        if "scores.json" not in files:
            continue
        name = os.path.join(path, "scores.json")
        run = read_json(name)
        if not valid(run):
            raise InputError(f"{name}: is not what a train script writes; remove this run and train it again")
        runs.append({**run, "folder": path})
    if not runs:
        raise InputError(f"{folder}: no scores.json below it; train something first, such as: bash run_all.sh")
    return runs


def read_json(path):
    """Return what a JSON file holds, None where it is no JSON. Raises InputError for a file that cannot be read."""
    try:
        value = json.loads("\n".join(read_lines(path)))
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be written
        return value
    except (ValueError, RecursionError):
        return None


def run_settings(run):
    """Return {option: value} of what changes a run's numbers beside condition and seed; precision is the one used."""
    settings = {name: value for name, value in run["args"].items() if name not in FREE}
    settings["precision"] = run.get("machine", {}).get("precision") or run["args"].get("precision")
    if run["args"].get("consistency"):
        settings["consistency"] = run["args"]["consistency"]
    return settings


def check_comparable(runs):
    """Raise InputError where runs of one task and model were not trained alike, or two of a condition have one seed."""
    settings = [run_settings(run) for run in runs]
    for name in dict.fromkeys(name for found in settings for name in found):
        # A weight of consistency is alike in those that have one; any other setting in all.
        values = {
            json.dumps(found.get(name)): run["folder"]
            for run, found in zip(runs, settings)
            if name in found or name != "consistency"
        }
        if len(values) > 1:
            raise InputError(
                f"{' and '.join(values.values())}: trained with different --{name.replace('_', '-')} "
                f"({', '.join(values)}); expected the same for all runs that are compared, train again what differs"
            )
    seen = set()
    for run in runs:
        key = run["order"], run["aligner"], run["seed"]
        if key in seen:
            raise InputError(
                f"{run['folder']}: another run of {key[0]} ({key[1]}) has seed {key[2]} too; "
                "expected one run for each seed"
            )
        seen.add(key)


def finite(values):
    """Return values as floats. Raises ValueError or TypeError for what is no finite number."""
    try:
        numbers = [float(value) for value in values]
    except OverflowError:  # an integer of more than 308 digits
        numbers = [math.inf]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"not finite: {values}")
    return numbers


def read_statistics(runs):
    """Return what reorder.py printed about a condition's training files, the mean over seeds; {} without any."""
    names, found = ("aligned", "moved", "kendall_tau"), []
    for path in dict.fromkeys(run["args"].get("reordered") or run["args"]["train"] for run in runs):
        try:
            statistics = read_json(path + ".json")
            found.append(finite([statistics[name] for name in names]))
        except (InputError, ValueError, TypeError, KeyError):
            continue
    return dict(zip(names, np.mean(found, axis=0).tolist())) if found else {}


def read_alignments(paths):
    """Return scores of aligners, {model: [{'aligner', 'pair', 'method', 'aer', 'precision', 'recall', 'f1', 'pairs'}]}.

    `paths` name what align.py --scores wrote and end in MODEL/ALIGNER/PAIR.json. Raises InputError.
    """
    found = collections.defaultdict(list)
    for path in paths:
        model, aligner, name = os.path.abspath(path).split(os.sep)[-3:]
        try:
            for method, scores in read_json(path)["methods"].items():
                keys = ("aer", "precision", "recall", "f1")
                numbers = dict(zip(keys, finite([scores[key] for key in keys])))
                row = {"aligner": aligner, "pair": name.removesuffix(".json"), "method": method, **numbers}
                found[model].append({**row, "pairs": int(*finite([scores["pairs"]]))})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: is not what align.py --scores writes; remove it and score again") from None
    return {model: sorted(rows, key=lambda row: aligner_rank(row["aligner"])) for model, rows in found.items()}


def read_missing(path):
    """Return [{'task', 'language', 'what'}] of a file that lists what a data folder lacks. Raises InputError."""
    rows = read_json(path)
    names = {"task", "language", "what"}
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and row.keys() >= names and all(isinstance(row[name] or "", str) for name in names)
        for row in rows
    ):
        raise InputError(f'{path}: no list of what is missing; expected [{{"task": "", "language": "", "what": ""}}]')
    return rows


# ---- counts ----------------------------------------------------------------------------------------


def read_dev(task, folder, most, langs):
    """Return a task's dev sets, {language: (path, gold)}, and {language: numbers of clusters, (examples,)}."""
    files = TASKS[task].dev_files(folder)
    for lang in langs:
        if lang not in files:
            raise InputError(f"{folder}: no dev file of {lang}, in which runs were tested; expected the files they had")
    dev = {lang: (files[lang], TASKS[task].read_gold(files[lang], most)) for lang in langs}
    names = cluster_names(task, {lang: files[lang] for lang in langs}, most)
    number = {}
    clusters = {
        lang: np.array([number.setdefault(name, len(number)) for name in names[lang][: len(dev[lang][1])]])
        for lang in langs
    }
    return dev, clusters


def cluster_names(task, files, most):
    """Return {language: [cluster of each example]}; the examples of one name are drawn together, in all languages.

    Sentences of tagging are drawn alone. Line i of the pairs of all languages is a translation of the same pair, and
    pairs with the same first sentence (an XNLI premise has three hypotheses) are drawn as a whole, by the first file,
    English. So are the questions of a paragraph; a question has the same id in all languages.
    """
    names, known = {}, {}
    for lang, path in files.items():
        if TASKS[task].kind == "tagging":
            names[lang] = [(lang, n) for n, _ in enumerate(TASKS[task].read_gold(path, most))]
        elif TASKS[task].kind == "pairs":
            names[lang] = [known.setdefault(n, first) for n, (first, *_) in enumerate(iterate_pairs(path, task))]
        else:
            names[lang] = []
            for _, questions in read_squad(path):
                ids = [question[0] for question in questions]
                name = next((known[one] for one in ids if one in known), ids and ids[0])
                names[lang] += [known.setdefault(one, name) for one in ids]
    return names


def count_run(run, dev):
    """Return {language: counts of each example} of a run, from predictions and read_dev's gold. Raises InputError."""
    task, counts = TASKS[run["task"]], {}
    for lang in run["dev"]:
        gold_path, gold = dev[lang]
        path = os.path.join(run["folder"], task.predictions.format(lang))
        counts[lang] = task.counts(gold, task.read_predictions(path, gold, gold_path), lang)
    return counts


def describe_run(run, scores):
    """Return what results.json says of a run: its condition and scores, {language: metrics}, the command that repeats
    it and the SHA-256 of its predictions, which is that of `cat OUTPUT/dev-*` in the C locale."""
    task = TASKS[run["task"]]
    words = ["python", SCRIPTS[task.kind]]
    for name, value in run["args"].items():
        if value is not None and value is not False:  # 0 is a value
            words += [f"--{name.replace('_', '-')}"] + [str(value)] * (value is not True)
    hashed = hashlib.sha256()
    for lang in sorted(run["dev"]):
        with open(os.path.join(run["folder"], task.predictions.format(lang)), "rb") as stream:
            hashed.update(stream.read())
    found = {name: run[name] for name in ("order", "aligner", "seed", "train", "machine") if name in run}
    return {**found, "scores": scores, "command": shlex.join(words), "predictions_sha256": hashed.hexdigest()}


# ---- comparison ------------------------------------------------------------------------------------


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
        "gaps": find_gaps(tested, langs, controls, tau),
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
