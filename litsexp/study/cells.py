"""What happens in a job: train a cell, score its best weights on what is asked, log to the cell's own MLflow run.

``run_cell`` is all that an executor launches, in whichever process. It needs nothing but its ``Job`` and talks to no
ledger. Training and scoring are apart: a finished cell is scored again, or on another cohort, from its weights, where
it keeps them; where it does not, it is finished only when all is scored.
"""

import json
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from litsexp.data.rows import learning_rows, scored_rows
from litsexp.data.store import Store
from litsexp.evaluation.cases import score_cases
from litsexp.evaluation.metrics import mean_defined
from litsexp.evaluation.native import WayBack
from litsexp.evaluation.truths import read_truth
from litsexp.evaluation.volumes import score_volume
from litsexp.interrupts import unbroken
from litsexp.spec.catalog import METRICS
from litsexp.spec.claim import CONTRAST_BINS, SIZE_BINS
from litsexp.spec.errors import LitsexpError
from litsexp.spec.tables import load_plugins
from litsexp.study.clients import patient_client
from litsexp.study.datasets import COHORT, dataset_input, log_inputs
from litsexp.study.epochs import CURVES, EPOCHS, epoch_rows, write_curves, write_epochs
from litsexp.study.jobs import CURVES_TAG, EPOCHS_TAG, Job, Outcome
from litsexp.study.keeping import NOT_KEPT, WEIGHTS, WEIGHTS_TAG
from litsexp.study.pictures import draw_extremes, draw_slice, fixed_slices, write_tallest
from litsexp.study.scorings import Scoring
from litsexp.training.course import Epoch
from litsexp.training.loop import Trained, train
from litsexp.training.predict import Member, Predictor, predict

TABLE_1 = {  # the paper's Table 1: column -> what an epoch logs it as
    "train loss": "train/loss",
    "valid loss": "valid/loss",
    "foreground_acc": "valid/foreground_acc",
    "cust_foreground_acc": "valid/pixel_acc",
}

OnCellEpoch = Callable[[int, dict[str, float]], bool]  # epoch, metrics -> go on?


def run_cell(job: Job, on_epoch: OnCellEpoch) -> Outcome:
    """Train a cell unless it is trained, then do its scorings. A failure is an outcome, not an exception.

    The MLflow run of a cell ends as FINISHED when its test cases are scored, without weights when all is; a pruned one,
    which has not seen them, when it stops.
    """
    outcome, finished, weights = Outcome("scored" if job.trained else "finished"), job.trained, None
    try:
        load_plugins(module for module in job.modules if module != "__main__")
        client = patient_client(job.tracking_uri)
        if not job.trained:
            log = TrainingLog(client, job, on_epoch)
            trained = train(job.cell.arm.run, log.store, job.split, job.cell.random_seed, log, job.cache)
            outcome, weights = log.results(trained), None if job.keep_weights else trained.weights
        if outcome.status == "pruned":
            _finish(client, job)
            return outcome
        first_s = 0.0  # of the test cases, before it is finished
        for scoring in job.scorings:
            seconds = score(client, job, scoring, weights)
            first_s = first_s or seconds
            if not finished and (weights is None or scoring is job.scorings[-1]):
                _finish(client, job, {"time/evaluation_s": first_s})
                finished = True
            outcome = replace(outcome, seconds=outcome.seconds + seconds)
        return outcome
    except Exception as error:  # whatever breaks a run must not break the study
        reason, detail = describe(error), traceback.format_exc()
        return replace(outcome, status="unscored" if finished else "failed", reason=reason, detail=detail)


