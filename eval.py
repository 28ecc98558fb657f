"""Score every run's predictions again and compare the word orders: the report that answers the question.

In:   a folder of runs (scores.json and dev-XX.tsv of the train scripts, at any depth) and the gold files they name
Out:  OUTPUT/results.json   everything, for programs
      OUTPUT/results.md     tables, for a README
      OUTPUT/results.html   one file that opens offline: heat map, confidence intervals, reordered examples

    python eval.py --runs runs/sample --output report/sample

Every condition is a row, every language a column. Its difference from the baseline (the same model trained on original
English) comes with a 95 % confidence interval: a paired bootstrap over the dev sentences of the language, the same sentences
drawn for both sides, with the scores of all seeds pooled. Averages over languages give every language the same weight.
Beside a run's training file FILE, FILE.json (what reorder.py prints) is read for its statistics where it is there.
"""

import collections
import html
import json
import os

import numpy as np

from data.files import Arguments, InputError, output, positive, read_tag_predictions, read_udpos, run_script

METRICS = {"udpos": ["accuracy", "f1"]}
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
NAMES = {"accuracy": "accuracy", "f1": "F1"}


# ---- metrics --------------------------------------------------------------------------------------


def spans(sentences):
    """The entities that seqeval 1.2.2 (default mode), XTREME's metric for udpos, sees in lists of tags: a set of (type, first, last).

    first and last number the words through all sentences, one number being left free after each sentence. A tag is read as a
    prefix (its first letter) and a type (the rest, after a hyphen if there is one). UPOS tags have no prefixes, so
    neighbouring equal tags are one entity, SCONJ and SYM ('S', a single one) always begin a new one, INTJ is an inside tag,
    CCONJ and SCONJ are of one type, and an X at a sentence's end joins an X at the next one's beginning.
    """
    found, begin = set(), 0
    last_prefix, last_type = "O", ""
    for i, tag in enumerate(tag for tags in sentences for tag in [*tags, "O"]):
        prefix, kind = tag[0], tag[1:].rsplit("-", 1)[-1] or "_"
        pair = last_prefix + prefix
        changed = kind != last_type
        if last_prefix in "ES" or pair in ("BB", "BS", "BO", "IB", "IS", "IO") or (changed and last_prefix not in "O."):
            found.add((last_type, begin, i - 1))
        if prefix in "BS" or pair in ("EE", "EI", "SE", "SI", "OE", "OI") or (changed and prefix not in "O."):
            begin = i
        last_prefix, last_type = prefix, kind
    return found


def tagging_counts(gold, predicted):
    """Counts of each sentence, (sentences, 5): right words, words, right entities, predicted entities, gold entities."""
    counts = np.zeros((len(gold), 5))
    for n, (ours, theirs) in enumerate(zip(gold, predicted)):
        counts[n, :2] = sum(a == b for a, b in zip(ours, theirs)), len(ours)
    sentence = np.repeat(np.arange(len(gold)), counts[:, 1].astype(int) + 1)
    truth, guess = spans(gold), spans(predicted)
    for column, entities in ((2, truth & guess), (3, guess), (4, truth)):
        counts[:, column] = np.bincount(sentence[[first for _, first, _ in entities]], minlength=len(gold)) if entities else 0
    return counts


