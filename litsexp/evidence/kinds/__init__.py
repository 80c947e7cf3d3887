"""The kinds of claims: what is compared of the runs of its arms, and over which patients.

Each kind makes one table of a claim, a row a patient and pair of runs, and an estimate of it; gates, Holm, rulings,
sentences, tables and figures are the same for all. ``kind_of`` says which kind a claim is of.
"""

from __future__ import annotations

from litsexp.evidence.kinds.interaction import Interaction
from litsexp.evidence.kinds.kind import CELL_CASE, RUN_PAIR, Arms, Kind, Tables
from litsexp.evidence.kinds.size import BySize
from litsexp.evidence.kinds.trivial import BesideTrivial
from litsexp.spec.claim import ARM, LESION_SIZE, TRIVIAL, Claim, contrast_of
from litsexp.spec.table_claims import TableClaim
from litsexp.spec.tables import resolve

__all__ = ["CELL_CASE", "RUN_PAIR", "Arms", "Kind", "Tables", "kind_of"]


def kind_of(claim: Claim) -> Kind:
    """What kind of claim it is; any about somebody's table is about a score."""
    row = None if isinstance(claim, TableClaim) else contrast_of(claim.metric)
    if row is not None:
        found: Kind = resolve(row.kind)()
        return found
    if claim.factor == LESION_SIZE:
        return BySize()
    if claim.factor == ARM and claim.than in TRIVIAL:
        return BesideTrivial()
    return Interaction() if claim.grows else Kind()
