"""The words and the tables of the report, from the plain dicts of eval.py.

A table is {"title", "note", "header": [text], "rows": [[cell]]}, a cell {"text"} with, where they apply, "small"
(what stands beside it), "mark" (it differs from 0), "target" (the language whose order was trained on), "value" (for
its colour). Tables with "words" hold text. Markdown, HTML and results.json have the same ones.
"""

from evaluation.contrasts import split_order
from evaluation.figures import clear, named, points, row_name

NAMES = {"accuracy": "accuracy", "f1": "F1", "exact_match": "exact match"}
COLUMNS = {"mean": "average", "mean_not_english": "average without en", None: "own language",
           "function words": "ADP and AUX", "tau": "a unit of tau"}  # fmt: skip
HEADLINE = {  # of each contrast: what is said where it is not significant (if anything), of a gain, of a loss
    "all orders": ("A translation's word order: no effect detected; {} would likely have been",
                   "A translation's word order gains {}", "A translation's word order costs {}"),
    "all random orders": ("Random word order: no effect detected; {} would likely have been",
                          "Random word order gains {}", "Random word order costs {}"),
    "primary": ("A word order was not seen to help its own language more than others; {} likely would have been",
                "A word order helps its own language more than others, by {}",
                "A word order helps its own language less than others, by {}"),
    "function words": (None, "A verb-last order helps function words where they stand behind their word, by {}",
                       "A verb-last order harms function words where they stand behind their word, by {}"),
}  # fmt: skip
UNLEARNT = "Nothing can be said: even training on original English does not clearly beat the majority label."
OWN = "Bold or framed: the language whose order the row was trained on. Only"
CONDITIONS = {  # tables with a row for each condition: title, note, contrasts whose stars they show
    "scores": ("{}, percent", "Means over seeds.", []),
    "difference": ("Difference in {} from original English, percentage points",
                   f"{OWN} it and the average without English can have a star.", ["own language", "average"]),
    "against_control": ("Difference in {} from the control, percentage points",
                        f"{OWN} it can have a star.", ["own language against control"]),
}  # fmt: skip


def shown(value, form, factor=1):
    """Return a number times `factor` as text, a dash for None."""
    return "–" if value is None else format(factor * value, form)


def tally(contrasts):
    """Return how many contrasts are higher and lower, and which, and how many are not significant, as text."""
    parts, left = [], len(contrasts)
    for word, sign in (("higher", 1), ("lower", -1)):
        found = [one for one in contrasts if clear(one) and sign * one["value"] > 0]
        said = ", ".join(f"{one['order']} {one['aligner']}".removesuffix(" none") for one in found)
        parts.append(f"{len(found)} {word}" + f" ({said})" * bool(said))
        left -= len(found)
    return ", ".join([*parts, f"{left} not significant"])


def headline(result):
    """Return what a result says in one line: orders and random orders on the average, orders on their own language."""
    if not result["learnt"]:
        return UNLEARNT
    parts, told = [], [one for one in result["contrasts"] if one["low"] is not None]
    for name, texts in HEADLINE.items():
        found = [one for one in told if one["name"] == name]
        for outcome in (-1, 1, 0):
            numbers = [
                f"{100 * min(1, abs(one['value' if outcome else 'detectable'])):.1f} points "
                f"({one['aligner']} links{', p = %.1g' % one['p_adjusted'] if outcome else ''})"
                for one in found
                if (1 if one["value"] > 0 else -1) * clear(one) == outcome
            ]
            parts += [f"{texts[outcome].format(' and '.join(numbers))}."] if numbers and texts[outcome] else []
    if not told:
        parts.append("Nothing can be said: with one seed, chance in training cannot be estimated.")
    elif not named(result, "primary"):
        parts.append("Whether an order helps its own language was not tested.")
    return " ".join(parts)


def verdict(result):
    """Return three texts on a result: what it says in one line, what the primary contrast is, what the others say."""
    primary = named(result, "primary")
    langs = ", ".join(dict.fromkeys(row["target"] for row in result["rows"] if row["target"]))
    asked = (
        f"Primary contrast: the gain of an order{f' ({langs})' * bool(langs)} over its control, a random one with the "
        "same tau, on its own language, less its mean gain on those of the other orders, averaged over the orders."
    )
    numbers = [
        f"{one['aligner']} {points(one)}" + ("" if one["p"] is None else f" (adjusted p = {one['p_adjusted']:.2g})")
        for one in primary
    ]
    if numbers:
        unit = f"percentage points of {NAMES[result['metric']]} with 95 % intervals"
        asked += f" In {unit}, by aligner: {'; '.join(numbers)}."
    return [headline(result), asked, secondary_verdict(result)]


