"""The words and the tables of the report, from the plain dicts of eval.py.

A table is {"title", "note", "header": [text], "rows": [[cell]]}, a cell {"text"} with, where they apply, "small"
(what stands beside it), "mark" (it differs from 0), "target" (the language whose order was trained on), "value" (for
its colour). Tables with "words" hold text. Markdown, HTML and results.json have the same ones.
"""

from lib.contrasts import condition_name, split_order
from lib.figures import clear, points, row_name

NAMES = {"accuracy": "accuracy", "f1": "F1", "exact_match": "exact match"}

UNCLEAR = "Whether an order helps its own language more than the others"
UNLEARNT = (
    "Nothing: no training on original English answers clearly more pairs right than one label for all would. So "
    "nothing shows that the task was learnt, and no order can be judged by it."
)


# ---- words -------------------------------------------------------------------------------------------


def count_of(number, word):
    """Return a number with its noun."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def named(result, name):
    """Return the contrasts of a name."""
    return [contrast for contrast in result["contrasts"] if contrast["name"] == name]


def seeds_text(result):
    """Return how many seeds the conditions of a result have, as text."""
    numbers = sorted({len(row["seeds"]) for row in result["rows"]})
    return count_of(numbers[0], "seed") if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} seeds"


def unlearnt_lines(unlearnt, constant):
    """Return sentences on trainings that seem to have failed; both are eval.find_unlearnt's."""
    return [
        f"{condition_name(key)} answers with seed {', '.join(map(str, scores))} not clearly more pairs right "
        f"({', '.join(f'{100 * score:.1f}' for score in scores.values())} %) than one label for all would "
        f"({100 * constant:.1f} %)."
        for key, scores in unlearnt.items()
    ]


def tally(contrasts, names=False):
    """Return how many contrasts are higher, lower and cannot be told, as text; with `names`, which are."""
    parts, left = [], len(contrasts)
    for word, sign in (("higher", 1), ("lower", -1)):
        found = [one for one in contrasts if clear(one) and sign * one["value"] > 0]
        said = ", ".join(f"{one['order']} {one['aligner']}".removesuffix(" none") for one in found) if names else ""
        parts.append(f"{len(found)} {word}" + f" ({said})" * bool(said))
        left -= len(found)
    return ", ".join([*parts, f"{left} cannot be told"])


def unseen(contrasts):
    """Return the smallest differences that would have been seen by the contrasts that cannot be told, as text."""
    unclear = [one for one in contrasts if not clear(one)]
    limits = sorted(one["detectable"] for one in unclear if one["detectable"] is not None)
    if not limits:
        return " (one seed has no interval)" if unclear and unclear[0]["seeds"] == 1 else ""
    low, high = (f"{100 * min(1, limit):.1f}" for limit in (limits[0], limits[-1]))
    return f" (detectable: {low} points)" if low == high else f" (detectable: {low} to {high} points)"


def missed(detectable):
    """Return as text which differences are too small to be seen reliably; scores differ by no more than 1."""
    if detectable > 1:
        return "no difference would reliably have been seen"
    return f"a difference below {100 * detectable:.1f} points would not reliably have been seen"


def verdict(result):
    """Return three texts on one task and model: what the primary contrast is, what it says, what else there is to
    say."""
    primary = named(result, "primary")
    langs = ", ".join(dict.fromkeys(row["target"] for row in result["rows"] if row["target"]))
    orders = f" (the orders: {langs})" if langs else ""
    asked = (
        f"English training sentences were put in the word order of their translations{orders}, and in random orders as "
        "far from English. Does an order help its own language more than it helps the others? What training in the "
        "order gains over its random order, on its own language, minus the mean of what it gains on the other orders' "
        "languages; averaged over the orders."
    )
    kind = "adjusted p" if len(primary) > 1 else "p"
    numbers = [
        f"{one['aligner']} {points(one)}" + ("" if one["p"] is None else f" ({kind} = {one['p_adjusted']:.2g})")
        for one in primary
    ]
    if numbers:
        unit = f"percentage points of {NAMES[result['metric']]} with 95 % intervals"
        asked += f" In {unit}, by aligner: {'; '.join(numbers)}."
    said = primary_verdict(primary) if result["learnt"] else UNLEARNT
    return [asked, said, secondary_verdict(result)]


def primary_verdict(primary):
    """Return what the primary contrasts of a result allow to say."""
    if not primary:
        return (
            "Nothing: it was not computed. It takes the orders of two languages or more that have dev sets, each with "
            "its random control, and a seed that all of these share."
        )
    parts = []
    for one in primary:
        seeds = count_of(one["seeds"], "seed")
        if one["low"] is None:
            reason = "chance in training alone may be larger than what is seen"
            if one["seeds"] > 1:
                reason = "the test examples are all drawn as a whole, so that chance in their choice cannot be seen"
            parts.append(f"{UNCLEAR} cannot be told with {seeds}: {reason}.")
        elif clear(one):
            low, high = sorted(100 * abs(one[side]) for side in ("low", "high"))
            parts.append(
                f"Order itself matters ({one['aligner']}): an order gives its own language {low:.1f} to {high:.1f} "
                f"points {'more' if one['value'] > 0 else 'less'} than it gives the others, be that gain or loss."
            )
        else:
            parts.append(f"{UNCLEAR} cannot be told with {seeds} ({one['aligner']}): {missed(one['detectable'])}.")
    return " ".join(dict.fromkeys(parts))


