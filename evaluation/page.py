"""The report as Markdown and as one HTML file without outside parts, from the plain dicts of eval.py.

The words and tables in both are those of tables.py, the pictures those of figures.py.
"""

import html

from evaluation.figures import (
    closeness_plot,
    examples,
    forest_plot,
    loss_plot,
    named,
    points,
    row_name,
    tag_bars,
    tau_plot,
)
from evaluation.tables import HEADLINE, NAMES, alignment_table, left_over, tag_table

TITLE = "Does the word order of the English training data matter for zero-shot cross-lingual transfer?"
GAPS = "What is missing, failed or uneven"
INTRO = (
    "English training sentences were put in the word order of their translations, or in a random order with as many "
    "inversions. Numbers: percentage points of accuracy (F1 of answers) in languages other than English, less those of "
    "training on original English. ± and lines: 95 % intervals over seeds and test sentences. Star and full circle: "
    "significant, adjusted for the number of comparisons."
)
HOW_TO_READ = (
    "An interval is that of one comparison, so it may exclude 0 without a star: p below 0.05, adjusted for the number "
    "of comparisons of its kind (Holm). Minimum detectable difference, one that would likely have been detected: it is "
    "significant with a probability of 80 %. Control: a random order with the same Kendall's tau to English order (1 "
    "is English, -1 its reverse); aligners may share one. In brackets: the aligner that linked the words: pretrained "
    "is the encoder as it is, joint and separate are fine-tuned (for all languages, for each), manual is links by "
    "people."
)
CONTRASTS = (
    "Line: 95 % confidence interval of one comparison, not adjusted. Full circle and star: significant. Open: not."
)
DISTANCE = (
    "Full, blue: an order on its own language. Open, orange: its control, on the same language. Grey: others, on the "
    "average without English. Circles without a label: the same by another aligner. Upright lines: 95 % intervals."
)
CLOSENESS = (
    "Each circle: an order tested in a language (full: in its own). Across: Kendall's tau between the order and that "
    "of the language's translation; up: the score; both less the means of order and language."
)
BARS = (
    "What words of each gold tag contribute to the difference from original English, in points of accuracy: gains to "
    "the right, losses to the left, the total beside. Upper bar and first number: the order; lower, second: its "
    "control."
)
BY_TAG = "Share of words and accuracy, in percent; below, the contribution to the difference from original English."
LOSSES = "The loss of each run by step, as the mean since the point before. Blue: original English; grey: the others."
STYLE = """
:root { color-scheme: light dark; --ink: #222; --bg: #fff; --soft: #f4f7fa; --line: #e3e5e8; --muted: #5f6368;
  --blue: #1f5f9e; --orange: #c2571a; --grey: #7b818a }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e4e6e8; --bg: #16181b; --soft: #1f2328;
  --line: #373c42; --muted: #a4aab1; --blue: #6fb1f0; --orange: #f0935a; --grey: #9aa0a8 } }
body { font: 16px/1.55 system-ui, "Noto Sans", "Noto Sans Devanagari", "Noto Sans CJK SC", sans-serif;
  color: var(--ink); background: var(--bg); max-width: 72rem; margin: 1.2rem auto; padding: 0 1.2rem;
  overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { margin-top: 3rem; border-top: 2px solid; padding-top: .8rem }
h3 { margin: 2.2rem 0 .5rem; font-size: 1.05rem } p, li { max-width: 56rem }
.muted { color: var(--muted); font-size: .9rem }
.verdict { border-left: 4px solid var(--blue); background: var(--soft); padding: .6rem 1rem; margin: 1rem 0;
  display: grid; grid-template-columns: 1fr 1fr; column-gap: 2rem }
.verdict h2 { margin: 0 0 .4rem; border: 0; padding: 0; font-size: 1.1rem } .verdict p { margin: .35rem 0 }
.verdict .line { font-size: 1.15rem; line-height: 1.45 } .verdict summary { margin: .4rem 0; font-weight: 400 }
.verdict .forest > div { grid-template-columns: 9rem 1fr 6rem } .verdict .forest h4:first-child { margin-top: .2rem }
.scroll { overflow-x: auto } svg text { font: 13px system-ui, sans-serif; fill: var(--ink); stroke: none }
table { border-collapse: separate; border-spacing: 2px; font-variant-numeric: tabular-nums }
th { font-weight: 600; text-align: right; padding: .2rem .5rem; vertical-align: bottom; max-width: 9rem }
td { text-align: right; padding: .25rem .5rem; border-radius: .25rem; white-space: nowrap }
td:first-child, th:first-child { text-align: left; font-weight: 600; position: sticky; left: 0; background: var(--bg) }
.words td, .words th { text-align: left } .words td { white-space: normal }
td small { display: block; font-size: .72rem; opacity: .8 } td[style] { color: #222 } .mark { font-weight: 700 }
.target { outline: 2px solid var(--ink); outline-offset: -2px }
.grid { stroke: var(--line); stroke-width: 1 } .zero { stroke: var(--ink); stroke-width: 1 }
.forest > div { display: grid; grid-template-columns: 15rem 1fr 7rem; column-gap: .8rem; align-items: center }
.forest svg { width: 100%; display: block; overflow: visible } .forest h4 { margin: .8rem 0 .1rem; font-size: .9rem }
.forest span, .forest small { font-size: .85rem } .bar { stroke-width: 3 } rect { stroke: var(--ink); stroke-width: .5 }
.adp { fill: var(--ink) } .aux { fill: var(--blue) } .noun { fill: #e3a06f } .verb { fill: #c3c8ce }
.other { fill: var(--bg) }  .forest { padding-right: .5rem }
.plot { width: 100%; max-width: 34rem; display: block } .forest circle { stroke-width: 2; fill: var(--bg) }
polyline { fill: none; stroke: var(--grey) } .original { stroke: var(--blue); stroke-width: 2 }
.plot text { paint-order: stroke; stroke: var(--bg); stroke-width: 3px }
summary { cursor: pointer; margin: 2.2rem 0 .5rem; font-weight: 600 }
.example { margin: 1rem 0; padding: .5rem 1rem; background: var(--soft) } .example div { display: flex; margin: .2rem }
.example b { width: 7rem; flex: none; font-size: .85rem; padding-top: .1rem } .example p { margin: 0; line-height: 1.8 }
.example span { color: #222; padding: .05rem .35rem; border-radius: .25rem; overflow-wrap: anywhere }
@media (max-width: 700px) {
  .verdict { grid-template-columns: 1fr } .verdict .forest > div { grid-template-columns: 1fr auto }
  body { font-size: 15px; padding: 0 .8rem } .forest > div { grid-template-columns: 1fr auto; margin-bottom: .25rem }
  td:first-child { white-space: normal; max-width: 6.5rem; font-size: .85rem; line-height: 1.2 }
  .forest svg { grid-column: 1 / 3; grid-row: 2 } .example div { display: block } .example { padding: .5rem .6rem }
}
@media print {
  body { font-size: 10.5pt; max-width: none; margin: 0; padding: 0; print-color-adjust: exact }
  .scroll { overflow: visible } table { font-size: 7.5pt; border-spacing: 1px } th, td { padding: .1rem .2rem }
  td:first-child, th:first-child { position: static } .example, .verdict, tr, .forest > div, svg { break-inside: avoid }
  h2, h3, h4, .muted, tr:first-child { break-after: avoid } .plot { max-width: 26rem }
  details::details-content { content-visibility: visible }
}
"""
EXAMPLES = "A word's colour is its place in the original sentence, from blue to orange."


