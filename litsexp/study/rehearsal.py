"""How fast this machine trains: each kind of arm in two tiny runs, through the executor that the study will use.

A rehearsal is a real cell in everything but its length: the same process, threads and neighbours, the same code from
building the network to logging the scores; on an excerpt of the store, and in a temporary MLflow. The first run warms
up and tells how long the second may be; what takes time in proportion to slices shows where the two differ.
"""

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np

from litsexp.data.parallel import Progress
from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.data.store.excerpt import write_excerpt
from litsexp.spec.base import Level
from litsexp.spec.catalog import registered_modules
from litsexp.spec.design import Arm, Cell
from litsexp.spec.errors import LitsexpError
from litsexp.spec.pretraining import OWN, learns
from litsexp.spec.run import RunConfig
from litsexp.study.jobs import Executor, Job
from litsexp.study.keeping import WEIGHTS
from litsexp.study.scorings import CohortKind, scoring_of
from litsexp.study.tracking import Tracking

FREE = {  # settings that cost no time
    *("init", "dice_weight", "lr", "schedule", "weight_decay", "train_fraction", "split_unit"),
}
LENGTH = {"epochs", "patience", "steps_per_epoch"}  # and those that only say how long a run is
STEPS_S, SLICES_S = 4.0, 2.0  # of steps an epoch, and of validation, that the second run should take
MOST_STEPS = 40
LEAST_STEPS, LEAST_BATCHES = 2, 3
CASE_SLICES = 16  # of a case in the excerpt


@dataclass(frozen=True)
class Pace:
    """How long the parts of a run take, in seconds, beside as many others as there are workers."""

    begin_s: float  # before the first epoch: building the network
    step_s: float  # an optimiser step, its batch included
    frozen_step_s: float  # the same with the encoder frozen
    epoch_s: float  # of every epoch, however many slices validate
    valid_slice_s: float
    end_s: float  # after the last epoch: weights, pictures, tables
    scored_slice_s: float  # test and external cohort
    artifact_bytes: int
    weights_bytes: int  # of them
    worker_start_s: float  # once a worker: loading torch and MLflow
    ssl_step_s: float = 0.0  # a step of pretraining, where there is one


@dataclass
class Take:
    """One rehearsed run: its length, and when what happened."""

    steps: int
    batch: int
    valid: int  # slices
    scored: int
    start_s: float = 0.0
    epochs: list[tuple[float, float]] = field(default_factory=list)  # when it ended, images a second while training
    end_s: float = 0.0
    artifact_bytes: int = 0
    weights_bytes: int = 0
    ssl_s: float = 0.0  # in as many steps of pretraining

    def train_s(self, epoch: int) -> float:
        """Seconds in the training steps of an epoch."""
        return self.steps * self.batch / self.epochs[epoch][1]

    @property
    def step_s(self) -> float:
        """Seconds a step in the last epoch."""
        return self.train_s(-1) / self.steps

    @property
    def rest_s(self) -> float:
        """Seconds an epoch beside the training steps: validation, bookkeeping; not of the first one."""
        times = [moment for moment, _ in self.epochs]
        return fmean(times[e] - times[e - 1] - self.train_s(e) for e in range(1, len(times)))

    @property
    def before_s(self) -> float:
        """Seconds before the first epoch, beside the steps of pretraining."""
        return max(0.0, self.epochs[0][0] - self.start_s - self.train_s(0) - self.rest_s - self.ssl_s)

    @property
    def after_s(self) -> float:
        """Seconds after the last epoch."""
        return self.end_s - self.epochs[-1][0]


def kind_of(run: RunConfig) -> str:
    """What runs of equal cost share: every setting but those that change no time, or only a run's length."""
    settings = run.model_dump(exclude=FREE | LENGTH | {*OWN}) | {"frozen_epochs": run.frozen_epochs > 0}
    if learns(run):
        settings |= {"init": run.init, "ssl_batch_size": run.ssl_batch_size}
    return repr(sorted(settings.items()))


