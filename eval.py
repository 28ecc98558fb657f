"""Score every run's predictions again and compare the word orders: the report that answers the question.

In:   a folder of runs (scores.json and dev-XX.tsv of the train scripts, at any depth) and the gold files they name
Out:  OUTPUT/results.json   everything, for programs
      OUTPUT/results.md     tables, for a README
      OUTPUT/results.html   one file that opens offline: heat map, confidence intervals, reordered examples

    python eval.py --runs runs/sample --output report/sample

Every condition is a row, every language a column. Its difference from the baseline (the same model trained on original
English) comes with a 95 % confidence interval: a paired bootstrap over the dev sentences of the language, the same sentences
drawn for both sides, with the scores of all seeds pooled. Averages over languages give every language the same weight.
Beside a run's training file FILE, FILE.json (what reorder.py prints) is read for its statistics where it is there, and with
--alignments the error rates of the word aligners stand beside the scores of the tasks.
"""

import collections
import json
import os
import re

import numpy as np

from data.cli import Arguments, InputError, open_output, positive, run_script
from data.files import read_label_predictions, read_lines, read_pairs, read_tag_predictions, read_udpos
from data.metrics import answer_counts, pair_counts, tagging_counts, task_metrics
from data.squad import QA_TASKS, gold_answers, qa_files, read_answer_predictions, read_squad
from report import markdown, results_page

METRICS = {
    "udpos": ["accuracy", "f1"],
    "xnli": ["accuracy"],
    "pawsx": ["accuracy"],
    **dict.fromkeys(QA_TASKS, ["f1", "exact_match"]),
}
ALIGNERS = {"none": 0, "pretrained": 0, "separate": 1, "joint": 2}  # the order of rows
SETTINGS = [
    "epochs",
    "batch_size",
    "lr",
    "warmup",
    "weight_decay",
    "max_length",
    "max_dev",
    "label_on",
    "data_dir",
]  # alike in runs that are compared


# ---- runs ------------------------------------------------------------------------------------------


def find_runs(folder):
    """The runs below a folder, in order of their paths: scores.json as dicts, with 'folder' added. Raises InputError."""
    if not os.path.isdir(folder):
        raise InputError(f"{folder}: no such folder; expected one with runs of the train scripts")
    runs = []
    for path, folders, files in os.walk(folder):
        folders.sort()
        if "scores.json" not in files:
            continue
        name = os.path.join(path, "scores.json")
        try:
            with open(name, encoding="utf-8") as stream:
                run = json.load(stream)
            kinds = {"model": str, "order": str, "aligner": str, "seed": int, "dev": dict, "args": dict}
            known = run["task"] in METRICS and run["metric"] in METRICS[run["task"]] and bool(run["dev"])
            known = known and all(isinstance(run[key], kind) for key, kind in kinds.items())
            known = known and all(isinstance(run["args"][key], str) for key in ("train", "data_dir"))
            known = (
                known
                and isinstance(run["args"].get("max_dev"), (int, type(None)))
                and float(run["train"]["tokens_per_second"]) > 0
            )
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise InputError(f"{name}: is not what a train script writes; remove this run and train it again")
        runs.append({**run, "folder": path})
    if not runs:
        raise InputError(f"{folder}: no scores.json below it; train something first, such as: bash run_all.sh")
    return runs


def count_run(run, gold_cache):
    """{language: counts of each sentence} of a run, from its predictions and the gold files. Raises InputError."""
    counts = {}
    task, most, folder = run["task"], run["args"].get("max_dev"), run["args"]["data_dir"]
    for lang in run["dev"]:
        if task in QA_TASKS:
            counts[lang] = count_answers(run, lang, gold_cache)
            continue
        gold_path = os.path.join(folder, f"dev-{lang}.tsv")
        if gold_path not in gold_cache:
            gold_cache[gold_path] = [
                row[-1] for row in (read_udpos(gold_path) if task == "udpos" else read_pairs(gold_path, task))
            ]
        gold = gold_cache[gold_path][:most]  # tags of a sentence, or the label of a pair
        path = os.path.join(run["folder"], f"dev-{lang}.tsv")
        predicted = read_tag_predictions(path) if task == "udpos" else read_label_predictions(path, task)
        sizes = [[len(labels) if task == "udpos" else 1 for labels in part] for part in (predicted, gold)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{path}: {len(predicted)} sentences, {sum(sizes[0])} labels, which do not fit the {len(gold)} sentences, "
                f"{sum(sizes[1])} labels of {gold_path}; train this run again"
            )
        counts[lang] = (tagging_counts if task == "udpos" else pair_counts)(gold, predicted)
    return counts


