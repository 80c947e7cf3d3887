"""Claims about overfitting: how much better an arm is on the patients that it was trained on than on test patients.

Training patients are scored as test patients are, with the final weights in evaluation mode. With folds every patient
is both, under different runs; with a holdout no patient is. Of two arms that were trained on different patients those
count that both were trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litsexp.evidence import stats
from litsexp.evidence.kinds.kind import SIDES, Arms, Kind, Tables, difference, paired_scores, runs_of
from litsexp.evidence.measures import Measured, measure_of
from litsexp.spec.tables import argument_of

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.evidence.judge import Verdict
    from litsexp.spec.claim import Claim


def gap() -> Kind:
    """The kind of ``gap:METRIC``."""
    return Gap()


class Gap(Kind):
    """Mean over training patients minus mean over test patients, so turned that overfitting is above 0."""

    name = "gap"
    axis = "difference of two gaps, training minus test patients"
    rule = (
        "The generalisation gap is an arm's mean over the patients that its runs were trained on, minus its mean over "
        "test patients, both scored in evaluation mode with the final weights. With folds a patient is on either side, "
        "under different runs, and is paired with itself."
    )
    portable = planned = scores = False

    def drawn(self, measure: Measured) -> str:
        """Both gaps of a patient who is on either side."""
        return "gap (less is better)"

    def table(self, tables: Tables) -> pd.DataFrame:
        """The scores of training patients."""
        return tables.cases.head(0) if tables.train is None else tables.train

    def scored(self, claim: Claim, measure: Measured, tables: Tables) -> bool:
        """Whether training and test patients have it."""
        base, train = measure_of(argument_of(claim.metric)), self.table(tables)
        return len(train) > 0 and base.scored(train) and base.scored(tables.cases)

    def pairs(self, claim: Claim, measure: Measured, arms: Arms, tables: Tables) -> pd.DataFrame:
        """Of both, told apart by ``trained``; ``better`` and ``than`` are scores, turned round where less is better."""
        import pandas as pd

        base, train = measure_of(argument_of(claim.metric)), self.table(tables)
        sides = [(paired_scores(train, arms, base), True), (paired_scores(tables.cases, arms, base), False)]
        table = pd.concat([side.assign(trained=trained) for side, trained in sides if len(side)] or [sides[0][0]])
        if not len(table):
            return table.assign(trained=False)
        table[SIDES] *= base.sign
        return table.reset_index(drop=True)

    def estimate(self, pairs: pd.DataFrame, level: float) -> stats.Estimate:
        """See ``stats.paired_gap``."""
        return stats.paired_gap(difference(pairs), pairs["case"], runs_of(pairs), pairs["trained"], level)

    def by_patient(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Each arm's gap in the patients that are trained on by some runs and tested by others."""
        trained, tested = _sides(pairs)
        table = (trained - tested).dropna()
        return table.assign(difference=table["better"] - table["than"])

    def means(self, pairs: pd.DataFrame) -> tuple[float, float]:
        """Each arm's gap."""
        trained, tested = _sides(pairs)
        gaps = trained.mean() - tested.mean()
        return float(gaps["better"]), float(gaps["than"])

    def number(self, pairs: pd.DataFrame) -> int:
        """Of the side that has fewer."""
        return min(map(len, _sides(pairs)))

    def patients_in_words(self, verdict: Verdict) -> str:
        """``30 training and 36 test patients``."""
        trained, tested = map(len, _sides(verdict.pairs))
        kind = f"{verdict.kind} " * bool(verdict.kind)
        return f"{trained} {kind}training and {tested} test patients"

    def cautions(self, verdict: Verdict) -> list[str]:
        """Patients are paired where both arms were trained on them."""
        if "train_fraction" not in (verdict.claim.factor, *next(iter(verdict.claim.compares.values()), {})):
            return []
        return ["The arms were trained on different patients: of those, the ones that both were trained on count."]


def _sides(pairs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``better, than`` of each training and of each test patient, means over its runs."""
    trained = pairs["trained"].astype(bool)
    first, second = (pairs[rows].groupby("case", sort=True)[SIDES].mean() for rows in (trained, ~trained))
    return first, second