def rehearse(
    runs: Sequence[RunConfig],
    store: Store,
    valid_slices: int,
    external: bool,
    executor: Executor,
    workers: int,
    progress: Progress,
) -> dict[str, Pace]:
    """Kind -> its pace, of every kind among these runs.

    Args:
        runs: arms of the study.
        store: of its cohort.
        valid_slices: how many validate a real run; a rehearsal has no more.
        external: whether each run scores a second cohort, too.
        executor: that the study will use; ``workers`` rehearsals of a kind run at a time, as its cells will.
        workers: of that executor.
        progress: told after each rehearsed run.

    Raises:
        LitsexpError: a run that failed.
    """
    with tempfile.TemporaryDirectory(prefix="litsexp-rehearsal-") as name:
        kinds = {kind_of(run): run for run in reversed(runs)}
        stage = Stage(Path(name), store, valid_slices, external, kinds, workers)
        total, done = 2 * workers * len(stage.kinds), 0
        with closing(executor(stage.jobs(), stage.on_epoch)) as ended:
            for job, outcome in ended:
                if outcome.status != "finished":
                    raise LitsexpError(f"rehearsing {job.cell.arm.name}: {outcome.reason}")
                stage.end(job)
                done += 1
                progress(done, total)
        return stage.paces()


class Stage:
    """A rehearsal's temporary folder, and the stopwatch."""

    def __init__(
        self, folder: Path, store: Store, valid_slices: int, external: bool, kinds: dict[str, RunConfig], workers: int
    ):
        self.folder, self.store, self.valid_slices, self.external = folder, store, valid_slices, external
        self.kinds, self.workers = kinds, workers
        self.tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}", "rehearsal", folder / "artifacts")
        self.takes: dict[str, tuple[list[Take], list[Take]]] = {kind: ([], []) for kind in kinds}  # short, longer
        self.running: dict[str, Take] = {}  # by MLflow run id

    def jobs(self) -> Iterator[Job]:
        """Of each kind a short run a worker, then a longer one; made when there is room, so a short one has ended."""
        for kind, run in self.kinds.items():
            yield from self._jobs(kind, run, 0, 1, 1)
            warm = next(take for take in self.takes[kind][0] if take.end_s)
            steps = round(min(MOST_STEPS, max(LEAST_STEPS, STEPS_S / warm.step_s)))
            affordable = SLICES_S / (warm.step_s / 3)  # batches: forward is about a third of a step
            batches = round(max(LEAST_BATCHES, min(affordable, self.valid_slices / run.batch_size)))
            yield from self._jobs(kind, run, 1, steps, batches)

    def on_epoch(self, job: Job, _: int, metrics: dict[str, float]) -> bool:
        """Note the time."""
        self.running[job.run_id].epochs.append((time.perf_counter(), metrics["images_per_s"]))
        return True

    def end(self, job: Job) -> None:
        """Note the time and what was written; free the disk."""
        take = self.running.pop(job.run_id)
        take.end_s = time.perf_counter()
        take.ssl_s = self.tracking.client.get_run(job.run_id).data.metrics.get("time/ssl_s", 0.0)
        folder = self.folder / "artifacts" / "rehearsal" / job.run_id
        take.artifact_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        take.weights_bytes = sum(file.stat().st_size for file in folder.rglob(WEIGHTS))
        shutil.rmtree(folder)

    def paces(self) -> dict[str, Pace]:
        """Of each kind, when all of it has ended; a worker starts once, so only the first kind shows how long."""
        firsts = next(iter(self.takes.values()))
        found = {kind: pace(*takes) for kind, takes in self.takes.items()}
        begin_s = next(iter(found.values())).begin_s
        start_s = max(0.0, fmean(take.before_s for take in firsts[0]) - begin_s)
        return {kind: Pace(**{**vars(one), "worker_start_s": start_s}) for kind, one in found.items()}

    def _jobs(self, kind: str, run: RunConfig, which: int, steps: int, batches: int) -> Iterator[Job]:
        frozen = int(which == 1 and run.frozen_epochs > 0)
        length = {"epochs": 2 + frozen, "frozen_epochs": frozen, "patience": 0, "steps_per_epoch": steps}
        rate = {"lr": 1e-3} if run.lr == "find" else {}  # and one schedule: the phases of others differ in length
        plain: dict[str, Level] = {
            "schedule": "one_cycle",
            "train_fraction": 1.0,
            "split_unit": "patient",
            "ssl_steps": steps,
        }
        short = run.changed({**length, **rate, **plain})
        store, split = self._excerpt(f"{list(self.kinds).index(kind)}-{which}", run, batches)
        valid = len(store.rows_of(split.valid))
        batch = min(run.batch_size, len(store.rows_of(split.train)))
        for worker in range(self.workers):
            cell = Cell(Arm(run.encoder, short), 0, worker)
            run_id = self.tracking.client.create_run(self.tracking.experiment_id).info.run_id
            whole: tuple[CohortKind, ...] = ("test", "external") if self.external else ("test",)
            scorings = tuple(scoring_of(one, run_id, store, "rehearsal", first=True) for one in whole)
            take = Take(steps, batch, valid, valid + self.external * len(store.index))
            self.takes[kind][which].append(take)
            self.running[run_id] = take
            uri, modules = self.tracking.uri, registered_modules()
            take.start_s = time.perf_counter()
            yield Job(
                cell, run_id, run_id, uri, split, store.directory, scorings, self.folder / "pretrained", modules=modules
            )

    def _excerpt(self, name: str, run: RunConfig, batches: int) -> tuple[Store, Split]:
        """Two batches to train on, or one to pretrain on where that is more; so many to validate and to test."""
        sources = self._middles()
        train = _enough(sources, max(2 * run.batch_size, run.ssl_batch_size if learns(run) else 0))
        valid = _enough(sources, batches * run.batch_size)
        store = write_excerpt(self.store, [*train, *valid], self.folder / "stores" / name)
        numbers = tuple(range(len(train) + len(valid)))
        return store, Split(numbers[: len(train)], numbers[len(train) :], numbers[len(train) :])

    def _middles(self) -> Iterator[np.ndarray]:
        """The middle slices of case after case, over and over."""
        while True:
            for case in self.store.cases:
                rows = self.store.rows_of([case])
                start = max(0, (len(rows) - CASE_SLICES) // 2)
                yield rows[start : start + CASE_SLICES]


def _enough(sources: Iterator[np.ndarray], slices: int) -> list[np.ndarray]:
    """Cases from the sources until they have so many slices together; the last one is cut."""
    taken: list[np.ndarray] = []
    while (missing := slices - sum(map(len, taken))) > 0:
        taken.append(next(sources)[:missing])
    return taken


def pace(short: Iterable[Take], longer: Iterable[Take]) -> Pace:
    """The pace that a kind's short and longer runs show, on average over those that ran at a time."""
    a, b = list(short), list(longer)

    def line(x: str, y: str) -> tuple[float, float]:
        """(fixed, a slice): the line through both means, neither of them below 0."""
        xs, ys = ([fmean(getattr(take, name) for take in takes) for takes in (a, b)] for name in (x, y))
        slope = min(max(0.0, (ys[1] - ys[0]) / (xs[1] - xs[0])), ys[1] / xs[1])
        return ys[1] - slope * xs[1], slope

    epoch_s, valid_slice_s = line("valid", "rest_s")
    end_s, scored_slice_s = line("scored", "after_s")
    return Pace(
        begin_s=fmean(take.before_s for take in b),
        step_s=fmean(take.step_s for take in b),
        frozen_step_s=fmean(take.train_s(0) / take.steps for take in b),
        epoch_s=epoch_s,
        valid_slice_s=valid_slice_s,
        end_s=end_s,
        scored_slice_s=scored_slice_s,
        artifact_bytes=max(take.artifact_bytes for take in [*a, *b]),
        weights_bytes=max(take.weights_bytes for take in [*a, *b]),
        worker_start_s=0.0,
        ssl_step_s=fmean(take.ssl_s / take.steps for take in b),
    )