def secondary_verdict(result):
    """Return what the other contrasts say, and for what they hold."""
    average = named(result, "average")
    random, rest = ([one for one in average if split_order(one["order"])[0] == kind] for kind in (True, False))
    found = {
        "Orders on their own language, against original English": named(result, "own language"),
        "Orders on their own language, against their control": named(result, "own language against control"),
        "Random orders on the average of the languages without English, against original English": random,
        "Orders and other trainings on this average, against original English": rest,
    }
    text = ["Other contrasts and limits:"] + [f"{title}: {tally(some)}." for title, some in found.items() if some]
    least = min(result["examples"].values())
    text.append(f"This holds for this model and these data. Each language has at least {least:,} test examples.")
    return " ".join(text)


def missing_lines(rows):
    """Return what a data folder lacks as sentences."""
    return [": ".join(filter(None, (row["task"], row["language"], row["what"]))) for row in rows]


def left_over(results, missing):
    """Return what is missing of tasks that have no result."""
    return missing_lines(row for row in missing if row["task"] not in {result["task"] for result in results})


def cell(text, **kind):
    """Return a cell of a table; kinds that are false are left out."""
    return {"text": text, **{name: value for name, value in kind.items() if value or name == "value"}}


def word_table(title, note, header, rows):
    """Return a table of words; rows hold texts or cells."""
    rows = [[cell(one) if isinstance(one, str) else one for one in row] for row in rows]
    return {"title": title, "note": note, "words": True, "header": header, "rows": rows}


def condition_table(result, metric, key):
    """Return a table of CONDITIONS: what stands under `key` in each row of the result."""
    title, note, names = CONDITIONS[key]
    found = [one for one in result["contrasts"] if one["name"] in names and one["metric"] == metric and clear(one)]
    marks = {(one["order"], one["aligner"], one["column"]) for one in found}
    rows = []
    for row in result["rows"]:
        cells = [cell(row_name(row))]
        for column in result["columns"]:
            entry = row[key].get(column, {}).get(metric)
            text, more = shown(entry if key == "scores" else None, ".1f", 100), {}
            if isinstance(entry, dict):
                text, _, small = points(entry).partition(" ")
                mark = (row["order"], row["aligner"], column) in marks
                more = {"small": small, "mark": mark, "value": entry["value"]}
            cells.append(cell(text, target=column == row["target"], **more))
        rows += [cells] * bool(row[key])
    title = title.format(NAMES[metric])
    header = ["trained on", *(COLUMNS.get(column, column) for column in result["columns"])]
    return {"title": title[0].upper() + title[1:], "note": note, "header": header, "rows": rows}


def contrast_table(result):
    """Return the table of contrasts, in their order."""
    rows = []
    for one in result["contrasts"]:
        name = f"all orders ({one['aligner']})" if one["order"] is None else row_name(one)
        least = "none" if (one["detectable"] or 0) > 1 else shown(one["detectable"], ".1f", 100)
        least = "–" if one["name"] == "closeness" else least  # its p is not that of its interval
        numbers = [cell(points(one), mark=clear(one)), shown(one["p"], ".2g"), shown(one["p_adjusted"], ".2g"), least]
        rows.append([one["name"], name, COLUMNS.get(one["column"], one["column"]), *numbers, str(one["seeds"])])
    note = (
        "p: the level at which the interval ends at 0; adjusted for the number of contrasts of its kind (primary; all "
        "orders; own language; average; function words of one order). Detectable: the minimum detectable difference at "
        "a power of 80 %."
    )
    header = ["contrast", "trained on", "tested on", "difference", "p", "adjusted p", "detectable", "seeds"]
    return word_table(f"Contrasts in {NAMES[result['metric']]}, percentage points", note, header, rows)


