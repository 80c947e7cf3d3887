"""Claims about scores at native resolution: all slices of a volume, in its own pixels, as a challenge scores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litsexp.evidence.kinds.kind import Arms, Kind, Tables, paired_scores
from litsexp.evidence.measures import Measured, measure_of
from litsexp.spec.tables import argument_of

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.spec.claim import Claim


def native() -> Kind:
    """The kind of ``native:METRIC``."""
    return AtNative()


class AtNative(Kind):
    """One arm scores higher than another on test patients' whole volumes."""

    name = "native"
    rule = (
        "At native resolution a run's probabilities are resampled to the volume's own pixels, and all slices count, "
        "those without liver, too."
    )
    portable = False  # an external cohort is scored on its stored slices alone

    def table(self, tables: Tables) -> pd.DataFrame:
        """The scores of whole volumes."""
        return tables.cases.head(0) if tables.native is None else tables.native

    def scored(self, claim: Claim, measure: Measured, tables: Tables) -> bool:
        """Whether whole volumes have it."""
        table = self.table(tables)
        return len(table) > 0 and measure_of(argument_of(claim.metric)).scored(table)

    def pairs(self, claim: Claim, measure: Measured, arms: Arms, tables: Tables) -> pd.DataFrame:
        """As of any score."""
        return paired_scores(self.table(tables), arms, measure_of(argument_of(claim.metric)))
