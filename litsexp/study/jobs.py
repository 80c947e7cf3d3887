"""What an executor is handed and gives back: jobs, their scorings, outcomes. Loads no torch."""

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.catalog import METRICS
from litsexp.spec.design import Cell
from litsexp.spec.keys import digest

SCORE_FORMAT = 1  # raise it when the same weights would no longer give the same table: every run is scored again

EPOCHS_TAG = "validation_cases"  # of a run that has a table of them after each epoch; its value is where

CohortKind = Literal["test", "external", "train"]


@dataclass(frozen=True)
class Scoring:
    """Cases that a run's best weights are to label: its own test or training cases, or a whole other cohort."""

    kind: CohortKind
    store: Path
    fingerprint: str
    name: str  # of the cohort, for people
    key: str  # identity of the result by content: weights, slices, metrics
    folder: str = ""  # among the run's artifacts: where the table is put
    held_out: bool = False  # of its test cases only the slices that are tested where an arm leaks

    @property
    def tag(self) -> str:
        """Of a run in MLflow that has this result; its value is the folder, ``.`` for none."""
        return f"scored.{self.key}"


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


def scoring_of(kind: CohortKind, run_key: str, store: Store, name: str, first: bool, held_out: bool = False) -> Scoring:
    """The scoring of a run's test or training cases, or of a whole store; ``first``: with the training.

    The first scoring of test cases needs no folder. ``held_out``: of the test cases only the slices of
    ``data.rows.scored_rows``, for a study in which an arm leaks.
    """
    registered = {metric: source for metric in METRICS if (source := METRICS.source(metric))}
    asked = {"run": run_key, "kind": kind, "data": store.fingerprint, "registered": registered}
    asked |= {"slices": "held out"} if held_out else {}
    key = digest({"format": SCORE_FORMAT, **asked})
    folder = "" if first and kind == "test" else f"{kind}/{key}"
    return Scoring(kind, store.directory, store.fingerprint, name, key, folder, held_out)
