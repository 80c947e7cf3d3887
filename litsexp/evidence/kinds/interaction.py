"""Claims that a gain grows: the difference of two differences, of the same patients under runs of one fold and seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litsexp.evidence.kinds.kind import CELL_CASE, Arms, Kind, Tables, paired_scores
from litsexp.evidence.measures import Measured

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.spec.claim import Claim


class Interaction(Kind):
    """The gain of one arm over another at a second level of another factor, against the gain at its first level.

    A context is four arms: better and than at the second level, then at the first. ``better`` is the gain at the
    second level, ``than`` the gain at the first; four runs of one fold and seed are one pair of runs.
    """

    name = "interaction"
    axis = "mean difference of two differences"
    rule = (
        "A gain grows by the difference of two differences: of each patient, what one arm gains over the other at the "
        "second level minus what it gains at the first, under four runs of one fold and seed, which count as one pair."
    )
    scores = False

    def drawn(self, measure: Measured) -> str:
        """A patient's gains."""
        return f"gain in {measure.title}"

    def pairs(self, claim: Claim, measure: Measured, arms: Arms, tables: Tables) -> pd.DataFrame:
        """A row a patient whom all four runs have tested; NaN where the measure is undefined under one of them."""
        keys, gains = ["context", *CELL_CASE], []
        for two in (slice(0, 2), slice(2, 4)):
            table = paired_scores(self.table(tables), tuple(names[two] for names in arms), measure)
            gains.append(table.assign(gain=table["better"] - table["than"])[[*keys, "gain"]])
        both = gains[0].merge(gains[1], on=keys, suffixes=("_then", "_first"))
        both = both.rename(columns={"gain_then": "better", "gain_first": "than"})
        return both.sort_values(keys, ignore_index=True)