def markdown_table(table):
    """Return the lines of a table in Markdown."""
    lines = [f"### {table['title']}", ""] + [table["note"], ""] * bool(table["note"])
    lines.append("| " + " | ".join(table["header"]) + " |")
    lines.append("|---|" + ("---|" if table.get("words") else "---:|") * (len(table["header"]) - 1))
    for row in table["rows"]:
        texts = []
        for one in row:
            text = " ".join(filter(None, (one["text"], one.get("small")))) + "\\*" * bool(one.get("mark"))
            texts.append((f"**{text}**" if one.get("target") else text).replace("|", "\\|"))
        lines.append("| " + " | ".join(texts) + " |")
    return lines + [""]


def markdown(results, alignments, missing):
    """Return the report as Markdown. results: eval.compare's, alignments and missing: what eval.py read."""
    lines = [f"# {TITLE}", "", INTRO, ""]
    for result in results:
        lines += [f"**{result['task']}, {result['model']}.** {result['verdict'][0]}", ""]
        lines += [f"{GAPS}: {len(result['gaps'])}, see below.", ""] * bool(result["gaps"])
    lines += [HOW_TO_READ, ""]
    if rest := left_over(results, missing):
        lines += ["## Not in this report", "", *(f"- {line}" for line in rest), ""]
    for result in results:
        lines += [f"## {result['task']}, {result['model']}", ""]
        lines += [*(f"- {text}" for text in result["verdict"][1:]), ""]
        if result["gaps"]:
            lines += [f"### {GAPS}", "", *(f"- {line}" for line in result["gaps"]), ""]
        lines += [line for table in result["tables"] for line in markdown_table(table)]
    for model, rows in alignments.items():
        lines += markdown_table(alignment_table(model, rows))
    return "\n".join(lines).rstrip() + "\n"


def shade(value, scale):
    """Return the background colour of a difference: blue for better, orange for worse."""
    end = (86, 152, 214) if value > 0 else (232, 146, 78)
    return "#%02x%02x%02x" % tuple(round(250 + (part - 250) * abs(value) / scale) for part in end)


