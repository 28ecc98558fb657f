"""Confidence intervals of differences between trainings, for chance in training and for the choice of dev examples.

A score is a ratio of sums over the examples of a dev set (runs.metric_ratios). A contrast is a weighted sum of the
scores of conditions in languages, the mean over the S seeds that all its conditions share. Its interval is

    value +- sqrt((t(df) T)^2 + (1.96 E)^2)

T: standard error of chance in training, from the deviations of all conditions; E: that of the choice of examples. See
docs/methods.md. Two intervals of independent errors add up in squares: the method of variance estimates recovery (Howe
1974, JASA 69:789-794; Zou and Donner 2008, Statistics in Medicine 27:1693-1702).
"""

import functools
import math
from statistics import NormalDist

import numpy as np

LEVEL = 0.05  # 95 % intervals
POWER = 0.8
NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)


# ---- distributions ---------------------------------------------------------------------------------------


@functools.lru_cache
def angle_integral(low, df, top):
    """Return the integral of sin(angle)^(top - 1) cos(angle)^(df - 1) above `low`, over 12 widths of it at most."""
    half = min(math.pi / 2 - low, 12 / math.sqrt(df)) / 2
    angles = low + half * (1 + NODES)
    return half * float(WEIGHTS @ (np.sin(angles) ** (top - 1) * np.cos(angles) ** (df - 1)))


def tail(angle, df, top=1):
    """Return P(|T| > sqrt(df) tan(angle)) of Student's t with df degrees of freedom; P(F > df / top tan(angle)^2) of
    Fisher's F with `top` and df. The integrand is the density of the angle (Abramowitz and Stegun 26.6.2, 26.7).
    """
    return angle_integral(angle, df, top) / angle_integral(0.0, df, top)


