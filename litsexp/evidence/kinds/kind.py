"""What a kind of claim has to say, as the plain kind says it: one arm scores higher than another on test patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from litsexp.evidence import stats
from litsexp.evidence.measures import Measured

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.evidence.judge import Verdict
    from litsexp.spec.claim import Claim

Arms = tuple[tuple[str, ...], ...]  # a context each: (better, than), or four names where two gains are compared
RUN_PAIR = ["context", "fold", "seed"]  # the runs of a claim's arms that share all of these
CELL_CASE = ["fold", "seed", "case"]  # what two arms are paired on
SIDES = ["better", "than"]


@dataclass(frozen=True)
class Tables:
    """What finished runs scored; each has ``arm, fold, seed, case``. None: not asked for."""

    cases: pd.DataFrame  # test cases, a column a metric
    train: pd.DataFrame | None = None  # the patients that a run was trained on, the same columns
    epochs: pd.DataFrame | None = None  # validation cases after each epoch: ``epoch``, ``images``, a column a metric
    trivial: pd.DataFrame | None = None  # ``predictor, case``, a column a metric: what no learning scores
    native: pd.DataFrame | None = None  # test cases on all slices of their volumes, the columns of ``cases`` and more


class Kind:
    """A claim about a score of test patients, and what the other kinds override.

    ``pairs`` gives ``context, fold, seed, case, better, than``: a row a patient and pair of runs that both arms have,
    NaN where undefined. The judge drops those rows, and asks everything else of what is left.
    """

    name = "score"
    axis = "mean difference over patients"  # what is drawn along the forest's axis
    patients = ""  # which ones, in sentences: validation
    rule = ""  # how it is measured, for readers of the report who know the plain kind
    undefined = ""  # why a patient has no difference; empty: why the measure is undefined
    portable = True  # an external cohort, from which nothing was learned, can be asked, too
    planned = True  # patients are nested in folds or crossed with runs: power follows from variance components
    scores = True  # ``better`` and ``than`` are scores of test patients, to be read against what learns nothing

    def drawn(self, measure: Measured) -> str:
        """What a patient's two numbers are, in the figure that shows them."""
        return measure.title

    def table(self, tables: Tables) -> pd.DataFrame:
        """The table whose rows are paired; empty where there is none."""
        return tables.cases

    def scored(self, claim: Claim, measure: Measured, tables: Tables) -> bool:
        """Whether that table has what the claim is about."""
        return measure.scored(self.table(tables))

    def pairs(self, claim: Claim, measure: Measured, arms: Arms, tables: Tables) -> pd.DataFrame:
        """The table described above."""
        return paired_scores(self.table(tables), arms, measure)

    def estimate(self, pairs: pd.DataFrame, level: float) -> stats.Estimate:
        """Effect and intervals over new patients and new runs; every ``better`` and ``than`` is defined."""
        return stats.paired(difference(pairs), pairs["case"], runs_of(pairs), level)

    def by_patient(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """``better, than, difference``, a row a patient (the index): what figures show, and P(better) counts."""
        table = pairs.groupby("case", sort=True)[SIDES].mean()
        return table.assign(difference=table["better"] - table["than"])

    def means(self, pairs: pd.DataFrame) -> tuple[float, float]:
        """Of both sides, over patients; their difference is the effect."""
        table = self.by_patient(pairs)
        return float(table["better"].mean()), float(table["than"].mean())

    def number(self, pairs: pd.DataFrame) -> int:
        """Of patients that the estimate rests on."""
        return int(pairs["case"].nunique())

    def patients_in_words(self, verdict: Verdict) -> str:
        """``20 patients``; empty: the number of the verdict's, with its kind before them."""
        return ""

    def cautions(self, verdict: Verdict) -> list[str]:
        """What a reader should know of this kind before believing a verdict."""
        return []


def paired_scores(cases: pd.DataFrame, arms: Arms, measure: Measured) -> pd.DataFrame:
    """``context, fold, seed, case, better, than``: a row a case of a cell that both arms of a context have."""
    import pandas as pd

    if not len(cases):
        return pd.DataFrame(columns=["context", *CELL_CASE, *SIDES], dtype=float)
    scored = cases.assign(value=measure.values(cases)).set_index(CELL_CASE)
    tables = []
    for context, names in enumerate(arms):
        better, than = (scored.loc[scored["arm"] == name, "value"] for name in names)
        both = pd.concat({"better": better, "than": than}, axis="columns", join="inner")
        tables.append(both.reset_index().assign(context=context))
    return pd.concat(tables).sort_values(["context", *CELL_CASE], ignore_index=True)


def difference(pairs: pd.DataFrame) -> stats.Floats:
    """(m,): better minus than."""
    return (pairs["better"] - pairs["than"]).to_numpy(float)


def runs_of(pairs: pd.DataFrame) -> pd.Series[int]:
    """(m,): the number of the pair of runs that each row is of."""
    return pairs.groupby(RUN_PAIR, sort=True).ngroup()
