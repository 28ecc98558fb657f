"""What eval.py reads: runs, their predictions beside the gold labels, and what stands beside them in the report."""

import collections
import hashlib
import json
import math
import os
import shlex
import sys

import numpy as np

from data.cli import InputError
from data.files import iterate_pairs, read_lines
from data.squad import read_squad
from data.tasks import TASKS
from lib.contrasts import aligner_rank, condition_name

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
    sizes = {run["train"].get("examples"): run["folder"] for run in runs}
    if len(sizes) > 1:
        raise InputError(
            f"{' and '.join(sizes.values())}: trained on {' and '.join(map(str, sizes))} examples; expected the same "
            "ones in other orders"
        )
    seen, forms = set(), {}
    for run in runs:
        condition = run["order"], run["aligner"]
        form = [bool(run["args"].get(name)) for name in ("reordered", "consistency")]
        first, known = forms.setdefault(condition, (run["folder"], form))
        if form != known:
            raise InputError(
                f"{first} and {run['folder']}: both {condition_name(condition)}, but trained with --reordered or "
                "--consistency and without; expected another --order for one of them, such as hi+consistency"
            )
        key = *condition, run["seed"]
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
