"""What is compared with what: the names of conditions, the control of each, and the contrasts that answer the question.

A condition is (order, aligner). The contrasts were named before any run, see docs/methods.md.
"""

import re

from lib.intervals import estimate, family, interval

ALIGNERS = ["none", "pretrained", "separate", "joint", "manual"]  # the order of rows
FIXED = ["original", "identity", "rdrop", "reverse"]  # orders of no language, first in every table
BASELINE = ("original", "none")
NEAR = 0.02  # a control is as far from English as its order where Kendall's tau differs by no more


def condition_name(key):
    """Return a condition's name in tables."""
    return key[0] if key[1] == "none" else f"{key[0]} ({key[1]})"


def aligner_rank(aligner):
    """Return a key that sorts aligners."""
    base = re.split("[+-]", aligner)[0]  # of joint+itermax, another method, and of joint-udpos, tuned on that text
    return (ALIGNERS.index(base) if base in ALIGNERS else len(ALIGNERS)), aligner


def split_order(order):
    """Return (random, language, trained) of an order: hi+both is (False, hi, both), random-hi (True, hi, '')."""
    name, _, trained = order.partition("+")
    return name.startswith("random"), name.removeprefix("random-"), trained


def row_rank(key):
    """Return a key that sorts conditions (order, aligner): the fixed ones, then each language's, its controls last."""
    random, lang, trained = split_order(key[0])
    first = FIXED.index(lang) if lang in FIXED else len(FIXED)
    return first, lang, random, trained, aligner_rank(key[1])


def find_control(key, tau):
    """Return the random control of a condition: of its language and training, its aligner's if there, else the nearest.

    tau: {condition: Kendall's tau or None}. None where there is no control.
    """
    random, lang, trained = split_order(key[0])
    wanted = f"random-{lang}" + ("+" + trained if trained else "")

    def distance(other):
        known = None not in (tau[key], tau[other])
        return other[1] != key[1], abs(tau[key] - tau[other]) if known else 3.0, row_rank(other)

    return min((other for other in tau if not random and other[0] == wanted), key=distance, default=None)


def less(key, other, langs):
    """Return the terms of a condition less another one, the average over languages; see data.intervals.estimate."""
    return [(sign / len(langs), one, lang) for lang in langs for one, sign in ((key, 1), (other, -1))]


def primary_pairs(keys, controls, langs):
    """Return {aligner: {language: (order, control)}}: what primary contrasts are made of, plain orders of languages
    with a dev set, each with its control."""
    found = {}
    for key in keys:
        if key[0] in langs and controls[key]:
            found.setdefault(key[1], {})[key[0]] = key, controls[key]
    return found


def primary_terms(pairs):
    """Return the terms of the primary contrast of an aligner's orders, None for fewer than two languages.

    pairs: {language: (order, control)}. For each language: the order less its control on this language, less the mean
    of the same on the others that are orders too; then the mean over languages.
    """
    terms = []
    for lang, pair in pairs.items():
        others = [other for other in pairs if other != lang]
        if not others:
            return None
        terms += [(weight / len(pairs), *rest) for weight, *rest in less(*pair, [lang])]
        terms += [(-weight / len(pairs), *rest) for weight, *rest in less(*pair, others)]
    return terms or None


def find_contrasts(keys, controls, langs, columns):
    """Return the contrasts, three families of (name, (order, aligner), column, terms); primary has no order and column.

    keys: conditions; controls: {condition: control or None}; langs: languages with a dev set; columns: the averages,
    {name: languages that every run was tested in}.
    """
    orders = [key for key in keys if (parts := split_order(key[0]))[1] in langs and not parts[0]]
    primary, own, average = [], [], []
    for aligner, pairs in primary_pairs(keys, controls, langs).items():
        if terms := primary_terms(pairs):
            primary.append(("primary", (None, aligner), None, terms))
    for title, others in (("own language", dict.fromkeys(keys, BASELINE)), ("own language against control", controls)):
        for key in orders:
            if others[key] in keys:
                lang = split_order(key[0])[1]
                own.append((title, key, lang, less(key, others[key], [lang])))
    averaged = columns.get("mean_not_english", [])
    for key in keys:
        if averaged and BASELINE in keys and key != BASELINE:
            average.append(("average", key, "mean_not_english", less(key, BASELINE, averaged)))
    return [primary, own, average]


def judge(families, cells, clusters):
    """Return the contrasts with their numbers, as results.json lists them; those without a shared seed are left out."""
    rows = []
    for members in families:
        found = [(head, value) for *head, terms in members if (value := estimate(terms, cells, clusters))]
        for ((name, key, column), _), numbers in zip(found, family([value for _, value in found])):
            rows.append({"name": name, "order": key[0], "aligner": key[1], "column": column, **numbers})
    return rows


def differences(key, other, columns, cells, clusters):
    """Return {column: {metric: interval}} of a condition less another one, {} against None and itself.

    columns: {name: the languages that it is the average of}; cells: {metric: data.intervals.estimate's}.
    """
    found = {}
    for column, langs in columns.items() if other not in (None, key) else ():
        values = {name: estimate(less(key, other, langs), part, clusters) for name, part in cells.items()}
        if all(values.values()):
            found[column] = {name: interval(value) for name, value in values.items()}
    return found


def find_gaps(tested, langs, controls, tau):
    """Return sentences on what a reader would miss: seeds, languages, the baseline, controls and their distance.

    tested: {condition: {seed: languages}}.
    """
    gaps = [] if BASELINE in tested else ["There is no run on original English, so nothing is compared with it."]
    for aligner, pairs in primary_pairs(tested, controls, langs).items():
        compared = [tested[key] for pair in pairs.values() for key in pair]
        seeds = [{seed for seed, found in one.items() if {*pairs} <= {*found}} for one in compared]
        if len(pairs) > 1 and not set.intersection(*seeds):
            gaps.append(
                f"There is no primary contrast of {aligner}: it needs a seed with which its orders and their controls "
                f"were all tested in {' '.join(pairs)}."
            )
    every = sorted({seed for seeds in tested.values() for seed in seeds})
    for key, seeds in tested.items():
        name = condition_name(key)
        if absent := ", ".join(str(seed) for seed in every if seed not in seeds):
            gaps.append(f"{name} was not trained with seed {absent}, as others were.")
        if absent := ", ".join(lang for lang in langs if any(lang not in found for found in seeds.values())):
            gaps.append(f"{name} was not tested in {absent} with every seed: no average has this language.")
        random, lang, trained = split_order(key[0])
        if random or lang in FIXED or trained == "both":  # nothing is needed to compare them with
            continue
        control = controls[key]
        if lang not in langs:
            gaps.append(f"{name} has no dev set of its own language.")
        if control is None:
            gaps.append(f"{name} has no random control, so that order cannot be told from disorder.")
        elif None in (tau[key], tau[control]):
            gaps.append(f"How far {name} and its control are from English is unknown: a training file lacks FILE.json.")
        elif abs(tau[key] - tau[control]) > NEAR:
            gaps.append(
                f"The control of {name}, {condition_name(control)}, is not as far from English: "
                f"Kendall's tau {tau[control]:.2f}, not {tau[key]:.2f}."
            )
    return gaps
