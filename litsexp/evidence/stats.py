"""Paired statistics over patients and runs: arrays in, point and interval out.

A claim is about a way of training, so what is random is who the patients are *and* how a run went. Patients of one fold
share the run that tests them: what that run has is common to all of them, and an interval over patients alone never
sees it. Multi-reader multi-case studies of radiology have the same shape: readers are runs, cases are patients.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

TIE = 1e-12  # scores lie in [0, 1]: smaller differences are rounding


class Interval(NamedTuple):
    """A mean and its interval, in the units of the differences."""

    effect: float
    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two effects with its interval, in their units, and the two-sided p."""

    effect: float
    low: float
    high: float
    p: float


class Estimate(NamedTuple):
    """Mean paired difference with two intervals; arrays of the leading shape, or scalars without one.

    ``low`` to ``high`` covers new patients *and* new runs; ``models_low`` to ``models_high`` new patients under these
    trained models only. NaN where there is none: one patient, or (the first) one pair of runs.
    """

    effect: Floats
    low: Floats
    high: Floats
    p: Floats  # two-sided, of the first interval
    df: Floats  # its degrees of freedom (Satterthwaite)
    patients_variance: Floats  # of the effect, from patients
    runs_variance: Floats  # of the effect, from runs
    models_low: Floats
    models_high: Floats
    models_p: Floats  # two-sided, of the second interval


def paired(differences: ArrayLike, patients: ArrayLike, runs: ArrayLike, level: float = 0.95) -> Estimate:
    """Effect of one arm against another over patients and pairs of runs, nested in folds or crossed.

    The effect is the mean over patients of each patient's mean over its runs. With n patients, R run pairs and w_r the
    share of the effect that run pair r carries (1/R when balanced):

    - V_patients = var(patient means) / n, V_runs = var(run-pair means) * sum of w_r**2, both with ddof 1;
    - V = V_patients + V_runs, df = V**2 / (V_patients**2 / (n - 1) + V_runs**2 / (R - 1)) (Satterthwaite 1946);
    - interval and p from Student's t. Some noise counts twice, so it errs a little to the safe side.

    It does not cover other training cohorts: folds share patients.

    Args:
        differences: (..., m), one finite number a patient and run pair that tested it.
        patients: (m,), which patient each is of.
        runs: (m,), under which run pair: context, fold and seed.
        level: of both intervals.

    Raises:
        ValueError: shapes that do not fit, or a difference that is not finite.
    """
    values, of_patient, of_run = _checked(differences, patients, runs)
    if not values.shape[-1]:
        return Estimate(*np.full((len(Estimate._fields), *values.shape[:-1]), math.nan))
    patient, run = _membership(of_patient), _membership(of_run)
    n, pairs = patient.shape[1], run.shape[1]
    patient_means = values @ (patient / patient.sum(0))
    run_means = values @ (run / run.sum(0))
    share = (patient @ (1 / patient.sum(0))) @ run / n  # (R,): of the effect that each run pair carries
    effect = patient_means.mean(-1)
    v_patients = _variance(patient_means) / n
    v_runs = _variance(run_means) * float((share**2).sum())
    return _estimate(effect, v_patients, v_runs, n, pairs, level)


def _estimate(effect: Floats, v_patients: Floats, v_runs: Floats, n: int, pairs: int, level: float) -> Estimate:
    """Both intervals of an effect with these parts of its variance, from n patients and so many run pairs."""
    total = v_patients + v_runs
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = v_patients**2 / (n - 1) + v_runs**2 / (pairs - 1)
        df = np.where(total > TIE**2, total**2 / parts, n + pairs - 2.0)
    low, high, p = _student(effect, total, df, level)
    models = _student(effect, v_patients, np.full_like(effect, n - 1.0), level)
    return Estimate(effect, low, high, p, df, v_patients, v_runs, *models)


def unpaired(first: Estimate, second: Estimate, level: float = 0.95) -> Difference:
    """The first effect minus the second, of estimates (scalars) that share neither patients nor runs.

    V = V_first + V_second, df = V**2 / (V_first**2 / df_first + V_second**2 / df_second) (Welch 1947), where either
    has the variance of ``paired``, over patients and runs. NaN where either has none.
    """
    variances = [float(each.patients_variance + each.runs_variance) for each in (first, second)]
    dfs, total = [float(each.df) for each in (first, second)], sum(variances)
    parts = sum(v**2 / df for v, df in zip(variances, dfs, strict=True))
    df = np.asarray(total**2 / parts if total > TIE**2 else sum(dfs))
    effect = np.asarray(first.effect - second.effect, dtype=float)
    low, high, p = _student(effect, np.asarray(total), df, level)
    return Difference(float(effect), float(low), float(high), float(p))


