"""The pictures of the report, HTML and SVG in one piece: contrasts, effect against distance, losses, examples."""

import collections
import contextlib
import html
import itertools
import math

import numpy as np

from data.files import InputError
from evaluation.closeness import centred
from evaluation.contrasts import condition_name, split_order
from evaluation.intervals import LEVEL
from evaluation.runs import training_words
from evaluation.tags import FUNCTION_WORDS

STYLES = {  # of each kind of contrast: colour, title
    "primary": ("var(--ink)", "primary: gain of an order's own language over the others"),
    "function words": (
        "var(--ink)",
        "function words: ADP and AUX behind their word, verb-last orders less their controls",
    ),
    "closeness": ("var(--ink)", "closeness: points for a unit of Kendall's tau between order and language"),
    "all orders": ("var(--blue)", "translations' word orders, mean of the other languages"),
    "all random orders": ("var(--orange)", "random word orders, mean of the other languages"),
    "own language": ("var(--blue)", "own language, against original English"),
    "own language against control": ("var(--orange)", "own language, against its control"),
    "average": ("var(--grey)", "average of the languages without English, against original English"),
    "function words of one order": ("var(--grey)", "function words of one order, against original English"),
}
TAG_KINDS = {"ADP": "adp", "AUX": "aux", "NOUN": "noun", "PROPN": "noun", "VERB": "verb"}  # others are "other"
KIND_NAMES = {"adp": "ADP", "aux": "AUX", "noun": "NOUN, PROPN", "verb": "VERB", "other": "other tags"}
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 430, 330, 46, 44, 10, 12  # of a picture and its margins
SHIFT = {"order": -3, "random": 3, "other": 0}  # side by side where tau is the same
MIDDLE, END = 'text-anchor="middle"', 'text-anchor="end"'


def row_name(row):
    """Return the name of a row's condition."""
    return condition_name((row["order"], row["aligner"]))


def named(result, name):
    """Return the contrasts of a name."""
    return [contrast for contrast in result["contrasts"] if contrast["name"] == name]


def clear(contrast):
    """Return whether a contrast differs from 0 by its adjusted p value."""
    return contrast["p_adjusted"] is not None and contrast["p_adjusted"] < LEVEL


def points(entry):
    """Return a difference with half its interval as text, in percentage points."""
    half = "" if entry["low"] is None else f" ± {100 * (entry['high'] - entry['low']) / 2:.1f}"
    return f"{100 * entry['value']:+.1f}{half}"


def ticks(low, high, most=6):
    """Return round numbers between low and high, at most `most`, with 0 among them where it lies between."""
    width = (high - low) / most
    power = 10.0 ** math.floor(math.log10(width))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= width)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick_text(value):
    """Return a difference beside an axis as text, in percentage points."""
    return f"{100 * value:+.3g}" if value else "0"


def extent(entries, pad=0.06):
    """Return (low, high) that hold all intervals and 0, with a margin."""
    values = [0.0] + [entry[name] for entry in entries for name in ("value", "low", "high") if entry[name] is not None]
    low, high = min(values), max(values)
    margin = (high - low or 0.02) * pad
    return low - margin, high + margin


