"""Claims that an arm does better than what learns nothing: an accuracy is worth what it adds to that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litsexp.evidence.kinds.kind import CELL_CASE, Arms, Kind, Tables, paired_scores
from litsexp.evidence.measures import Measured

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.spec.claim import Claim


class BesideTrivial(Kind):
    """``than`` is a trivial predictor, which scores the same whatever the fold and the seed."""

    name = "beside a trivial predictor"
    rule = "A trivial predictor gives every pixel one label; it is compared as an arm whose runs all score the same."
    planned = False

    def pairs(self, claim: Claim, measure: Measured, arms: Arms, tables: Tables) -> pd.DataFrame:
        """A row a patient and run of the arm."""
        import pandas as pd

        cases = self.table(tables)
        if not len(cases) or tables.trivial is None:
            return paired_scores(cases.head(0), arms, measure)
        predicted = tables.trivial[tables.trivial["predictor"] == claim.than].drop(columns="predictor")
        own = cases.loc[cases["arm"] == claim.better, CELL_CASE]
        return paired_scores(pd.concat([cases, own.merge(predicted, on="case").assign(arm=claim.than)]), arms, measure)