def secondary_verdict(result):
    """Return what the primary contrast does not say: the other contrasts, and what they are limited to."""
    text = []
    random = [one for one in named(result, "average") if split_order(one["order"])[0]]
    others = [one for one in named(result, "average") if one not in random]
    for found, compared in (
        (named(result, "own language"), "Orders on their own language, against original English"),
        (named(result, "own language against control"), "Orders on their own language, against their random order"),
        (random, "Random orders on the average of the other languages than English, against original English"),
        (others, "Orders and other trainings on this average, against original English"),
    ):
        if found:
            text.append(f"{compared}: {count_of(len(found), 'comparison')}, {tally(found, True)}{unseen(found)}.")
    least = min(result["examples"].values())
    text.append(f"Nothing is said of other models and data. Each language has {least:,} test examples or more.")
    return " ".join(text)


# ---- tables ------------------------------------------------------------------------------------------


def column_name(column):
    """Return a column's name in tables."""
    return {"mean": "average", "mean_not_english": "average without en"}.get(column, column)


def cell(text, **kind):
    """Return a cell of a table; kinds that are false are left out."""
    return {"text": text, **{name: value for name, value in kind.items() if value or name == "value"}}


def marked(result):
    """Return the (order, aligner, column, name) of the contrasts that differ from 0."""
    return {(one["order"], one["aligner"], one["column"], one["name"]) for one in result["contrasts"] if clear(one)}


def score_table(result, metric):
    """Return the table of scores, a row for each condition."""
    rows = []
    for row in result["rows"]:
        cells = [cell(row_name(row))]
        for column in result["columns"]:
            score = row["scores"].get(column)
            cells.append(cell(f"{100 * score[metric]:.1f}" if score else "–", target=column == row["target"]))
        rows.append(cells)
    return {
        "title": f"{NAMES[metric].capitalize()}, percent",
        "note": "Means over seeds.",
        "header": ["trained on", *map(column_name, result["columns"])],
        "rows": rows,
    }


def difference_table(result, metric, key):
    """Return the table of differences from original English (key 'difference') or the control ('against_control')."""
    marks = marked(result) if metric == result["metric"] else ()
    names = {"difference": ("own language", "average"), "against_control": ("own language against control",)}[key]
    rows = []
    for row in result["rows"]:
        if not row[key]:
            continue
        cells = [cell(row_name(row))]
        for column in result["columns"]:
            entry = row[key].get(column, {}).get(metric)
            if not entry:
                cells.append(cell("–"))
                continue
            text, _, small = points(entry).partition(" ")
            star = any((row["order"], row["aligner"], column, name) in marks for name in names)
            target = column == row["target"]
            cells.append(cell(text, small=small, mark=star, target=target, value=entry["value"]))
        rows.append(cells)
    other, tested = {
        "difference": ("original English", "it and the average without English"),
        "against_control": ("the random order that is as far from English", "it"),
    }[key]
    return {
        "title": f"Difference in {NAMES[metric]} from {other}, percentage points",
        "note": f"Bold or framed: the language whose order the row was trained on. Only {tested} can have a star.",
        "header": ["trained on", *map(column_name, result["columns"])],
        "rows": rows,
    }


def contrast_table(result):
    """Return the table of contrasts, in their order."""
    rows = []
    for one in result["contrasts"]:
        name = f"all orders ({one['aligner']})" if one["order"] is None else row_name(one)
        where = "own language" if one["column"] is None else column_name(one["column"])
        p = ["–" if one[key] is None else f"{one[key]:.2g}" for key in ("p", "p_adjusted")]
        least = "–" if one["detectable"] is None else f"{100 * one['detectable']:.1f}"
        least = "none" if one["detectable"] is not None and one["detectable"] > 1 else least
        texts = [one["name"], name, where]
        rows.append(
            [*map(cell, texts), cell(points(one), mark=clear(one)), *map(cell, p), cell(least), cell(str(one["seeds"]))]
        )
    return {
        "title": f"Contrasts in {NAMES[result['metric']]}, percentage points",
        "note": "p: the level at which the interval ends at 0; adjusted for the number of contrasts of its kind "
        "(primary; own language; average). Detectable: the true difference that would be seen four times in five.",
        "words": True,
        "header": ["contrast", "trained on", "tested on", "difference", "p", "adjusted p", "detectable", "seeds"],
        "rows": rows,
    }


