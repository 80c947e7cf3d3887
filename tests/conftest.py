"""What several rooms' tests share: a tiny phantom cohort, its slice store and one split of it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported, here and in processes that tests start

import pytest

from litsexp.config import DataConfig
from litsexp.data.cohort import write_cohort
from litsexp.data.phantom import PhantomConfig
from litsexp.data.splits import Split
from litsexp.data.store import Store, prepare

TUMOR_FREE = 4  # of the six patients, decided by the phantom's seed


@pytest.fixture(scope="session")
def phantom_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six patients, 64 px, seven liver slices or so each; patient ``TUMOR_FREE`` has no tumor."""
    root = tmp_path_factory.mktemp("phantom")
    write_cohort(root / "ct", PhantomConfig(6, seed=2, size=64, slices=8), processes=1)
    store = prepare(root / "ct", root / "stores", DataConfig(size=64), processes=1)
    assert [case for case, has_tumor in store.has_tumor.items() if not has_tumor] == [TUMOR_FREE]
    return store


@pytest.fixture(scope="session")
def phantom_split() -> Split:
    """Three patients to train on, the tumor-free one among them; one to validate, two to test."""
    return Split(train=(0, 1, TUMOR_FREE), valid=(2,), test=(3, 5))


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ``mlruns`` in which both databases have their tables and nothing else: MLflow's take seconds."""
    from mlflow import MlflowClient
    from optuna.storages import RDBStorage

    from litsexp.study.runner import Places

    places = Places.below(tmp_path_factory.mktemp("schemas"))
    MlflowClient(places.tracking_uri).search_experiments()
    RDBStorage(places.storage_url)
    return places.root


@pytest.fixture(scope="session")
def new_places(schemas: Path) -> Callable[[Path], Any]:
    """``new_places(folder)``: an empty ``mlruns`` in that folder, as the study room's ``Places``."""
    from litsexp.study.runner import Places

    return lambda folder: Places.below(shutil.copytree(schemas, folder / "mlruns"))