def training_table(result):
    """Return the table of what each condition was trained on."""
    rows = []
    for row in result["rows"]:
        found, control = row["statistics"], row["control"] or {}
        numbers = [shown(found.get(name), ".1f", 100) for name in ("aligned", "moved")]
        numbers += [shown(found.get("kendall_tau"), ".2f"), row_name(control) if control else "–"]
        numbers += [shown(control.get("kendall_tau"), ".2f"), " ".join(map(str, row["seeds"]))]
        rows.append([row_name(row), *numbers, f"{row['tokens_per_second']:,.0f}"])
    note = "Kendall's tau to English order is 1 where nothing moved and -1 where all is reversed."
    header = ["trained on", "% of words aligned", "% moved", "tau", "control", "tau of control", "seeds", "tokens/s"]
    return word_table("What each condition was trained on", note, header, rows)


def run_table(result):
    """Return the table of all runs."""
    rows = []
    for run in result["runs"]:
        scores = [run["scores"][lang][result["metric"]] for lang in result["averaged"]]
        average = shown(sum(scores) / len(scores) if scores else None, ".2f", 100)
        minutes = shown(run["train"].get("seconds"), ".1f", 1 / 60)
        rows.append([row_name(run), str(run["seed"]), average, minutes, run["predictions_sha256"][:16]])
    note = "The commands are in results.json. Predictions: the first digits of the SHA-256 of `cat OUTPUT/dev-*`."
    header = ["trained on", "seed", "average", "minutes of training", "predictions"]
    return word_table("Every run", note, header, rows)


def settings_table(result):
    """Return the table of settings, alike in all runs, and of machines and versions."""
    given = {name: value for name, value in sorted(result["settings"].items()) if value is not None}
    values = {name.replace("_", "-"): str(value) for name, value in given.items()}
    values |= {name: ", ".join(map(str, found)) for name, found in result["machines"].items() if name != "precision"}
    counts = {"test examples": result["examples"]}
    counts |= {"clusters": result["clusters"]} if result["clusters"] != result["examples"] else {}
    values |= {name: ", ".join(f"{lang} {count:,}" for lang, count in found.items()) for name, found in counts.items()}
    return word_table("Settings, machines and versions", "", ["setting", "value"], map(list, values.items()))


def tag_table(result, row):
    """Return the table of a condition by gold tag: languages in rows, tags in columns."""
    tags = [tag for tags in result["tags"].values() for tag in tags]
    header, rows = sorted(set(tags), key=lambda tag: (-tags.count(tag), tag)), []
    for lang, found in row["by_tag"].items():
        cells = [cell(lang)]
        for tag in header:
            entry = found.get(tag)
            text = f"{100 * result['tags'][lang][tag]:.1f}, {100 * entry['accuracy']:.1f}" if entry else "–"
            change = entry and entry["contribution"]
            cells.append(cell(text, small=points(change) if change else None, value=change["value"] if change else 0.0))
        rows.append(cells)
    return {"title": f"By tag: {row_name(row)}", "note": "", "header": ["tested on", *header], "rows": rows}


def result_tables(result):
    """Return the tables of one task and model, in their order."""
    main = result["metric"]
    metrics = [main] + [name for name in next(iter(result["rows"][0]["scores"].values())) if name != main]
    tables = [contrast_table(result)]
    for metric in metrics:
        keys = list(CONDITIONS) if metric == main else ["scores", "difference"]
        tables += [condition_table(result, metric, key) for key in keys]
    tables += [training_table(result), settings_table(result), run_table(result)]
    return [table for table in tables if table["rows"]]


def alignment_table(model, rows):
    """Return the table of aligners' scores."""
    pairs = sorted({row["pair"] for row in rows})
    found = {(row["aligner"], row["method"], row["pair"]): row for row in rows}
    best = {pair: min(row["aer"] for row in rows if row["pair"] == pair) for pair in pairs}
    lines = []
    for aligner, method in dict.fromkeys((row["aligner"], row["method"]) for row in rows):
        cells = [cell(aligner), cell(method)]
        for pair in pairs:
            row = found.get((aligner, method, pair), {})
            small = f"({100 * row['precision']:.0f}, {100 * row['recall']:.0f})" if row else ""
            cells.append(cell(shown(row.get("aer"), ".1f", 100), small=small, target=row.get("aer") == best[pair]))
        lines.append(cells)
    note = "Alignment error rate (precision, recall) against gold links, percent. Bold or framed: the lowest."
    return {"title": f"Word alignment, {model}", "note": note, "header": ["aligner", "method", *pairs], "rows": lines}
