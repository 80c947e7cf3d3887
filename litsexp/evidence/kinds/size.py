"""Claims about the baseline's lesions of two sizes: are large ones found more often than small ones?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litsexp.evidence.kinds.kind import CELL_CASE, SIDES, Arms, Kind, Tables
from litsexp.evidence.measures import Measured

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.spec.claim import Claim


class BySize(Kind):
    """``better`` and ``than`` are a run's lesion recall among a patient's lesions of each size."""

    name = "lesion size"
    rule = (
        "Lesions of two sizes are compared within patients who have both: each run's recall of the one and the other."
    )
    undefined = "no lesion of one of the two sizes, or unknown millimetres"
    planned = False

    def scored(self, claim: Claim, measure: Measured, tables: Tables) -> bool:
        """Whether lesions were counted by size."""
        table = self.table(tables)
        return all(f"lesions_true_{size}" in table for size in (claim.better, claim.than))

    def pairs(self, claim: Claim, measure: Measured, arms: Arms, tables: Tables) -> pd.DataFrame:
        """A row a patient and run; NaN where a patient has no lesion of a size, or unknown millimetres."""
        table = self.table(tables)
        if not self.scored(claim, measure, tables):
            return table.head(0).reindex(columns=["context", *CELL_CASE, *SIDES])
        own = table[table["arm"] == arms[0][0]].assign(context=0)
        for side, size in zip(SIDES, (claim.better, claim.than), strict=True):
            own[side] = own[f"lesions_detected_{size}"] / own[f"lesions_true_{size}"]
        return own[["context", *CELL_CASE, *SIDES]].sort_values(CELL_CASE, ignore_index=True)
