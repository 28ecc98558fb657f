"""The pages that people look at: the results of eval.py as Markdown and HTML, and the alignments of align.py.

Every function takes the plain dicts and lists of these scripts and returns text. An HTML page is one file without
outside parts. What the report says in words and tables stands in lib/tables.py, its pictures in lib/figures.py.
"""

import html

from lib.figures import examples, forest_plot, tau_plot
from lib.tables import NAMES, alignment_table, gap_lines, left_over, overview_table

TITLE = "Does the word order of the English training data matter for zero-shot cross-lingual transfer?"
LINES = "Primary contrast", "What it says", "Other contrasts and limits"  # of a verdict
HOW_TO_READ = (
    "±: half a 95 % confidence interval of one comparison, which covers chance in training (the seeds) and the choice "
    "of test sentences. A star marks a significant difference: p below 0.05, adjusted for the number of comparisons of "
    "its kind (Holm), so that an interval may leave out 0 and have no star. Cannot be told: not significant. "
    "Detectable: a smaller difference would not reliably, with a power of 80 %, have been seen. With one seed there is "
    "no interval and no star, since chance in training cannot be seen. Random order: sentences permuted at random, "
    "with the same mean Kendall's tau to English order (1 is English, -1 its reverse); aligners within 0.02 of each "
    "other share it. By aligner: what linked the words; pretrained is the encoder as it is, joint and separate are "
    "fine-tuned (one for all languages, one for each), manual are people's links."
)


# ---- Markdown ----------------------------------------------------------------------------------------


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
    lines = [f"# {TITLE}", "", HOW_TO_READ, ""]
    for result in results:
        lines += [f"## {result['task']}, {result['model']}: the verdict", ""]
        lines += [f"- **{title}.** {text}" for title, text in zip(LINES, result["verdict"])] + [""]
    lines += markdown_table(overview_table(results)) if len(results) > 1 else []
    if rest := left_over(results, missing):
        lines += ["## Not in this report", "", *(f"- {line}" for line in rest), ""]
    for result in results:
        lines += [f"## {result['task']}, {result['model']}", ""]
        if gaps := gap_lines(result):
            lines += ["### What is missing or failed", "", *(f"- {line}" for line in gaps), ""]
        lines += [line for table in result["tables"] for line in markdown_table(table)]
    for model, rows in alignments.items():
        lines += markdown_table(alignment_table(model, rows))
    return "\n".join(lines).rstrip() + "\n"


# ---- HTML ----------------------------------------------------------------------------------------------


STYLE = """
:root { color-scheme: light }
body { font: 16px/1.55 system-ui, "Noto Sans", "Noto Sans Devanagari", "Noto Sans CJK SC", sans-serif; color: #222;
  background: #fff; max-width: 72rem; margin: 1.6rem auto; padding: 0 1.2rem; overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { margin-top: 3rem; border-top: 2px solid #222; padding-top: .8rem }
h3 { margin: 2.2rem 0 .5rem; font-size: 1.05rem } p, li { max-width: 56rem } .muted { color: #5f6368; font-size: .9rem }
.verdict { border-left: 4px solid #1f5f9e; background: #f4f7fa; padding: .6rem 1rem; margin: 1rem 0 }
.verdict h2 { margin: 0 0 .4rem; border: 0; padding: 0; font-size: 1.1rem } .verdict p { margin: .35rem 0 }
.scroll { overflow-x: auto } svg text { font: 13px system-ui, sans-serif; fill: #222; stroke: none }
table { border-collapse: separate; border-spacing: 2px; font-variant-numeric: tabular-nums }
th { font-weight: 600; text-align: right; padding: .2rem .5rem; vertical-align: bottom; max-width: 9rem }
td { text-align: right; padding: .25rem .5rem; border-radius: .25rem; white-space: nowrap }
td:first-child, th:first-child { text-align: left; font-weight: 600; position: sticky; left: 0; background: #fff }
.words td, .words th { text-align: left } .words td { white-space: normal }
td small { display: block; font-size: .72rem; color: #444 } .target { outline: 2px solid #222; outline-offset: -2px }
.mark { font-weight: 700 } .grid { stroke: #e3e5e8; stroke-width: 1 } .zero { stroke: #222; stroke-width: 1 }
.forest > div { display: grid; grid-template-columns: 15rem 1fr 7rem; column-gap: .8rem; align-items: center }
.forest svg { width: 100%; display: block; overflow: visible } .forest h4 { margin: .8rem 0 .1rem; font-size: .9rem }
.forest span, .forest small { font-size: .85rem } .bar { stroke-width: 3 } .forest { padding-right: .5rem }
.tau { width: 100%; max-width: 34rem; display: block }
.tau text { paint-order: stroke; stroke: #fff; stroke-width: 3px }
.example { margin: 1rem 0; padding: .5rem 1rem; background: #f7f8fa } .example div { display: flex; margin: .2rem 0 }
.example b { width: 7rem; flex: none; font-size: .85rem; padding-top: .1rem } .example p { margin: 0; line-height: 1.8 }
.example span { padding: .05rem .35rem; border-radius: .25rem; overflow-wrap: anywhere }
@media (max-width: 700px) {
  body { font-size: 15px; padding: 0 .8rem } .forest > div { grid-template-columns: 1fr auto; margin-bottom: .25rem }
  td:first-child { white-space: normal; max-width: 6.5rem; font-size: .85rem; line-height: 1.2 }
  .forest svg { grid-column: 1 / 3; grid-row: 2 } .example div { display: block } .example { padding: .5rem .6rem }
}
@media print {
  body { font-size: 10.5pt; max-width: none; margin: 0; padding: 0; print-color-adjust: exact;
    -webkit-print-color-adjust: exact }
  .scroll { overflow: visible } table { font-size: 7.5pt; border-spacing: 1px } th, td { padding: .1rem .2rem }
  td:first-child, th:first-child { position: static } .example, .verdict, tr, .forest > div, svg { break-inside: avoid }
  h2, h3, h4, .muted, tr:first-child { break-after: avoid } .tau { max-width: 26rem }
}
"""


