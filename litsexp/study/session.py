"""The driver: ledger + executor + tracking.

``open_study`` takes the study's lock, puts right what a killed driver left behind, and yields a ``Session``;
``Session.run`` runs the jobs that are left. Running the same command again is how one resumes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from numpy.typing import NDArray

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.evaluation.truths import NativeCohort
from litsexp.spec.catalog import registered_modules
from litsexp.spec.claim import Claim
from litsexp.spec.design import Cell, arm_of, cells, design_digest
from litsexp.spec.study import StudyConfig
from litsexp.study.answerable import check_answerable
from litsexp.study.cohorts import check_external, cohort_tags, leak_tags
from litsexp.study.endings import close_interrupted, end_study
from litsexp.study.executors.slurm import end_left, left_over
from litsexp.study.jobs import Executor, Job, Outcome
from litsexp.study.keeping import KeepWeights, check_scorable, keeper
from litsexp.study.ledger import Ledger, Ticket, params_of, sampled_cells
from litsexp.study.locks import one_driver
from litsexp.study.observer import Observer
from litsexp.study.pictures import TALLEST, read_tallest
from litsexp.study.places import Places
from litsexp.study.preflight import check_needs
from litsexp.study.reading import read
from litsexp.study.results import Parent, Results
from litsexp.study.scorings import CohortKind, Scoring, wanted_scorings
from litsexp.study.tracking import Tracking, value_of
from litsexp.study.versions import versions


@dataclass
class Session:
    """An open study: nobody else drives it while this object is in use."""

    name: str
    study: StudyConfig
    store: Store
    splits: list[Split]
    places: Places
    digest: str
    tracking: Tracking
    ledger: Ledger
    parent: Parent
    cells: dict[str, Cell]  # run key -> cell; a search adds to them
    external: Store | None = None  # of another cohort, that every run scores when it is trained
    native: NativeCohort | None = None  # of its own one, where test cases are scored at native resolution, too
    keep_weights: KeepWeights = "all"  # which of the runs that are trained now keep them
    failures: dict[Cell, Outcome] = field(default_factory=dict)  # of this session
    trained_s: list[float] = field(default_factory=list)  # fit and evaluation of each cell trained in this session
    wall_s: float = 0.0  # of running them, workers' start included
    _tickets: dict[str, Ticket] = field(default_factory=dict)  # MLflow run id of a running cell -> its trial

    def run(self, executor: Executor, observer: Observer, train: bool = True, retries: int = 0) -> None:
        """Run what is left; cells that fail are kept in ``failures`` and the study goes on.

        Without ``train``, finished runs are scored where a scoring is missing, and no run is trained. A cell whose
        worker died is run again up to ``retries`` times, when the others have ended; an exception in its training
        would only come again. LitsexpError: something that a cell needs is not there; a claim that can no longer be
        answered.
        """

        def on_epoch(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
            observer.epoch(job.cell, epoch, metrics)
            number = self._tickets[job.run_id].number
            return not (self.study.search and self.ledger.should_prune(number, epoch, metrics["valid/score"]))

        start_s = time.perf_counter()
        try:
            jobs = self._jobs(observer) if train else self._scoring_jobs(observer)
            for left in range(retries, -1, -1):
                died: list[tuple[Job, Ticket | None]] = []
                with closing(executor(jobs, on_epoch)) as ended:
                    for job, outcome in ended:
                        job, outcome = self.tracking.as_far_as_it_came(job, outcome)
                        ticket = self._settle(job, outcome, again=outcome.died and left > 0)
                        died += [(job, ticket)] if outcome.died else []
                        observer.ended(job.cell, outcome)
                        check_answerable(self.study, self.cells.values(), self.failures)
                if not died:
                    break
                jobs = self._again(died, observer)
        except BaseException:  # Ctrl-C may come between any two lines, so ask the databases what is open
            close_interrupted(self.tracking, self.ledger, self.parent)
            raise
        finally:
            self.tracking.forget()
            self.wall_s = time.perf_counter() - start_s

    def results(self, runs: Iterable[Run] | None = None) -> Results:
        """What the finished cells gave; of these ``runs`` of the experiment, where they are known already."""
        found, wanted = self.tracking.runs() if runs is None else runs, {key: self._scorings(key) for key in self.cells}
        return read(self.tracking.client, found, self.cells, wanted, "epochs" in self.study.needs)

    def tallest(self, run_id: str, kind: CohortKind) -> dict[int, NDArray[np.uint8]]:
        """``pictures.read_tallest`` of a run's test cases, or of the external cohort's; empty of an older run."""
        tags = self.tracking.client.get_run(run_id).data.tags
        scorings = [one for one in self._scorings(tags["run_key"]) if one.kind == kind and one.tag in tags]
        kept = self.tracking.beside_cases(run_id, tags[scorings[0].tag], TALLEST) if scorings else None
        return read_tallest(kept) if kept else {}

    @cached_property
    def keeps(self) -> Callable[[Cell], bool]:
        """Whether a cell that is trained now is to keep its weights."""
        return keeper(self.keep_weights, self.study)

    def trials(self) -> pd.DataFrame:
        """A search's trials: number, state, value, and a column a param; best first."""
        known = [trial for trial in self.ledger.trials() if trial.state.is_finished() and trial.params]
        rows = [{"trial": t.number, "state": t.state.name, "valid/score": t.value, **t.params} for t in known]
        table = pd.DataFrame(rows)
        return table.sort_values("valid/score", ascending=False, na_position="last") if len(table) else table

    def _jobs(self, observer: Observer) -> Iterator[Job]:
        """What is left to do, made when an executor has room for it: cells to train, then finished ones to score."""
        finished = self.tracking.finished()
        queue = self._samples(finished, observer) if self.study.search else self._queue(finished, observer)
        for ticket, cell in queue:
            observer.started(cell)
            job = self._start(cell)
            self._tickets[job.run_id] = ticket
            yield job
        yield from self._to_score(finished, observer)

    def _scoring_jobs(self, observer: Observer) -> Iterator[Job]:
        """Finished runs that lack a scoring, and nothing else."""
        finished = self.tracking.finished()
        done = [cell for key, cell in self.cells.items() if key in finished]
        observer.planned(done, 0, len(list(self._unscored(finished))))
        yield from self._to_score(finished, observer)

    def _again(self, died: Iterable[tuple[Job, Ticket | None]], observer: Observer) -> Iterator[Job]:
        """Cells whose worker died, each as a new run; a finished run's scorings just so."""
        for job, ticket in died:
            observer.started(job.cell)
            if ticket is not None:
                job = self._start(job.cell)
                self._tickets[job.run_id] = self.ledger.again(ticket, job.run_key)
            yield job

    def _to_score(self, finished: dict[str, Run], observer: Observer) -> Iterator[Job]:
        for job in self._unscored(finished):
            observer.started(job.cell)
            yield job

    def _queue(self, finished: dict[str, Run], observer: Observer) -> Iterator[tuple[Ticket, Cell]]:
        """The cells of a fixed design that are not done."""
        complete = self.ledger.complete()
        left = {key: cell for key, cell in self.cells.items() if key not in finished or key not in complete}
        done = [cell for key, cell in self.cells.items() if key in finished]
        to_train = [cell for key, cell in left.items() if key not in finished]
        observer.planned(done, len(to_train), len(list(self._unscored(finished))))
        check_needs(to_train, self.store, self.places, self.keeps)
        given: set[str] = set()
        for key, cell in left.items():  # queued one by one: Optuna reads every trial that waits whenever it is asked
            if key in given:
                continue
            self.ledger.enqueue(params_of(cell, self.study), key)
            while self.ledger.waiting():  # this one, after what a killed driver has left
                ticket = self.ledger.ask()
                again = ticket.run_key in given
                given.add(ticket.run_key)
                if ticket.run_key in finished:  # by an earlier study of this name, or just before its driver was killed
                    self.ledger.tell(ticket.number, value_of(finished[ticket.run_key]))
                elif ticket.run_key in self.cells and not again:
                    yield ticket, self.cells[ticket.run_key]
                else:
                    self.ledger.tell_failed(ticket.number)

    def _samples(self, finished: dict[str, Run], observer: Observer) -> Iterator[tuple[Ticket, Cell]]:
        """A search's samples, one ask at a time so that it sees every result: interrupted ones again, then fresh."""
        assert self.study.search is not None
        self.ledger.enqueue_interrupted_samples()
        left = max(self.study.search.trials - self.ledger.settled(), 0)
        observer.planned(list(self.cells.values()), left, len(list(self._unscored(finished))))
        check_needs(cells(self.study)[:1] if left else [], self.store, self.places, self.keeps)
        for _ in range(left):
            ticket = self.ledger.ask()
            cell = Cell(arm_of(self.study, ticket.params), fold=0, seed=self.study.seeds[0])
            key = cell.run_key(self.study.split, self.store.fingerprint)
            self.ledger.name(ticket.number, key)
            self.cells[key] = cell
            if key in finished:
                self.ledger.tell(ticket.number, value_of(finished[key]))
            else:
                yield ticket, cell

    def _start(self, cell: Cell) -> Job:
        """Open the cell's MLflow run; a cell of the same content that failed before becomes an earlier attempt."""
        key = cell.run_key(self.study.split, self.store.fingerprint)
        tags = {"study_digest": self.digest, "data_fingerprint": self.store.fingerprint}
        tags |= {**cohort_tags(self.study, self.store), **leak_tags(cell.arm.run.split_unit == "slice"), **versions()}
        run_id = self.tracking.start_cell(cell, key, self.parent, tags)
        return self._job(key, cell, run_id, self._scorings(key, first=True))

    def _unscored(self, finished: dict[str, Run]) -> Iterator[Job]:
        """Finished cells that lack a scoring: of a cohort, or by metrics, that came after them."""
        for key, cell in self.cells.items():
            run = finished.get(key)
            missing = [one for one in self._scorings(key) if run and one.tag not in run.data.tags]
            if run and missing:
                yield self._job(key, cell, run.info.run_id, missing, trained=True)

    def _job(self, key: str, cell: Cell, run_id: str, scorings: Iterable[Scoring], trained: bool = False) -> Job:
        split, store, uri = self.splits[cell.fold], self.store.directory, self.tracking.uri
        cache = self.places.stores / "pretrained"
        known = (registered_modules(), self.store.fingerprint, self.keeps(cell))
        return Job(cell, key, run_id, uri, split, store, tuple(scorings), cache, trained, *known)

    def _scorings(self, key: str, first: bool = False) -> list[Scoring]:
        return wanted_scorings(self.study, key, self.store, self.external, self.native, first)

    def _settle(self, job: Job, outcome: Outcome, again: bool) -> Ticket | None:
        """Write a job's end to the ledger, and to MLflow what that has not; its trial, if that failed.

        A failure counts unless it is run ``again``.
        """
        ticket = self._tickets.pop(job.run_id, None)  # none: it was only scored
        if outcome.status in ("failed", "unscored") and not again:
            self.failures[job.cell] = outcome
        if ticket and outcome.status == "failed":
            self.tracking.end(job.run_id, "FAILED", outcome.reason, outcome.detail)
            self.ledger.tell_failed(ticket.number)
            return ticket
        if ticket and outcome.status == "pruned":
            self.ledger.tell_pruned(ticket.number)
        elif ticket:
            self.ledger.tell(ticket.number, outcome.value)
        self.trained_s += [outcome.seconds] if ticket else []
        return None


