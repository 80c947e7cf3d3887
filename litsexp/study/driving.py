"""What a cell costs the driver: a study whose runs end as soon as they are handed out, and are then read back.

A run trains nothing, but leaves in MLflow what a real one does: metrics, tags, data sets, and its tables among its
artifacts. That is the workers' time, and not counted.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import RunTag
from numpy.typing import NDArray
from safetensors.torch import save_file

from litsexp.data.parallel import Progress
from litsexp.data.rows import scored_rows
from litsexp.data.splits import make_splits
from litsexp.data.store import Store
from litsexp.evaluation.cases import score_cases
from litsexp.evaluation.metrics import mean_defined
from litsexp.spec.catalog import METRICS
from litsexp.spec.design import Cell, cells
from litsexp.spec.study import StudyConfig
from litsexp.study.cells import points
from litsexp.study.clients import patient_client
from litsexp.study.datasets import COHORT, dataset_input, log_inputs
from litsexp.study.epochs import CURVES, curve_names, curve_table
from litsexp.study.jobs import CURVES_TAG, Job, OnEpoch, Outcome
from litsexp.study.keeping import WEIGHTS
from litsexp.study.observer import Observer
from litsexp.study.pictures import write_tallest
from litsexp.study.places import Places
from litsexp.study.session import Session, open_study

ARMS, FOLDS, EPOCHS = 2, 5, 20
SCORE = 0.5
NETWORK = {
    "encoder": "tf_efficientnet_lite0",
    "architecture": "unet",
    "encoder_depth": 3,
    "decoder_width": 16,
}  # 0.3 MB
CLAIM = {"id": "wider", "says": "Wider is better.", "factor": "window", "better": "wide", "than": "liver"}


@dataclass(frozen=True)
class Driven:
    """A study of so many cells."""

    cells: int
    cell_ms: float  # of the driver alone, each: queued, asked for, its run opened, told
    cell_cpu_ms: float  # of that processor time, which other programs lengthen less
    resume_s: float  # opening the finished study again, and finding nothing left
    results_ms: float  # reading curves and cases, each
    conclude_s: float  # the same once more, verdicts, tables, report, and what MLflow is told of them
    report_mb: float
    memory_mb: float  # peak of the process so far


def study_of(count: int) -> StudyConfig:
    """A fixed design of about so many cells: two arms, five folds, seeds as they are needed; of a small network.

    A study asks for room for its weights.
    """
    content = {
        "question": "What does a cell cost?",
        "split": {"folds": FOLDS},
        "run": {**NETWORK, "init": "scratch", "window": "liver", "epochs": EPOCHS, "steps_per_epoch": 1},
        "factors": {"window": ["wide"]},
        "claims": [CLAIM],
        "seeds": list(range(max(1, round(count / (ARMS * FOLDS))))),
    }
    return StudyConfig.model_validate(content)


def drive(count: int, store: Store, places: Places, observer: Observer, conclude: Callable[[Session], Path]) -> Driven:
    """Run a study of about ``count`` cells without training, open it again, read and ``conclude`` it: to a report.

    It is called by the time, since servers may have one of an earlier call.
    """
    study, name = study_of(count), time.strftime(f"driver-{count}-%Y%m%dT%H%M%S")
    splits, made = make_splits(store.has_tumor, study.split), len(cells(study))
    with TemporaryDirectory(prefix="litsexp-driven-") as folder:
        workers = Pretending(store, Path(folder))
        with open_study(name, study, store, splits, places) as session:
            start = clocks()
            session.run(workers, observer)
            cell_ms, cell_cpu_ms = 1000 * (clocks() - start - workers.spent) / made
        start_s = time.perf_counter()
        with open_study(name, study, store, splits, places) as session:
            session.run(workers, observer)
            resumed_s = time.perf_counter()
            session.results()
            read_s = time.perf_counter()
            report = conclude(session)
            end_s = time.perf_counter()
    size_mb, each_ms = report.stat().st_size / 1e6, 1000 * (read_s - resumed_s) / made
    times = (float(cell_ms), float(cell_cpu_ms), resumed_s - start_s, each_ms, end_s - read_s)
    return Driven(made, *times, size_mb, peak_memory_mb())


def clocks() -> NDArray[np.float64]:
    """The time that passes and that of this process on the processor, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def peak_memory_mb() -> float:
    """The most that this process has had, so far: the system tells it in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class Pretending:
    """An executor without training: its runs log at once what the first of their arm and fold would have."""

    def __init__(self, store: Store, folder: Path):
        self.store, self.folder, self.spent = store, folder, np.zeros(2)  # by ``clocks``
        self.scores: dict[Path, dict[str, float]] = {}

    def __call__(self, jobs: Iterable[Job], _: OnEpoch) -> Generator[tuple[Job, Outcome]]:
        """Each job, finished."""
        client = None
        for job in jobs:
            start = clocks()
            client = client or patient_client(job.tracking_uri)
            self._log(client, job)
            self.spent += clocks() - start
            yield job, Outcome("finished", SCORE)

    def _log(self, client: MlflowClient, job: Job) -> None:
        folder = self.folder / f"{job.cell.arm.run.window}-{job.cell.fold}"
        if folder not in self.scores:
            self.scores[folder] = self._write(job, folder)
        parts = {"training": job.split.train, "validation": job.split.valid, "testing": job.split.test}
        inputs = [dataset_input(self.store, name, self.store.rows_of(part)) for name, part in parts.items()]
        log_inputs(client, job.run_id, [dataset_input(self.store, COHORT), *inputs])
        client.log_artifacts(job.run_id, str(folder))
        tags = [RunTag(scoring.tag, scoring.folder or ".") for scoring in job.scorings]
        tags += [RunTag(CURVES_TAG, CURVES), RunTag("steps", str(EPOCHS)), RunTag("training_slices", "100")]
        client.log_batch(job.run_id, metrics=points(self.scores[folder], 0), tags=tags)
        client.set_terminated(job.run_id, "FINISHED")

    def _write(self, job: Job, folder: Path) -> dict[str, float]:
        """Every file of a run; its metrics. The prediction is the truth but for one pixel in twenty, or in ten."""
        folder.mkdir()
        run, rows = job.cell.arm.run, scored_rows(self.store, job.split, held_out=False)
        truth = np.asarray(self.store.labels[rows])
        lost = np.random.default_rng(job.cell.fold).random(truth.shape) < (0.1 if run.window == "wide" else 0.05)
        prediction = np.where(lost, 0, truth).astype(np.uint8)
        cases = score_cases(self.store.index.iloc[rows], truth, prediction)
        cases.to_parquet(folder / "cases.parquet", index=False)
        write_tallest(self.store, rows, prediction, folder)
        curve = [(epoch, name, SCORE) for name in curve_names() for epoch in range(EPOCHS)]
        curve_table(curve, run.batch_size).to_parquet(folder / CURVES, index=False)
        save_file({"none": torch.zeros(1)}, folder / WEIGHTS)
        told = {"run": run.model_dump(mode="json"), "fold": job.cell.fold, "seed": job.cell.seed}
        told |= {"size": self.store.size, "data_fingerprint": self.store.fingerprint, "split": asdict(job.split)}
        (folder / "run.json").write_text(json.dumps(told))
        scores = {f"{of}/{metric}": mean_defined(cases[metric]) for of in ("test", "best") for metric in METRICS}
        curves = dict.fromkeys(curve_names(), SCORE)
        times = {"time/fit_s": 60.0, "time/evaluation_s": 1.0, "time/epochs": float(EPOCHS), "time/log_s": 0.1}
        return {**curves, **scores, **times, "best/score": SCORE, "best/epoch": 1.0, "best/lr_max": 1e-3}


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
