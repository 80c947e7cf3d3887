"""What MLflow lists of the patients behind a run: digest, source, columns and counts, of the whole and of each part."""

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.data import get_source
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.exc import IntegrityError

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.pipeline import run_study
from litsexp.spec.study import StudyConfig
from litsexp.study.cells import run_cell
from litsexp.study.clients import patient_client
from litsexp.study.datasets import dataset_input, log_inputs, source_of
from litsexp.study.jobs import Job
from litsexp.study.places import Places
from litsexp.study.tracking import Tracking
from litsexp.study.trained import trained_run

from .conftest import go_on


def contexts(inputs: Any) -> dict[str, Dataset]:
    return {one.tags[0].value: one.dataset for one in inputs}


def profile(dataset: Dataset) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(dataset.profile)
    return told


def test_a_store_is_listed_with_columns_counts_and_that_its_patients_are_synthetic(phantom_store: Store) -> None:
    dataset = dataset_input(phantom_store, "cohort").dataset
    assert dataset.digest == phantom_store.fingerprint and dataset.name.startswith("phantom-")
    assert profile(dataset) == {
        "patients": 6,
        "patients_with_tumor": 5,
        "slices": len(phantom_store.index),
        "pixels_a_side": 64,
        "patients_are": "synthetic (phantom)",
    }
    columns = [one["name"] for one in json.loads(dataset.schema)["mlflow_colspec"]]
    assert columns == list(phantom_store.index.columns)
    entry = DatasetInput(dataset, [InputTag("mlflow.data.context", "cohort")])
    assert Path(get_source(entry).uri) == source_of(dataset) == phantom_store.directory


def test_real_patients_are_not_called_synthetic(phantom_store: Store) -> None:
    dataset = dataset_input(replace(phantom_store, phantom=False), "cohort").dataset
    assert not dataset.name.startswith("phantom") and profile(dataset)["patients_are"] == "real"


def test_the_parts_of_a_run_are_its_own_patients_and_together_the_cohort(
    job: Callable[..., Job], tracking: Tracking, phantom_store: Store, phantom_split: Split
) -> None:
    one = job()
    assert run_cell(one, go_on).status == "finished"
    found = contexts(tracking.client.get_run(one.run_id).inputs.dataset_inputs)
    assert found.keys() == {"cohort", "training", "validation", "testing"}
    parts = {"training": phantom_split.train, "validation": phantom_split.valid, "testing": phantom_split.test}
    for context, cases in parts.items():
        told = profile(found[context])
        assert (told["patients"], told["slices"]) == (len(cases), len(phantom_store.rows_of(cases))), context
    assert sum(profile(found[context])["slices"] for context in parts) == len(phantom_store.index)
    assert len({dataset.digest for dataset in found.values()}) == 4
    assert {source_of(dataset) for dataset in found.values()} == {phantom_store.directory}


def test_fewer_training_patients_are_another_data_set(job: Callable[..., Job], tracking: Tracking) -> None:
    found = []
    for settings in ({}, {}, {"train_fraction": 0.5}):
        one = job(**settings)
        assert run_cell(one, go_on).status == "finished"
        found.append(contexts(tracking.client.get_run(one.run_id).inputs.dataset_inputs)["training"])
    assert found[0].digest == found[1].digest != found[2].digest
    assert profile(found[0])["patients"] > profile(found[2])["patients"]


def test_the_parent_lists_the_cohorts(
    new_places: Callable[[Path], Places], tmp_path: Path, phantom_store: Store, external_store: Store
) -> None:
    mine, theirs = (store.directory.parents[1] for store in (phantom_store, external_store))
    places = replace(new_places(tmp_path), stores=tmp_path / "data")
    asked = {"question": "?", "data": {"cohort": str(mine / "ct")}, "external": {"cohort": str(theirs / "elsewhere")}}
    for _ in range(2):  # once more is no more
        run_study(StudyConfig.model_validate(asked), places, name="tiny", train=False)
    parent = Tracking(places.tracking_uri, "tiny", places.root / "artifacts").runs()[0]
    found = contexts(parent.inputs.dataset_inputs)
    assert {context: dataset.digest for context, dataset in found.items()} == {
        "cohort": phantom_store.fingerprint,
        "external": external_store.fingerprint,
    }
    assert len(parent.inputs.dataset_inputs) == 2


def test_a_run_of_before_there_were_parts_still_tells_its_store(
    job: Callable[..., Job], tracking: Tracking, phantom_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older runs have one data set, whose source is the bare path."""

    def as_before(client: MlflowClient, run_id: str, inputs: Any) -> None:
        old = Dataset("phantom-old", phantom_store.fingerprint, "local", str(phantom_store.directory))
        client.log_inputs(run_id, [DatasetInput(old, [InputTag("mlflow.data.context", "training")])])

    monkeypatch.setattr("litsexp.study.cells.log_inputs", as_before)
    one = job()
    assert run_cell(one, go_on).status == "finished"
    tracking.client.set_tag(one.run_id, "study_digest", "digest")
    assert trained_run(tracking.client, one.run_id).store == phantom_store.directory


def test_a_server_that_refuses_for_good_is_heard(
    job: Callable[..., Job], tracking: Tracking, monkeypatch: pytest.MonkeyPatch, phantom_store: Store
) -> None:
    def refuse(*_: Any) -> None:
        raise MlflowException("read-only")

    monkeypatch.setattr(MlflowClient, "log_inputs", refuse)
    with pytest.raises(MlflowException, match="read-only"):
        log_inputs(tracking.client, job().run_id, [dataset_input(phantom_store, "cohort")])


def test_workers_that_log_one_new_data_set_at_once_all_have_it(
    tracking: Tracking, phantom_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow looks whether it is there, then inserts it: of two that look at once the second is refused."""
    refused, log = [], SqlAlchemyStore.log_inputs

    def second(self: SqlAlchemyStore, run_id: str, **words: Any) -> None:
        if not refused:
            refused.append(run_id)
            error = IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed: datasets.digest"))
            raise MlflowException("it is there") from error
        log(self, run_id, **words)

    monkeypatch.setattr(SqlAlchemyStore, "log_inputs", second)
    run_id = tracking.client.create_run(tracking.experiment_id).info.run_id
    log_inputs(patient_client(tracking.uri), run_id, [dataset_input(phantom_store, "cohort")])
    assert refused == [run_id]
    (found,) = tracking.client.get_run(run_id).inputs.dataset_inputs
    assert found.dataset.digest == phantom_store.fingerprint


def test_many_at_once(tracking: Tracking, phantom_store: Store) -> None:
    ids = [tracking.client.create_run(tracking.experiment_id).info.run_id for _ in range(8)]
    inputs = [dataset_input(phantom_store, "cohort")]
    with ThreadPoolExecutor(len(ids)) as pool:
        list(pool.map(lambda run_id: log_inputs(patient_client(tracking.uri), run_id, inputs), ids))
    assert all(len(tracking.client.get_run(run_id).inputs.dataset_inputs) == 1 for run_id in ids)