@contextmanager
def open_study(
    name: str,
    study: StudyConfig,
    store: Store,
    splits: list[Split],
    places: Places,
    external: Store | None = None,
    fixed: Iterable[Claim] | None = None,
    native: NativeCohort | None = None,
    keep_weights: KeepWeights = "all",
    scoring: bool = True,
) -> Iterator[Session]:
    """Lock the study and put right what a killed driver left; while the block runs, its parent run is RUNNING.

    ``name`` is the MLflow experiment's; ``splits`` are those of ``make_splits``, one a fold; ``external`` is the store
    of ``study.external``, where the study has one. ``fixed`` are the claims that are written down before the first run;
    default: the study's own. ``native`` is the study's cohort where test cases are scored at native resolution, too.
    Without ``scoring`` finished runs stay as they are.

    ValueError: ``study.external`` without its store, or the other way round. LitsexpError: another driver has the
    study; a database that cannot be opened; an external cohort that is none; a run to be scored without its weights.
    """
    if (study.external is None) != (external is None):
        raise ValueError(f"study.external is {study.external}, and its store {external}; expected both or neither")
    check_external(store, external)
    planned = _by_key(cells(study), study, store)  # notices a missing weights file before anything is written
    study_digest = design_digest(study, store.fingerprint)
    full_name = f"{name}-{study_digest}"
    with one_driver(places.storage_url, full_name, places.root) as lock:
        tracking = Tracking(places.tracking_uri, name, places.root / "artifacts")
        ledger = Ledger(places.storage_url, full_name, study, lock)
        finished = tracking.finished()
        ledger.close_interrupted({key: value_of(run) for key, run in finished.items()})
        by_key = _by_key(sampled_cells(study, ledger), study, store) if study.search else planned
        donors = {run.data.tags[MLFLOW_PARENT_RUN_ID] for key, run in finished.items() if key in by_key}
        tags = {**cohort_tags(study, store), **leak_tags(study.leaks)}
        if scoring:
            check_scorable(by_key, finished, lambda key: wanted_scorings(study, key, store, external, native))
        del finished  # this frame lasts as long as the session
        parent = tracking.open_parent(study, study_digest, name, sorted(donors), tags, fixed)
        try:
            end_left(tracking.below(parent, left_over(places.root)), places.root)
            tracking.close_interrupted(parent)
            asked = (name, study, store, splits, places, study_digest)
            yield Session(*asked, tracking, ledger, parent, by_key, external, native, keep_weights)
        except BaseException as error:
            end_study(tracking, ledger, parent, error)
            raise


def _by_key(known: Sequence[Cell], study: StudyConfig, store: Store) -> dict[str, Cell]:
    return {cell.run_key(study.split, store.fingerprint): cell for cell in known}
