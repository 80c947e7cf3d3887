"""Which runs keep their weights among MLflow's artifacts: a choice of the launch, part of no key and of no digest.

A run that keeps none is tagged. It is finished when all its scorings are done, since nobody can add one later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, get_args

from litsexp.spec.design import Cell, arms
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.scorings import Scoring

if TYPE_CHECKING:
    from mlflow.entities import Run

WEIGHTS = "weights.safetensors"  # of the best epoch, among a run's artifacts
WEIGHTS_TAG, NOT_KEPT = "litsexp.weights", "not kept"
KeepWeights = Literal["all", "baseline", "none"]


def check_choice(choice: str, study: StudyConfig) -> None:
    """LitsexpError for no choice, or for one that the study cannot follow."""
    found, known = f"--keep-weights: found {choice}", get_args(KeepWeights)
    if choice not in known:
        raise LitsexpError(f"{found}; expected one of {', '.join(known)}")
    if choice == "baseline" and study.search:
        raise LitsexpError(f"{found} for a search, whose best run is known only when it ends; expected all or none")


def keeper(choice: KeepWeights, study: StudyConfig) -> Callable[[Cell], bool]:
    """Whether a cell's run is to keep its weights."""
    baseline = arms(study)[0].run
    return lambda cell: choice == "all" or (choice == "baseline" and cell.arm.run == baseline)


def keeps(run: Run) -> bool:
    """Whether a finished run has its weights in MLflow."""
    return bool(run.data.tags.get(WEIGHTS_TAG) != NOT_KEPT)


def no_weights(run_id: str, name: str, what: str) -> LitsexpError:
    """That a run keeps no weights, which ``what`` needs; and what can be done."""
    found = f"run {run_id} ({name}): its weights were not kept (tag {WEIGHTS_TAG}), and {what} needs them"
    trained = "delete the run in MLflow and run its study again with --keep-weights all, which trains it anew"
    return LitsexpError(f"{found}; {trained} (of a search: run a copy of its file)")


def check_scorable(
    cells: Iterable[str], finished: Mapping[str, Run], wanted: Callable[[str], Iterable[Scoring]]
) -> None:
    """LitsexpError where a finished run lacks a scoring and keeps no weights; ``cells`` are run keys."""
    for run in (finished[key] for key in cells if key in finished and not keeps(finished[key])):
        missing = [one.kind for one in wanted(run.data.tags["run_key"]) if one.tag not in run.data.tags]
        if missing:
            raise no_weights(run.info.run_id, run.info.run_name, f"a scoring that it lacks ({', '.join(missing)})")