def paired_gap(
    differences: ArrayLike, patients: ArrayLike, runs: ArrayLike, trained: ArrayLike, level: float = 0.95
) -> Estimate:
    """How much more one arm overfits than another: training patients' mean difference minus test patients'.

    Either mean is over patients of each patient's mean over its runs. A patient may be on both sides, under different
    runs, as with folds. With n patients of a side and m_p the mean of one of them, its influence is
    i_p = (m_p - mean) / sqrt(n (n - 1)), 0 on a side where it is not:

    - V_patients = sum over patients of (i_p of training - i_p of test)**2: the variance of a difference of means, of
      which the patients on both sides are paired;
    - V_runs = var(run pairs' own gaps, ddof 1) * sum of w_r**2, w_r the mean of the shares of both means that run pair
      r carries; pairs of runs that lack a side are left out of it;
    - V, df, interval and p as in ``paired``, the smaller side's n counting.

    Args:
        differences: (..., m), one finite number a patient and run pair that was trained on it or tested it.
        patients: (m,), which patient each is of.
        runs: (m,), under which run pair.
        trained: (m,), true where the run pair was trained on the patient.
        level: of both intervals.

    Raises:
        ValueError: shapes that do not fit, or a difference that is not finite.
    """
    values, of_patient, of_run = _checked(differences, patients, runs)
    sides = np.asarray(trained, dtype=bool)
    if not values.shape[-1] or sides.all() or not sides.any():
        return Estimate(*np.full((len(Estimate._fields), *values.shape[:-1]), math.nan))
    patient, run = _membership(of_patient), _membership(of_run)
    train, test = (_side(values[..., side], patient[side], run[side]) for side in (sides, ~sides))
    whole = (run[sides].sum(0) > 0) & (run[~sides].sum(0) > 0)
    share = (train.share + test.share)[whole]
    v_patients = ((train.influence - test.influence) ** 2).sum(-1)
    v_runs = _variance((train.runs - test.runs)[..., whole]) * float(((share / share.sum()) ** 2).sum())
    effect, n = train.mean - test.mean, min(train.n, test.n)
    return _estimate(effect, v_patients, v_runs, n, int(whole.sum()), level)


class _Side(NamedTuple):
    """One of the two means of a gap."""

    mean: Floats  # (...,)
    influence: Floats  # (..., patients), 0 where a patient is not on this side
    runs: Floats  # (..., run pairs) means, NaN where a run pair has nobody on this side
    share: Floats  # (run pairs,): of the mean that each carries
    n: int  # patients on this side


def _side(values: Floats, patient: Floats, run: Floats) -> _Side:
    """Of (..., m) values, with the membership (m, patients) and (m, run pairs) of each."""
    counts, on_run = patient.sum(0), run.sum(0)
    here, n = counts > 0, int((counts > 0).sum())
    weight = patient / np.maximum(counts, 1)
    of_each = values @ weight
    mean: Floats = of_each[..., here].mean(-1)
    scale = math.sqrt(n * (n - 1)) if n > 1 else math.nan
    influence = np.where(here, of_each - mean[..., None], 0.0) / scale
    return _Side(mean, influence, values @ (run / np.where(on_run > 0, on_run, math.nan)), weight.sum(1) @ run / n, n)


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of (n,) patients and Student's t interval over them; NaN bounds with one patient, all NaN with none."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        return Interval(math.nan, math.nan, math.nan)
    effect = array.mean(keepdims=True)
    low, high, _ = _student(effect, _variance(array[None]) / len(array), np.full_like(effect, len(array) - 1.0), level)
    return Interval(float(effect[0]), float(low[0]), float(high[0]))


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979, Scand J Stat 6:65), in the order given, capped at 1."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, p[index] * (len(p) - rank)))
        adjusted[index] = largest
    return adjusted


def superiority(differences: ArrayLike) -> float:
    """P(A > B): the share of (n,) patients whom A serves better, ties counting half; NaN without patients."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) == 0:
        return math.nan
    return float(np.mean(values > TIE) + np.mean(np.abs(values) <= TIE) / 2)


def _membership(labels: NDArray[np.int64]) -> Floats:
    """(m, k): 1 where entry m belongs to group k."""
    groups: Floats = np.eye(labels.max() + 1)[labels]
    return groups


def _variance(means: Floats) -> Floats:
    """Along the last axis, ddof 1; NaN of a single one."""
    if means.shape[-1] < 2:
        return np.full(means.shape[:-1], math.nan)
    found: Floats = means.var(-1, ddof=1)
    return found


def _student(effect: Floats, variance: Floats, df: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """Interval and two-sided p of a mean; without any variance the interval is the mean, and p is 0 unless it is 0."""
    from scipy.special import stdtr, stdtrit  # heavy: imported when it is used

    error = np.sqrt(variance)
    reach = np.where(error > TIE, stdtrit(df, (1 + level) / 2) * error, error * 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(error > TIE, 2 * stdtr(df, -np.abs(effect) / error), (np.abs(effect) <= TIE).astype(float))
    return effect - reach, effect + reach, np.where(np.isnan(error), math.nan, p)


def _checked(
    differences: ArrayLike, patients: ArrayLike, runs: ArrayLike
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    values = np.asarray(differences, dtype=np.float64)
    labels = [np.unique(np.asarray(each), return_inverse=True)[1] for each in (patients, runs)]
    if not values.shape or any(each.shape != values.shape[-1:] for each in labels) or not np.isfinite(values).all():
        shapes = f"differences {values.shape}, patients {labels[0].shape}, runs {labels[1].shape}"
        raise ValueError(f"{shapes}: expected (..., m), (m,) and (m,), every difference finite")
    return values, labels[0], labels[1]
