"""A tiny study, opened and run without training: every cell ends at once, as the test wants it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from litsexp.spec.design import design_digest
from mlflow import MlflowClient
from mlflow.entities import Metric

from litsexp.data.splits import make_splits
from litsexp.data.store import Store
from litsexp.spec.study import StudyConfig
from litsexp.study import session as runner
from litsexp.study.cells import Job, Outcome
from litsexp.study.cohorts import fingerprints
from litsexp.study.executors import OnJobEpoch
from litsexp.study.ledger import Ledger
from litsexp.study.session import Places, Session, open_study
from litsexp.study.tracking import Tracking

CLAIM = {"id": "wider", "says": "Wider is better.", "factor": "window", "better": "wide", "than": "liver"}
STUDY = {
    "question": "Is a wide window better?",
    "split": {"folds": 2, "valid": 0.25, "seed": 0},
    "run": {"init": "scratch", "window": "liver", "augment": "none", "epochs": 2, "steps_per_epoch": 1},
    "factors": {"window": ["wide"]},
    "claims": [CLAIM],
}


def make_study(**changes: Any) -> StudyConfig:
    """Two arms x two folds, with some sections replaced."""
    return StudyConfig.model_validate({**STUDY, **changes})


def finish(job: Job, client: MlflowClient, folder: Path, score: float = 0.5) -> Outcome:
    """What ``run_cell`` leaves behind, without training: scores, one curve, one row a test or external case."""
    cases = pd.DataFrame({"case": job.split.test, "dice_liver": 0.9, "dice_tumor": score})
    folder.mkdir()
    cases.to_parquet(folder / "cases.parquet", index=False)
    if job.external is not None:
        elsewhere = pd.DataFrame({"case": Store.open(job.external).cases, "dice_liver": 0.8, "dice_tumor": score / 2})
        elsewhere.to_parquet(folder / "external_cases.parquet", index=False)
    client.log_artifacts(job.run_id, str(folder))
    shutil.rmtree(folder)
    curve = [Metric("valid/dice_liver", 0.4 + epoch / 10, 0, epoch) for epoch in range(2)]
    client.log_batch(job.run_id, metrics=[*curve, Metric("best/score", score, 0, 0), Metric("time/fit_s", 60.0, 0, 0)])
    client.set_terminated(job.run_id, "FINISHED")
    return Outcome("finished", score, seconds=60.0)


@dataclass
class Instant:
    """An executor whose jobs end at once. ``behave`` may answer for a job, or raise; None: it finishes."""

    places: Places
    behave: Callable[[Job, OnJobEpoch], Outcome | None] = lambda job, on_epoch: None
    ran: list[str] = field(default_factory=list)
    job: Job | None = None
    on_epoch: OnJobEpoch | None = None

    def room(self) -> bool:
        return self.job is None

    def busy(self) -> bool:
        return self.job is not None

    def submit(self, job: Job) -> None:
        self.job = job

    def wait(self, timeout_s: float) -> tuple[Job, Outcome]:
        job = self.job
        assert job is not None
        assert self.on_epoch is not None
        self.ran.append(job.cell.name)
        outcome = self.behave(job, self.on_epoch)
        if outcome is None:
            outcome = finish(job, MlflowClient(job.tracking_uri), self.places.root / "tmp")
        self.job = None
        return job, outcome

    def close(self) -> None:
        self.job = None


class Quiet:
    """An observer that only remembers what was planned."""

    def planned(self, done: Any, left: int) -> None:
        self.plan = len(done), left

    def started(self, cell: Any) -> None: ...

    def epoch(self, cell: Any, epoch: int, metrics: Any) -> None: ...

    def ended(self, cell: Any, outcome: Any) -> None: ...

    def tick(self) -> None: ...


@dataclass
class Bench:
    """One ``mlruns`` on which studies are opened and run."""

    places: Places
    store: Store
    executor: Instant
    name: str = "tiny"
    external: Store | None = None

    @contextmanager
    def open(self, study: StudyConfig) -> Iterator[Session]:
        splits = make_splits(self.store.has_tumor, study.split)
        with open_study(self.name, study, self.store, splits, self.places, self.external) as session:
            yield session

    def run(self, study: StudyConfig) -> tuple[Session, tuple[int, int]]:
        """The session after a whole run, and how many cells were (done before, left)."""
        observer = Quiet()
        with self.open(study) as session:
            session.run(workers=1, threads=1, observer=observer)
        return session, observer.plan

    def ledger(self, study: StudyConfig) -> Ledger:
        """The study's ledger as a driver opens it; without the lock, so that a test can play a killed driver."""
        name = f"{self.name}-{design_digest(study, fingerprints(self.store, self.external))}"
        return Ledger(self.places.storage_url, name, study)

    def tracking(self) -> Tracking:
        return Tracking(self.places.tracking_uri, self.name, self.places.root / "artifacts")

    def statuses(self) -> list[tuple[str, str]]:
        """(cell's name, status) of every cell's run, oldest first."""
        runs = [run for run in self.tracking().runs() if "run_key" in run.data.tags]
        return [(run.info.run_name.removeprefix("phantom · "), run.info.status) for run in runs]

    def trial_states(self, study: StudyConfig) -> list[str]:
        return [trial.state.name for trial in self.ledger(study).trials()]


@pytest.fixture
def bench(
    new_places: Callable[[Path], Places], tmp_path: Path, phantom_store: Store, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    places = new_places(tmp_path)
    executor = Instant(places)

    def make_executor(workers: int | None, threads: int | None, on_epoch: OnJobEpoch) -> Instant:
        executor.on_epoch = on_epoch
        return executor

    monkeypatch.setattr(runner, "make_executor", make_executor)
    return Bench(places, phantom_store, executor)


@pytest.fixture
def study() -> Callable[..., StudyConfig]:
    return make_study
