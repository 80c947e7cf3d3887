"""Which patients a report shows, all arms beside each other: the best and the worst served, and where arms differ most.

Chosen by the numbers of all arms together, so that no arm's good cases are picked for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litsexp.evidence.measures import measure_of

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("dice_tumor", "dice_liver")  # the first that some patient has decides
CELL = ["arm", "fold", "seed", "case"]


@dataclass(frozen=True)
class Shown:
    """A patient, and why this one."""

    case: int
    why: str  # "worst", "arms differ most" ...
    score: float  # mean over arms, each over its runs


def shown_patients(cases: pd.DataFrame, arms: Sequence[str]) -> list[Shown]:
    """Best, median and worst by the mean of these arms, and the one where their means lie farthest apart.

    Who is several of them stands once, with all reasons. Only patients that every arm has scored; where arms have no
    patient in common, none.
    """
    table = by_patient(cases, arms)
    if not len(table):
        return []
    mean, spread = table.mean(axis=1), table.max(axis=1) - table.min(axis=1)
    ranked = mean.sort_values(kind="stable").index
    wanted = [("best", ranked[-1]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[0])]
    wanted += [("arms differ most", spread.idxmax())] if len(arms) > 1 else []
    why: dict[int, list[str]] = {}
    for reason, case in wanted:
        why.setdefault(int(case), []).append(reason)
    return [Shown(case, ", ".join(reasons), float(mean[case])) for case, reasons in why.items()]


def by_patient(cases: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """A row a patient that all these arms have scored, ascending, a column an arm: its mean over its runs."""
    import pandas as pd

    measure = deciding(cases)
    if measure is None:
        return pd.DataFrame(columns=list(arms), dtype=float)
    known = cases[CELL].assign(value=measure_of(measure).values(cases)).dropna(subset="value")
    table = known.groupby(["case", "arm"])["value"].mean().unstack().reindex(columns=list(arms))
    return table.dropna()


def deciding(cases: pd.DataFrame) -> str | None:
    """The metric that patients are chosen by: of tumors, or of livers where no patient has a tumor."""
    return next((name for name in METRICS if len(cases) and measure_of(name).values(cases).notna().any()), None)
