"""A study that has registered its best run among MLflow's models, and where what it registered is found."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from litsexp.pipeline import Conclusion
from litsexp.spec.study import StudyConfig
from litsexp.study.places import Places
from litsexp.study.tracking import Tracking

RUN = {"architecture": "unet", "init": "scratch", "augment": "none", "epochs": 1, "steps_per_epoch": 3, "batch_size": 4}
STUDY = {
    "question": "Does a wide window help?",
    "split": {"folds": 2, "valid": 0.25},
    "run": {**RUN, "window": "wide", "lr": 0.01},
    "factors": {"window": ["liver"]},
    "claims": [{"id": "wide", "says": "Yes.", "factor": "window", "better": "wide", "than": "liver"}],
}
Ran = tuple[Places, Conclusion, Path, StudyConfig]  # where, what came out, the folder of its volumes, what was asked


def best_baseline(places: Places) -> Any:
    runs = Tracking(places.tracking_uri, "tiny", places.root / "artifacts").runs()
    mine = [run for run in runs if run.data.params.get("arm") == "baseline"]
    assert len(mine) == 2
    return max(mine, key=lambda run: run.data.metrics["best/score"])


def version_of(places: Places) -> Any:
    return MlflowClient(places.tracking_uri).get_model_version_by_alias("tiny", "baseline")


def folder_of(places: Places) -> Path:
    client = MlflowClient(places.tracking_uri)
    location = client.get_logged_model(version_of(places).tags["model_id"]).artifact_location
    return Path(str(location).removeprefix("file://"))