def forest_plot(contrasts):
    """Return HTML, a line for each contrast: its name, its interval on a common axis, its numbers."""
    if not contrasts:
        return ""
    low, high = extent(contrasts)

    def x(value):
        return f"{100 * (value - low) / (high - low):.2f}%"

    grid = "".join(
        f'<line x1="{x(tick)}" x2="{x(tick)}" y1="0" y2="100%" class="{"grid" if tick else "zero"}"/>'
        for tick in ticks(low, high)
    )
    parts = ['<div class="forest">']
    for name, group in itertools.groupby(contrasts, key=lambda contrast: contrast["name"]):
        colour, title = STYLES[name]
        parts.append(f'<h4 style="color:{colour}">{title}</h4>')
        for entry in group:
            label = f"mean ({entry['aligner']} links)" if entry["order"] is None else row_name(entry)
            label += "" if entry["column"] in (None, "mean_not_english") else f" on {entry['column']}"
            bar = ""
            if entry["low"] is not None:
                bar = f'<line x1="{x(entry["low"])}" x2="{x(entry["high"])}" y1="50%" y2="50%" class="bar"/>'
            star, full = "*" * clear(entry), f'style="fill:{colour}"' * clear(entry)
            parts.append(
                f'<div><span>{html.escape(label)}</span><svg height="20" style="stroke:{colour}">{grid}{bar}<circle '
                f'cx="{x(entry["value"])}" cy="50%" r="4.5" {full}/></svg><small>{points(entry)}{star}</small></div>'
            )
    axis = "".join(f'<text x="{x(tick)}" y="14" {MIDDLE}>{tick_text(tick)}</text>' for tick in ticks(low, high))
    parts.append(f'<div class="axis"><span></span><svg height="20">{axis}</svg><small>+: better</small></div></div>')
    return "".join(parts)


def axes(title, across, down, across_label, down_label, text):
    """Return (parts of an SVG with two axes, x, y); x and y place values in it.

    across, down: (lowest, highest) value of each axis; text: of a tick of the upright one.
    """

    def x(value):
        return LEFT + (value - across[0]) / (across[1] - across[0]) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return TOP + (down[1] - value) / (down[1] - down[0]) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" {END}>{across_label}</text>'
        f'<text transform="translate(11 {TOP}) rotate(-90)" {END}>{down_label}</text>'
    ]
    for tick in ticks(*down):
        parts.append(
            f'<text x="{LEFT - 5}" y="{y(tick) + 4:.1f}" {END}>{text(tick)}</text><line x1="{LEFT}" '
            f'x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="{"grid" if tick else "zero"}"/>'
        )
    for tick in ticks(*across, 5):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 17}" {MIDDLE}>{tick:,.6g}</text>')
    return parts, x, y


def tau_points(result):
    """Return [(tau, interval, kind, name, label)] of conditions with known tau; kind: order, random or other.

    The difference is from original English, of an order and its control on its language, of the others on the average.
    """
    found = []
    for row in result["rows"]:
        random, lang, suffix = split_order(row["order"])
        tau, own = row["statistics"].get("kendall_tau"), lang in result["languages"]
        entry = row["difference"].get(lang if own else "mean_not_english")
        if tau is not None and entry and not suffix:
            kind = "other" if not own else "random" if random else "order"
            found.append((tau, entry[result["metric"]], kind, row_name(row), lang if own else row["order"]))
    return found


def free_place(across, down, half, side, taken):
    """Return (across, down) of a text of half width `half` beside a circle, on its `side` (-1 or 1) or on the other,
    else lower, where it covers nothing of `taken`, [(across, down, half)], to which it is added."""
    for lower in itertools.count(0, 2):
        for middle in (across + side * (9 + half), across - side * (9 + half)):
            if not any(abs(middle - x) < half + other and abs(down + lower - y) < 11 for x, y, other in taken):
                taken.append((middle, down + lower, half))
                return middle, down + lower


def tau_plot(result):
    """Return SVG: the effect of each order and each random one on its language by Kendall's tau to English order."""
    found = tau_points(result)
    if not found:
        return ""
    near = min(min(tau for tau, *_ in found), 0.9)
    near, far = near - 0.08 * (1 - near), 1 + 0.04 * (1 - near)
    label, title = "Kendall's tau to English order", "effect against Kendall's tau"
    down = extent([entry for _, entry, *_ in found])
    parts, x, y = axes(title, (near, far), down, label, "points against original English", tick_text)
    places = [(x(tau) + SHIFT[kind], y(entry["value"])) for tau, entry, kind, *_ in found]
    taken, labels = [(*place, 6) for place in places], {}  # one label for all the aligners of an order
    colours = {"order": "var(--blue)", "random": "var(--orange)", "other": "var(--grey)"}
    for (at, down), (tau, entry, kind, name, label) in zip(places, found):
        colour, fill = colours[kind], "var(--bg)" if kind == "random" else colours[kind]
        side = 1 if kind == "random" or kind == "other" and tau < (near + far) / 2 else -1
        if entry["low"] is not None:
            ends = f'y1="{y(entry["low"]):.1f}" y2="{y(entry["high"]):.1f}"'
            parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" {ends} stroke="{colour}" opacity=".35" stroke-width="2"/>')
        parts.append(
            f'<circle cx="{at:.1f}" cy="{down:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2">'
            f"<title>{html.escape(name)}: tau {tau:.2f}, {points(entry)}</title></circle>"
        )
        if (kind, label) not in labels:
            middle, lower = free_place(at, down, 3.5 * len(label), side, taken)
            place = f'x="{middle:.1f}" y="{lower + 4:.1f}"'
            labels[kind, label] = f"<text {place} {MIDDLE}>{html.escape(label)}</text>"
    return "".join([*parts, *labels.values(), "</svg>"])


