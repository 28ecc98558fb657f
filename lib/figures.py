"""The pictures of the report, HTML and SVG without outside parts: the contrasts, effect against distance, examples."""

import collections
import html
import itertools
import math

from data.cli import InputError
from data.tasks import training_words
from lib.contrasts import condition_name, split_order

LEVEL = 0.05
COLOURS = {
    "primary": "#222222",
    "own language": "#1f5f9e",
    "own language against control": "#c2571a",
    "average": "#7b818a",
}
LEGENDS = {
    "primary": "primary: own language more than the others, each against its random order",
    "own language": "own language, against original English",
    "own language against control": "own language, against its random order",
    "average": "average of the other languages than English, against original English",
}


def row_name(row):
    """Return the name of a row's condition."""
    return condition_name((row["order"], row["aligner"]))


def clear(contrast):
    """Return whether a contrast differs from 0 by its adjusted p value."""
    return contrast["p_adjusted"] is not None and contrast["p_adjusted"] < LEVEL


def points(entry):
    """Return a difference with half its interval as text, in percentage points."""
    half = "" if entry["low"] is None else f" ± {100 * (entry['high'] - entry['low']) / 2:.1f}"
    return f"{100 * entry['value']:+.1f}{half}"


def ticks(low, high, most=6):
    """Return round numbers between low and high, at most `most` and 0 among them where it lies between."""
    width = (high - low) / most
    power = 10.0 ** math.floor(math.log10(width))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= width)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick_text(value):
    """Return a number beside an axis as text."""
    return f"{value:+.3g}" if value else "0"


def extent(entries, pad=0.06):
    """Return (low, high) that hold all intervals and 0, with a margin."""
    values = [0.0] + [entry[name] for entry in entries for name in ("value", "low", "high") if entry[name] is not None]
    low, high = min(values), max(values)
    margin = (high - low or 0.02) * pad
    return low - margin, high + margin


# ---- forest plot ----------------------------------------------------------------------------------------


def forest_plot(contrasts):
    """Return HTML, a line for each contrast: its name, its interval on a common axis, its numbers."""
    if not contrasts:
        return ""
    low, high = extent(contrasts)

    def x(value):
        return f"{100 * (value - low) / (high - low):.2f}%"

    grid = "".join(f'<line x1="{x(tick)}" x2="{x(tick)}" y1="0" y2="100%" class="grid"/>' for tick in ticks(low, high))
    grid += f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="100%" class="zero"/>'
    parts = ['<div class="forest">']
    for name, group in itertools.groupby(contrasts, key=lambda contrast: contrast["name"]):
        parts.append(f'<h4 style="color:{COLOURS[name]}">{LEGENDS[name]}</h4>')
        for entry in group:
            label = f"all orders ({entry['aligner']})" if entry["order"] is None else row_name(entry)
            if entry["column"] in (None, "mean", "mean_not_english"):
                where = ""
            else:
                where = f" on {entry['column']}"
            colour = COLOURS[name]
            bar = ""
            if entry["low"] is not None:
                bar = f'<line x1="{x(entry["low"])}" x2="{x(entry["high"])}" y1="50%" y2="50%" class="bar"/>'
            fill = colour if clear(entry) else "#fff"
            parts.append(
                f"<div><span>{html.escape(label + where)}</span>"
                f'<svg height="20" style="stroke:{colour}">{grid}{bar}'
                f'<circle cx="{x(entry["value"])}" cy="50%" r="4.5" fill="{fill}" stroke-width="2"/></svg>'
                f"<small>{points(entry)}{'*' if clear(entry) else ''}</small></div>"
            )
    axis = "".join(
        f'<text x="{x(tick)}" y="14" text-anchor="middle">{tick_text(100 * tick)}</text>' for tick in ticks(low, high)
    )
    parts.append(f'<div class="axis"><span></span><svg height="20">{axis}</svg><small>points</small></div></div>')
    return "".join(parts)


# ---- effect against distance ----------------------------------------------------------------------------


WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 430, 330, 46, 44, 10, 12  # of the picture and its margins
SHIFT = {"order": -3, "random": 3, "other": 0}  # side by side where tau is the same


def tau_points(result):
    """Return [(tau, interval, kind, name, label)] of conditions with known distance; kind: order, random or other.

    The difference is from original English, of an order and its control on its language, of the others on the average.
    """
    found, metric = [], result["metric"]
    for row in result["rows"]:
        random, lang, trained = split_order(row["order"])
        tau = row["statistics"].get("kendall_tau")
        column = lang if lang in result["languages"] else "mean_not_english"
        if tau is None or trained or column not in row["difference"]:
            continue
        kind = "other" if column != lang else "random" if random else "order"
        label = row["order"] if kind == "other" else lang
        found.append((tau, row["difference"][column][metric], kind, row_name(row), label))
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
    low, high = extent([entry for _, entry, *_ in found])
    near = min(min(tau for tau, *_ in found), 0.9)
    near, far = near - 0.08 * (1 - near), 1 + 0.04 * (1 - near)

    def x(tau):
        return LEFT + (tau - near) / (far - near) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg class="tau" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="effect against Kendall\'s tau">'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">Kendall\'s tau to English order</text>'
        f'<text transform="translate(11 {TOP}) rotate(-90)" text-anchor="end">points against original English</text>'
    ]
    for tick in ticks(low, high):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
            f'class="{"grid" if tick else "zero"}"/>'
            f'<text x="{LEFT - 5}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick_text(100 * tick)}</text>'
        )
    for tick in ticks(near, far, 5):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{tick:.3g}</text>')
    places = [(x(tau) + SHIFT[kind], y(entry["value"])) for tau, entry, kind, *_ in found]
    taken, labels = [(*place, 6) for place in places], {}  # one label for all the aligners of an order
    for (at, down), (tau, entry, kind, name, label) in zip(places, found):
        colour = {"order": COLOURS["own language"], "random": COLOURS["own language against control"]}.get(kind, "#555")
        side = 1 if kind == "random" or kind == "other" and tau < (near + far) / 2 else -1
        if entry["low"] is not None:
            ends = f'y1="{y(entry["low"]):.1f}" y2="{y(entry["high"]):.1f}"'
            parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" {ends} stroke="{colour}" opacity=".35" stroke-width="2"/>')
        parts.append(
            f'<circle cx="{at:.1f}" cy="{down:.1f}" r="5" fill="{"#fff" if kind == "random" else colour}" '
            f'stroke="{colour}" stroke-width="2"><title>{html.escape(name)}: tau {tau:.2f}, {points(entry)}</title>'
            "</circle>"
        )
        if (kind, label) not in labels:
            middle, lower = free_place(at, down, 3.5 * len(label), side, taken)
            place = f'x="{middle:.1f}" y="{lower + 4:.1f}" text-anchor="middle"'
            labels[kind, label] = f"<text {place}>{html.escape(label)}</text>"
    parts += labels.values()
    return "".join(parts) + "</svg>"


# ---- examples ------------------------------------------------------------------------------------------


def match_order(original, moved):
    """Return each word's place in the original, equal words taken from left to right; None without one."""
    places = collections.defaultdict(collections.deque)
    for i, word in enumerate(original):
        places[word].append(i)
    return [places[word].popleft() if places[word] else None for word in moved]


def example_sentences(result, most=2000):
    """Return {order: words of each training sentence}, of each order the first aligner's."""
    texts = {}
    for row in result["rows"]:
        if row["order"] in texts or "+" in row["order"] or row["order"] in ("identity", "rdrop"):
            continue
        try:
            texts[row["order"]] = list(itertools.islice(training_words(result["task"], row["train"]), most))
        except InputError:  # the training file is gone: the report does without it
            continue
    length = len(texts.get("original", ()))
    return {name: sentences for name, sentences in texts.items() if len(sentences) == length}


def examples(result, count=4):
    """Return HTML of training sentences in every order; a word's colour is its place in the English order."""
    texts = example_sentences(result)
    if "original" not in texts or len(texts) < 2:
        return ""
    original = texts["original"]
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
