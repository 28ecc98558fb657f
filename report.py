"""The pages that people look at: the results of eval.py in words, Markdown and HTML, and the alignments of align.py.

Every function takes the plain dicts and lists of these scripts and returns text; an HTML page is one file without outside parts.
"""

import collections
import html
import itertools
import json

from data.cli import InputError
from data.files import iterate_pairs, read_udpos
from data.paragraphs import paragraph_texts
from data.squad import QA_TASKS, read_squad
from data.words import split_text

NAMES = {"accuracy": "accuracy", "f1": "F1", "exact_match": "exact match"}


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
    text = [
        f"Trained on original English, {result['model']} reaches {' and '.join(reached)} ({NAMES[metric]}, percent)."
    ]

    better, worse, unclear = [], [], []
    for row in rows:
        entry = row["difference"].get(row["target"], {}).get(metric)
        if entry:
            group = better if entry["low"] > 0 else worse if entry["high"] < 0 else unclear
            group.append(f"{row_name(row)} {points(entry)}")
    if better:
        text.append(
            f"Taking the target language's word order raised the score on that language for {'; '.join(better)}."
        )
    if worse:
        text.append(
            f"Taking the target language's word order lowered the score on that language for {'; '.join(worse)}."
        )
    if unclear:
        text.append(f"On its own language, no difference is shown for {'; '.join(unclear)}: the interval includes 0.")

    for row in rows:
        entry = row["difference"].get("mean_not_english", {}).get(metric)
        if row["order"].startswith("random") and entry:
            text.append(
                f"The control {row['order']}, a random order, changes the average over the other languages by {points(entry)}."
            )
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
        text.append(
            f"Chance in training is averaged over {seeds} seeds or more; results.json has the deviation between seeds."
        )
    tests = sum(lang in row["difference"] for row in rows for lang in result["languages"])
    if tests:
        text.append(
            f"Of the {tests} differences by language, about {max(1, round(tests * 0.05))} would leave out 0 by the choice of sentences alone."
        )
    return text


def tally(entries):
    """How many differences are clear of 0 on which side, as text."""
    better, worse = (
        sum(function(entry) for entry in entries) for function in (lambda e: e["low"] > 0, lambda e: e["high"] < 0)
    )
    return f"{better} better, {worse} worse, {len(entries) - better - worse} not clear" if entries else "–"


def overview(results):
    """(header, lines) of a table of all tasks and models, cells as text: how many reordered trainings did better on their own language."""
    header = [
        "task",
        "model",
        "original, average without en",
        "own language, against original",
        "own language, against disorder",
    ]
    lines = []
    for result in results:
        metric, rows = result["metric"], result["rows"]
        base = next((row["scores"] for row in rows if row["order"] == "original"), {}).get("mean_not_english")
        sides = (
            [row[key][row["target"]][metric] for row in rows if row["target"] in row[key]]
            for key in ("difference", "against_control")
        )
        lines.append(
            [result["task"], result["model"], f"{100 * base[metric]:.1f}" if base else "–", *map(tally, sides)]
        )
    return header, lines


OVERVIEW = (
    "Of the trainings on a target language's word order, how many have a score on that language that is better or worse than that of "
    "original English, and than that of a random order as far from English, with an interval that leaves out 0."
)


# ---- pages -------------------------------------------------------------------------------------------


def alignment_table(rows):
    """(header, lines) of a table of aligners' scores, cells as text: AER of every pair with (precision, recall), percent."""
    pairs = sorted({row["pair"] for row in rows})
    found = {(row["aligner"], row["method"], row["pair"]): row for row in rows}
    best = {pair: min(row["aer"] for row in rows if row["pair"] == pair) for pair in pairs}
    lines = []
    for aligner, method in dict.fromkeys((row["aligner"], row["method"]) for row in rows):
        cells = []
        for pair in pairs:
            row = found.get((aligner, method, pair))
            text = (
                "–"
                if row is None
                else f"{100 * row['aer']:.1f} ({100 * row['precision']:.0f}, {100 * row['recall']:.0f})"
            )
            cells.append((text, row is not None and row["aer"] == best[pair]))
        lines.append(([aligner, method], cells))
    return ["aligner", "method", *pairs], lines