def loss_plot(result):
    """Return SVG: the loss of each run by step, original English in blue, the others in grey; "" without losses."""
    curves = []
    for run in sorted(result["runs"], key=lambda run: run["order"] == "original"):  # drawn last
        found = [(one["step"], one["loss"]) for one in run["train"].get("history", []) if one["loss"] is not None]
        curves += [(run, found)] if found else []
    if not curves:
        return ""
    steps, losses = zip(*itertools.chain(*(found for _, found in curves)))
    across, down = (0, 1.02 * max(steps)), (0, 1.04 * max(*losses, 1e-6))
    parts, x, y = axes("training loss", across, down, "step", "training loss", "{:.3g}".format)
    for run, found in curves:
        line = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in found)
        name = html.escape(f"{row_name(run)}, seed {run['seed']}")
        parts.append(f'<polyline points="{line}" class="{run["order"]}"><title>{name}</title></polyline>')
    return "".join(parts) + "</svg>"


def stacked(parts, x, top):
    """Return SVG rectangles of contributions by kind of word, gains to the right of 0 and losses to the left."""
    bars, ends = "", {True: 0.0, False: 0.0}
    for kind in KIND_NAMES:
        value = parts.get(kind, 0.0)
        start = ends[value > 0]
        ends[value > 0] += value
        left, right = sorted((start, start + value))
        bars += f'<rect x="{x(left):.2f}%" width="{x(right) - x(left):.2f}%" y="{top}" height="9" class="{kind}"/>'
    return bars


def tag_bars(result, row, control):
    """Return HTML, a line for each language: what kinds of words contribute to the difference from original English.

    Upper bar: the order of `row`; lower bar: its control, a row too.
    """
    lines, langs = [], [lang for lang in [*FUNCTION_WORDS, *result["tags"]] if lang in row["by_tag"]]
    for lang in dict.fromkeys(langs):
        pair = []
        for one in (row, control):
            parts = collections.Counter()
            for tag, entry in one["by_tag"].get(lang, {}).items():
                parts[TAG_KINDS.get(tag, "other")] += (entry["contribution"] or {"value": 0.0})["value"]
            pair.append(parts)
        lines.append((lang, pair))
    sums = [sum(v for v in parts.values() if sign * v > 0) for _, pair in lines for parts in pair for sign in (1, -1)]
    low, high = min([-0.01, *sums]) * 1.04, max([0.01, *sums]) * 1.04

    def x(value):
        return 100 * (value - low) / (high - low)

    legend = "".join(f'<svg width="14" height="10"><rect width="12" height="9" class="{kind}"/></svg> {name} &nbsp; '
                     for kind, name in KIND_NAMES.items())  # fmt: skip
    grid = "".join(
        f'<line x1="{x(tick):.2f}%" x2="{x(tick):.2f}%" y1="0" y2="100%" class="{"grid" if tick else "zero"}"/>'
        for tick in ticks(low, high)
    )
    html_lines = [f'<p class="muted">{legend}</p><div class="forest">']
    for lang, pair in lines:
        numbers = " | ".join(f"{100 * sum(parts.values()):+.1f}" for parts in pair)
        bars = "".join(stacked(parts, x, top) for parts, top in zip(pair, (3, 14)))
        html_lines.append(
            f'<div><span>{html.escape(lang)}</span><svg height="27">{grid}{bars}</svg><small>{numbers}</small></div>'
        )
    axis = "".join(f'<text x="{x(tick):.2f}%" y="14" {MIDDLE}>{tick_text(tick)}</text>' for tick in ticks(low, high))
    return "".join([*html_lines, f'<div><span></span><svg height="20">{axis}</svg><small>points</small></div></div>'])