def count_answers(run, lang, gold_cache):
    """Counts of each question of a run's dev file. Raises InputError where the predictions are not of its questions."""
    gold_path = qa_files(run["args"]["data_dir"], run["task"]).get(lang, f"dev-{lang}.json")
    if gold_path not in gold_cache:
        gold_cache[gold_path] = gold_answers(gold_path, read_squad(gold_path))
    gold = dict(list(gold_cache[gold_path].items())[: run["args"].get("max_dev")])
    path = os.path.join(run["folder"], f"dev-{lang}.json")
    predicted = read_answer_predictions(path)
    if predicted.keys() != gold.keys():
        raise InputError(
            f"{path}: {len(predicted)} answers, not to the {len(gold)} questions of {gold_path}; train this run again"
        )
    return answer_counts(gold, predicted, lang, run["task"])


def read_statistics(train_path):
    """What reorder.py printed about a training file ('aligned', 'moved', 'kendall_tau'), {} where it is not there."""
    try:
        with open(train_path + ".json", encoding="utf-8") as stream:
            found = json.load(stream)
        return {name: float(found[name]) for name in ("aligned", "moved", "kendall_tau")}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def read_alignments(paths):
    """Scores of word aligners, {model: [{'aligner', 'pair', 'method', 'aer', 'precision', 'recall', 'f1', 'pairs'}]}.

    `paths` name what align.py --scores wrote and end in MODEL/ALIGNER/PAIR.json. Raises InputError.
    """
    found = collections.defaultdict(list)
    for path in paths:
        model, aligner, name = os.path.abspath(path).split(os.sep)[-3:]
        text = "\n".join(read_lines(path))
        try:
            methods = json.loads(text)["methods"]
            for method, scores in methods.items():
                numbers = {key: float(scores[key]) for key in ("aer", "precision", "recall", "f1")}
                found[model].append(
                    {
                        "aligner": aligner,
                        "pair": name.removesuffix(".json"),
                        "method": method,
                        **numbers,
                        "pairs": int(scores["pairs"]),
                    }
                )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: is not what align.py --scores writes; remove it and score again") from None
    return {
        model: sorted(rows, key=lambda row: (ALIGNERS.get(row["aligner"], 3), row["aligner"]))
        for model, rows in found.items()
    }


# ---- comparison ------------------------------------------------------------------------------------


