"""The driver: ledger + executor + tracking.

``open_study`` takes the study's lock, puts right what a killed driver left behind, and yields a ``Session``;
``Session.run`` runs the cells that are not done. Running the same command again is how one resumes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.base import Level
from litsexp.spec.design import RUN_KEY_FORMAT, Cell, arm_of, cells
from litsexp.spec.keys import digest
from litsexp.spec.study import Fingerprints, StudyConfig
from litsexp.study.cohorts import check_external, cohort_tags, fingerprints
from litsexp.study.executors import make_executor
from litsexp.study.ledger import Ledger, Ticket, one_driver
from litsexp.study.tracking import Parent, Tracking, value_of, versions

if TYPE_CHECKING:
    from litsexp.study.cells import Job, Outcome

TICK_S = 0.5


@dataclass(frozen=True)
class Places:
    """Where results go: MLflow's and Optuna's addresses, and the folder for artifacts, locks and reports."""

    root: Path
    tracking_uri: str
    storage_url: str

    @classmethod
    def below(cls, root: Path, tracking_uri: str | None = None, storage_url: str | None = None) -> Places:
        """SQLite databases in ``root`` unless told otherwise; absolute paths, or MLflow would depend on the folder."""
        root = root.resolve()
        mlflow, optuna = (f"sqlite:///{root / name}" for name in ("mlflow.db", "optuna.db"))
        return cls(root, tracking_uri or mlflow, storage_url or optuna)


class Observer(Protocol):
    """Sees a study go by: the live display, or a test."""

    def planned(self, done: Sequence[Cell], left: int) -> None:
        """These cells are done already, so many are left."""

    def started(self, cell: Cell) -> None:
        """A cell began."""

    def epoch(self, cell: Cell, epoch: int, metrics: dict[str, float]) -> None:
        """A cell finished an epoch."""

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """A cell ended."""

    def tick(self) -> None:
        """Time goes by."""


@dataclass
class Session:
    """An open study: nobody else drives it while this object is in use."""

    name: str
    study: StudyConfig
    store: Store
    splits: list[Split]
    digest: str
    tracking: Tracking
    ledger: Ledger
    parent: Parent
    cells: dict[str, Cell]  # run key -> cell; a search adds to them
    external: Store | None = None  # of another cohort, that every run scores at its end
    failures: dict[str, str] = field(default_factory=dict)  # cell name -> reason, of this session
    trained_s: list[float] = field(default_factory=list)  # fit and evaluation of each cell trained in this session
    wall_s: float = 0.0  # of running them, workers' start included

    @property
    def fingerprints(self) -> Fingerprints:
        """What every run's results come from."""
        return fingerprints(self.store, self.external)

    @property
    def cohort_tags(self) -> dict[str, str]:
        """What the study's runs in MLflow say of their patients."""
        return cohort_tags(self.study, self.store, self.external)

    def run(self, workers: int | None, threads: int | None, observer: Observer) -> None:
        """Run what is left; cells that fail are kept in ``failures`` and the study goes on."""
        running: dict[str, Ticket] = {}  # MLflow run id -> its trial

        def on_epoch(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
            observer.epoch(job.cell, epoch, metrics)
            searching = self.study.search is not None
            return not (
                searching and self.ledger.should_prune(running[job.run_id].number, epoch, metrics["valid/score"])
            )

        queue = self._queue(observer)
        first = next(queue, None)
        if first is None:  # nothing to train: no need to load torch
            return
        queue, start_s = itertools.chain([first], queue), time.perf_counter()
        executor = make_executor(workers, threads, on_epoch)
        try:
            while True:
                while executor.room() and (following := next(queue, None)):
                    job = self._start(following[1])
                    running[job.run_id] = following[0]
                    executor.submit(job)
                    observer.started(job.cell)
                if not executor.busy():
                    return
                ended = executor.wait(TICK_S)
                if ended is not None:
                    job, outcome = ended
                    self._settle(running.pop(job.run_id), job, outcome)
                    observer.ended(job.cell, outcome)
                observer.tick()
        except BaseException:  # Ctrl-C may come between any two lines, so ask the databases what is open
            executor.close()
            self.tracking.close_interrupted(self.parent)
            self.ledger.close_interrupted({key: value_of(run) for key, run in self.tracking.finished().items()})
            raise
        finally:
            executor.close()
            self.wall_s = time.perf_counter() - start_s

    def _queue(self, observer: Observer) -> Iterator[tuple[Ticket, Cell]]:
        """What is left to run, one ask at a time, so that a search sees every result there is."""
        if self.study.search is not None:
            yield from self._samples(self.study.search.trials, observer)
            return
        finished, complete = self.tracking.finished(), self.ledger.complete()
        left = {key: cell for key, cell in self.cells.items() if key not in finished or key not in complete}
        observer.planned(
            [cell for key, cell in self.cells.items() if key in finished], len(left.keys() - finished.keys())
        )
        for key, cell in left.items():
            self.ledger.enqueue(params_of(cell, self.study), key)
        while self.ledger.waiting():
            ticket = self.ledger.ask()
            if ticket.run_key in finished:  # by an earlier study of this name, or just before its driver was killed
                self.ledger.tell(ticket.number, value_of(finished[ticket.run_key]))
            elif ticket.run_key in self.cells:
                yield ticket, self.cells[ticket.run_key]
            else:
                self.ledger.tell_failed(ticket.number)

    def _samples(self, trials: int, observer: Observer) -> Iterator[tuple[Ticket, Cell]]:
        """A search's samples: interrupted ones again, then fresh ones."""
        self.ledger.enqueue_interrupted_samples()
        left = max(trials - self.ledger.settled(), 0)
        observer.planned(list(self.cells.values()), left)
        finished = self.tracking.finished()
        for _ in range(left):
            ticket = self.ledger.ask()
            cell = Cell(arm_of(self.study, ticket.params), fold=0, seed=self.study.seeds[0])
            key = cell.run_key(self.study.split, self.fingerprints)
            self.ledger.name(ticket.number, key)
            self.cells[key] = cell
            if key in finished:
                self.ledger.tell(ticket.number, value_of(finished[key]))
            else:
                yield ticket, cell

    def _start(self, cell: Cell) -> Job:
        """Open the cell's MLflow run; a cell of the same content that failed before becomes an earlier attempt."""
        from litsexp.study.cells import Job  # imports torch and fastai: only when there is something to train

        key = cell.run_key(self.study.split, self.fingerprints)
        tags = {"study_digest": self.digest, "data_fingerprint": self.store.fingerprint}
        run_id = self.tracking.start_cell(cell, key, self.parent, {**tags, **self.cohort_tags, **versions()})
        external = self.external.directory if self.external else None
        return Job(cell, key, self.splits[cell.fold], self.store.directory, self.tracking.uri, run_id, external)

    def _settle(self, ticket: Ticket, job: Job, outcome: Outcome) -> None:
        """Write a cell's end to the ledger (MLflow has it already, unless it failed)."""
        if outcome.status == "failed":
            self.tracking.end(job.run_id, "FAILED", outcome.reason, outcome.detail)
            self.ledger.tell_failed(ticket.number)
            self.failures[job.cell.name] = outcome.reason
            return
        self.trained_s.append(outcome.seconds)
        if outcome.status == "pruned":
            self.ledger.tell_pruned(ticket.number)
        else:
            self.ledger.tell(ticket.number, outcome.value)


@contextmanager
def open_study(
    name: str, study: StudyConfig, store: Store, splits: list[Split], places: Places, external: Store | None = None
) -> Iterator[Session]:
    """Lock the study and put right what a killed driver left; while the block runs, its parent run is RUNNING.

    Args:
        name: of the MLflow experiment, for example the study file's stem.
        study: the resolved study file.
        store: of its cohort.
        splits: one a fold, from ``make_splits``.
        places: where results go.
        external: of ``study.external``, where the study has one; no split knows its patients.

    Raises:
        ValueError: ``study.external`` without its store, or the other way round.
        LitsexpError: another driver has the study; a database that cannot be opened; an external cohort that is none.
    """
    if (study.external is None) != (external is None):
        raise ValueError(f"study.external is {study.external}, and its store {external}; expected both or neither")
    check_external(store, external)
    known = fingerprints(store, external)
    planned = _by_key(cells(study), study, known)  # notices a missing weights file before anything is written
    study_digest = design_digest(study, known)
    full_name = f"{name}-{study_digest}"
    with one_driver(places.storage_url, full_name, places.root):
        tracking = Tracking(places.tracking_uri, name, places.root / "artifacts")
        ledger = Ledger(places.storage_url, full_name, study)
        finished = tracking.finished()
        ledger.close_interrupted({key: value_of(run) for key, run in finished.items()})
        by_key = _by_key(_sampled(study, ledger), study, known) if study.search else planned
        donors = {run.data.tags[MLFLOW_PARENT_RUN_ID] for key, run in finished.items() if key in by_key}
        tags = cohort_tags(study, store, external)
        parent = tracking.open_parent(study, study_digest, name, sorted(donors), tags)
        try:
            tracking.close_interrupted(parent)
            yield Session(name, study, store, splits, study_digest, tracking, ledger, parent, by_key, external)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            reason = "the study was interrupted" if interrupted else " ".join(str(error).split())
            tracking.end(parent.run_id, "KILLED" if interrupted else "FAILED", reason)
            raise


def design_digest(study: StudyConfig, fingerprints: Fingerprints) -> str:
    """Identity of a study by what it runs: question and claims may be reworded without running anything again."""
    content = study.model_dump(mode="json", exclude={"question", "claims", "data", "external"})
    return digest({"format": RUN_KEY_FORMAT, **fingerprints.content, **content})


def params_of(cell: Cell, study: StudyConfig) -> dict[str, Level]:
    """A cell as Optuna's params: the factors' levels, fold and seed."""
    return {**{name: getattr(cell.arm.run, name) for name in study.factors}, "fold": cell.fold, "seed": cell.seed}


def trials_table(session: Session) -> pd.DataFrame:
    """A search's trials: number, state, value, and a column a param; best first."""
    rows = [
        {"trial": trial.number, "state": trial.state.name, "valid/score": trial.value, **trial.params}
        for trial in session.ledger.trials()
        if trial.state.is_finished() and trial.params
    ]
    table = pd.DataFrame(rows)
    return table.sort_values("valid/score", ascending=False, na_position="last") if len(table) else table


def _sampled(study: StudyConfig, ledger: Ledger) -> list[Cell]:
    """The cells that a search has completed so far."""
    done = [trial.params for trial in ledger.trials() if trial.state.name == "COMPLETE"]
    return [Cell(arm_of(study, params), 0, study.seeds[0]) for params in done]


def _by_key(known: Sequence[Cell], study: StudyConfig, fingerprints: Fingerprints) -> dict[str, Cell]:
    return {cell.run_key(study.split, fingerprints): cell for cell in known}
