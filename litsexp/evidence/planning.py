"""What a study could settle, and what more would settle it: power from the noise of patients and runs.

Planned is for a true difference of the claim's margin, never for the one that was observed: an effect that was worth
following up is on average overestimated, and a plan made from it too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from litsexp.evidence.variance import Components, components

if TYPE_CHECKING:
    import pandas as pd

ALPHA, POWER = 0.05, 0.8
MIN_RUN_PAIRS = 5  # fewer say nothing about training: readers' studies of radiology ask for as many readers
MOST_RUNS, MOST_PATIENTS = 1_000, 100_000  # beyond that, no number is said to help
STEP = 1.3  # between the numbers that are tried first
TAIL = 0.1  # of the run variance's chi-square distribution, at each end of a range


@dataclass(frozen=True)
class Noise:
    """Standard deviations of paired differences, in units of the measure."""

    run_sd: float  # between pairs of runs: what the differences of a pair have in common
    patient_sd: float  # between patients: what a patient's differences have in common
    residual_sd: float  # patient x run: the rest


@dataclass(frozen=True)
class Design:
    """How often what is repeated, of one claim."""

    patients: int  # tested
    folds: int  # 1 for a holdout
    seeds: int
    contexts: int = 1  # pairs of arms that the claim averages over
    crossed: bool = False  # every run meets every patient, as on an external cohort

    @property
    def run_pairs(self) -> int:
        """R: pairs of runs."""
        return self.folds * self.seeds * self.contexts

    @property
    def groups(self) -> int:
        """Sets of patients that share no run."""
        return 1 if self.crossed else self.folds

    @property
    def runs_a_patient(self) -> float:
        """S: pairs of runs that a patient meets."""
        return self.run_pairs / self.groups


@dataclass(frozen=True)
class Power:
    """How likely a difference gets its verdict, and where the effect's variance comes from (shares of 1)."""

    power: float
    standard_error: float  # of the procedure: it counts some noise twice
    from_runs: float
    from_patients: float
    from_residual: float


@dataclass(frozen=True)
class Range:
    """A number that is needed: most likely, and from a lucky to an unlucky estimate of the runs' noise.

    None: no number of it is enough.
    """

    number: int | None
    low: int | None
    high: int | None

    @property
    def words(self) -> str:
        """``5 to 9``, ``at least 5``, ``none``."""
        if self.number is None:
            return "none"
        low = self.number if self.low is None else self.low
        if self.high is None:
            return f"at least {low}"
        return f"{low}" if low == self.high else f"{low} to {self.high}"

    @property
    def about(self) -> str:
        """``about 5 to 9``, ``at least 5``."""
        return f"{'about ' * (self.high is not None)}{self.words}"


@dataclass(frozen=True)
class Needs:
    """What alone would bring 80 % power, all else as it is; and the runs that each of the claim's arms needs more."""

    seeds: Range
    patients: Range
    folds: Range
    runs_for_seeds: int | None
    runs_for_folds: int | None  # all of them: another number of folds is another split, and no run of this one counts


def noise_of(pairs: pd.DataFrame) -> tuple[Components, Design]:
    """Variance components of a claim's differences, and the design that they come from.

    Args:
        pairs: a row a patient and pair of runs: ``context, fold, seed, case, better, than``, both scores defined.
    """
    table = pairs.assign(value=pairs["better"] - pairs["than"])
    crossed = bool(len(table)) and bool(table.groupby("case")["fold"].nunique().max() > 1)
    block, run = (["context"], ["fold", "seed"]) if crossed else (["context", "fold"], ["seed"])
    patients, folds, seeds, contexts = (int(table[name].nunique()) for name in ("case", "fold", "seed", "context"))
    return components(table, block, run), Design(patients, folds, seeds, contexts, crossed)


def ranged(found: Components) -> tuple[Noise, Noise, Noise]:
    """The noise as estimated, and with the run variance at the ends of its 10 to 90 % chi-square interval."""
    from scipy.special import chdtri

    patient_sd, residual_sd = math.sqrt(found.patient), math.sqrt(found.residual)
    size = found.patients / (found.runs - found.run_df)  # patients a run: there are runs - run_df blocks
    mean_square = size * found.run + found.residual
    ends = (mean_square * found.run_df / chdtri(found.run_df, tail) for tail in (TAIL, 1 - TAIL))
    low, high = (max(0.0, (end - found.residual) / size) for end in ends)
    most_likely, *others = (Noise(math.sqrt(run), patient_sd, residual_sd) for run in (found.run, low, high))
    return most_likely, others[0], others[1]


