"""The patients behind a run as MLflow lists them: data sets with digest, source, columns and counts.

A run has its whole cohort, and of it the slices that it learned from, validated on and was tested on, each by a digest
of its own: they differ by fold. A study's parent run has the cohorts alone.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from litsexp.data.store import Store
from litsexp.data.store.slices import COLUMNS
from litsexp.interrupts import unbroken
from litsexp.spec.keys import digest

COHORT = "cohort"  # the context of a whole store; of its parts: training, validation, testing
TRIES = 10  # workers that may log one new data set at once
TYPES = {"<i8": "long", "<f8": "double"}  # of a store's columns, as MLflow calls them


def dataset_input(store: Store, context: str, rows: NDArray[np.int64] | None = None) -> DatasetInput:
    """A store, or some rows of it, as MLflow lists it among a run's data sets; a synthetic one by a name that says so.

    The digest of a whole store is its fingerprint, that of a part is made of the fingerprint and the rows.
    """
    index, told = store.index if rows is None else store.index.iloc[rows], store.fingerprint
    if rows is not None:
        numbers = hashlib.sha256(np.ascontiguousarray(rows, "<i8").data).hexdigest()
        told = digest({"data": store.fingerprint, "rows": numbers})
    tumor = index.groupby("case")["tumor_pixels"].sum() > 0
    counts = {"patients": len(tumor), "patients_with_tumor": int(tumor.sum()), "slices": len(index)}
    said = {"pixels_a_side": store.size, "patients_are": "synthetic (phantom)" if store.phantom else "real"}
    columns = [{"type": TYPES[kind], "name": name, "required": True} for name, kind in COLUMNS.items()]
    name = Path(store.about()["root"]).name  # of the folder with its volumes
    entity = Dataset(
        name=f"phantom-{name.removeprefix('phantom-')}" if store.phantom else name,
        digest=told,
        source_type="local",
        source=json.dumps({"uri": str(store.directory)}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({**counts, **said}),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", context)])


def cohort_inputs(store: Store, external: Store | None) -> list[DatasetInput]:
    """What a study's parent run lists."""
    return [dataset_input(store, COHORT), *([dataset_input(external, "external")] if external else [])]


def source_of(dataset: Dataset) -> Path:
    """The folder of a logged store; older runs have the bare path."""
    if dataset.source.startswith("{"):
        return Path(json.loads(dataset.source)["uri"])
    return Path(dataset.source)


def log_inputs(client: MlflowClient, run_id: str, inputs: Sequence[DatasetInput]) -> None:
    """Log a run's data sets; what is there already stays.

    MLflow refuses one of two workers that log a new one at once; later it finds it there.
    """
    with unbroken():
        for left in reversed(range(TRIES)):
            try:
                client.log_inputs(run_id, list(inputs))
                return
            except MlflowException:
                if not left:
                    raise
