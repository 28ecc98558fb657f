"""What is compared with what: the names of conditions, the control of each, and the contrasts that answer the question.

A condition is (order, aligner). The contrasts were named before any run, see docs/methods.md.
"""

import re

from evaluation.intervals import family, interval

ALIGNERS = ["none", "pretrained", "separate", "joint", "manual"]  # the order of rows
NAMES = (
    "primary",
    "function words",
    "closeness",
    "all orders",
    "all random orders",
    "own language",
    "own language against control",
    "average",
    "function words of one order",
)
FIXED = ["original", "identity", "rdrop", "reverse"]  # orders of no language, first in every table
BASELINE = ("original", "none")
# Random orders whose Kendall's tau differs by 0.4 differ by 0.4 points in tagging and by 1.1 in XNLI (docs/results.md).
# So 0.1 of tau is 0.1 to 0.3 points, less than any minimum detectable difference there.
FAR = 0.1
ALIGNED = 1 / 3  # with fewer words aligned, an order is hardly its translation's: other words go with their neighbours


def condition_name(key):
    """Return a condition's name in tables."""
    return key[0] if key[1] == "none" else f"{key[0]} ({key[1]})"


def aligner_rank(aligner):
    """Return a key that sorts aligners."""
    base = re.split("[+-]", aligner)[0]  # of joint+itermax, another method, and of joint-udpos, tuned on that text
    return (ALIGNERS.index(base) if base in ALIGNERS else len(ALIGNERS)), aligner


def split_order(order):
    """Return (random, language, suffix) of an order: hi+both is (False, hi, both), random-hi (True, hi, '')."""
    name, _, suffix = order.partition("+")
    return name.startswith("random"), name.removeprefix("random-"), suffix


def row_rank(key):
    """Return a key that sorts conditions (order, aligner): the fixed ones, then each language's, its controls last."""
    random, lang, suffix = split_order(key[0])
    first = FIXED.index(lang) if lang in FIXED else len(FIXED)
    return first, lang, random, suffix, aligner_rank(key[1])


def find_control(key, tau):
    """Return the random control of a condition, None without one: its aligner's, else the one of the nearest tau.

    tau: {condition: Kendall's tau or None}.
    """

    def distance(other):
        known = None not in (tau[key], tau[other])
        return other[1] != key[1], abs(tau[key] - tau[other]) if known else 3.0, row_rank(other)

    return min((other for other in tau if other[0] == f"random-{key[0]}"), key=distance, default=None)


def less(key, other, langs):
    """Return the terms of a condition minus another one, averaged over languages; see intervals.estimator."""
    return [(sign / len(langs), one, lang) for lang in langs for one, sign in ((key, 1), (other, -1))]


def primary_pairs(keys, controls, langs):
    """Return {aligner: {language: (condition, control)}} of the primary contrasts: orders without a suffix, of two or
    more languages with dev sets, each with its control."""
    found = {}
    for key in keys:
        if key[0] in langs and controls[key]:
            found.setdefault(key[1], {})[key[0]] = key, controls[key]
    return {aligner: pairs for aligner, pairs in found.items() if len(pairs) > 1}


def primary_terms(pairs):
    """Return the terms of the primary contrast of an aligner's orders, {language: (condition, control)}.

    For each language: order minus control on this language, minus the mean of the same on the other languages that have
    orders; then the mean over languages.
    """
    terms = []
    for lang, pair in pairs.items():
        for sign, langs in ((1, [lang]), (-1, [other for other in pairs if other != lang])):
            terms += [(sign * weight / len(pairs), *rest) for weight, *rest in less(*pair, langs)]
    return terms


def overall_terms(keys, controls, averaged):
    """Return [(name, aligner, terms)] of what all orders of an aligner and all their controls cost on the average.

    Orders are those of languages, without suffix; controls that several aligners share count once.
    """
    found = {}
    for aligner in dict.fromkeys(key[1] for key in keys):
        orders = [key for key in keys if key[1] == aligner and split_order(key[0])[::2] == (False, "")]
        orders = [key for key in orders if key[0] not in FIXED]
        random = dict.fromkeys(controls[key] for key in orders if controls[key])
        for name, some in (("all orders", orders), ("all random orders", random)):
            terms = [(weight / len(some), *rest) for key in some for weight, *rest in less(key, BASELINE, averaged)]
            found.setdefault((name, *some), (name, aligner, terms))
    return [one for one in found.values() if one[2]]