def tagging_metrics(counts):
    """{'accuracy', 'f1'} from summed counts (..., 5): the share of right words; the harmonic mean of entities' precision and recall."""
    right, words, hits, guessed, true = np.moveaxis(np.asarray(counts), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / guessed, hits / true
        f1 = 2 * precision * recall / (precision + recall)  # in seqeval's order of operations, for its very last digit
    return {"accuracy": right / words, "f1": np.where(hits > 0, f1, 0.0)}


def tagging_scores(gold, predicted):
    """{'accuracy', 'f1', 'count'} of predicted tags (lists of lists); f1 as XTREME reports it; count is the number of words."""
    total = tagging_counts(gold, predicted).sum(0)
    return {**{name: float(value) for name, value in tagging_metrics(total).items()}, "count": int(total[1])}


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
            known = known and isinstance(run["args"].get("max_dev"), (int, type(None))) and float(run["train"]["tokens_per_second"]) > 0
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
    for lang in run["dev"]:
        gold_path = os.path.join(run["args"]["data_dir"], f"dev-{lang}.tsv")
        if gold_path not in gold_cache:
            gold_cache[gold_path] = read_udpos(gold_path)
        gold = [tags for _, tags in gold_cache[gold_path][: run["args"].get("max_dev")]]
        path = os.path.join(run["folder"], f"dev-{lang}.tsv")
        predicted = read_tag_predictions(path)
        if [len(tags) for tags in predicted] != [len(tags) for tags in gold]:
            raise InputError(
                f"{path}: {len(predicted)} sentences, {sum(map(len, predicted))} tags, which do not fit the {len(gold)} sentences, "
                f"{sum(map(len, gold))} words of {gold_path}; train this run again"
            )
        counts[lang] = tagging_counts(gold, predicted)
    return counts


def read_statistics(train_path):
    """What reorder.py printed about a training file ('aligned', 'moved', 'kendall_tau'), {} where it is not there."""
    try:
        with open(train_path + ".json", encoding="utf-8") as stream:
            found = json.load(stream)
        return {name: float(found[name]) for name in ("aligned", "moved", "kendall_tau")}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


# ---- comparison ------------------------------------------------------------------------------------


def bootstrap(counts, samples, generator):
    """Metrics of resampled dev sets: counts (conditions, sentences, 5), pooled over seeds; the same sentences are drawn for all conditions.

    Returns {metric: (conditions, samples)}.
    """
    conditions, sentences, width = counts.shape
    flat = counts.transpose(1, 0, 2).reshape(sentences, conditions * width)
    sums = np.empty((samples, conditions * width))
    step = max(1, 2_000_000 // sentences)
    for start in range(0, samples, step):
        size = min(step, samples - start)
        sums[start : start + size] = generator.multinomial(sentences, np.full(sentences, 1 / sentences), size) @ flat
    return tagging_metrics(sums.reshape(samples, conditions, width).transpose(1, 0, 2))


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
            raise InputError(f"{run['folder']}: another run of {key[0]} ({key[1]}) has seed {key[2]} too; expected one run for each seed")
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
                metrics = tagging_metrics(np.stack([counts[lang].sum(0) for counts in counted]))
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
        point, resampled = tagging_metrics(stacked.sum(1)), bootstrap(stacked, samples, generator)
        for n, key in enumerate(present):
            exact[key, lang] = {metric: float(values[n]) for metric, values in point.items()}
            drawn[key, lang] = {metric: values[n] for metric, values in resampled.items()}
    for name, members in averages.items():
        for key in pooled:
            for table, average in ((exact, lambda values: float(np.mean(values))), (drawn, lambda values: np.mean(values, axis=0))):
                table[key, name] = {metric: average([table[key, lang][metric] for lang in members]) for metric in table[key, members[0]]}
    return exact, drawn


def differences(exact, drawn, key, other, columns):
    """{column: {metric: interval}} of a condition against another one, {} against None and itself."""
    if other is None or other == key:
        return {}
    return {
        column: {
            metric: interval(value - exact[other, column][metric], drawn[key, column][metric] - drawn[other, column][metric])
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
    rank = {"original": 0, "identity": 1, "random": 3}
    keys = sorted(conditions, key=lambda key: (rank.get(key[0].split("-")[0], 2), key[1] == "separate", key[1] == "joint", key))

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
    statistics = {key: read_statistics(conditions[key][0]["args"]["train"]) for key in keys}
    rows = []
    for key in keys:
        # The control of an order is a random one that is as far from English.
        strength, control = statistics[key].get("kendall_tau"), None
        if key[0] in langs and strength is not None:
            distance = {other: abs(statistics[other].get("kendall_tau", 2.0) - strength) for other in keys if other[0].startswith("random")}
            control = min(
                (other for other in distance if distance[other] < 0.01),
                key=lambda other: (other[1] != key[1], distance[other]),
                default=None,
            )
        rows.append({
            "order": key[0],
            "aligner": key[1],
            "seeds": sorted(run["seed"] for run in conditions[key]),
            "target": key[0] if key[0] in langs else None,
            "train": conditions[key][0]["args"]["train"],
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


# ---- words -------------------------------------------------------------------------------------------


def points(entry):
    """A difference with its interval as text, in percentage points."""
    return f"{100 * entry['value']:+.1f} [{100 * entry['low']:+.1f}, {100 * entry['high']:+.1f}]"


def clear(entry):
    """Whether the interval leaves out 0."""
    return entry["low"] > 0 or entry["high"] < 0


def row_name(row):
    """A condition's name in tables."""
    return row["order"] if row["aligner"] == "none" else f"{row['order']} ({row['aligner']})"


def column_name(column):
    """A column's name in tables."""
    return {"mean": "average", "mean_not_english": "average without en"}.get(column, column)


def in_words(result):
    """Sentences that say what the numbers of one task and model do and do not show."""
    metric, rows = result["metric"], result["rows"]
    if not result["baseline"]:
        return ["There is no run on original English, so nothing can be compared yet."]
    base = next(row for row in rows if row["order"] == "original")["scores"]
    reached = [
        f"{100 * base[column][metric]:.1f} {where}"
        for column, where in (("en", "on English"), ("mean_not_english", "on average over the other languages"))
        if column in base
    ]
    text = [f"Trained on original English, {result['model']} reaches {' and '.join(reached)} ({NAMES[metric]}, percent)."]

    better, worse, unclear = [], [], []
    for row in rows:
        entry = row["difference"].get(row["target"], {}).get(metric)
        if entry:
            group = better if entry["low"] > 0 else worse if entry["high"] < 0 else unclear
            group.append(f"{row_name(row)} {points(entry)}")
    if better:
        text.append(f"Taking the target language's word order raised the score on that language for {'; '.join(better)}.")
    if worse:
        text.append(f"Taking the target language's word order lowered the score on that language for {'; '.join(worse)}.")
    if unclear:
        text.append(f"On its own language, no difference is shown for {'; '.join(unclear)}: the interval includes 0.")

    for row in rows:
        entry = row["difference"].get("mean_not_english", {}).get(metric)
        if row["order"].startswith("random") and entry:
            text.append(f"The control {row['order']}, a random order, changes the average over the other languages by {points(entry)}.")
    for row in rows:
        entry = row["against_control"].get(row["target"], {}).get(metric)
        if entry:
            verdict = "whether the order itself matters cannot be told"
            if clear(entry):
                verdict = f"it does {'better' if entry['low'] > 0 else 'worse'} there than mere disorder"
            text.append(
                f"Against {row['control']}, which is as far from English order, {row_name(row)} differs on its own language "
                f"by {points(entry)}: {verdict}."
            )

    text.append("The intervals say how far the choice of dev sentences could mislead.")
    seeds = min(len(row["seeds"]) for row in rows)
    if seeds == 1:
        text.append(
            "They do not cover chance in training: there is one seed a condition, and another one may move scores by as much as "
            "many of these differences. Train several seeds before believing a small difference."
        )
    else:
        text.append(f"Chance in training is averaged over {seeds} seeds or more; results.json has the deviation between seeds.")
    tests = sum(lang in row["difference"] for row in rows for lang in result["languages"])
    if tests:
        text.append(
            f"Of the {tests} differences by language, about {max(1, round(tests * 0.05))} would leave out 0 by the choice of sentences alone."
        )
    return text


# ---- pages -------------------------------------------------------------------------------------------


def markdown(results):
    """The report as Markdown."""
    lines = ["# Does the word order of the English training data matter?", ""]
    for result in results:
        metric = result["metric"]
        lines += [f"## {result['task']}, {result['model']}", "", " ".join(in_words(result)), ""]
        for name in [metric] + [other for other in METRICS[result["task"]] if other != metric]:
            header = "| trained on | " + " | ".join(map(column_name, result["columns"])) + " |\n|---|" + "---:|" * len(result["columns"])
            lines += [f"### {NAMES[name]}, percent", "", header]
            for row in result["rows"]:
                cells = [f"{100 * row['scores'][column][name]:.1f}" if column in row["scores"] else "–" for column in result["columns"]]
                lines.append(
                    f"| {row_name(row)} | "
                    + " | ".join(f"**{cell}**" if column == row["target"] else cell for cell, column in zip(cells, result["columns"]))
                    + " |"
                )
            if any(row["difference"] for row in result["rows"]):
                lines += [
                    "",
                    f"### Difference in {NAMES[name]} from original English, percentage points, with 95 % confidence interval",
                    "",
                    header,
                ]
                for row in result["rows"]:
                    if row["difference"]:
                        cells = [
                            points(row["difference"][column][name]) + ("\\*" if clear(row["difference"][column][name]) else "")
                            if column in row["difference"]
                            else "–"
                            for column in result["columns"]
                        ]
                        lines.append(
                            f"| {row_name(row)} | "
                            + " | ".join(
                                f"**{cell}**" if column == row["target"] else cell for cell, column in zip(cells, result["columns"])
                            )
                            + " |"
                        )
                lines += ["", "Bold: the language whose order the row was trained on. \\*: the interval leaves out 0."]
            lines.append("")
        if any(row["statistics"] for row in result["rows"]):
            lines += [
                "### How far the training sentences were reordered",
                "",
                "| trained on | words aligned | words moved | Kendall's tau to English order |",
                "|---|---:|---:|---:|",
            ]
            for row in result["rows"]:
                if row["statistics"]:
                    s = row["statistics"]
                    lines.append(f"| {row_name(row)} | {100 * s['aligned']:.1f} % | {100 * s['moved']:.1f} % | {s['kendall_tau']:.2f} |")
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


STYLE = """
body { font: 16px/1.55 system-ui, "Noto Sans", "Noto Sans Devanagari", "Noto Sans CJK SC", sans-serif; color: #222; background: #fff; max-width: 76rem; margin: 2rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem; line-height: 1.25 } h2 { margin-top: 2.6rem; border-top: 2px solid #222; padding-top: .8rem } h3 { margin-top: 2rem; font-size: 1.05rem }
p { max-width: 56rem } .muted { color: #666; font-size: .9rem } .scroll { overflow-x: auto }
table { border-collapse: separate; border-spacing: 2px; font-variant-numeric: tabular-nums } th { font-weight: 600; text-align: right; padding: .2rem .5rem; white-space: nowrap }
td { text-align: right; padding: .3rem .5rem; border-radius: .25rem; min-width: 3.1rem; white-space: nowrap } th:first-child { text-align: left; position: sticky; left: 0; background: #fff }
td small { display: block; font-size: .68rem; color: #333 } td.target { outline: 2px solid #222; outline-offset: -2px } td.clear { font-weight: 700 } td.gap { background: #fff; min-width: .4rem; padding: 0 }
.example { margin: 1rem 0; padding: .7rem 1rem; background: #f7f8fa; border-radius: .5rem } .example div { display: flex; gap: .25rem; margin: .25rem 0; flex-wrap: wrap; align-items: baseline }
.example b { width: 9rem; flex: none; font-weight: 600; font-size: .85rem } .example span { padding: 0 .35rem; border-radius: .25rem } svg text { font: 13px system-ui, sans-serif; fill: #222 }
"""


def shade(value, scale):
    """Background colour of a difference: blue for better, orange for worse."""
    strength = min(1.0, abs(value) / scale) if scale else 0.0
    end = (86, 152, 214) if value > 0 else (232, 146, 78)
    return "#%02x%02x%02x" % tuple(round(250 + (part - 250) * strength) for part in end)


def heat_map(result):
    """HTML table: scores of the baseline, then differences of every condition."""
    metric, columns = result["metric"], result["columns"]
    entries = [row["difference"][column][metric]["value"] for row in result["rows"] for column in columns if column in row["difference"]]
    scale = max((abs(value) for value in entries), default=0.0)
    parts = ["<div class=scroll><table><tr><th>trained on" + "".join(f"<th>{html.escape(column_name(column))}" for column in columns)]
    for row in result["rows"]:
        parts.append(f"<tr><th>{html.escape(row_name(row))}")
        for column in columns:
            entry, score = row["difference"].get(column), row["scores"].get(column)
            if score is None:
                parts.append("<td class=muted>–")
            elif entry is None:
                parts.append(f'<td style="background:#eef0f3">{100 * score[metric]:.1f}')
            else:
                entry = entry[metric]
                kind = " ".join(["target"] * (column == row["target"]) + ["clear"] * clear(entry))
                parts.append(
                    f'<td class="{kind}" style="background:{shade(entry["value"], scale)}" title="{100 * score[metric]:.1f}">{100 * entry["value"]:+.1f}'
                    f"<small>{100 * entry['low']:+.1f} … {100 * entry['high']:+.1f}</small>"
                )
    return "".join(parts) + "</table></div>"


def forest_plot(result):
    """SVG: each condition's difference on its target language and on the average of the languages not English, with intervals."""
    metric, lines = result["metric"], []
    for row in result["rows"]:
        for column in ([row["target"]] if row["target"] else []) + ["mean_not_english"]:
            if row["difference"].get(column):
                lines.append((f"{row_name(row)} on {column_name(column)}", row["difference"][column][metric], column == row["target"]))
    if not lines:
        return ""
    left, width, step = 330, 520, 26
    low, high = (
        function(values)
        for function, values in ((min, [e["low"] for _, e, _ in lines] + [0]), (max, [e["high"] for _, e, _ in lines] + [0]))
    )
    pad = (high - low or 0.01) * 0.06

    def x(value):
        return left + (value - low + pad) / (high - low + 2 * pad) * width

    height = step * len(lines) + 34
    parts = [
        f'<svg viewBox="0 0 {left + width + 10} {height}" style="max-width:{left + width + 10}px;width:100%" role="img" aria-label="differences with confidence intervals">',
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="4" y2="{height - 26}" stroke="#222"/>',
    ]
    for n, (name, entry, own) in enumerate(lines):
        y, colour, weight = 18 + n * step, "#1f5f9e" if own else "#8a8f98", 700 if own else 400
        parts.append(
            f'<text x="{left - 12}" y="{y + 4}" text-anchor="end" font-weight="{weight}">{html.escape(name)}</text>'
            f'<line x1="{x(entry["low"]):.1f}" x2="{x(entry["high"]):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{x(entry["value"]):.1f}" cy="{y}" r="5" fill="{colour}"><title>{points(entry)}</title></circle>'
        )
    for value in (low, 0.0, high):
        parts.append(f'<text x="{x(value):.1f}" y="{height - 6}" text-anchor="middle">{100 * value:+.1f}</text>')
    return "".join(parts) + "</svg>"


def match_order(original, moved):
    """Index in the original of each word of its reordering: equal words are matched from left to right. None where they do not match."""
    places = collections.defaultdict(collections.deque)
    for i, word in enumerate(original):
        places[word].append(i)
    return [places[word].popleft() if places[word] else None for word in moved]


def examples(result, count=5):
    """HTML of training sentences in every order; a word's colour is its place in the English order."""
    texts = {}
    for row in result["rows"]:
        try:
            texts[row_name(row)] = [words for words, _ in read_udpos(row["train"])]
        except InputError:  # the training file is gone: the report does without it
            continue
    original = texts.get("original", [])
    others = {name: sentences for name, sentences in texts.items() if name != "original" and len(sentences) == len(original)}
    if not others:
        return ""
    fitting = [n for n, words in enumerate(original) if 6 <= len(words) <= 14] or list(range(len(original)))
    fitting.sort(key=lambda n: -len({tuple(sentences[n]) for sentences in others.values()}))  # stable: the first of those that differ most
    parts = [
        "<h3>The training sentences in every order</h3><p class=muted>A word's colour is its place in the original sentence, from blue to orange."
    ]
    for n in fitting[:count]:
        parts.append("<div class=example>")
        for name, sentences in {"original": original, **others}.items():
            spans_ = []
            for word, place in zip(sentences[n], match_order(original[n], sentences[n])):
                hue = "#eee" if place is None else f"hsl({210 + 180 * place / max(1, len(original[n]) - 1):.0f} 70% 85%)"
                spans_.append(f'<span style="background:{hue}">{html.escape(word)}</span>')
            parts.append(f"<div><b>{html.escape(name)}</b>{''.join(spans_)}</div>")
        parts.append("</div>")
    return "".join(parts)


def page(results):
    """The report as one HTML file without outside parts."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'><title>Word order and transfer</title>",
        f"<style>{STYLE}</style><h1>Does the word order of the English training data matter for zero-shot cross-lingual transfer?</h1>",
    ]
    for result in results:
        seeds = sorted({len(row["seeds"]) for row in result["rows"]})
        counts = sorted(set(result["sentences"].values()))
        parts += [
            f"<h2>{html.escape(result['task'])}, {html.escape(result['model'])}</h2>",
            f"<p class=muted>{len(result['rows'])} conditions, {' or '.join(map(str, seeds))} seed{'s' if seeds != [1] else ''} each; dev sets of "
            f"{counts[0]:,}{f' to {counts[-1]:,}' if len(counts) > 1 else ''} sentences in {len(result['languages'])} languages; {NAMES[result['metric']]} in percent.</p>",
            "<p>" + html.escape(" ".join(in_words(result))) + "</p>",
            "<h3>Scores on original English (grey), differences of the other word orders</h3>",
            heat_map(result),
            "<p class=muted>Small: 95 % confidence interval (paired bootstrap over sentences). Bold: it leaves out 0. Framed: the language whose order the row was trained on. Point at a cell for its score.</p>",
        ]
        plot = forest_plot(result)
        if plot:
            parts += ["<h3>Each order on its own language, and on the average of all languages but English</h3>", plot]
        if any(row["statistics"] for row in result["rows"]):
            parts.append(
                "<h3>How far the training sentences were reordered</h3><table><tr><th>trained on<th>words aligned<th>words moved<th>Kendall's tau"
            )
            for row in result["rows"]:
                if row["statistics"]:
                    s = row["statistics"]
                    parts.append(
                        f"<tr><th>{html.escape(row_name(row))}<td>{100 * s['aligned']:.1f} %<td>{100 * s['moved']:.1f} %<td>{s['kendall_tau']:.2f}"
                    )
            parts.append("</table>")
        parts.append(examples(result))
    return "\n".join(parts) + "</html>\n"


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
    parser.add_argument("--samples", type=positive, default=2000, help="bootstrap samples")
    args = parser.parse_args()

    groups = collections.defaultdict(list)
    for folder in args.runs:
        for run in find_runs(folder):
            groups[run["task"], run["model"]].append(run)
    results = [compare(runs, args.samples) for runs in groups.values()]
    text = markdown(results)
    with output(os.path.join(args.output, "results.json")) as stream:
        json.dump({"results": results}, stream, indent=1)
    with output(os.path.join(args.output, "results.html")) as stream:
        stream.write(page(results))
    with output(os.path.join(args.output, "results.md")) as stream:
        stream.write(text)
    print(text)


if __name__ == "__main__":
    run_script(main)
