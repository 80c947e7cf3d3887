"""What a cell costs the driver: a study whose runs end as soon as they are handed out, and nothing else is timed."""

import resource
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient

from litsexp.data.parallel import Progress
from litsexp.data.splits import make_splits
from litsexp.data.store import Store
from litsexp.spec.design import Cell, cells
from litsexp.spec.study import StudyConfig
from litsexp.study.jobs import Job, OnEpoch, Outcome
from litsexp.study.observer import Observer
from litsexp.study.places import Places
from litsexp.study.session import open_study

ARMS, FOLDS = 2, 5
SCORE = 0.5


@dataclass(frozen=True)
class Driven:
    """A study of so many cells."""

    cells: int
    cell_ms: float  # of the driver alone, each: queued, asked for, its run opened, told
    resume_s: float  # opening the finished study again, and finding nothing left
    memory_mb: float  # peak of the process so far


def study_of(count: int) -> StudyConfig:
    """A fixed design of about so many cells: two arms, five folds, seeds as they are needed."""
    content = {
        "question": "What does a cell cost?",
        "split": {"folds": FOLDS},
        "run": {"init": "scratch", "window": "liver", "epochs": 1, "steps_per_epoch": 1},
        "factors": {"window": ["wide"]},
        "seeds": list(range(max(1, round(count / (ARMS * FOLDS))))),
    }
    return StudyConfig.model_validate(content)


def drive(count: int, store: Store, places: Places, observer: Observer) -> Driven:
    """Run a study of about ``count`` cells without training, and open it again."""
    study = study_of(count)
    splits = make_splits(store.has_tumor, study.split)
    spent_s = 0.0

    def nobody(jobs: Iterable[Job], _: OnEpoch) -> Generator[tuple[Job, Outcome]]:
        nonlocal spent_s
        client = MlflowClient(places.tracking_uri)
        for job in jobs:
            start_s = time.perf_counter()
            for scoring in job.scorings:
                client.set_tag(job.run_id, scoring.tag, ".")
            client.log_metric(job.run_id, "best/score", SCORE)
            client.set_terminated(job.run_id, "FINISHED")
            spent_s += time.perf_counter() - start_s
            yield job, Outcome("finished", SCORE)

    with open_study(f"driver-{count}", study, store, splits, places) as session:
        start_s = time.perf_counter()
        session.run(nobody, observer)
        driver_s = time.perf_counter() - start_s - spent_s
    start_s = time.perf_counter()
    with open_study(f"driver-{count}", study, store, splits, places) as session:
        session.run(nobody, observer)
    resume_s = time.perf_counter() - start_s
    made = len(cells(study))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Driven(made, 1000 * driver_s / made, resume_s, peak_mb)


class Counter:
    """An observer that counts the cells that ended, for a progress bar."""

    def __init__(self, advance: Progress, total: int):
        self.advance, self.total, self.done = advance, total, 0

    def planned(self, done: Sequence[Cell], left: int, to_score: int) -> None:
        """Nothing to tell."""

    def started(self, cell: Cell) -> None:
        """Nothing to tell."""

    def epoch(self, cell: Cell, epoch: int, metrics: dict[str, float]) -> None:
        """There are none."""

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """One more."""
        self.done += 1
        self.advance(min(self.done, self.total), self.total)
