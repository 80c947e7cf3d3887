"""What an executor is handed and gives back: jobs and outcomes. Loads no torch."""

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litsexp.data.splits import Split
from litsexp.spec.design import Cell
from litsexp.study.scorings import Scoring

EPOCHS_TAG = "validation_cases"  # of a run that has a table of them after each epoch; its value is where


@dataclass(frozen=True)
class Job:
    """A cell with all that its process needs; picklable. A trained one is only scored."""

    cell: Cell
    run_key: str
    run_id: str
    tracking_uri: str
    split: Split
    store: Path
    scorings: tuple[Scoring, ...]
    cache: Path  # of what initialisations learned
    trained: bool = False
    modules: tuple[str, ...] = ()  # that register rows


@dataclass(frozen=True)
class Outcome:
    """How a job ended; ``scored``: it was trained before; ``unscored``: it is trained, but a later scoring failed."""

    status: Literal["finished", "scored", "pruned", "failed", "unscored"]
    value: float = math.nan  # best validation score
    reason: str = ""  # why it failed, in one line
    detail: str = ""  # the traceback
    seconds: float = 0.0  # of fitting and evaluating


OnEpoch = Callable[[Job, int, dict[str, float]], bool]  # job, epoch, metrics -> go on?
Executor = Callable[[Iterable[Job], OnEpoch], Generator[tuple[Job, Outcome]]]
"""Takes jobs when it has room for one, and gives back each with its outcome, in whatever order they end.

When the iterator is closed, what still runs is ended.
"""
