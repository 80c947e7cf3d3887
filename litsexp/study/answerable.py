"""Whether what has failed leaves a study something to answer."""

from collections.abc import Collection, Mapping

from litsexp.spec.design import Cell, contexts
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.jobs import Outcome


def check_answerable(study: StudyConfig, cells: Collection[Cell], failures: Mapping[Cell, Outcome]) -> None:
    """LitsexpError where no pair of runs is left for a claim: what else could run would not answer the question."""
    failed = [cell for cell, outcome in failures.items() if outcome.status == "failed"]
    lost = {(cell.arm.name, cell.fold, cell.seed) for cell in failed}
    places = {(cell.fold, cell.seed) for cell in cells}
    for claim in study.claims if lost else ():
        names = [tuple(arm.name for arm in compared) for compared in contexts(study, claim)]
        if all(any((name, *place) in lost for name in pair) for pair in names for place in places):
            cell = next(cell for cell in failed if any(cell.arm.name in pair for pair in names))
            raise LitsexpError(
                f"claim {claim.id} can no longer be answered: no pair of its runs is left; {cell.name} failed: "
                f"{failures[cell].reason}; mend that, and the same command goes on"
            )
