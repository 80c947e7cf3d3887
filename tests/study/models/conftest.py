"""A finished study whose best run is registered, and the model that MLflow loads of it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from litsexp.pipeline import run_study
from litsexp.spec.study import StudyConfig
from litsexp.study.places import Places

from .registered import STUDY, Ran


@pytest.fixture(scope="module")
def ran(at_half_size: Callable[[dict[str, Any]], tuple[Places, Path, StudyConfig]]) -> Ran:
    """Two arms in two folds on the phantom at half its size."""
    places, cohort, study = at_half_size(STUDY)
    before = mlflow.get_tracking_uri()
    conclusion = run_study(study, places, name="tiny", workers=1)
    assert mlflow.get_tracking_uri() == before and mlflow.active_run() is None
    return places, conclusion, cohort, study


@pytest.fixture
def loaded(ran: Ran, at: Callable[[str], None]) -> Any:
    at(ran[0].tracking_uri)
    return mlflow.pyfunc.load_model("models:/tiny@baseline")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``at(uri)``: what MLflow's fluent functions ask, for this test."""
    return lambda uri: monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)


@pytest.fixture
def own(ran: Ran, tmp_path: Path) -> Ran:
    """The finished study once more, in a database of the test's own; its artifacts are shared."""
    places, conclusion, cohort, study = ran
    shutil.copy(places.root / "mlflow.db", tmp_path)
    shutil.copy(places.root / "optuna.db", tmp_path)
    return Places.below(tmp_path, stores=places.stores), conclusion, cohort, study
