"""Confidence intervals of differences between trainings, for chance in training and for the choice of dev examples.

A score is a ratio of sums over the examples of a dev set (runs.metric_ratios). A contrast is a weighted sum
of the scores of conditions in languages. Each seed that all its conditions share gives one value of it, and the
interval is

    value +- sqrt((t(S-1) SD / sqrt(S))^2 + (1.96 SE)^2)

SD: of the S seeds' values, each seed's weighted sum first; t: Student's. It is chance in training. SE: standard error
of the mean over seeds by the choice of examples. Two intervals of independent errors add up in squares: the method of
variance estimates recovery (Howe 1974, JASA 69:789-794; Zou and Donner 2008, Statistics in Medicine 27:1693-1702).
"""

import functools
import math
from statistics import NormalDist

import numpy as np

LEVEL = 0.05  # 95 % intervals
POWER = 0.8
NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)


def student_tail(angle, df):
    """Return P(|T| > sqrt(df) tan(angle)) for Student's t with df degrees of freedom.

    With t = sqrt(df) tan(angle) the density is proportional to cos(angle)^(df - 1) (Abramowitz and Stegun 26.7).
    """

    def integral(low):
        half = (math.pi / 2 - low) / 2
        return half * float(WEIGHTS @ np.cos(low + half * (1 + NODES)) ** (df - 1))

    return integral(angle) / integral(0.0)


def bisect_angle(too_low):
    """Return the angle between 0 and a quarter turn below which `too_low(angle)` holds."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return low


@functools.lru_cache
def student_quantile(level, df):
    """Return t with P(|T| > t) = level."""
    return math.sqrt(df) * math.tan(bisect_angle(lambda angle: student_tail(angle, df) > level))


def normal_quantile(level):
    """Return z with P(|Z| > z) = level."""
    return -NormalDist().inv_cdf(level / 2)


def score_with_influence(numerator, denominator, clusters):
    """Return the ratio of two sums over examples and the influence of each example on it, (examples,).

    numerator, denominator, clusters: (examples,); clusters holds the number of each example's cluster. The variance of
    the ratio is the sum of squares of the clusters' summed influences: linearisation, as for the ratio estimate of
    cluster samples (Cochran 1977, Sampling Techniques, 3rd edition, chapters 6 and 9A), with the G / (G - 1) of a
    variance of G clusters.
    """
    score = numerator.sum() / denominator.sum()
    groups = len(np.unique(clusters))
    factor = math.sqrt(groups / (groups - 1)) if groups > 1 else math.nan
    return float(score), (numerator - score * denominator) / denominator.sum() * factor


def estimate(terms, cells, clusters):
    """Return a contrast as {'value', 'seeds', 'training', 'examples'}; None where its conditions share no seed.

    terms: [(weight, condition, language)]; cells: {(condition, language): {seed: score_with_influence's}}; clusters:
    {language: (examples,)}, one numbering for all languages, so that translations of each other are one cluster.
    'training' and 'examples' are the standard errors of the two kinds of chance; 'training' is None for one seed.
    """
    seeds = sorted(set.intersection(*(set(cells.get((key, lang), ())) for _, key, lang in terms)))
    if not seeds:
        return None
    values = [sum(weight * cells[key, lang][seed][0] for weight, key, lang in terms) for seed in seeds]
    influence = {}
    for weight, key, lang in terms:
        change = weight * np.mean([cells[key, lang][seed][1] for seed in seeds], axis=0)
        influence[lang] = influence.get(lang, 0.0) + change
    summed = np.bincount(np.concatenate([clusters[lang] for lang in influence]), np.concatenate([*influence.values()]))
    return {
        "value": float(np.mean(values)),
        "seeds": len(values),
        "training": float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None,
        "examples": float(np.sqrt(summed @ summed)),
    }


def known(found):
    """Return whether an estimate has an interval: from two seeds and two clusters on."""
    return found["training"] is not None and math.isfinite(found["examples"])


def interval(found):
    """Return {'value', 'low', 'high'} of an estimate; low and high are None where it has no interval."""
    if not known(found):
        return {"value": found["value"], "low": None, "high": None}
    t, z = student_quantile(LEVEL, found["seeds"] - 1), normal_quantile(LEVEL)
    half = math.hypot(t * found["training"], z * found["examples"])
    return {"value": found["value"], "low": found["value"] - half, "high": found["value"] + half}


def p_value(found):
    """Return the level at which the interval of an estimate ends at 0: p < 0.05 says what the 95 % interval says."""
    df, value = found["seeds"] - 1, abs(found["value"])

    def inside(angle):
        t = math.sqrt(df) * math.tan(angle) * found["training"]
        return math.hypot(t, normal_quantile(max(student_tail(angle, df), 1e-300)) * found["examples"]) < value

    if not found["training"] and not found["examples"]:
        return float(value == 0)
    return student_tail(bisect_angle(inside), df)


def detectable(found, level=LEVEL):
    """Return the minimum detectable difference: the true one whose interval of this level excludes 0 in 80 % of cases.

    Of each error t(level) + t(power) standard errors (Bloom 1995, Evaluation Review 19:547-556), added in squares. A
    deviation of few values is too small on average, by the factor c4 of quality control, and is divided by it.
    """
    seeds, missed = found["seeds"], 2 * (1 - POWER)
    c4 = math.sqrt(2 / (seeds - 1)) * math.exp(math.lgamma(seeds / 2) - math.lgamma((seeds - 1) / 2))
    width = student_quantile(level, seeds - 1) + student_quantile(missed, seeds - 1)
    examples = (normal_quantile(level) + normal_quantile(missed)) * found["examples"]
    return math.hypot(width * found["training"] / c4, examples)


def holm(values):
    """Return the p values adjusted for their number (Holm 1979, Scandinavian Journal of Statistics 6:65-70)."""
    order, adjusted, largest = sorted(range(len(values)), key=values.__getitem__), [1.0] * len(values), 0.0
    for rank, n in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[n]))
        adjusted[n] = largest
    return adjusted


def family(estimates):
    """Return {'value', 'low', 'high', 'p', 'p_adjusted', 'detectable', 'seeds'} of contrasts that are judged together.

    p_adjusted is Holm's; 'detectable' is at the level of Holm's first step, 5 % divided by their number. All but value
    and seeds are None where there is no interval.
    """
    tested = [found for found in estimates if known(found)]
    values = [p_value(found) for found in tested]
    adjusted, rows = iter(zip(values, holm(values))), []
    for found in estimates:
        p, p_adjusted = next(adjusted) if known(found) else (None, None)
        least = detectable(found, LEVEL / len(tested)) if known(found) else None
        rows.append({**interval(found), "p": p, "p_adjusted": p_adjusted, "detectable": least, "seeds": found["seeds"]})
    return rows