def bootstrap(counts, samples, generator):
    """Metrics of resampled dev sets: counts (conditions, sentences, 5, 3 or 2), pooled over seeds; the same sentences are drawn for all conditions.

    Returns {metric: (conditions, samples)}.
    """
    conditions, sentences, width = counts.shape
    flat = counts.transpose(1, 0, 2).reshape(sentences, conditions * width)
    sums = np.empty((samples, conditions * width))
    step = max(1, 2_000_000 // sentences)
    for start in range(0, samples, step):
        size = min(step, samples - start)
        sums[start : start + size] = generator.multinomial(sentences, np.full(sentences, 1 / sentences), size) @ flat
    return task_metrics(sums.reshape(samples, conditions, width).transpose(1, 0, 2))


def interval(value, resampled):
    """{'value', 'low', 'high'}: a number and the 2.5th and 97.5th percentiles of its resampled values."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high)}


def check_comparable(runs):
    """Raise InputError where runs of one task and model were not trained alike."""
    for name in SETTINGS:
        values = {json.dumps(run["args"].get(name)): run["folder"] for run in runs}
        if len(values) > 1:
            raise InputError(
                f"{' and '.join(values.values())}: trained with different --{name.replace('_', '-')} ({', '.join(values)}); "
                "expected the same for all runs that are compared, remove or train again what differs"
            )
    seen = set()
    for run in runs:
        key = run["order"], run["aligner"], run["seed"]
        if key in seen:
            raise InputError(
                f"{run['folder']}: another run of {key[0]} ({key[1]}) has seed {key[2]} too; expected one run for each seed"
            )
        seen.add(key)


def pool_seeds(runs, gold_cache):
    """Counts and deviation of the runs of one condition, for each language that all of its seeds were tested in.

    Returns ({language: counts of each sentence, the mean over seeds}, {language: {metric: standard deviation between seeds}}).
    """
    counted = [count_run(run, gold_cache) for run in runs]
    pooled, deviation = {}, {}
    for lang in counted[0]:
        if all(lang in counts for counts in counted):
            pooled[lang] = np.mean([counts[lang] for counts in counted], axis=0)
            if len(counted) > 1:
                metrics = task_metrics(np.stack([counts[lang].sum(0) for counts in counted]))
                deviation[lang] = {name: float(np.std(values, ddof=1)) for name, values in metrics.items()}
    return pooled, deviation


def resample(pooled, langs, averages, samples, seed=1):
    """Exact and resampled metrics of every condition and column, which are the languages and the averages over some of them.

    pooled: {condition: {language: counts}}; averages: {name: languages}. Each language is resampled once for all conditions,
    so that any two of them are paired. Returns two dicts with the keys (condition, column): {metric: number} and
    {metric: (samples,)}.
    """
    generator = np.random.default_rng(seed)
    exact, drawn = {}, {}
    for lang in langs:
        present = [key for key in pooled if lang in pooled[key]]
        stacked = np.stack([pooled[key][lang] for key in present])
        point, resampled = task_metrics(stacked.sum(1)), bootstrap(stacked, samples, generator)
        for n, key in enumerate(present):
            exact[key, lang] = {metric: float(values[n]) for metric, values in point.items()}
            drawn[key, lang] = {metric: values[n] for metric, values in resampled.items()}
    for name, members in averages.items():
        for key in pooled:
            for table, average in (
                (exact, lambda values: float(np.mean(values))),
                (drawn, lambda values: np.mean(values, axis=0)),
            ):
                table[key, name] = {
                    metric: average([table[key, lang][metric] for lang in members]) for metric in table[key, members[0]]
                }
    return exact, drawn


def differences(exact, drawn, key, other, columns):
    """{column: {metric: interval}} of a condition against another one, {} against None and itself."""
    if other is None or other == key:
        return {}
    return {
        column: {
            metric: interval(
                value - exact[other, column][metric], drawn[key, column][metric] - drawn[other, column][metric]
            )
            for metric, value in exact[key, column].items()
        }
        for column in columns
        if (key, column) in exact and (other, column) in exact
    }


def compare(runs, samples):
    """The results of one task and model: a dict with a row for each condition. `runs` as find_runs returns them."""
    check_comparable(runs)
    conditions = collections.defaultdict(list)
    for run in runs:
        conditions[run["order"], run["aligner"]].append(run)
    rank = {"original": 0, "identity": 1, "rdrop": 1, "random": 3}
    keys = sorted(conditions, key=lambda key: (rank.get(re.split("[-+]", key[0])[0], 2), ALIGNERS.get(key[1], 3), key))

    gold_cache, pooled, deviation = {}, {}, {}
    for key in keys:
        pooled[key], deviation[key] = pool_seeds(conditions[key], gold_cache)
    langs = sorted({lang for key in keys for lang in pooled[key]}, key=lambda lang: (lang != "en", lang))
    shared = [lang for lang in langs if all(lang in pooled[key] for key in keys)]
    averages = {"mean": shared, "mean_not_english": [lang for lang in shared if lang != "en"]}
    averages = {name: members for name, members in averages.items() if members}
    columns = langs + list(averages)
    exact, drawn = resample(pooled, langs, averages, samples)

    baseline = ("original", "none") if ("original", "none") in conditions else None
    train = {key: conditions[key][0]["args"].get("reordered") or conditions[key][0]["args"]["train"] for key in keys}
    statistics = {key: read_statistics(train[key]) for key in keys}
    rows = []
    for key in keys:
        # The control of an order is a random one that is as far from English; with consistency, one with consistency.
        order, _, trained = key[0].partition("+")
        strength, control = statistics[key].get("kendall_tau"), None
        if order in langs and strength is not None:
            controls = [
                other for other in keys if other[0].startswith("random") and other[0].partition("+")[2] == trained
            ]
            distance = {other: abs(statistics[other].get("kendall_tau", 2.0) - strength) for other in controls}
            control = min(
                (other for other in distance if distance[other] < 0.01),
                key=lambda other: (other[1] != key[1], distance[other]),
                default=None,
            )
        rows.append({
            "order": key[0],
            "aligner": key[1],
            "seeds": sorted(run["seed"] for run in conditions[key]),
            "target": order if order in langs else None,
            "train": train[key],
            "statistics": statistics[key],
            "tokens_per_second": float(np.mean([run["train"]["tokens_per_second"] for run in conditions[key]])),
            "scores": {column: exact[key, column] for column in columns if (key, column) in exact},
            "seed_deviation": deviation[key],
            "difference": differences(exact, drawn, key, baseline, columns),
            "control": control and control[0],
            "against_control": differences(exact, drawn, key, control, columns),
        })  # fmt: skip
    return {
        "task": runs[0]["task"],
        "model": runs[0]["model"],
        "metric": runs[0]["metric"],
        "languages": langs,
        "averaged": shared,
        "columns": columns,
        "sentences": {lang: next(len(pooled[key][lang]) for key in keys if lang in pooled[key]) for lang in langs},
        "baseline": bool(baseline),
        "rows": rows,
    }


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
        default=[],
        metavar="FILE",
        help="the aligners' scores that align.py --scores wrote, named MODEL/ALIGNER/PAIR.json at their end",
    )
    parser.add_argument("--samples", type=positive, default=2000, help="bootstrap samples")
    args = parser.parse_args()

    groups = collections.defaultdict(list)
    for folder in args.runs:
        for run in find_runs(folder):
            groups[run["task"], run["model"]].append(run)
    results = [compare(runs, args.samples) for runs in groups.values()]
    alignments = read_alignments(args.alignments)
    text = markdown(results, alignments)
    with open_output(os.path.join(args.output, "results.json")) as stream:
        json.dump({"results": results, "alignments": alignments}, stream, indent=1)
    with open_output(os.path.join(args.output, "results.html")) as stream:
        stream.write(results_page(results, alignments))
    with open_output(os.path.join(args.output, "results.md")) as stream:
        stream.write(text)
    print(text)


if __name__ == "__main__":
    run_script(main)