def score(client: MlflowClient, job: Job, scoring: Scoring, weights: Mapping[str, Tensor] | None = None) -> float:
    """Label the cases of a scoring with a trained cell's weights; log table, means and pictures. Returns seconds.

    ``weights``: None where MLflow keeps them.
    """
    start_s, store, run = time.perf_counter(), Store.open(scoring.store), job.cell.arm.run
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if weights is None:
            with unbroken():
                weights = load_file(client.download_artifacts(job.run_id, WEIGHTS, name))
            (folder / WEIGHTS).unlink()
        if scoring.kind == "native":
            cases = native_cases(Member(run, weights, store.size), store, scoring.truths, job.split.test)
            seconds = time.perf_counter() - start_s
        else:
            rows = rows_to_score(job, scoring, store)
            prediction = predict(run, weights, store, rows)
            cases = score_cases(store.index.iloc[rows], np.asarray(store.labels[rows]), prediction)
            seconds = time.perf_counter() - start_s
            if scoring.kind == "test":
                log_inputs(client, job.run_id, [dataset_input(store, "testing", rows)])
            place, elsewhere = folder / "test" if not scoring.folder else folder, scoring.kind == "external"
            if scoring.kind != "train":
                draw_extremes(store, rows, prediction, cases, job.cell.name, place, external=elsewhere)
                write_tallest(store, rows, prediction, folder)
        cases.to_parquet(folder / "cases.parquet", index=False)
        means = {f"{scoring.kind}/{metric}": mean_defined(cases[metric]) for metric in METRICS}
        if scoring.kind == "native":
            means |= lesion_shares(cases)
        tags = [RunTag(scoring.tag, scoring.folder or ".")]
        if scoring.kind == "external":
            log_inputs(client, job.run_id, [dataset_input(store, "external")])
            facts = {"external_cohort": scoring.name, "external_fingerprint": scoring.fingerprint}
            tags = [*(RunTag(key, value) for key, value in facts.items()), *tags]
        with unbroken():
            client.log_artifacts(job.run_id, name, scoring.folder or None)
            client.log_batch(job.run_id, metrics=points(means, 0), tags=tags)
    return seconds


def native_cases(member: Member, store: Store, truths: Mapping[int, Path], cases: Iterable[int]) -> pd.DataFrame:
    """``score_volume`` of these cases, a row each: all their slices are labeled, in their volumes' own pixels.

    ``store`` has all slices of them; a case's masks are all that is held of it.
    """
    predictor, rows = Predictor([member]), []
    for case in sorted(cases):
        truth = read_truth(truths[case])
        hu = np.asarray(store.hu[store.rows_of([case])])
        prediction = predictor.label(hu, WayBack(truth.shape[1:], truth.flips, store.size))
        rows.append(score_volume(truth.beside(prediction), truth.contrast_hu))
    return pd.DataFrame(rows)


def lesion_shares(cases: pd.DataFrame) -> dict[str, float]:
    """Of all lesions of these cases: the part that was detected, by size and contrast; and false ones a case."""
    found = {"lesions/false": float(cases["lesions_false"].mean())}
    for name in ("", *(f"_{kind}" for kind in (*SIZE_BINS, *CONTRAST_BINS))):
        there = float(cases[f"lesions_true{name}"].sum())
        found[f"lesions/recall{name}"] = float(cases[f"lesions_detected{name}"].sum()) / there if there else math.nan
    return found


def rows_to_score(job: Job, scoring: Scoring, store: Store) -> NDArray[np.int64]:
    """The run's test cases; those that it was really trained on; or all of another cohort's."""
    if scoring.kind == "external":
        return np.arange(len(store.index))
    if scoring.kind == "test":
        return scored_rows(store, job.split, scoring.held_out)
    return learning_rows(store, job.split, job.cell.arm.run, job.cell.random_seed)[0]


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


def _finish(client: MlflowClient, job: Job, scalars: Mapping[str, float] | None = None) -> None:
    with unbroken():
        client.log_batch(job.run_id, metrics=points(scalars or {}, 0))
        client.set_terminated(job.run_id, "FINISHED")


