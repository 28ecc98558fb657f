"""What eval.py reads: runs, their predictions beside the gold labels, and what stands beside them in the report."""

import collections
import hashlib
import itertools
import json
import math
import os
import re
import shlex

import numpy as np

from data.files import (
    PAIR_LABELS, TAGS, InputError, check_count, check_folder, check_label, dev_files, iterate_pairs, list_files,
    read_lines, read_udpos,
)  # fmt: skip
from data.metrics import pair_counts, tagging_counts, tagging_metrics
from data.squad import QA_TASKS, answer_counts, gold_answers, qa_files, read_answer_predictions, read_squad
from evaluation.contrasts import aligner_rank, condition_name
from evaluation.tags import right_by_tag

KINDS = {**dict.fromkeys(TAGS, "tagging"), **dict.fromkeys(PAIR_LABELS, "pairs"), **dict.fromkeys(QA_TASKS, "qa")}
SCRIPTS = {"tagging": "train_pos.py", "pairs": "train_xnli.py", "qa": "train_qa.py"}
METRICS = {"tagging": ["accuracy", "f1"], "pairs": ["accuracy"], "qa": ["f1", "exact_match"]}  # the first one leads
# What may differ between runs that are compared: the condition itself, and what changes no number.
FREE = "train reordered permutations consistency order aligner seed output langs save save_every model task".split()
ENGLISH_WORD = re.compile(r"\w+(?:['’-]\w+|(?<=\d)[.,](?=\d)\w+)*|[^\w\s]")


# ---- runs ------------------------------------------------------------------------------------------


def valid(run):
    """Return whether an object is what a train script, of today or before, writes to scores.json."""
    kinds = {"model": str, "order": str, "aligner": str, "seed": int, "dev": dict, "args": dict, "train": dict}
    try:
        args, train = run["args"], run["train"]
        return (
            run["metric"] in METRICS[KINDS[run["task"]]]
            and bool(run["dev"])
            and all(isinstance(run[key], kind) for key, kind in kinds.items())
            and all(isinstance(text, str) for text in (args["train"], args["data_dir"], args.get("reordered") or ""))
            and (args.get("max_dev") is None or type(args["max_dev"]) is int and args["max_dev"] > 0)
            and isinstance(run.get("machine", {}), dict)
            and isinstance(run.get("commit") or "", str)
            and min(finite([train["tokens_per_second"], train.get("seconds", 1)])) > 0
            and all(finite([one["step"], one["lr"], one["loss"] or 0]) for one in train.get("history", []))
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return False


def find_runs(*folders):
    """Return the runs below folders, each once: scores.json as dicts, with 'folder' added. Raises InputError."""
    runs = {}
    for folder in folders:
        check_folder(folder, "runs of the train scripts")
        for path in list_files(folder):
            if os.path.basename(path) == "scores.json" and os.path.realpath(path) not in runs:
                run = read_json(path)
                if not valid(run):
                    raise InputError(f"{path}: is not what a train script writes; remove this run and train it again")
                runs[os.path.realpath(path)] = {**run, "folder": os.path.dirname(path)}
    if not runs:
        raise InputError(f"{folders[0]}: no scores.json below it; train something first, such as: bash run_all.sh")
    return list(runs.values())


def read_json(path):
    """Return what a JSON file holds, None where it is no JSON. NaN, the loss of a training that failed, is None too."""
    try:
        value = json.loads("\n".join(read_lines(path)), parse_constant=lambda name: None)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be written
        return value
    except (ValueError, RecursionError):
        return None


def finite(values):
    """Return values as floats. Raises ValueError, TypeError or OverflowError for what is no finite number."""
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"not finite: {values}")
    return numbers


def run_settings(run):
    """Return {option: value} of what changes a run's numbers beside condition and seed; precision is the one used."""
    args, machine = run["args"], run.get("machine", {})
    settings = {name: value for name, value in args.items() if name not in [*FREE, "precision"]}
    known = {"consistency": args.get("consistency"), "precision": machine.get("precision") or args.get("precision")}
    return settings | {name: value for name, value in known.items() if value}


