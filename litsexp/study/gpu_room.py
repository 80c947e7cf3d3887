"""``--workers auto``: how many runs fit side by side on one GPU, by the memory that a real one is seen to take.

Each arm that may differ in memory trains a few steps and scores a case, all in one worker process, as a study's workers
go from arm to arm: torch keeps what it once took. The store is the study's own, for all of it is copied to a GPU.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from litsexp.data.parallel import Progress, all_usable_cpus
from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.base import Level
from litsexp.spec.catalog import registered_modules
from litsexp.spec.design import Arm, Cell, arm_of, cells
from litsexp.spec.errors import LitsexpError
from litsexp.spec.pretraining import learns
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.study.executors.processes import processes
from litsexp.study.gpu_memory import Reader, free_on_gpu, watched
from litsexp.study.jobs import Executor, Job
from litsexp.study.preflight import check_needs
from litsexp.study.scorings import scoring_of
from litsexp.study.session import Session
from litsexp.study.tracking import Tracking

GIB = 2**30
STEPS = 3
PIXEL_BYTES = 4  # of a stored pixel on the GPU, at most: a kept encoding's three channels and the label
HOLDING = (  # settings that decide how much memory a run takes, the batch size apart; others change a batch's worth
    *("architecture", "encoder", "encoder_depth", "decoder_width", "encoder_frozen"),
    *("encoding", "precision", "channels_last"),
)
PRETRAINING = ("init", "ssl_batch_size")
SHORT: dict[str, Level] = {  # an epoch of all weights at once
    **{"epochs": 1, "frozen_epochs": 0, "patience": 0, "steps_per_epoch": STEPS, "ssl_steps": STEPS},
    **{"schedule": "one_cycle", "train_fraction": 1.0, "split_unit": "patient"},
}


@dataclass(frozen=True)
class Room:
    """What was measured, and what else limits the number of runs at a time."""

    taken_bytes: int  # by one run's process, its CUDA context included
    free_bytes: int  # on the GPU, before
    cpus: int
    left: int  # runs

    @property
    def workers(self) -> int:
        """``runs_that_fit`` of it."""
        return runs_that_fit(self.taken_bytes, self.free_bytes, self.cpus, self.left)

    @property
    def words(self) -> str:
        """One line: the measurement, the number, and what limits it."""
        count, limit = self.workers, "memory"
        if count == self.left:
            limit = "all that are left"
        elif count == self.cpus:
            limit = f"{self.cpus} core{'s' * (self.cpus != 1)}"
        taken, free = (f"{size / GIB:.1f}" for size in (self.taken_bytes, self.free_bytes))
        runs = f"{count} run{'s' * (count != 1)} at a time ({limit})"
        return f"auto: a run takes {taken} of {free} GiB free on the GPU; {runs}"


def runs_that_fit(taken_bytes: int, free_bytes: int, cpus: int, left: int) -> int:
    """Runs at a time: as many as 0.9 of the free memory holds, at most a CPU each and all that are left, at least 1.

    Where nothing was seen to be taken nothing is known, and it is 1.
    """
    fitting = 9 * free_bytes // (10 * taken_bytes) if taken_bytes > 0 else 1
    return max(1, min(fitting, cpus, left))


def runs_left(session: Session) -> list[Cell]:
    """Cells of an open study that have not finished; of a search as many as it still tries, all the baseline."""
    study, finished = session.study, session.tracking.finished()
    if study.search:
        return cells(study)[:1] * max(0, study.search.trials - len(session.cells))
    return [cell for key, cell in session.cells.items() if key not in finished]


def room_on_gpu(
    session: Session,
    threads: int,
    progress: Progress,
    reader: Reader = free_on_gpu,
    alone: Callable[[int, int], Executor] = processes,
) -> Room:
    """Rehearse what is left of an open study, one arm after the other, and read what a run takes; at least 1 fits.

    Args:
        session: of the study; nothing of it is changed.
        threads: of a run.
        progress: told after each rehearsed arm.
        reader: of the device's free bytes, called in a process of its own.
        alone: ``(workers, threads) -> Executor``, for one worker.

    Raises:
        LitsexpError: an arm that fails, out of memory for example; memory that cannot be read.
    """
    left = runs_left(session)
    if not left:
        return Room(0, 0, all_usable_cpus(), 0)
    check_needs(left, session.store, session.places, session.keeps)
    arms = largest_arms(every_arm(session.study, left))
    taken, free = taken_and_free(arms, session.store, session.splits[0], alone(1, threads), progress, reader)
    if session.external is not None:  # copied to the GPU, too, by each run that scores it; not rehearsed
        resident = PIXEL_BYTES * session.external.labels.nbytes
        taken += resident if resident < free / 4 else 0
    return Room(taken, free, all_usable_cpus(), len(left))


def every_arm(study: StudyConfig, left: Sequence[Cell]) -> list[Arm]:
    """The arms of these cells; of a search all that it may draw, as far as they differ in memory."""
    if not study.search:
        return [cell.arm for cell in left]
    drawn = {name: levels for name, levels in study.factors.items() if name in {*HOLDING, *PRETRAINING, "batch_size"}}
    return [arm_of(study, dict(zip(drawn, levels, strict=True))) for levels in itertools.product(*drawn.values())]


def largest_arms(arms: Iterable[Arm]) -> list[Arm]:
    """Of those that differ in nothing but the batch size, and what takes no memory, the one of the largest batch."""
    found: dict[object, Arm] = {}
    for arm in arms:
        kind = memory_kind(arm.run)
        if kind not in found or arm.run.batch_size > found[kind].run.batch_size:
            found[kind] = arm
    return list(found.values())


def memory_kind(run: RunConfig) -> tuple[object, ...]:
    """What runs of equal batches and equal memory share."""
    own = [getattr(run, name) for name in PRETRAINING] if learns(run) else []
    return (*(getattr(run, name) for name in HOLDING), run.ema > 0, *own)


def taken_and_free(
    arms: Sequence[Arm], store: Store, split: Split, executor: Executor, progress: Progress, reader: Reader
) -> tuple[int, int]:
    """Bytes that the process of these arms, one after the other, took at most; and those free before it.

    LitsexpError where an arm fails.
    """
    with tempfile.TemporaryDirectory(prefix="litsexp-rehearsal-") as name, watched(reader) as watch:
        jobs = rehearsals(arms, store, split, Path(name))
        with closing(executor(jobs, lambda *_: True)) as ended:
            for number, (job, outcome) in enumerate(ended, start=1):
                if outcome.status != "finished":
                    raise LitsexpError(f"--workers auto: {job.cell.arm.name}, alone on the GPU: {outcome.reason}")
                progress(number, len(arms))
            return watch.free - watch.least(), watch.free


def rehearsals(arms: Sequence[Arm], store: Store, split: Split, folder: Path) -> Iterator[Job]:
    """A job an arm: a few steps, a validation and a test case; its runs are logged in this folder."""
    tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}", "rehearsal", folder / "artifacts")
    for arm in arms:
        rate: dict[str, Level] = {"lr": 1e-3} if arm.run.lr == "find" else {}
        cell = Cell(Arm(arm.name, arm.run.changed({**SHORT, **rate})), 0, 0)
        run_id = tracking.client.create_run(tracking.experiment_id).info.run_id
        scorings = (scoring_of("test", run_id, store, "rehearsal", first=True),)
        part, pretrained, modules = few_cases(store, split, arm.run), folder / "pretrained", registered_modules()
        yield Job(cell, run_id, run_id, tracking.uri, part, store.directory, scorings, pretrained, modules=modules)


def few_cases(store: Store, split: Split, run: RunConfig) -> Split:
    """Of a split the training cases that fill two batches, and the longest of the others."""
    wanted = max(2 * run.batch_size, run.ssl_batch_size if learns(run) else 0)
    train = list(split.train[:1])
    for case in split.train[1:]:
        if len(store.rows_of(train)) < wanted:
            train.append(case)
    valid, test = (max(among, key=lambda case: len(store.rows_of([case]))) for among in (split.valid, split.test))
    return Split(tuple(train), (valid,), (test,))
