"""Paired statistics over patients: arrays in, point and interval out, randomness as an argument.

Every function takes ``differences``, shape (n,): one number a patient, arm A's score minus arm B's, already averaged
over seeds. Slices, epochs and seeds never count as patients.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

EXACT_UP_TO = 2**14  # sign patterns that are enumerated rather than drawn
CHUNK = 2**20  # numbers that resampling holds at a time: 8 MiB
TIE = 1e-12  # scores lie in [0, 1]: smaller differences are rounding
NORMAL = NormalDist()


class Interval(NamedTuple):
    """A mean and its interval, in the units of the differences."""

    effect: float
    low: float
    high: float


def bootstrap_mean(
    differences: ArrayLike, rng: np.random.Generator, draws: int = 10_000, level: float = 0.95
) -> Interval:
    """Mean with its BCa bootstrap interval over patients (Efron 1987, JASA 82:171, acceleration by the jackknife).

    Where BCa is undefined (all differences equal, fewer than 3 patients, every resample on one side of the mean) the
    interval is the percentile one. One patient has no interval (NaN); no patient has no mean either.
    """
    values = _checked(differences)
    if len(values) < 2:
        return Interval(float(values[0]) if len(values) else math.nan, math.nan, math.nan)
    effect = float(values.mean())
    if np.ptp(values) < TIE:
        return Interval(effect, effect, effect)
    means = _resampled_means(values, rng, draws)
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(means, _bca_tails(values, means, tails) or tails)
    return Interval(effect, float(low), float(high))


def _resampled_means(values: Floats, rng: np.random.Generator, draws: int) -> Floats:
    """(draws,) means of resamples of the patients with replacement."""
    step = max(1, CHUNK // len(values))
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    return np.concatenate([values[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes])


def _bca_tails(values: Floats, means: Floats, tails: tuple[float, float]) -> tuple[float, float] | None:
    """The quantiles of the resampled means that BCa reads instead of ``tails``; None where it is undefined."""
    centre = values.mean()
    below = float(np.mean(means < centre - TIE) + np.mean(np.abs(means - centre) <= TIE) / 2)
    deviations = values - centre  # the jackknife's, but for a factor that cancels in the acceleration
    if len(values) < 3 or not 0 < below < 1:
        return None
    bias = NORMAL.inv_cdf(below)
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))

    def shifted(tail: float) -> float:
        z = bias + NORMAL.inv_cdf(tail)
        return NORMAL.cdf(bias + z / (1 - acceleration * z))

    low, high = shifted(tails[0]), shifted(tails[1])
    return (low, high) if low < high else None


def sign_flip_p(differences: ArrayLike, rng: np.random.Generator, draws: int = 10_000) -> float:
    """Two-sided p of the mean: how often random signs move it at least as far from 0 as the data do.

    All 2**n sign patterns while there are at most 2**14, else ``draws`` random ones and (hits + 1) / (draws + 1)
    (Phipson & Smyth 2010), so p is never 0. Without patients there is no evidence: p = 1.
    """
    values = _checked(differences)
    n = len(values)
    if n == 0:
        return 1.0
    bound = abs(values.sum()) - TIE * max(1.0, float(np.abs(values).sum()))
    if 2**n <= EXACT_UP_TO:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= bound))
    step = max(1, CHUNK // n)
    hits = 0
    for start in range(0, draws, step):
        signs = rng.integers(2, size=(min(step, draws - start), n), dtype=np.int8)
        hits += int((np.abs((2.0 * signs - 1.0) @ values) >= bound).sum())
    return (hits + 1) / (draws + 1)


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979, Scand J Stat 6:65), in the order given, capped at 1."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, p[index] * (len(p) - rank)))
        adjusted[index] = largest
    return adjusted


def superiority(differences: ArrayLike) -> float:
    """P(A > B): the share of patients whom A serves better, ties counting half; NaN without patients."""
    values = _checked(differences)
    if len(values) == 0:
        return math.nan
    return float(np.mean(values > TIE) + np.mean(np.abs(values) <= TIE) / 2)


def patients_needed(
    differences: ArrayLike, margin: float, level: float = 0.95, power: float = 0.8, claims: int = 1
) -> int | None:
    """About how many patients would settle it, if mean and spread stay as they are.

    The smaller of two numbers by the normal approximation, each with the stated power: at which the interval excludes
    0 (at 1 - (1 - level) / claims, since p is adjusted for that many claims), and at which it fits inside +/- margin.
    None when that cannot be told: fewer than 3 patients, no spread, or neither can ever happen.
    """
    values = _checked(differences)
    if len(values) < 3 or np.ptp(values) < TIE:
        return None
    effect, spread = abs(float(values.mean())), float(values.std(ddof=1))
    reach = NORMAL.inv_cdf(power)
    exclude = _patients(spread, effect, NORMAL.inv_cdf(1 - (1 - level) / 2 / max(1, claims)) + reach)
    inside = _patients(spread, margin - effect, NORMAL.inv_cdf((1 + level) / 2) + reach)
    needed = min(exclude, inside)
    return None if math.isinf(needed) else math.ceil(needed)


def _patients(spread: float, distance: float, errors: float) -> float:
    """Patients for whom ``distance`` is that many standard errors of the mean."""
    return (errors * spread / distance) ** 2 if distance > TIE else math.inf


def _checked(differences: ArrayLike) -> Floats:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"differences of shape {values.shape}: expected (n,), one finite number a patient")
    return values