def check_comparable(runs):
    """Return the settings that runs of one task and model share, and sentences on those that some do not name.

    A setting that is off (null, false or 0) is like one that is not named, since new options are off by default.
    Raises InputError where runs were not trained alike, or two of a condition have one seed.
    """
    found, settings, notes = [run_settings(run) for run in runs], {}, []
    for name in dict.fromkeys(itertools.chain(*found)):
        option = f"--{name.replace('_', '-')}"
        named = [(one[name], run["folder"]) for run, one in zip(runs, found) if name in one]
        values = {json.dumps(value or None): folder for value, folder in named}
        if len(values) > 1:
            wrong = f"trained with different {option} ({', '.join(values)})"
            cure = "expected the same for all runs that are compared, train again what differs"
            raise InputError(f"{' and '.join(values.values())}: {wrong}; {cure}")
        settings[name] = named[0][0]
        if len(named) < len(runs) and settings[name] and name != "consistency":
            notes.append(f"Some runs do not name {option} and are taken to have {settings[name]}.")
    sizes = {run["train"].get("examples"): run["folder"] for run in runs}
    if len(sizes) > 1:
        wrong = f"trained on {' and '.join(map(str, sizes))} examples"
        raise InputError(f"{' and '.join(sizes.values())}: {wrong}; expected the same ones in other orders")
    seen = {}
    for run in runs:
        key, folder = (run["order"], run["aligner"], run["seed"]), run["folder"]
        if (other := seen.setdefault(key, folder)) != folder:
            both = f"both {condition_name(key)} with seed {run['seed']}"
            raise InputError(f"{other} and {folder}: {both}; expected one run for each seed")
    return settings, notes


def describe_run(run, scores):
    """Return what results.json says of a run: its condition and scores, {language: metrics}, the command that repeats
    it and the SHA-256 of its predictions, which is that of `cat OUTPUT/dev-*` in the C locale."""
    words = ["python", SCRIPTS[KINDS[run["task"]]]]
    for name, value in run["args"].items():
        if value is not None and value is not False:  # 0 is a value
            words += [f"--{name.replace('_', '-')}"] + [str(value)] * (value is not True)
    hashed = hashlib.sha256()
    for lang in sorted(run["dev"]):
        with open(predictions_path(run, lang), "rb") as stream:
            hashed.update(stream.read())
    names = "order", "aligner", "seed", "train", "machine", "commit"
    found = {name: run[name] for name in names if name in run}
    return {**found, "scores": scores, "command": shlex.join(words), "predictions_sha256": hashed.hexdigest()}


# ---- gold labels and predictions, by the kind of task -----------------------------------------------------


def read_dev(task, folder, most, langs):
    """Return a task's dev sets, {language: (path, gold)}, and {language: numbers of clusters, (examples,)}.

    gold: of the first `most` examples, see read_gold. Clusters are numbered through all languages. Raises InputError.
    """
    files = qa_files(folder, task) if KINDS[task] == "qa" else dev_files(folder)
    dev, clusters, known, number = {}, {}, {}, {}
    for lang in langs:
        if lang not in files:
            raise InputError(f"{folder}: no dev file of {lang}, in which runs were tested; expected the files they had")
        gold, names = read_gold(task, files[lang], lang, most, known)
        dev[lang] = files[lang], gold
        clusters[lang] = np.array([number.setdefault(name, len(number)) for name in names[: len(gold)]])
    return dev, clusters


def read_gold(task, path, lang, most, known):
    """Return the gold labels of a dev file (tags of each sentence, a label of each pair or {question id: answers}) and
    the name of the cluster of each example. Raises InputError.

    Each sentence of tagging is a cluster. Line i of the pairs of all languages is a translation of the same pair, and
    pairs with the same first sentence (an XNLI premise has three hypotheses) are one cluster, by the first file read,
    English. So are the questions of a paragraph; a question has the same id in all languages. known: {line or question
    id: cluster} of the files read before, to which those of this one are added.
    """
    if KINDS[task] == "tagging":
        gold = [tags for _, tags in read_udpos(path, task, tagged=True)[:most]]
        return gold, [(lang, n) for n, _ in enumerate(gold)]
    if KINDS[task] == "pairs":
        rows = list(itertools.islice(iterate_pairs(path, task, labelled=True), most))
        return [label for *_, label in rows], [known.setdefault(n, first) for n, (first, *_) in enumerate(rows)]
    paragraphs, names = read_squad(path), []
    for _, questions in paragraphs:
        ids = [name for name, *_ in questions]
        cluster = next((known[one] for one in ids if one in known), ids and ids[0])
        names += [known.setdefault(one, cluster) for one in ids]
    return dict(itertools.islice(gold_answers(path, paragraphs).items(), most)), names


def predictions_path(run, lang):
    """Return the path of a run's predictions in a language."""
    return os.path.join(run["folder"], f"dev-{lang}.{'json' if KINDS[run['task']] == 'qa' else 'tsv'}")


def read_labels(path, labels, what):
    """Return the labels of a file, one a line. Raises InputError for one that is none of `labels`."""
    found = list(read_lines(path))
    for number, label in enumerate(found, 1):
        check_label(path, number, label, labels, what)
    return found


def read_tag_predictions(path, task="udpos"):
    """Read predicted tags as a list of lists: a tag a line, a blank line after each sentence. Raises InputError."""
    lines = read_labels(path, {*TAGS[task], ""}, "tag")
    return [list(tags) for tagged, tags in itertools.groupby(lines, bool) if tagged]