def training_table(result):
    """Return the table of what each condition was trained on."""
    rows = []
    for row in result["rows"]:
        found = row["statistics"]
        numbers = [f"{100 * found[name]:.1f} %" for name in ("aligned", "moved")] if found else ["–", "–"]
        numbers.append(f"{found['kendall_tau']:.2f}" if found else "–")
        control = row_name(row["control"]) if row["control"] else "–"
        seeds = " ".join(map(str, row["seeds"]))
        rows.append([*map(cell, [row_name(row), *numbers, control, seeds, f"{row['tokens_per_second']:,.0f}"])])
    return {
        "title": "What each condition was trained on",
        "note": "Kendall's tau to English order is 1 where nothing moved and -1 where all is reversed.",
        "words": True,
        "header": ["trained on", "words aligned", "words moved", "tau", "control", "seeds", "tokens/s"],
        "rows": rows,
    }


def run_table(result):
    """Return the table of all runs."""
    rows = []
    for run in result["runs"]:
        scores = [run["scores"][lang][result["metric"]] for lang in result["averaged"]]
        average = f"{100 * sum(scores) / len(scores):.2f}" if scores else "–"
        seconds = run["train"].get("seconds")
        texts = [row_name(run), str(run["seed"]), average, f"{seconds / 60:.1f}" if seconds else "–"]
        rows.append([*map(cell, [*texts, run["predictions_sha256"][:16]])])
    return {
        "title": "Every run",
        "note": "The commands are in results.json. Predictions: the first digits of the SHA-256 of `cat OUTPUT/dev-*`.",
        "words": True,
        "header": ["trained on", "seed", "average", "minutes of training", "predictions"],
        "rows": rows,
    }


def settings_table(result):
    """Return the table of settings, alike in all runs, and of machines and versions."""
    values = {name.replace("_", "-"): value for name, value in sorted(result["settings"].items()) if value is not None}
    values |= {name: ", ".join(map(str, found)) for name, found in result["machines"].items() if name != "precision"}
    sizes = {lang: f"{count:,}" for lang, count in result["examples"].items()}
    values["test examples"] = ", ".join(f"{lang} {size}" for lang, size in sizes.items())
    if result["clusters"] != result["examples"]:
        values["drawn as a whole"] = ", ".join(f"{lang} {count:,}" for lang, count in result["clusters"].items())
    return {
        "title": "Settings, machines and versions",
        "note": "",
        "words": True,
        "header": ["setting", "value"],
        "rows": [[cell(name), cell(str(value))] for name, value in values.items()],
    }


def result_tables(result):
    """Return the tables of one task and model, in their order."""
    main = result["metric"]
    metrics = [main] + [name for name in next(iter(result["rows"][0]["scores"].values())) if name != main]
    tables = [contrast_table(result)]
    for metric in metrics:
        tables += [score_table(result, metric), difference_table(result, metric, "difference")]
        tables += [difference_table(result, metric, "against_control")] if metric == main else []
    tables += [training_table(result), settings_table(result), run_table(result)]
    return [table for table in tables if table["rows"]]


def overview_table(results):
    """Return the table of all tasks and models."""
    rows = []
    for result in results:
        base = next((row["scores"] for row in result["rows"] if row["order"] == "original"), {}).get("mean_not_english")
        primary = "; ".join(f"{one['aligner']} {points(one)}{'*' * clear(one)}" for one in named(result, "primary"))
        texts = [result["task"], result["model"], seeds_text(result), primary or "not computed"]
        texts.append(f"{100 * base[result['metric']]:.1f}" if base else "–")
        for name in ("own language", "own language against control"):
            texts.append(tally(named(result, name)) if named(result, name) else "–")
        rows.append([*map(cell, texts)])
    return {
        "title": "All tasks and models",
        "note": "",
        "words": True,
        "header": ["task", "model", "seeds", "primary contrast", "original English, average without en"]
        + ["own language, against original", "own language, against random order"],
        "rows": rows,
    }


def alignment_table(model, rows):
    """Return the table of aligners' scores."""
    pairs = sorted({row["pair"] for row in rows})
    found = {(row["aligner"], row["method"], row["pair"]): row for row in rows}
    best = {pair: min(row["aer"] for row in rows if row["pair"] == pair) for pair in pairs}
    lines = []
    for aligner, method in dict.fromkeys((row["aligner"], row["method"]) for row in rows):
        cells = [cell(aligner), cell(method)]
        for pair in pairs:
            row = found.get((aligner, method, pair))
            if row is None:
                cells.append(cell("–"))
                continue
            small = f"({100 * row['precision']:.0f}, {100 * row['recall']:.0f})"
            cells.append(cell(f"{100 * row['aer']:.1f}", small=small, target=row["aer"] == best[pair]))
        lines.append(cells)
    return {
        "title": f"Word alignment, {model}",
        "note": "Alignment error rate (precision, recall) against gold links, percent. Bold or framed: the lowest.",
        "header": ["aligner", "method", *pairs],
        "rows": lines,
    }


def missing_lines(rows):
    """Return what a data folder lacks as sentences."""
    return [": ".join(filter(None, (row["task"], row["language"], row["what"]))) for row in rows]


def gap_lines(result):
    """Return sentences on everything that one task and model lack."""
    return missing_lines(result["missing"]) + result["gaps"]


def left_over(results, missing):
    """Return what is missing of tasks that have no result."""
    return missing_lines(row for row in missing if row["task"] not in {result["task"] for result in results})