def markdown(results, alignments):
    """The report as Markdown. results: eval.compare's, alignments: eval.read_alignments'."""
    lines = ["# Does the word order of the English training data matter?", ""]
    if len(results) > 1:
        header, table = overview(results)
        lines += [
            "## All tasks and models",
            "",
            OVERVIEW,
            "",
            "| " + " | ".join(header) + " |",
            "|---" * len(header) + "|",
        ]
        lines += ["| " + " | ".join(cells) + " |" for cells in table] + [""]
    for result in results:
        metric = result["metric"]
        lines += [f"## {result['task']}, {result['model']}", "", " ".join(in_words(result)), ""]
        for name in [metric] + [
            other for other in result["rows"][0]["scores"][result["columns"][0]] if other != metric
        ]:
            header = (
                "| trained on | "
                + " | ".join(map(column_name, result["columns"]))
                + " |\n|---|"
                + "---:|" * len(result["columns"])
            )
            lines += [f"### {NAMES[name]}, percent", "", header]
            for row in result["rows"]:
                cells = [
                    f"{100 * row['scores'][column][name]:.1f}" if column in row["scores"] else "–"
                    for column in result["columns"]
                ]
                lines.append(
                    f"| {row_name(row)} | "
                    + " | ".join(
                        f"**{cell}**" if column == row["target"] else cell
                        for cell, column in zip(cells, result["columns"])
                    )
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
                            points(row["difference"][column][name])
                            + ("\\*" if clear(row["difference"][column][name]) else "")
                            if column in row["difference"]
                            else "–"
                            for column in result["columns"]
                        ]
                        lines.append(
                            f"| {row_name(row)} | "
                            + " | ".join(
                                f"**{cell}**" if column == row["target"] else cell
                                for cell, column in zip(cells, result["columns"])
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
                    lines.append(
                        f"| {row_name(row)} | {100 * s['aligned']:.1f} % | {100 * s['moved']:.1f} % | {s['kendall_tau']:.2f} |"
                    )
            lines.append("")
    for model, rows in alignments.items():
        header, table = alignment_table(rows)
        lines += [
            f"## Word alignment, {model}",
            "",
            "Alignment error rate (precision, recall) against gold links, percent. Bold: the lowest.",
            "",
        ]
        lines += ["| " + " | ".join(header) + " |", "|---|---|" + "---:|" * (len(header) - 2)]
        for names, cells in table:
            lines.append(
                "| " + " | ".join(names + [f"**{text}**" if lowest else text for text, lowest in cells]) + " |"
            )
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
    entries = [
        row["difference"][column][metric]["value"]
        for row in result["rows"]
        for column in columns
        if column in row["difference"]
    ]
    scale = max((abs(value) for value in entries), default=0.0)
    parts = [
        "<div class=scroll><table><tr><th>trained on"
        + "".join(f"<th>{html.escape(column_name(column))}" for column in columns)
    ]
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
                lines.append(
                    (
                        f"{row_name(row)} on {column_name(column)}",
                        row["difference"][column][metric],
                        column == row["target"],
                    )
                )
    if not lines:
        return ""
    left, width, step = 330, 520, 26
    low, high = (
        function(values)
        for function, values in (
            (min, [e["low"] for _, e, _ in lines] + [0]),
            (max, [e["high"] for _, e, _ in lines] + [0]),
        )
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


def training_words(task, path, most=2000):
    """The words of a training file's first sentences; of a pair the first one's."""
    if task == "udpos":
        return [words for words, _ in read_udpos(path)][:most]
    if task in QA_TASKS:
        texts = (text for paragraph in read_squad(path) for text in paragraph_texts(*paragraph))
        return [split_text(text) for text in itertools.islice(texts, most)]
    return [split_text(row[0]) for row in itertools.islice(iterate_pairs(path, task), most)]


def examples(result, count=5):
    """HTML of training sentences in every order; a word's colour is its place in the English order."""
    texts = {}
    for row in result["rows"]:
        try:
            texts[row_name(row)] = training_words(result["task"], row["train"])
        except InputError:  # the training file is gone: the report does without it
            continue
    original = texts.get("original", [])
    others = {
        name: sentences for name, sentences in texts.items() if name != "original" and len(sentences) == len(original)
    }
    if not others:
        return ""
    fitting = [n for n, words in enumerate(original) if 6 <= len(words) <= 14] or list(range(len(original)))
    fitting.sort(
        key=lambda n: -len({tuple(sentences[n]) for sentences in others.values()})
    )  # stable: the first of those that differ most
    parts = [
        "<h3>The training sentences in every order</h3><p class=muted>A word's colour is its place in the original sentence, from blue to orange."
    ]
    for n in fitting[:count]:
        parts.append("<div class=example>")
        for name, sentences in {"original": original, **others}.items():
            spans_ = []
            for word, place in zip(sentences[n], match_order(original[n], sentences[n])):
                hue = (
                    "#eee" if place is None else f"hsl({210 + 180 * place / max(1, len(original[n]) - 1):.0f} 70% 85%)"
                )
                spans_.append(f'<span style="background:{hue}">{html.escape(word)}</span>')
            parts.append(f"<div><b>{html.escape(name)}</b>{''.join(spans_)}</div>")
        parts.append("</div>")
    return "".join(parts)


def results_page(results, alignments):
    """The report as one HTML file without outside parts. Arguments as in markdown."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'><title>Word order and transfer</title>",
        f"<style>{STYLE}</style><h1>Does the word order of the English training data matter for zero-shot cross-lingual transfer?</h1>",
    ]
    if len(results) > 1:
        header, table = overview(results)
        parts.append(
            f"<h2>All tasks and models</h2><p>{OVERVIEW}<div class=scroll><table><tr>"
            + "".join(f"<th>{name}" for name in header)
        )
        parts += [
            f"<tr><th>{html.escape(task)}<th>{html.escape(model)}" + "".join(f"<td>{cell}" for cell in cells)
            for task, model, *cells in table
        ]
        parts.append("</table></div>")
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
    for model, rows in alignments.items():
        header, table = alignment_table(rows)
        parts.append(
            f"<h2>Word alignment, {html.escape(model)}</h2><p>Alignment error rate, and under it precision and recall, against gold links, in percent."
        )
        parts.append("<div class=scroll><table><tr>" + "".join(f"<th>{html.escape(name)}" for name in header))
        for names, cells in table:
            parts.append("<tr>" + "".join(f"<th>{html.escape(name)}" for name in names))
            for text, lowest in cells:
                rate, _, rest = text.partition(" (")
                parts.append(f"<td{' class=clear' * lowest}>{rate}<small>{rest.rstrip(')')}</small>")
        parts.append("</table></div><p class=muted>Bold: the lowest of its column.</p>")
    return "\n".join(parts) + "</html>\n"
