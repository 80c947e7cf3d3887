"""What sees a study go by."""

from collections.abc import Sequence
from typing import Protocol

from litsexp.spec.design import Cell
from litsexp.study.jobs import Outcome


class Observer(Protocol):
    """Sees a study go by: the live display, or a test."""

    def planned(self, done: Sequence[Cell], left: int, to_score: int) -> None:
        """These cells are trained already, so many are left; of those that are, so many are to be scored."""

    def started(self, cell: Cell) -> None:
        """A cell began."""

    def epoch(self, cell: Cell, epoch: int, metrics: dict[str, float]) -> None:
        """A cell finished an epoch."""

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """A cell ended."""
