"""What happens in a cell: train, score test and external cases, log everything to the cell's own MLflow run.

``run_cell`` is all that an executor launches, in whichever process. It needs nothing but its ``Job`` and talks to no
ledger.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from PIL.Image import Image
from safetensors.torch import save_file

from litsexp.data.ct.windows import WINDOWS
from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.evaluation.cases import score_cases
from litsexp.evaluation.metrics import mean_defined
from litsexp.evaluation.overlays import overlay
from litsexp.interrupts import unbroken
from litsexp.spec.catalog import METRICS
from litsexp.spec.design import Cell
from litsexp.spec.errors import LitsexpError
from litsexp.training.loop import Epoch, RunResult, train

WATCHED_SLICES = 2  # validation slices drawn at the first, a middle and the last epoch
SHOWN_CASES = 2  # best and worst test cases drawn at the end, each

OnEpoch = Callable[[int, dict[str, float]], bool]  # epoch, metrics -> go on?


@dataclass(frozen=True)
class Job:
    """A cell with all that its process needs; picklable."""

    cell: Cell
    run_key: str
    split: Split
    store: Path
    tracking_uri: str
    run_id: str
    external: Path | None = None  # store of a cohort that is scored at the end and never learned from


@dataclass(frozen=True)
class Outcome:
    """How a cell ended. ``value`` is its best validation score; ``reason`` says why it failed, in one line."""

    status: Literal["finished", "pruned", "failed"]
    value: float = math.nan
    reason: str = ""
    detail: str = ""  # the traceback
    seconds: float = 0.0  # of fitting and evaluating


@dataclass(frozen=True)
class Scored:
    """Slices of one cohort as the best checkpoint labels them, and what each case scores."""

    store: Store
    rows: NDArray[np.int64]  # of the store
    prediction: NDArray[np.uint8]  # (rows, height, width)
    cases: pd.DataFrame

    @classmethod
    def of(cls, store: Store, rows: NDArray[np.int64], prediction: NDArray[np.uint8]) -> Scored:
        """With the table of cases; an empty one where there are no rows."""
        empty = pd.DataFrame(columns=["case", *METRICS])
        cases = score_cases(store.index.iloc[rows], np.asarray(store.labels[rows]), prediction) if len(rows) else empty
        return cls(store, rows, prediction, cases)


def run_cell(job: Job, on_epoch: OnEpoch) -> Outcome:
    """Train, score and log one cell; a finished one ends its MLflow run. A failure is an outcome, not an exception."""
    try:
        log = CellLog(job, on_epoch)
        result = train(job.cell.arm.run, log.store, job.split, job.cell.seed, log, log.external)
        return log.finish(result)
    except Exception as error:  # whatever breaks a run must not break the study
        return Outcome("failed", reason=describe(error), detail=traceback.format_exc())


def describe(error: Exception) -> str:
    """One line that says what went wrong and, where it is known, what to do."""
    first = " ".join(str(error).split())
    if isinstance(error, LitsexpError):
        return first
    if isinstance(error, FloatingPointError):
        return f"{first}; try a smaller run.lr, or run.precision fp32"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in first:
        return f"out of memory ({first}); try a smaller run.batch_size or data.size, or fewer --workers"
    return f"{type(error).__name__}: {first}"


class CellLog:
    """The training room's listener: sends every epoch to the run, and at the end the results."""

    @unbroken()
    def __init__(self, job: Job, on_epoch: OnEpoch):
        self.client, self.job, self.on_epoch = MlflowClient(job.tracking_uri), job, on_epoch
        self.store = Store.open(job.store)
        self.external = Store.open(job.external) if job.external else None
        self.log_s = 0.0
        self.watched = fixed_slices(self.store, job.split.valid)
        last = job.cell.arm.run.epochs - 1
        self.draw_at = {0, last // 2, last}
        inputs = [dataset_input(self.store, "training")]
        inputs += [dataset_input(self.external, "external")] if self.external else []
        log_inputs(self.client, job.run_id, inputs)

    @unbroken()
    def epoch(self, epoch: Epoch) -> bool:
        """One ``log_batch`` of the epoch's metrics, now and then the watched slices; ask whether to go on."""
        start_s = time.perf_counter()
        self.client.log_batch(self.job.run_id, metrics=points(epoch.metrics, epoch.number))
        if epoch.number in self.draw_at:
            for row in self.watched:
                prediction = epoch.prediction[np.flatnonzero(epoch.rows == row)[0]]
                picture = self._overlay(self.store, int(row), prediction, f"epoch {epoch.number + 1}")
                key = f"valid case {self.store.index['case'].iat[row]}"
                self.client.log_image(self.job.run_id, picture, key=key, step=epoch.number)
        self.log_s += time.perf_counter() - start_s
        return self.on_epoch(epoch.number, epoch.metrics)

    def finish(self, result: RunResult) -> Outcome:
        """Score the cases and log scores, pictures, weights and facts; end the run as FINISHED."""
        fit_s, start_s = result.fit_s - self.log_s, time.perf_counter()
        scored = self._score(result)
        evaluation_s = result.evaluation_s + time.perf_counter() - start_s
        start_s = time.perf_counter()
        self._log_files(result, scored)
        best = result.history[result.best_epoch]
        scalars = {f"best/{name.removeprefix('valid/')}": value for name, value in best.items() if "valid/" in name}
        scalars |= {"best/epoch": float(result.best_epoch), "best/lr_max": float(result.facts["lr_max"])}
        for cohort, part in scored.items():
            scalars |= {f"{cohort}/{name}": mean_defined(part.cases[name]) for name in METRICS if len(part.cases)}
        scalars |= {"time/fit_s": fit_s, "time/evaluation_s": evaluation_s, "time/epochs": float(len(result.history))}
        scalars["time/log_s"] = self.log_s + time.perf_counter() - start_s
        tags = [RunTag(name, value) for name, value in result.facts.items()]
        tags.append(RunTag("pruned", str(result.pruned).lower()))
        with unbroken():
            self.client.log_batch(self.job.run_id, metrics=points(scalars, 0), tags=tags)
            self.client.set_terminated(self.job.run_id, "FINISHED")
        status: Literal["finished", "pruned"] = "pruned" if result.pruned else "finished"
        return Outcome(status, scalars["best/score"], seconds=fit_s + evaluation_s)

    def _score(self, result: RunResult) -> dict[str, Scored]:
        """``test``, empty for a pruned run, which has not seen it, and ``external`` where there is a prediction."""
        scored = {"test": Scored.of(self.store, result.test_rows, result.test_prediction)}
        if self.external is not None and result.external_prediction is not None:
            rows = np.arange(len(self.external.index))
            scored["external"] = Scored.of(self.external, rows, result.external_prediction)
        return scored

    def _log_files(self, result: RunResult, scored: Mapping[str, Scored]) -> None:
        """Tables of cases, the best weights, ``run.json``, and pictures of each cohort's best and worst cases."""
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            scored["test"].cases.to_parquet(directory / "cases.parquet", index=False)
            if "external" in scored:
                scored["external"].cases.to_parquet(directory / "external_cases.parquet", index=False)
            save_file(result.weights, directory / "weights.safetensors")
            (directory / "run.json").write_text(json.dumps(self._description(result), indent=1))
            for cohort, part in scored.items():
                if len(part.cases):
                    self._draw_extremes(part, directory / cohort)
            with unbroken():
                self.client.log_artifacts(self.job.run_id, str(directory))

    def _description(self, result: RunResult) -> dict[str, object]:
        """What the weights need beside them to be used, and how they came to be."""
        cell = self.job.cell
        return {
            "run_key": self.job.run_key,
            "run": cell.arm.run.model_dump(mode="json"),
            "fold": cell.fold,
            "seed": cell.seed,
            "size": self.store.size,
            "data_fingerprint": self.store.fingerprint,
            "external_fingerprint": self.external.fingerprint if self.external else None,
            "split": {"train": self.job.split.train, "valid": self.job.split.valid, "test": self.job.split.test},
            "best_epoch": result.best_epoch,
            "facts": result.facts,
        }

    def _draw_extremes(self, scored: Scored, directory: Path) -> None:
        """Overlays of the best and worst cases by tumor Dice (liver Dice where no case has a tumor)."""
        directory.mkdir()
        metric = "dice_tumor" if scored.cases["dice_tumor"].notna().any() else "dice_liver"
        ranked = scored.cases.dropna(subset=[metric]).sort_values([metric, "case"], kind="stable")
        count = min(SHOWN_CASES, len(ranked) // 2) or min(1, len(ranked))
        shown = [("worst", ranked.head(count)), ("best", ranked.tail(count) if len(ranked) > 1 else ranked.head(0))]
        for rank, part in shown:
            for case, score in zip(part["case"], part[metric], strict=True):
                row = tallest(scored.store, [case])[0]
                prediction = scored.prediction[np.flatnonzero(scored.rows == row)[0]]
                picture = self._overlay(scored.store, int(row), prediction, f"{metric} of the case {score:.2f}")
                picture.save(directory / f"{rank}_case_{case}.png", optimize=False)

    def _overlay(self, store: Store, row: int, prediction: NDArray[np.uint8], what: str) -> Image:
        title = f"{slice_title(store, row, external=store is self.external)}: {what} · {self.job.cell.name}"
        return overlay(np.asarray(store.hu[row]), np.asarray(store.labels[row]), prediction, title, WINDOWS["wide"])


def log_inputs(client: MlflowClient, run_id: str, inputs: list[DatasetInput]) -> None:
    """Log a run's data sets. MLflow refuses one of two workers that log a new one at once; later it finds it there."""
    try:
        client.log_inputs(run_id, inputs)
    except MlflowException:
        client.log_inputs(run_id, inputs)


def dataset_input(store: Store, context: str) -> DatasetInput:
    """A store as MLflow lists it among a run's data sets; a synthetic one by a name that says so."""
    name = f"phantom-{store.directory.name}" if store.phantom else store.directory.name
    source = Dataset(name, store.fingerprint, "local", str(store.directory))
    return DatasetInput(source, [InputTag("mlflow.data.context", context)])


def slice_title(store: Store, row: int, external: bool = False) -> str:
    """``case 3, z 12``, and before it ``phantom`` or ``external`` where the patient is that."""
    index = store.index.iloc[row]
    kind = "external " * external + "phantom " * store.phantom
    return f"{kind}case {int(index['case'])}, z {int(index['z'])}"


def fixed_slices(store: Store, cases: Collection[int]) -> NDArray[np.int64]:
    """Rows of the slices to watch: the tallest tumors among these cases, whatever any run makes of them."""
    rows = tallest(store, cases)
    tumor = store.index["tumor_pixels"].to_numpy()[rows]
    return rows[np.argsort(-tumor, kind="stable")][:WATCHED_SLICES]


def tallest(store: Store, cases: Collection[int]) -> NDArray[np.int64]:
    """For each case, ascending, the row of the slice with most tumor (most liver where there is none)."""
    table = store.index.loc[store.index["case"].isin(list(cases)), ["case", "tumor_pixels", "liver_pixels"]]
    ranked = table.sort_values(["case", "tumor_pixels", "liver_pixels"], ascending=[True, False, False], kind="stable")
    rows: NDArray[np.int64] = ranked.groupby("case", sort=True).head(1).index.to_numpy(np.int64)
    return rows


def points(values: Mapping[str, float], step: int) -> list[Metric]:
    """MLflow points of these values, the undefined ones left out: they are not zero, and a chart cannot show them."""
    now_ms = int(time.time() * 1000)
    return [Metric(name, value, now_ms, step) for name, value in values.items() if math.isfinite(value)]