def closeness_plot(result, contrast):
    """Return SVG: scores against Kendall's tau between the order trained on and the language's, both less the means of
    order and language; the line is gamma; full: an order on its own language."""
    tau, metric = result["closeness"], result["metric"]
    rows = {row["order"]: row for row in result["rows"] if row["aligner"] in ("none", contrast["aligner"])}
    langs = list(next(iter(tau.values())))
    gains = centred(
        np.array([[rows[name]["scores"][lang][metric] for lang in langs] for name in tau]), np.ones(len(langs))
    )
    steps = centred(np.array([[tau[name][lang] for lang in langs] for name in tau]), np.ones(len(langs)))
    across, down = (1.1 * steps.min(), 1.1 * steps.max()), (1.1 * gains.min(), 1.1 * gains.max())
    labels = "closeness: tau less the means of order and language", "points less the means"
    parts, x, y = axes("gain against closeness", across, down, *labels, tick_text)
    ends = [f'x{n}="{x(step):.1f}" y{n}="{y(step * contrast["value"]):.1f}"' for n, step in enumerate(across, 1)]
    parts.append(f'<line {" ".join(ends)} stroke="var(--orange)" stroke-width="2"/>')
    for (c, name), (m, lang) in itertools.product(enumerate(tau), enumerate(langs)):
        own = rows[name]["target"] == lang
        parts.append(
            f'<circle cx="{x(steps[c, m]):.1f}" cy="{y(gains[c, m]):.1f}" r="{5 if own else 3}" stroke="var(--blue)" '
            f'fill="var(--{"blue" if own else "bg"})"><title>{html.escape(name)} on {lang}</title></circle>'
        )
    return "".join([*parts, "</svg>"])


def match_order(original, moved):
    """Return each word's place in the original, equal words taken from left to right; None without one."""
    places = collections.defaultdict(collections.deque)
    for i, word in enumerate(original):
        places[word].append(i)
    return [places[word].popleft() if places[word] else None for word in moved]


def examples(result, count=4, most=2000):
    """Return HTML of training sentences in every order; a word's colour is its place in the English order.

    Of each order they are the first aligner's, taken from the first `most` sentences.
    """
    texts = {}
    for row in result["rows"]:
        if row["order"] not in texts and "+" not in row["order"] and row["order"] not in ("identity", "rdrop"):
            with contextlib.suppress(InputError):  # the training file is gone: the report does without it
                texts[row["order"]] = list(itertools.islice(training_words(result["task"], row["train"]), most))
    original = texts.get("original", [])
    texts = {name: sentences for name, sentences in texts.items() if len(sentences) == len(original)}
    if not original or len(texts) < 2:
        return ""
    fitting = [n for n, words in enumerate(original) if 6 <= len(words) <= 14] or list(range(len(original)))
    fitting.sort(key=lambda n: -len({tuple(sentences[n]) for sentences in texts.values()}))  # stable: the first ones
    parts = []
    for n in fitting[:count]:
        parts.append('<div class="example">')
        for name, sentences in texts.items():
            parts.append(f"<div><b>{html.escape(name)}</b><p>")
            for word, place in zip(sentences[n], match_order(original[n], sentences[n])):
                hue = 210 + 180 * (place or 0) / max(1, len(original[n]) - 1)
                colour = "#eee" if place is None else f"hsl({hue:.0f} 70% 85%)"
                parts.append(f'<span style="background:{colour}">{html.escape(word)}</span> ')
            parts.append("</p></div>")
        parts.append("</div>")
    return "".join(parts)