def shade(value, scale):
    """Return the background colour of a difference: blue for better, orange for worse."""
    strength = abs(value) / scale
    end = (86, 152, 214) if value > 0 else (232, 146, 78)
    return "#%02x%02x%02x" % tuple(round(250 + (part - 250) * strength) for part in end)


def html_table(table):
    """Return a table as HTML, differences coloured: the heat map."""
    scale = max([0.02, *(abs(one["value"]) for row in table["rows"] for one in row if "value" in one)])
    words = ' class="words"' if table.get("words") else ""
    parts = [f"<h3>{html.escape(table['title'])}</h3>"]
    parts += [f'<p class="muted">{html.escape(table["note"])}</p>'] * bool(table["note"])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table["header"])
    parts.append(f'<div class="scroll"><table{words}><tr>{head}</tr>')
    for row in table["rows"]:
        parts.append("<tr>")
        for one in row:
            kind = " ".join(name for name in ("target", "mark") if one.get(name))
            style = f' style="background:{shade(one["value"], scale)}"' if "value" in one else ""
            small = f"<small>{html.escape(one['small'])}</small>" if one.get("small") else ""
            text = html.escape(one["text"]) + "*" * bool(one.get("mark"))
            parts.append(f'<td class="{kind}"{style}>{text}{small}</td>')
        parts.append("</tr>")
    return "".join(parts) + "</table></div>"


def html_list(title, lines):
    """Return a titled list as HTML, nothing for no lines."""
    return f"<h3>{title}</h3><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def verdict_card(result):
    """Return the verdict of one task and model as HTML."""
    lines = [f"<p><b>{title}.</b> {html.escape(text)}</p>" for title, text in zip(LINES, result["verdict"])]
    name = html.escape(f"{result['task']}, {result['model']}")
    return f'<div class="verdict"><h2>{name}</h2>{"".join(lines)}</div>'


def result_section(result):
    """Return one task and model as HTML: the plots, the tables, the examples."""
    tables = {table["title"]: table for table in result["tables"]}
    maps = [table for table in tables.values() if table["title"].startswith("Difference")]
    rest = [table for table in tables.values() if table not in maps]
    parts = [f"<h2>{html.escape(result['task'])}, {html.escape(result['model'])}</h2>"]
    parts.append(html_list("What is missing or failed", gap_lines(result)))
    if result["contrasts"]:
        parts.append(
            f"<h3>Contrasts in {NAMES[result['metric']]}, percentage points</h3>"
            '<p class="muted">Line: 95 % confidence interval of one comparison, not adjusted. Full circle and star: '
            "significant, p below 0.05 adjusted for the number of comparisons. Open circle: not significant.</p>"
        )
        parts.append(forest_plot(result["contrasts"]))
    if plot := tau_plot(result):
        parts.append(
            "<h3>Effect against Kendall's tau to English order</h3>"
            '<p class="muted">Full, blue: an order on its own language, significant or not. Open, orange: the random '
            "order with its tau, on the same language. Grey: others, on the average without English. Circles without a "
            "label: the same by another aligner. Upright lines: 95 % intervals.</p>" + plot
        )
    parts += map(html_table, maps)
    if shown := examples(result):
        parts.append(
            "<h3>The training sentences in every order</h3>"
            '<p class="muted">A word\'s colour is its place in the original sentence, from blue to orange.</p>' + shown
        )
    return "\n".join(parts + [html_table(table) for table in rest])


def results_page(results, alignments, missing):
    """Return the report as one HTML file without outside parts. Arguments as in markdown."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Word order and transfer</title>',
        f"<style>{STYLE}</style><h1>{TITLE}</h1>",
        *map(verdict_card, results),
        f'<p class="muted">{HOW_TO_READ}</p>',
        html_list("Not in this report", left_over(results, missing)),
    ]
    parts += [html_table(overview_table(results))] * (len(results) > 1)
    parts += map(result_section, results)
    parts += ["<h2>Word aligners</h2>"] * bool(alignments)
    parts += [html_table(alignment_table(model, rows)) for model, rows in alignments.items()]
    return "\n".join(filter(None, parts)) + "</html>\n"
