"""A tiny study, opened and run without training: every cell ends at once, as the test wants it."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric

from litsexp.data.splits import Split, make_splits
from litsexp.data.store import Store
from litsexp.evaluation.truths import NativeCohort
from litsexp.spec.design import cells, design_digest
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.study import session as session_room
from litsexp.study.clients import patient_client
from litsexp.study.executors import slurm, slurm_commands
from litsexp.study.jobs import Job, OnEpoch, Outcome
from litsexp.study.keeping import KeepWeights
from litsexp.study.ledger import Ledger
from litsexp.study.places import Places
from litsexp.study.scorings import scoring_of
from litsexp.study.session import Session, open_study
from litsexp.study.tracking import Tracking
from litsexp.training import architectures

from .slurm_played import Slurm

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
    """What ``run_cell`` leaves behind, without training: scores, one curve, a table a scoring."""
    if not job.trained:
        curve = [Metric("valid/dice_liver", 0.4 + epoch / 10, 0, epoch) for epoch in range(2)]
        scalars = [Metric("best/score", score, 0, 0), Metric("time/fit_s", 60.0, 0, 0)]
        client.log_batch(job.run_id, metrics=[*curve, *scalars])
        client.set_terminated(job.run_id, "FINISHED")
    for scoring in job.scorings:
        test = scoring.kind == "test"
        own = {"test": job.split.test, "native": job.split.test, "train": job.split.train}
        cases = list(own[scoring.kind]) if scoring.kind in own else Store.open(scoring.store).cases
        table = pd.DataFrame({"case": cases, "dice_liver": 0.9, "dice_tumor": score if test else score / 2})
        folder.mkdir()
        table.to_parquet(folder / "cases.parquet", index=False)
        client.log_artifacts(job.run_id, str(folder), scoring.folder or None)
        client.set_tag(job.run_id, scoring.tag, scoring.folder or ".")
        shutil.rmtree(folder)
    return Outcome("scored" if job.trained else "finished", score, seconds=60.0)


@dataclass
class Instant:
    """An executor whose jobs end at once. ``behave`` may answer for a job, or raise; None: it finishes."""

    places: Places
    behave: Callable[[Job, OnEpoch], Outcome | None] = lambda job, on_epoch: None
    ran: list[str] = field(default_factory=list)  # names of the cells that were trained
    scored: list[str] = field(default_factory=list)  # and of those that were only scored

    def __call__(self, jobs: Iterable[Job], on_epoch: OnEpoch) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            (self.scored if job.trained else self.ran).append(job.cell.name)
            outcome = self.behave(job, on_epoch)
            yield job, outcome or finish(job, patient_client(job.tracking_uri), self.places.root / "tmp")


class Quiet:
    """An observer that only remembers what was planned."""

    def planned(self, done: Any, left: int, to_score: int) -> None:
        self.plan, self.to_score = (len(done), left), to_score

    def started(self, cell: Any) -> None: ...

    def epoch(self, cell: Any, epoch: int, metrics: Any) -> None: ...

    def ended(self, cell: Any, outcome: Any) -> None: ...


@dataclass
class Bench:
    """One ``mlruns`` on which studies are opened and run."""

    places: Places
    store: Store
    executor: Instant
    name: str = "tiny"
    external: Store | None = None
    native: NativeCohort | None = None
    keep_weights: KeepWeights = "all"
    scoring: bool = True

    @contextmanager
    def open(self, study: StudyConfig) -> Iterator[Session]:
        splits = make_splits(self.store.has_tumor, study.split)
        asked = (self.name, study, self.store, splits, self.places, self.external, None)
        with open_study(*asked, self.native, self.keep_weights, self.scoring) as session:
            yield session

    def run(self, study: StudyConfig) -> tuple[Session, tuple[int, int]]:
        """The session after a whole run, and how many cells were (done before, left)."""
        observer = Quiet()
        with self.open(study) as session:
            session.run(self.executor, observer)
        return session, observer.plan

    def ledger(self, study: StudyConfig) -> Ledger:
        """The study's ledger as a driver opens it; without the lock, so that a test can play a killed driver."""
        name = f"{self.name}-{design_digest(study, self.store.fingerprint)}"
        return Ledger(self.places.storage_url, name, study)

    def tracking(self) -> Tracking:
        return Tracking(self.places.tracking_uri, self.name, self.places.root / "artifacts")

    def statuses(self) -> list[tuple[str, str]]:
        """(cell's name, status) of every cell's run, oldest first."""
        runs = [run for run in self.tracking().runs() if "run_key" in run.data.tags]
        return [("{arm} · fold {fold} · seed {seed}".format(**run.data.params), run.info.status) for run in runs]

    def trial_states(self, study: StudyConfig) -> list[str]:
        return [trial.state.name for trial in self.ledger(study).trials()]


@pytest.fixture
def bench(
    new_places: Callable[[Path], Places], tmp_path: Path, phantom_store: Store, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setattr(session_room, "check_needs", lambda *_: None)  # nothing is trained here; it has its own tests
    places = new_places(tmp_path)
    return Bench(places, phantom_store, Instant(places))


@pytest.fixture
def study() -> Callable[..., StudyConfig]:
    return make_study


def small_encoder(_: str = "") -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU()),
        torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, 2, 1), torch.nn.ReLU()),
    )


@pytest.fixture
def tracking(new_places: Callable[[Path], Any], tmp_path: Path) -> Tracking:
    places = new_places(tmp_path)
    return Tracking(places.tracking_uri, "tiny", places.root / "artifacts")


@pytest.fixture
def job(
    tracking: Tracking, tmp_path: Path, phantom_store: Store, phantom_split: Split, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Job]:
    """``job(...)``: a cell with these settings on the tiny phantom, its run opened; its U-Net trains in no time."""
    monkeypatch.setattr(architectures, "random_encoder", small_encoder)

    def make(external: Store | None = None, **settings: Any) -> Job:
        base = {"init": "scratch", "epochs": 2, "steps_per_epoch": 1, "batch_size": 4, "augment": "none"}
        asked = StudyConfig(question="?", run=RunConfig.model_validate({**base, **settings}))
        parent = tracking.open_parent(asked, "digest", "tiny", (), {})
        one = cells(asked)[0]
        run_id = tracking.start_cell(one, "key", parent, {})
        scorings = [scoring_of("test", "key", phantom_store, "ours", first=True)]
        scorings += [scoring_of("external", "key", external, "theirs", first=True)] if external else []
        return Job(one, "key", run_id, tracking.uri, phantom_split, phantom_store.directory, tuple(scorings), tmp_path)

    return make


def go_on(*_: Any) -> bool:
    return True


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Slurm's commands, played."""
    made = Slurm(tmp_path / "commands")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    for module, name in [(slurm, "POLL_S"), (slurm, "GONE_S"), (slurm_commands, "RETRY_S")]:
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(slurm_commands, "END_S", 1.5)
    return made


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.below(tmp_path / "mlruns")