def find_contrasts(keys, controls, langs, averaged, estimate, by_tag=((), ())):
    """Return the contrasts with their numbers, as results.json lists them, but those without a shared seed.

    keys: conditions; controls: {condition: control or None}; langs: languages with a dev set; averaged: those of the
    average; estimate: see intervals.estimator; by_tag: [(name, key, column, estimate)] of the primary family and of
    another one. The first ones have no order, and the primary ones no column.
    """
    pairs, own, average = primary_pairs(keys, controls, langs), [], []
    primary = [("primary", (None, aligner), None, primary_terms(found)) for aligner, found in pairs.items()]
    compared = overall_terms(keys, controls, averaged) if averaged and BASELINE in keys else []
    overall = [(name, (None, aligner), "mean_not_english", terms) for name, aligner, terms in compared]
    for title, others in (("own language", dict.fromkeys(keys, BASELINE)), ("own language against control", controls)):
        for key in keys:
            random, lang, _ = split_order(key[0])
            if lang in langs and not random and others[key] in keys:
                own.append((title, key, lang, less(key, others[key], [lang])))
    for key in keys:
        if averaged and BASELINE in keys and key != BASELINE:
            average.append(("average", key, "mean_not_english", less(key, BASELINE, averaged)))
    rows = []
    for members, more in ((primary, by_tag[0]), (overall, ()), (own, ()), (average, ()), ((), by_tag[1])):
        found = [(head, value) for *head, terms in members if (value := estimate(terms))]  # each is judged together
        found += [(head, value) for *head, value in more]
        for ((name, key, column), _), numbers in zip(found, family([value for _, value in found])):
            rows.append({"name": name, "order": key[0], "aligner": key[1], "column": column, **numbers})
    return sorted(rows, key=lambda row: NAMES.index(row["name"]))


def differences(key, other, columns, estimates):
    """Return {column: {metric: interval}} of a condition minus another one, {} against None and itself.

    columns: {name: the languages that it averages}; estimates: {metric: see intervals.estimator}.
    """
    found = {}
    for column, langs in columns.items() if other not in (None, key) else ():
        values = {name: estimate(less(key, other, langs)) for name, estimate in estimates.items()}
        if all(values.values()):
            found[column] = {name: interval(value) for name, value in values.items()}
    return found


def find_gaps(tested, langs, controls, statistics):
    """Return sentences on what a reader would miss: seeds, languages, the baseline, links, controls.

    tested: {condition: {seed: languages}}; statistics: {condition: runs.read_statistics'}.
    """
    gaps = [] if BASELINE in tested else ["There is no run on original English, so nothing is compared with it."]
    for aligner, pairs in primary_pairs(tested, controls, langs).items():
        compared = [tested[key] for pair in pairs.values() for key in pair]
        seeds = [{seed for seed, found in one.items() if {*pairs} <= {*found}} for one in compared]
        if not set.intersection(*seeds):
            wanted = f"a seed with which its orders and their controls were all tested in {' '.join(pairs)}"
            gaps.append(f"There is no primary contrast of {aligner}: it needs {wanted}.")
    every = sorted({seed for seeds in tested.values() for seed in seeds})
    for key, seeds in tested.items():
        name = condition_name(key)
        if absent := ", ".join(str(seed) for seed in every if seed not in seeds):
            gaps.append(f"{name} was not trained with seed {absent}, as others were.")
        if absent := ", ".join(lang for lang in langs if any(lang not in found for found in seeds.values())):
            gaps.append(f"{name} was not tested in {absent} with every seed: no average has this language.")
        random, lang, _ = split_order(key[0])
        if not random and lang not in FIXED:
            gaps += [f"{name} {said}." for said in order_gaps(key, langs, controls[key], statistics)]
    return gaps


def order_gaps(key, langs, control, statistics):
    """Yield what the condition of a language's order lacks, without its name. control: a condition or None."""
    _, lang, suffix = split_order(key[0])
    found, other = statistics[key], statistics.get(control)
    if found and found["aligned"] < ALIGNED:
        percent = f"{100 * found['aligned']:.1f} % of its words aligned"
        yield f"has only {percent}, so it says little about the word order of its translation"
    if lang not in langs:
        yield "has no dev set of its own language"
    if suffix == "both":  # is compared with original English alone
        return
    if control is None:
        yield f"has no control, random-{key[0]}, so the effect of its order cannot be told from that of disorder"
    elif not (found and other):
        yield "or its control has an unknown Kendall's tau: FILE.json is missing beside a training file"
    elif abs(found["kendall_tau"] - other["kendall_tau"]) > FAR:
        taus = f"{found['kendall_tau']:.2f}, but its control, {condition_name(control)}, of {other['kendall_tau']:.2f}"
        yield f"has a Kendall's tau of {taus}, so a difference between them is partly one of disorder"
