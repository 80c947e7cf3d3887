"""Claims about convergence: how long two runs take to a share of the best that both of them reach.

Of each validation patient and pair of runs, the common best is the lower of the two runs' best scores of that patient
over all epochs, and what is compared is the first epoch after which either run had reached the share of it. Both have,
by construction, whatever they end at: an arm that ends higher is not asked for more.

**Censoring.** Where the common best lies below 0.1, one run has not learned this patient. If the other has, its own
best takes the place of the common one, and the run that never comes to the share of it counts as one epoch more than
the longer of the two had: a run that failed is counted, never dropped. If neither has, nothing is defined.

Why patient by patient, and not from the run's mean curve: with few seeds a fold the mean curves of its runs share their
patients, and t over runs alone would not cover other patients. A patient's own curve is noisier, and the interval is
wider for it: identical arms are told apart in 2 to 4 % of simulated studies, the more the more runs fail, where 5 % are
allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from litsexp.evidence.kinds.kind import CELL_CASE, SIDES, Arms, Kind, Tables
from litsexp.evidence.stats import TIE, Floats
from litsexp.spec.tables import argument_of

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.evidence.judge import Verdict
    from litsexp.evidence.measures import Measured
    from litsexp.spec.claim import Claim

FLOOR = 0.1  # best score of a patient below which a run has not learned it
CENSORED = ["better_censored", "than_censored"]
EPOCH_SIZE = {"steps_per_epoch", "batch_size"}  # settings that make an epoch another number of images


def epochs_to() -> Kind:
    """The kind of ``epochs_to:METRIC``."""
    return Convergence("epoch")


def images_to() -> Kind:
    """The kind of ``images_to:METRIC``."""
    return Convergence("images")


class Curve(NamedTuple):
    """One run's scores of one patient."""

    passed: Floats  # (epochs,): epochs, or images, that training has seen after each
    scores: Floats  # (epochs,): NaN where undefined


class Convergence(Kind):
    """``better`` and ``than`` are what either run needed, in epochs or in images."""

    name = "convergence"
    axis = "mean difference over validation patients"
    patients = "validation"
    rule = (
        "Time to a share of the common best: of each validation patient and pair of runs, the first epoch after which "
        f"a run has reached that share of the lower of both runs' best scores. A run that stays below {FLOOR:g} in a "
        "patient in whom the other does not counts as one epoch more than the longer of the two had; where both stay "
        "below, the patient is left out."
    )
    portable = planned = scores = False

    def __init__(self, counted: str):
        self.counted = counted  # column of the table: epoch (from 0), images

    def drawn(self, measure: Measured) -> str:
        """What both arms needed."""
        return f"{measure.unit} (less is better)"

    def table(self, tables: Tables) -> pd.DataFrame:
        """Validation cases after each epoch."""
        return tables.cases.head(0) if tables.epochs is None else tables.epochs

    def scored(self, claim: Claim, measure: Measured, tables: Tables) -> bool:
        """Whether the epochs have logged it, case by case."""
        return len(self.table(tables)) > 0 and argument_of(claim.metric) in self.table(tables)

    def pairs(self, claim: Claim, measure: Measured, arms: Arms, tables: Tables) -> pd.DataFrame:
        """And ``better_censored``, ``than_censored``: where a run never came so far."""
        import pandas as pd

        table, rows = self.table(tables), []
        curves = self._curves(table, argument_of(claim.metric), {name for pair in arms for name in pair})
        for context, (better, than) in enumerate(arms):
            for cell in sorted(curves.get(better, {}).keys() & curves.get(than, {}).keys()):
                needed = time_to_share(curves[better][cell], curves[than][cell], claim.share)
                rows.append([context, *cell, *needed])
        return pd.DataFrame(rows, columns=["context", *CELL_CASE, *SIDES, *CENSORED])

    def _curves(self, table: pd.DataFrame, metric: str, names: set[str]) -> dict[str, dict[tuple[int, ...], Curve]]:
        """Arm -> (fold, seed, case) -> curve."""
        found: dict[str, dict[tuple[int, ...], Curve]] = {}
        if not len(table):
            return found
        own = table[table["arm"].isin(names)].sort_values("epoch", kind="stable")
        scores = own[metric] if metric in own else own["epoch"] * np.nan
        passed = own[self.counted] + (self.counted == "epoch")
        kept = own.assign(passed=passed, score=scores)
        for key, one in kept.groupby(["arm", *CELL_CASE], sort=True):
            arm, *cell = cast(tuple[Any, ...], key)
            found.setdefault(arm, {})[tuple(cell)] = Curve(one["passed"].to_numpy(float), one["score"].to_numpy(float))
        return found

    def cautions(self, verdict: Verdict) -> list[str]:
        """How often which arm was censored, and whether an epoch of the two is the same amount of training."""
        found, total = [], len(verdict.pairs)
        for name, column in zip(verdict.sides, CENSORED, strict=True):
            if number := int(verdict.pairs[column].sum()) if total else 0:
                never = f"In {number} of {total} comparisons of a patient's two runs {name} never came so far"
                found.append(f"{never}; it counts as one epoch more than the longer of the two had.")
        differing = {verdict.claim.factor, *next(iter(verdict.claim.compares.values()), {})}
        if self.counted == "epoch" and differing & EPOCH_SIZE:
            found.append("An epoch of one arm is more training than one of the other: images_to counts images.")
        return found


def time_to_share(better: Curve, than: Curve, share: float) -> tuple[float, float, bool, bool]:
    """What each of two runs needed to the share of their common best, and whether each is censored; NaN: undefined."""
    bests = [float(np.nanmax(each.scores)) if not np.isnan(each.scores).all() else np.nan for each in (better, than)]
    if not max(bests) >= FLOOR or np.isnan(bests).any():
        return np.nan, np.nan, False, False
    common = min(bests) if min(bests) >= FLOOR else max(bests)
    longest = max(better.passed[-1], than.passed[-1])
    needed, censored = [], []
    for curve in (better, than):
        reached = np.flatnonzero(curve.scores >= share * common - TIE)
        needed.append(float(curve.passed[reached[0]] if len(reached) else longest + curve.passed[0]))
        censored.append(not len(reached))
    return needed[0], needed[1], censored[0], censored[1]
