"""Finished runs as MLflow keeps them, to be used again: settings, weights, who they learned from."""

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file
from sqlalchemy.exc import SQLAlchemyError

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.study.clients import opened_client
from litsexp.study.datasets import source_of
from litsexp.study.keeping import WEIGHTS, keeps, no_weights
from litsexp.study.pilot import finished_cells
from litsexp.study.places import Places
from litsexp.training.predict import Member


@dataclass(frozen=True)
class TrainedRun:
    """A finished run of a cell."""

    run_id: str
    name: str  # as MLflow lists it
    score: float  # best on validation
    run: RunConfig
    size: int  # pixels a side of the slices that it learned from
    split: Split
    store: Path  # where these lay
    fingerprint: str  # of these
    study: str  # digest of the study that trained it
    kept: bool  # its weights


def connected(uri: str) -> MlflowClient:
    """A client that answers; LitsexpError for a database or a server that is not there."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise LitsexpError(f"--tracking-uri {uri}: found no database; expected one that a study wrote; see --mlruns")
    return MlflowClient(uri) if uri.startswith("sqlite") else opened_client(uri)


def trained_run(client: MlflowClient, run_id: str) -> TrainedRun:
    """The run of this id; LitsexpError where there is none, or it is not a finished run of a cell."""
    try:
        found = client.get_run(run_id)
    except (MlflowException, SQLAlchemyError) as error:
        known = "expected a run of a study: its page in the MLflow UI shows the id"
        raise LitsexpError(f"run {run_id}: found none ({one_line(error)}); {known}") from None
    if "run_key" not in found.data.tags:
        raise LitsexpError(f"run {run_id}: found a study's parent run; expected one of the runs below it")
    if found.info.status != "FINISHED":
        raise LitsexpError(f"run {run_id}: it is {found.info.status}; expected a finished run")
    return _described(client, found)


def ensemble_of(client: MlflowClient, one: TrainedRun) -> list[TrainedRun]:
    """All finished runs of the same study with the same settings: other folds, other seeds; itself among them."""
    experiment = client.get_run(one.run_id).info.experiment_id
    asked = f"tags.study_digest = '{one.study}' and attributes.status = 'FINISHED'"
    found = client.search_runs([experiment], asked, max_results=50_000, order_by=["attributes.start_time ASC"])
    cells = [run for run in found if "run_key" in run.data.tags and "superseded" not in run.data.tags]
    return [run for run in (_described(client, cell) for cell in cells) if run.run == one.run]


def best_of(name: str, study: StudyConfig, store: Store, places: Places, ensemble: bool) -> list[TrainedRun]:
    """A study's finished run with the best validation score; for an ensemble all runs of the arm that is so on average.

    Raises:
        LitsexpError: no run of the study has finished.
    """
    _, results = finished_cells(name, study, store, places)
    if results is None:
        raise LitsexpError(f"{name}: found no finished run of this study; expected one; run the study first")
    client = connected(places.tracking_uri)
    arms: dict[str, list[TrainedRun]] = {}
    for arm, run_id in zip(results.runs["arm"], results.runs["run_id"], strict=True):
        arms.setdefault(arm, []).append(_described(client, client.get_run(run_id)))
    if ensemble:
        return max(arms.values(), key=lambda runs: fmean(run.score for run in runs))
    return [max((run for runs in arms.values() for run in runs), key=lambda run: run.score)]


def check_weights(runs: Iterable[TrainedRun]) -> None:
    """LitsexpError where one of them keeps none."""
    for run in runs:
        if not run.kept:
            raise no_weights(run.run_id, run.name, "labeling volumes")


def members(client: MlflowClient, runs: Iterable[TrainedRun]) -> list[Member]:
    """The runs' networks."""
    found = []
    for run in runs:
        with tempfile.TemporaryDirectory() as name:
            found.append(Member(run.run, load_file(client.download_artifacts(run.run_id, WEIGHTS, name)), run.size))
    return found


def _described(client: MlflowClient, found: Run) -> TrainedRun:
    run_id = found.info.run_id
    try:
        with tempfile.TemporaryDirectory() as name:
            about: dict[str, Any] = json.loads(Path(client.download_artifacts(run_id, "run.json", name)).read_text())
    except (OSError, ValueError, MlflowException) as error:
        lost = f"its artifacts cannot be read ({one_line(error)})"
        raise LitsexpError(f"run {run_id}: {lost}; expected run.json; was mlruns moved?") from None
    trained_on = [one.dataset for one in found.inputs.dataset_inputs if one.dataset.digest == about["data_fingerprint"]]
    return TrainedRun(
        run_id=run_id,
        name=found.info.run_name,
        score=found.data.metrics["best/score"],
        run=RunConfig.model_validate(about["run"]),
        size=about["size"],
        split=Split(**{side: tuple(cases) for side, cases in about["split"].items()}),
        store=source_of(trained_on[0]) if trained_on else Path(),
        fingerprint=about["data_fingerprint"],
        study=found.data.tags["study_digest"],
        kept=keeps(found),
    )