class TrainingLog:
    """The training room's listener: sends every epoch to the run, and at the end what was learned."""

    @unbroken()
    def __init__(self, client: MlflowClient, job: Job, on_epoch: OnCellEpoch):
        self.client, self.job, self.on_epoch = client, job, on_epoch
        self.store = Store.open(job.store)
        self.log_s = 0.0
        self.rows: list[dict[str, float]] = []  # a validation case and epoch each
        learned, validated = learning_rows(self.store, job.split, job.cell.arm.run, job.cell.random_seed)
        self.watched = fixed_slices(self.store, validated)
        last = job.cell.arm.run.epochs - 1
        self.draw_at = {0, last // 2, last}
        parts = {"training": learned, "validation": validated}
        inputs = [dataset_input(self.store, context, rows) for context, rows in parts.items()]
        log_inputs(self.client, job.run_id, [dataset_input(self.store, COHORT), *inputs])

    @unbroken()
    def epoch(self, epoch: Epoch) -> bool:
        """One ``log_batch`` of the epoch's metrics, now and then the watched slices; ask whether to go on."""
        start_s = time.perf_counter()
        self.client.log_batch(self.job.run_id, metrics=points(epoch.metrics, epoch.number))
        self.rows += epoch_rows(epoch)
        if epoch.number in self.draw_at:
            for row in self.watched:
                prediction = epoch.prediction[np.flatnonzero(epoch.rows == row)[0]]
                what = f"epoch {epoch.number + 1} · {self.job.cell.name}"
                key = f"valid case {self.store.index['case'].iat[row]}"
                picture = draw_slice(self.store, int(row), prediction, what)
                self.client.log_image(self.job.run_id, picture, key=key, step=epoch.number)
        self.log_s += time.perf_counter() - start_s
        return self.on_epoch(epoch.number, epoch.metrics)

    def results(self, trained: Trained) -> Outcome:
        """Log the best weights, ``run.json``, curves, validation cases of every epoch, ``table1.csv`` and facts.

        Weights that are not kept are neither written nor sent; a tag says so.
        """
        fit_s, start_s = trained.fit_s - self.log_s, time.perf_counter()
        with tempfile.TemporaryDirectory() as name:
            if self.job.keep_weights:
                save_file(trained.weights, Path(name) / WEIGHTS)
            write_epochs(self.rows, trained, self.job.cell.arm.run.batch_size, Path(name))
            write_curves(trained, self.job.cell.arm.run.batch_size, Path(name))
            (Path(name) / "run.json").write_text(json.dumps(self._description(trained), indent=1))
            table1(trained.history).to_csv(Path(name) / "table1.csv", index=False, lineterminator="\n")
            with unbroken():
                self.client.log_artifacts(self.job.run_id, name)
        best = trained.history[trained.best_epoch]
        scalars = {f"best/{name.removeprefix('valid/')}": value for name, value in best.items() if "valid/" in name}
        scalars |= {"best/epoch": float(trained.best_epoch), "best/lr_max": float(trained.facts["lr_max"])}
        scalars |= {"time/fit_s": fit_s, "time/epochs": float(len(trained.history))}
        if "ssl_seconds" in trained.facts:  # of learning its first weights, whichever run did it; not in fit_s
            scalars["time/ssl_s"] = float(trained.facts["ssl_seconds"])
        scalars["time/log_s"] = self.log_s + time.perf_counter() - start_s
        tags = [RunTag(name, value) for name, value in trained.facts.items()]
        tags += [RunTag(EPOCHS_TAG, EPOCHS), RunTag(CURVES_TAG, CURVES), RunTag("pruned", str(trained.pruned).lower())]
        tags += [] if self.job.keep_weights else [RunTag(WEIGHTS_TAG, NOT_KEPT)]
        with unbroken():
            self.client.log_batch(self.job.run_id, metrics=points(scalars, 0), tags=tags)
        return Outcome("pruned" if trained.pruned else "finished", scalars["best/score"], seconds=fit_s)

    def _description(self, trained: Trained) -> dict[str, object]:
        """What the weights need beside them to be used, and how they came to be."""
        cell, split = self.job.cell, self.job.split
        asked = {"run": cell.arm.run.model_dump(mode="json"), "fold": cell.fold, "seed": cell.seed}
        data = {"size": self.store.size, "data_fingerprint": self.store.fingerprint, "split": asdict(split)}
        found = {"best_epoch": trained.best_epoch, "facts": trained.facts}
        return {"run_key": self.job.run_key, **asked, **data, **found}


def table1(history: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """A run as the paper's Table 1 shows it: a row an epoch, from 1, over all phases; unrounded.

    ``foreground_acc`` is the accuracy over pixels whose truth is not background, ``cust_foreground_acc`` that over all.
    Both are means over validation cases, each counting once; the notebook's are means over batches of slices.
    """
    rows = [[epoch, *(metrics[name] for name in TABLE_1.values())] for epoch, metrics in enumerate(history, start=1)]
    return pd.DataFrame(rows, columns=["epoch", *TABLE_1])


def points(values: Mapping[str, float], step: int) -> list[Metric]:
    """MLflow points of these values, the undefined ones left out: they are not zero, and a chart cannot show them."""
    now_ms = int(time.time() * 1000)
    return [Metric(name, value, now_ms, step) for name, value in values.items() if math.isfinite(value)]