def bisect(too_low, low, high):
    """Return the number between low and high below which `too_low(number)` holds."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return low


@functools.lru_cache
def student_quantile(level, df):
    """Return t with P(|T| > t) = level."""
    return math.sqrt(df) * math.tan(bisect(lambda angle: tail(angle, df) > level, 0.0, math.pi / 2))


def normal_quantile(level):
    """Return z with P(|Z| > z) = level."""
    return -NormalDist().inv_cdf(level / 2)


def trigamma(x):
    """Return the variance of the logarithm of a gamma variable of shape x."""
    return float((1 / (x + np.arange(200)) ** 2).sum()) + 1 / (x + 199.5)


# ---- a contrast and its two kinds of chance ---------------------------------------------------------------


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


def pool_deviations(cells, langs):
    """Return (Sigma, its degrees of freedom, {condition: (squares, share, degrees)}) of all runs tested in `langs`.

    cells: see estimator. Sigma: (languages, languages), the covariance of what condition and seed leave of the scores.
    Of conditions with two seeds or more that others have too: their part of the sums of squares, (languages,); their
    share of the degrees of freedom; and the degrees of freedom of their variance, one less than these seeds.
    """
    runs = [(key, seed) for key, lang in cells if lang == langs[0] for seed in cells[key, lang]]
    runs = [(key, seed) for key, seed in runs if all(seed in cells.get((key, lang), ()) for lang in langs)]
    scores = np.array([[cells[key, lang][seed][0] for lang in langs] for key, seed in runs]).reshape(-1, len(langs))
    names = [*dict.fromkeys(key for key, _ in runs), *dict.fromkeys(("seed", seed) for _, seed in runs)]
    design = np.array([[name in (key, ("seed", seed)) for name in names] for key, seed in runs], float)
    left = np.eye(len(runs)) - design @ np.linalg.pinv(design) if runs else np.zeros((0, 0))  # a projection
    df, rest = round(np.trace(left)), left @ scores
    parts = {}
    for key in dict.fromkeys(key for key, _ in runs):
        rows = [n for n, run in enumerate(runs) if run[0] == key and left[n, n] > 1e-9]  # seeds of others too
        if len(rows) > 1:
            parts[key] = (rest[rows] ** 2).sum(0), left[rows, rows].sum(), len(rows) - 1
    return rest.T @ rest / max(df, 1), df, parts


def prior_df(pools):
    """Return d0, the degrees of freedom of the prior that the conditions' variances are drawn from (Smyth 2004).

    pools: pool_deviations' of each language. By chance alone the logarithm of a variance of d degrees has the variance
    trigamma(d / 2); the excess of it, a mean over languages, is trigamma(d0 / 2). A variance below a thousandth of the
    pooled one, as equal scores of few examples have, counts as that.
    """
    excess = []
    for covariance, _, parts in pools:
        logs = []
        for squares, share, degrees in parts.values():
            variance = max(float(squares[0]) / share, 1e-3 * float(covariance[0, 0]), 1e-300)
            digamma = (math.lgamma(degrees / 2 + 1e-4) - math.lgamma(degrees / 2 - 1e-4)) / 2e-4
            logs.append(math.log(variance) - digamma + math.log(degrees / 2))
        if len(logs) > 2:
            excess.append(np.var(logs, ddof=1) - np.mean([trigamma(degrees / 2) for *_, degrees in parts.values()]))
    most = float(np.mean(excess)) if excess else 0.0
    return 2 * bisect(lambda half: trigamma(half) > most, 1e-3, 1e4) if most > 1e-4 else math.inf


def find_uneven(cells):
    """Return [(condition, language, its deviation between seeds, the others', p)] where it is above the others'.

    A condition's variance is compared with what it leaves of the pooled one by Fisher's F; p is multiplied by the
    number of comparisons (as Cochran 1941, Annals of Eugenics 11:47-52). Those with p below LEVEL are returned.
    """
    found = []
    for lang in dict.fromkeys(lang for _, lang in cells):
        covariance, df, parts = pool_deviations(cells, [lang])
        for key, (squares, share, degrees) in parts.items():
            own, others = degrees * squares[0] / share, df * covariance[0, 0] - degrees * squares[0] / share
            if df - degrees >= 10 and others > 0:  # scores of few runs can be equal by chance
                p = tail(math.atan(math.sqrt(own / others)), df - degrees, degrees)
                found.append((key, lang, math.sqrt(own / degrees), math.sqrt(others / (df - degrees)), p))
    return [(*rest, len(found) * p) for *rest, p in found if len(found) * p < LEVEL]


def estimator(cells, clusters):
    """Return the function that estimates a contrast from its terms, [(weight, condition, language)].

    cells: {(condition, language): {seed: score_with_influence's}}; clusters: {language: (examples,)}, one numbering
    for all languages, so that translations of each other are one cluster. The function returns {'value', 'seeds', 'df',
    'training': T, 'examples': E}, None without a shared seed; T is None if no run repeats another, E of one cluster.
    """
    pooled = functools.cache(lambda langs: pool_deviations(cells, langs)[:2])
    prior = prior_df([pool_deviations(cells, [lang]) for lang in dict.fromkeys(lang for _, lang in cells)])

    def estimate(terms):
        seeds = sorted(set.intersection(*(set(cells.get((key, lang), ())) for _, key, lang in terms)))
        if not seeds:
            return None
        values = [sum(weight * cells[key, lang][seed][0] for weight, key, lang in terms) for seed in seeds]
        langs, count = tuple(sorted({lang for *_, lang in terms})), len(seeds)
        weights, influence = {}, {}
        for weight, key, lang in terms:
            weights[key] = weights.get(key, 0.0) + weight * np.array([one == lang for one in langs])
            change = weight * np.array([cells[key, lang][seed][1] for seed in seeds])
            influence[lang] = influence.get(lang, 0.0) + change  # (seeds, examples)

        covariance, df = pooled(langs)
        variance, degrees = sum(one @ covariance @ one for one in weights.values()), count - 1
        if prior < math.inf and degrees:
            variance = (prior * variance + degrees * np.var(values, ddof=1)) / (prior + degrees)
        numbers = np.concatenate([clusters[lang] for lang in influence])
        summed = np.array([np.bincount(numbers, one) for one in np.concatenate([*influence.values()], axis=1)])
        product = (summed.sum(0) ** 2).sum() - (summed**2).sum() if degrees else (summed**2).sum()
        shared = float(product) / (count * degrees or 1)
        return {
            "value": float(np.mean(values)), "seeds": count, "df": min(df, max(1, prior + degrees)),
            "training": math.sqrt(variance / count) if df else None,
            "examples": math.sqrt(max(shared, 0.0)) if math.isfinite(shared) else None,
        }  # fmt: skip

    return estimate


def known(found):
    """Return whether an estimate has an interval: both kinds of chance are known."""
    return None not in (found["training"], found["examples"])


def interval(found):
    """Return {'value', 'low', 'high'} of an estimate; low and high are None where it has no interval."""
    if not known(found):
        return {"value": found["value"], "low": None, "high": None}
    t, z = student_quantile(LEVEL, found["df"]), normal_quantile(LEVEL)
    half = math.hypot(t * found["training"], z * found["examples"])
    return {"value": found["value"], "low": found["value"] - half, "high": found["value"] + half}


def p_value(found):
    """Return the level at which the interval of an estimate ends at 0: p < 0.05 says what the 95 % interval says."""
    df, value = found["df"], abs(found["value"])

    def inside(angle):
        t = math.sqrt(df) * math.tan(angle) * found["training"]
        return math.hypot(t, normal_quantile(max(tail(angle, df), 1e-300)) * found["examples"]) < value

    return tail(bisect(inside, 0.0, math.pi / 2), df)


def detectable(found, level=LEVEL):
    """Return the minimum detectable difference: the true one whose interval of this level excludes 0 in 80 % of cases.

    Of each error t(level) + t(power) standard errors (Bloom 1995, Evaluation Review 19:547-556), added in squares. A
    deviation of few degrees of freedom is too small on average, by the factor c4 of quality control, and is divided by
    it.
    """
    df, missed = found["df"], 2 * (1 - POWER)
    c4 = math.sqrt(2 / df) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))
    width = student_quantile(level, df) + student_quantile(missed, df)
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
    """Return estimates that are judged together with 'low', 'high', 'p', 'p_adjusted' and 'detectable' added.

    p_adjusted is Holm's; 'detectable' is at the level of Holm's first step, 5 % divided by their number. All of these
    are None where there is no interval.
    """
    tested = [found for found in estimates if known(found)]
    values = [found.get("p_languages") or p_value(found) for found in tested]  # closeness has its own p
    adjusted, rows = iter(zip(values, holm(values))), []
    for found in estimates:
        p, p_adjusted = next(adjusted) if known(found) else (None, None)
        least = detectable(found, LEVEL / len(tested)) if known(found) else None
        rows.append({**found, **interval(found), "p": p, "p_adjusted": p_adjusted, "detectable": least})
    return rows