def count_run(run, dev):
    """Return {language: (counts of each example, right words by tag)} of a run by read_dev's gold labels.

    Counts: see metric_ratios; right words: see tags.right_by_tag, {} of other tasks than tagging. Raises InputError for
    predictions that do not fit the gold labels.
    """
    task, found = run["task"], {}
    for lang in run["dev"]:
        path, (gold_path, gold) = predictions_path(run, lang), dev[lang]
        if KINDS[task] == "tagging":
            predicted = read_tag_predictions(path, task)
            check_count(path, len(predicted), len(gold), gold_path, "sentences")
            for n, (tags, truth) in enumerate(zip(predicted, gold), 1):
                check_count(f"{path}: sentence {n}", len(tags), len(truth), gold_path, "tags")
            found[lang] = tagging_counts(gold, predicted), right_by_tag(gold, predicted)
        elif KINDS[task] == "pairs":
            predicted = read_labels(path, PAIR_LABELS[task], "label")
            check_count(path, len(predicted), len(gold), gold_path, "labels")
            found[lang] = pair_counts(gold, predicted), {}
        else:
            predicted = read_answer_predictions(path)
            if predicted.keys() != gold.keys():
                wrong = f"{len(predicted)} answers, not to the {len(gold)} questions of {gold_path}"
                raise InputError(f"{path}: {wrong}; train this run again")
            found[lang] = answer_counts(gold, predicted, lang, task), {}
    return found


def metric_ratios(counts):
    """Return {metric: (numerator, denominator)}, (examples,) each: every metric is a ratio of their sums.

    counts: (examples, 5) of tagging, (examples, 2) of pairs, (examples, 3) of questions.
    """
    columns = np.moveaxis(np.asarray(counts), -1, 0)
    if len(columns) == 5:
        right, words, hits, guessed, true = columns
        return {"accuracy": (right, words), "f1": (2 * hits, guessed + true)}
    return {name: (columns[n], columns[-1]) for n, name in enumerate(METRICS["pairs" if len(columns) == 2 else "qa"])}


def task_metrics(counts):
    """Return {metric: fraction} of summed counts: as metric_ratios, but F1 of tagging to seqeval's last digit."""
    if len(counts) == 5:
        return {name: float(value) for name, value in tagging_metrics(counts).items()}
    return {name: float(part / whole) for name, (part, whole) in metric_ratios(counts).items()}


def training_words(task, path):
    """Yield the words of each sentence of a training file; of question answering those of the questions.

    English is cut at its marks, which gives the same words in every order: reordering moves spaces beside marks alone.
    """
    if KINDS[task] == "tagging":
        yield from (words for words, _ in read_udpos(path, task))
    elif KINDS[task] == "pairs":
        yield from (ENGLISH_WORD.findall(text) for row in iterate_pairs(path, task) for text in row[:2])
    else:
        yield from (ENGLISH_WORD.findall(text) for _, questions in read_squad(path) for _, text, _ in questions)


# ---- what stands beside runs ---------------------------------------------------------------------------


def read_statistics(runs):
    """Return what reorder.py printed about a condition's training files, the mean over seeds; {} without any."""
    names, found = ("aligned", "moved", "kendall_tau"), []
    for path in dict.fromkeys(run["args"].get("reordered") or run["args"]["train"] for run in runs):
        try:
            statistics = read_json(path + ".json")
            found.append(finite([statistics[name] for name in names]))
        except (InputError, ValueError, TypeError, KeyError, OverflowError):
            continue
    return dict(zip(names, np.mean(found, axis=0).tolist())) if found else {}


def read_alignments(paths):
    """Return scores of aligners, {model: [{'aligner', 'pair', 'method', 'aer', 'precision', 'recall', 'f1', 'pairs'}]}.

    `paths` name what align.py --scores wrote and end in MODEL/ALIGNER/PAIR.json. Raises InputError.
    """
    found, names = collections.defaultdict(list), ("aer", "precision", "recall", "f1", "pairs")
    for path in paths:
        model, aligner, name = os.path.abspath(path).split(os.sep)[-3:]
        try:
            for method, scores in read_json(path)["methods"].items():
                row = {"aligner": aligner, "pair": name.removesuffix(".json"), "method": method}
                row |= zip(names, finite([scores[key] for key in names]))
                found[model].append({**row, "pairs": int(row["pairs"])})
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise InputError(f"{path}: is not what align.py --scores writes; remove it and score again") from None
    return {model: sorted(rows, key=lambda row: aligner_rank(row["aligner"])) for model, rows in found.items()}


def read_missing(path):
    """Return [{'task', 'language', 'what'}] of a file that lists what a data folder lacks. Raises InputError."""
    rows, names = read_json(path), {"task", "language", "what"}
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and row.keys() >= names and all(isinstance(row[name] or "", str) for name in names)
        for row in rows
    ):
        raise InputError(f'{path}: no list of what is missing; expected [{{"task": "", "language": "", "what": ""}}]')
    return rows