def power_of(noise: Noise, design: Design, difference: float, claims: int = 1) -> Power:
    """Power of ``stats.paired`` with Holm for a true difference, two-sided at 0.05 / claims: Holm's worst case.

    With n patients in F groups of g that share no run, each under S of R = F S pairs of runs, the effect's variance is
    patient**2 / n + run**2 / R + residual**2 / (n S). What the procedure expects of itself is larger: patients' means
    vary with their runs' luck, and runs' means with who their patients are.
    """
    n, pairs, met = design.patients, design.run_pairs, design.runs_a_patient
    run, patient, residual = noise.run_sd**2, noise.patient_sd**2, noise.residual_sd**2
    parts = run / pairs, patient / n, residual / (n * met)
    true = sum(parts)
    shares = [part / true if true else math.nan for part in parts]
    if n < 2 or pairs < MIN_RUN_PAIRS:
        return Power(0.0, math.nan, *shares)
    group = n / design.groups
    of_patients = (patient + run / met * (n - group) / (n - 1) + residual / met) / n
    of_runs = (run + residual / group + patient / group * (pairs - met) / (pairs - 1)) / pairs
    total = of_patients + of_runs
    if not total:
        return Power(float(difference > 0), 0.0, *shares)
    df = total**2 / (of_patients**2 / (n - 1) + of_runs**2 / (pairs - 1))
    from scipy.special import ndtr, stdtrit

    reach = float(stdtrit(df, 1 - ALPHA / claims / 2)) * math.sqrt(total)
    return Power(float(ndtr((difference - reach) / math.sqrt(true))), math.sqrt(total), *shares)


def needs(noises: tuple[Noise, Noise, Noise], design: Design, difference: float, claims: int = 1) -> Needs:
    """The smallest numbers of seeds, patients, or folds with 80 % power; ``noises``: likely, lucky, unlucky."""

    def smallest(changed: Callable[[int], Design], now: int, most: int) -> Range:
        def enough(noise: Noise) -> Callable[[int], bool]:
            return lambda number: power_of(noise, changed(number), difference, claims).power >= POWER

        number, low, high = (_first(enough(noise), now, most) for noise in noises)
        return Range(number, low if number is None or low is None else max(low, min(number, now + 1)), high)

    seeds = smallest(lambda number: replace(design, seeds=number), design.seeds, MOST_RUNS)
    patients = smallest(lambda number: replace(design, patients=number), design.patients, MOST_PATIENTS)
    if design.folds > 1:
        most = min(MOST_RUNS, design.patients // 2)
        folds = smallest(lambda number: replace(design, folds=number), design.folds, most)
    else:
        folds = Range(None, None, None)  # a holdout is one split
    a_seed, a_fold = design.folds * design.contexts, design.seeds * design.contexts
    return Needs(
        seeds,
        patients,
        folds,
        None if seeds.number is None else (seeds.number - design.seeds) * a_seed,
        None if folds.number is None else folds.number * a_fold * (folds.number > design.folds),
    )


def advice(pairs: pd.DataFrame, margin: float, claims: int = 1, per: str = "") -> str:
    """One clause on what would settle an inconclusive claim; empty where the margin is 0: nothing settles that.

    Args:
        pairs: of the claim, as ``noise_of`` takes them.
        margin: the difference to settle, in units of the measure.
        claims: judged together.
        per: the unit as it follows a number.
    """
    if not margin:
        return ""
    found, design = noise_of(pairs)
    if not found.known:
        return "run a second seed first: one alone does not tell what comes from runs and what from patients"
    noises = ranged(found)
    now = power_of(noises[0], design, margin, claims)
    settled = f"a difference of {margin:g}{per}"
    if now.power >= POWER:
        return f"{settled} would have shown with a probability of {now.power:.2f}"
    runs, patients = now.from_runs, now.from_patients
    largest = f"{runs:.0%} of the variance is between runs" if runs >= patients else ""
    largest = largest or f"{patients:.0%} of the variance is between patients"
    return f"{_what_settles(needs(noises, design, margin, claims), settled, noises[0])}; {largest}".replace("%", " %")


def _what_settles(needed: Needs, settled: str, noise: Noise) -> str:
    seeds, patients = needed.seeds, needed.patients
    if seeds.number and patients.number:
        return f"{seeds.about} seeds, or {patients.words} patients, would settle {settled}"
    if seeds.number:
        none = f"no number of patients while runs differ by {noise.run_sd:.2g}"
        return f"{seeds.about} seeds would settle {settled}, {none}"
    if patients.number:
        none = f"no number of seeds while patients differ by {noise.patient_sd:.2g}"
        return f"{patients.about} patients would settle {settled}, {none}"
    return f"neither seeds nor patients alone would settle {settled}: it takes more of both"


def _first(enough: Callable[[int], bool], start: int, most: int) -> int | None:
    """The smallest number from ``start`` to ``most`` that is enough, found in growing steps and then between two."""
    low, high = start - 1, start
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(most, max(high + 1, math.ceil(high * STEP)))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