def titled(title, content, note=""):
    """Return HTML with its title and a note above it, nothing for nothing."""
    note = f'<p class="muted">{html.escape(note)}</p>' if note else ""
    return f"<h3>{html.escape(title)}</h3>{note}{content}" if content else ""


def folded(title, content):
    """Return HTML that a click on its title opens, nothing for nothing."""
    return f"<details><summary>{title}</summary>{content}</details>" if content else ""


def html_list(lines):
    """Return a list as HTML, nothing for no lines."""
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def html_table(table):
    """Return a table as HTML, differences coloured: the heat map."""
    scale = max([0.02, *(abs(one["value"]) for row in table["rows"] for one in row if "value" in one)])
    rows = ["".join(f"<th>{html.escape(name)}</th>" for name in table["header"])]
    for row in table["rows"]:
        cells = ""
        for one in row:
            kind = " ".join(name for name in ("target", "mark") if one.get(name))
            style = f' style="background:{shade(one["value"], scale)}"' if "value" in one else ""
            small = f"<small>{html.escape(one['small'])}</small>" if one.get("small") else ""
            cells += f'<td class="{kind}"{style}>{html.escape(one["text"])}{"*" * bool(one.get("mark"))}{small}</td>'
        rows.append(cells)
    words = ' class="words"' if table.get("words") else ""
    content = f'<div class="scroll"><table{words}>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'
    return titled(table["title"], content, table["note"])


def order_section(result):
    """Return HTML on closeness and on tags, a list."""
    parts, rows = [], {(row["order"], row["aligner"]): row for row in result["rows"]}
    for one in named(result, "closeness")[:1]:
        note = f"{CLOSENESS} Line: gamma, {points(one)} points for a unit of tau, p = {one['p']:.2g}."
        if tau := result["closeness"].get("original", {}).get("hi"):
            note += f" From English order to that of Hindi it is {100 * one['value'] * (1 - tau):+.2f} points."
        title = f"Gain against closeness of orders ({one['aligner']} links)"
        parts.append(titled(title, closeness_plot(result, one), note))
    for row in result["rows"]:
        control = rows.get((row["control"]["order"], row["control"]["aligner"])) if row["control"] else None
        if control and row["by_tag"] and row["difference"]:
            parts.append(
                folded(f"By tag: {row_name(row)} and its control", f"<p>{BARS}</p>{tag_bars(result, row, control)}")
            )
    tables = "".join(html_table(tag_table(result, row)) for row in result["rows"] if row["by_tag"])
    return [*parts, folded("By tag: every condition and language", tables and f"<p>{BY_TAG}</p>{tables}")]


def result_section(result):
    """Return one task and model as HTML: the plots, the tables, the examples, the losses."""
    maps = [table for table in result["tables"] if table["title"].startswith("Difference")]
    name, losses = NAMES[result["metric"]], loss_plot(result)
    parts = [
        f"<h2>{html.escape(result['task'])}, {html.escape(result['model'])}</h2>",
        titled(f"Contrasts in {name}, percentage points", forest_plot(result["contrasts"]), CONTRASTS),
        titled("Effect against Kendall's tau to English order", tau_plot(result), DISTANCE),
        *map(html_table, maps),
        *order_section(result),
        titled("The training sentences in every order", examples(result), EXAMPLES),
        *(html_table(table) for table in result["tables"] if table not in maps),
        folded("Training losses", losses and f'<p class="muted">{LOSSES}</p>{losses}'),
    ]
    return "\n".join(filter(None, parts))


def results_page(results, alignments, missing):
    """Return the report as one HTML file without outside parts. Arguments as in markdown."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Word order and transfer</title><style>{STYLE}</style><h1>{TITLE}</h1><p class='muted'>{INTRO}</p>",
    ]
    for result in results:
        gaps = folded(f"{GAPS}: {len(result['gaps'])}", html_list(result["gaps"]))
        name = html.escape(f"{result['task']}, {result['model'].split('/')[-1]}")
        parts.append(
            f'<div class="verdict"><div><h2>{name}</h2><p class="line">{html.escape(result["verdict"][0])}</p>'
            f"{folded('In full', html_list(result['verdict'][1:]))}{gaps}</div>"
            f"{forest_plot([one for name in HEADLINE for one in result['contrasts'] if one['name'] == name])}</div>"
        )
    parts.append(folded("How to read this", HOW_TO_READ))
    parts.append(folded("Not in this report", html_list(left_over(results, missing))))
    parts += map(result_section, results)
    parts += ["<h2>Word aligners</h2>"] * bool(alignments)
    parts += [html_table(alignment_table(model, rows)) for model, rows in alignments.items()]
    return "\n".join(filter(None, parts)) + "</html>\n"
