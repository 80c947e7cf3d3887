"""How noisy training is: the spread of one arm's runs, and how far apart two halves of them lie.

The two halves are identical arms. Whatever separates them is luck, so a difference between arms has to be read
against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from litsexp.evidence.measures import Measured, measure_of
from litsexp.evidence.variance import components

if TYPE_CHECKING:
    import pandas as pd

MOST_DEALS = 200  # that are tried; where there are more, so many are drawn


@dataclass(frozen=True)
class Noise:
    """The noise floor of one measure, in its units."""

    metric: str
    arm: str
    run_sd: float  # standard deviation of what a run has in common over all its patients; NaN where one patient is all
    halves: float  # how far apart two halves of the arm's runs lie, mean over all deals
    halves_max: float  # and the farthest
    runs: int
    deals: int  # ways to deal the runs that were tried

    @property
    def measure(self) -> Measured:
        """What the noise is of: its words, unit and direction."""
        return measure_of(self.metric)


def noise_floor(cases: pd.DataFrame, arm: str, metrics: Sequence[str], crossed: bool = False) -> list[Noise]:
    """The noise floor of one arm, one a measure that its runs have scored; empty with one seed a fold.

    The arm's seeds are dealt into two equal halves, in each fold independently of the others, as the seeds of two folds
    have nothing in common; of an odd number one is left over in each deal. The halves' distance is the mean over
    patients of the difference between a patient's means over either half. Halves have half the seeds of an arm, so
    they lie somewhat farther apart than two arms that are the same.

    Args:
        cases: a row a case and run, as ``judge`` takes them.
        arm: whose runs: the baseline.
        metrics: names of measures; what was not scored is passed over, and so is a patient whose measure is undefined
            under one of its runs.
        crossed: every run meets every patient, as on an external cohort; else the patients are nested in folds.
    """
    own = cases[cases["arm"] == arm] if len(cases) else cases
    found = []
    for measure in map(measure_of, dict.fromkeys(metrics)):
        if not len(own) or not measure.scored(own):
            continue
        table = _complete(own.assign(value=measure.values(own)).dropna(subset=["value"]))
        if len(table):
            found.append(_noise(table, arm, measure.name, crossed))
    return found


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """The folds with two seeds or more; of them the patients whose value is defined under every run of their folds."""
    several = table.assign(seeds=table.groupby("fold")["seed"].transform("nunique")).query("seeds > 1")
    asked = several.drop_duplicates(["case", "fold"]).groupby("case")["seeds"].sum()
    runs = several.groupby("case")["seeds"].size()
    return several[several["case"].isin(runs.index[runs == asked])]


def _noise(table: pd.DataFrame, arm: str, metric: str, crossed: bool) -> Noise:
    """Of ``fold, seed, case, value``, two seeds or more in each fold."""
    block, run = ((), ("fold", "seed")) if crossed else (("fold",), ("seed",))
    grid = table.pivot_table(index="case", columns=["fold", "seed"], values="value", sort=True)
    sides = _deals(grid.columns.get_level_values("fold").to_numpy())
    apart = _distances(grid.to_numpy(float), sides)
    return Noise(
        metric=metric,
        arm=arm,
        run_sd=math.sqrt(components(table, block, run).run),
        halves=float(apart.mean()),
        halves_max=float(apart.max()),
        runs=sides.shape[1],
        deals=len(sides),
    )


def _deals(folds: NDArray[np.int64]) -> NDArray[np.int64]:
    """(deals, runs): the half, 1 or -1, that each run of these folds is dealt to; 0 where it is left over.

    All deals where there are few, each with its mirror image; else ``MOST_DEALS`` that are drawn, the same every time.
    """
    runs_of = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    if math.prod(_ways(len(runs)) for runs in runs_of) <= MOST_DEALS:
        every: list[tuple[ArrayLike, ...]] = list(product(*(_halvings(len(runs)) for runs in runs_of)))
    else:
        rng = np.random.default_rng(0)
        every = [tuple(rng.permutation(_any_halving(len(runs))) for runs in runs_of) for _ in range(MOST_DEALS)]
    sides = np.zeros((len(every), len(folds)), dtype=np.int64)
    for runs, dealt in zip(runs_of, zip(*every, strict=True), strict=True):
        sides[:, runs] = np.array(dealt)
    return sides


def _ways(runs: int) -> int:
    """How many ways there are to deal so many runs, mirror images included."""
    half = runs // 2
    return math.comb(runs, half) * math.comb(runs - half, half)


def _any_halving(runs: int) -> list[int]:
    """``[1, 1, -1, -1, 0]`` of five: as many on either side, one left over of an odd number."""
    half = runs // 2
    return [1] * half + [-1] * half + [0] * (runs % 2)


def _halvings(runs: int) -> list[list[int]]:
    """Every way to deal so many runs, mirror images included."""
    half, found = runs // 2, []
    for first in combinations(range(runs), half):
        rest = [run for run in range(runs) if run not in first]
        found += [[(i in first) - (i in second) for i in range(runs)] for second in combinations(rest, half)]
    return found


def _distances(values: NDArray[np.float64], sides: NDArray[np.int64]) -> NDArray[np.float64]:
    """(deals,): how far apart the halves' means over patients lie; ``values`` is (patients, runs), NaN untested."""
    tested, known = (~np.isnan(values)).astype(float), np.nan_to_num(values)
    first, second = (known @ (sides == side).T / (tested @ (sides == side).T) for side in (1, -1))
    distances: NDArray[np.float64] = np.abs((first - second).mean(0))
    return distances
