"""What an executor is handed and gives back: jobs and outcomes, and both as JSON for other machines. Loads no torch."""

import json
import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from litsexp.data.splits import Split
from litsexp.spec.design import Cell
from litsexp.spec.tables import load_plugins
from litsexp.study.scorings import Scoring

EPOCHS_TAG = "validation_cases"  # of a run that has a table of them after each epoch; its value is where
CURVES_TAG = "learning_curves"  # the same of its learning curves; older runs have them as MLflow's metrics alone


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
    fingerprint: str = ""  # of the store, for a worker that may see another one; empty: not asked
    keep_weights: bool = True  # among the run's artifacts


@dataclass(frozen=True)
class Outcome:
    """How a job ended; ``scored``: it was trained before; ``unscored``: it is trained, but a later scoring failed."""

    status: Literal["finished", "scored", "pruned", "failed", "unscored"]
    value: float = math.nan  # best validation score
    reason: str = ""  # why it failed, in one line
    detail: str = ""  # the traceback
    seconds: float = 0.0  # of fitting and evaluating
    died: bool = False  # its worker did, whatever it was doing: killed, out of memory, out of time, its node lost


OnEpoch = Callable[[Job, int, dict[str, float]], bool]  # job, epoch, metrics -> go on?
Executor = Callable[[Iterable[Job], OnEpoch], Generator[tuple[Job, Outcome]]]
"""Takes jobs when it has room for one, and gives back each with its outcome, in whatever order they end.

When the iterator is closed, what still runs is ended.
"""

_JOB, _OUTCOME = TypeAdapter(Job), TypeAdapter(Outcome)


def job_to_json(job: Job) -> str:
    """A job for another machine: its paths absolute, no pickle."""
    scorings = tuple(
        replace(one, store=one.store.absolute(), truths={case: path.absolute() for case, path in one.truths.items()})
        for one in job.scorings
    )
    there = replace(job, store=job.store.absolute(), cache=job.cache.absolute(), scorings=scorings)
    return json.dumps(_JOB.dump_python(there, mode="json"))


def job_from_json(text: str) -> Job:
    """The job, after its modules were imported: its settings may name their rows.

    Raises:
        LitsexpError: a module that cannot be imported.
        ValueError: no job.
    """
    content = json.loads(text)
    load_plugins(content["modules"])
    return _JOB.validate_python(content)


def outcome_to_json(outcome: Outcome) -> str:
    """An outcome for the driver; an undefined value is written NaN."""
    return json.dumps(_OUTCOME.dump_python(outcome, mode="json"))


def outcome_from_json(text: str) -> Outcome:
    """The outcome; ValueError where it is none."""
    return _OUTCOME.validate_python(json.loads(text))
