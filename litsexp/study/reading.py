"""What a study's finished runs gave, as data frames: a small file a run and table, from the disk where they lie on one.

Runs of before there was a file of curves have them as MLflow's metrics, which are asked for one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Run, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path

from litsexp.interrupts import unbroken
from litsexp.spec.design import Cell
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.study.clients import one_try
from litsexp.study.epochs import curve_names, curve_table, images_an_epoch
from litsexp.study.jobs import CURVES_TAG, EPOCHS_TAG
from litsexp.study.results import Results
from litsexp.study.scorings import Scoring

AT_A_TIME = 8  # files of a server: it mostly waits
LATER = ("external", "train", "epochs", "native")  # tables that not every study has


@dataclass(frozen=True)
class _Wanted:
    """A table of a finished run."""

    kind: str
    cell: Cell
    run: Run
    path: str  # among its artifacts; empty: MLflow's metrics


def read(
    client: MlflowClient,
    runs: Iterable[Run],
    cells: Mapping[str, Cell],
    wanted: Mapping[str, Sequence[Scoring]],
    epochs: bool = False,
) -> Results:
    """The finished cells' curves and tables of cases, and the state of every cell.

    Args:
        client: where the runs are.
        runs: every run of the experiment, oldest first; see ``Tracking.runs``.
        cells: run key -> cell.
        wanted: run key -> the scorings whose tables are asked for; a cell that lacks one gives no rows there.
        epochs: whether the validation cases after each epoch are asked for; older runs have none.
    """
    all_runs = [run for run in runs if "run_key" in run.data.tags]
    latest = {run.data.tags["run_key"]: run for run in all_runs} | finished_of(all_runs)
    known = {key: latest[key] for key in cells if key in latest}
    rows = [{**_label(cell), **_run_row(known.get(key))} for key, cell in cells.items()]
    done = {key: run for key, run in known.items() if is_done(run)}
    asked = [one for key, run in done.items() for one in _tables(cells[key], run, wanted[key], epochs)]
    tables: dict[str, list[tuple[Cell, pa.Table]]] = {kind: [] for kind in ("test", "curves", *LATER)}
    for one, table in zip(asked, _fetched(client, asked), strict=True):
        tables[one.kind].append((one.cell, table))
    joined = {kind: _joined(parts) for kind, parts in tables.items()}
    return Results(joined["test"], joined["curves"], pd.DataFrame(rows), *(joined[kind] for kind in LATER))


def finished_of(runs: Iterable[Run]) -> dict[str, Run]:
    """The finished run of each run key, the last of these runs that is."""
    return {run.data.tags["run_key"]: run for run in runs if "run_key" in run.data.tags and is_done(run)}


def is_done(run: Run) -> bool:
    """Whether a cell's run has finished, and was not given up by a search."""
    return bool(run.info.status == "FINISHED" and run.data.tags.get("pruned") != "true")


def within(folder: str, name: str) -> str:
    """The path of a file in a scoring's folder; ``.``: that of the run."""
    return name if folder == "." else f"{folder}/{name}"


def artifact(client: MlflowClient, run: Run, path: str) -> bytes:
    """The bytes of one artifact of a run; LitsexpError where it cannot be read."""
    try:
        if (file := _on_disk(run, path)) is not None:
            return file.read_bytes()
        with unbroken(), TemporaryDirectory() as directory:
            file = Path(directory) / "fetched"
            with suppress(Exception), one_try():  # one request; MLflow's own way is four, and says what is wrong
                get_artifact_repository(run.info.artifact_uri, client.tracking_uri)._download_file(path, str(file))
                return file.read_bytes()
            return Path(client.download_artifacts(run.info.run_id, path, directory)).read_bytes()
    except (OSError, MlflowException) as error:
        lost = f"its artifact {path} cannot be read ({one_line(error)})"
        raise LitsexpError(f"run {run.info.run_id}: {lost}; expected what the run logged; was it deleted?") from None


def curves(client: MlflowClient, run: Run) -> pd.DataFrame:
    """A run's learning curves, from MLflow's metrics; see ``epochs.curve_table``."""
    with unbroken():
        points = [
            (point.step, name, point.value)
            for name in curve_names()
            for point in client.get_metric_history(run.info.run_id, name)
        ]
    return curve_table(points, _images_an_epoch(run))


def _tables(cell: Cell, run: Run, wanted: Sequence[Scoring], epochs: bool) -> Iterator[_Wanted]:
    tags = run.data.tags
    yield _Wanted("curves", cell, run, tags.get(CURVES_TAG, ""))
    for scoring in wanted:
        if scoring.tag in tags:
            yield _Wanted(scoring.kind, cell, run, within(tags[scoring.tag], "cases.parquet"))
    if epochs and (place := tags.get(EPOCHS_TAG)):
        yield _Wanted("epochs", cell, run, place)


def _fetched(client: MlflowClient, asked: Sequence[_Wanted]) -> Iterator[pa.Table]:
    """Each as a table, in this order; several at a time from a server, which Ctrl-C ends at once."""

    def fetch(one: _Wanted) -> pa.Table:
        if not one.path:
            return pa.Table.from_pandas(curves(client, one.run), preserve_index=False)
        content = artifact(client, one.run, one.path)
        try:
            return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            what = f"its artifact {one.path} is no table that can be read ({one_line(error)[:200]})"
            todo = "expected what the run logged; copy it there again, or delete the run in MLflow: its cell runs again"
            raise LitsexpError(f"run {one.run.info.run_id}: {what}; {todo}") from None

    if all(_folder(one.run) is not None for one in asked):
        yield from map(fetch, asked)
        return
    pool = ThreadPoolExecutor(AT_A_TIME, "litsexp-read")
    try:
        yield from pool.map(fetch, asked)
    finally:
        pool.shutdown(cancel_futures=True)


def _folder(run: Run) -> Path | None:
    """Where a run's artifacts lie on a disk; None where a server keeps them."""
    uri = run.info.artifact_uri
    return Path(local_file_uri_to_path(uri)) if uri.startswith("file:") else None


def _on_disk(run: Run, path: str) -> Path | None:
    """None for one that is not there: MLflow says what is wrong. OSError for one that is not below the run's folder."""
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts:
        raise OSError(f"{path!r} is not below the run's own artifacts")
    folder = _folder(run)
    return folder / path if folder is not None and (folder / path).is_file() else None


def _joined(parts: Sequence[tuple[Cell, pa.Table]]) -> pd.DataFrame:
    """One below the other, each labelled with its cell; neighbours of one schema together, which is what is fast."""
    groups: list[list[tuple[Cell, pa.Table]]] = []
    for part in parts:
        alike = groups and groups[-1][0][1].schema.equals(part[1].schema, check_metadata=True)
        groups[-1].append(part) if alike else groups.append([part])
    frames = [_labelled(group) for group in groups]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _labelled(parts: Sequence[tuple[Cell, pa.Table]]) -> pd.DataFrame:
    table: pd.DataFrame = pa.concat_tables(table for _, table in parts).to_pandas()
    lengths = [len(table) for _, table in parts]
    for place, name in enumerate(_label(parts[0][0])):
        table.insert(place, name, np.repeat([_label(cell)[name] for cell, _ in parts], lengths))
    return table


def _label(cell: Cell) -> dict[str, Any]:
    return {"arm": cell.arm.name, "fold": cell.fold, "seed": cell.seed}


def _images_an_epoch(run: Run) -> float:
    """Training images that each of its epochs saw; NaN where the run does not tell."""
    tags, epochs = run.data.tags, run.data.metrics.get("time/epochs")
    if not epochs or not {"steps", "training_slices"} <= set(tags):
        return float("nan")
    return images_an_epoch(tags, int(epochs), int(run.data.params["batch_size"]))


def _run_row(run: Run | None) -> dict[str, Any]:
    """One line of the report's run table."""
    if run is None:
        return {"status": "MISSING", "reason": "not run yet", "run_id": ""}
    metrics, tags = run.data.metrics, run.data.tags
    return {
        "status": RunStatus.to_string(RunStatus.from_string(run.info.status)),
        "reason": tags.get("reason", ""),
        "run_id": run.info.run_id,
        "minutes": (metrics.get("time/fit_s", float("nan")) + metrics.get("time/evaluation_s", float("nan"))) / 60,
        "pretraining_steps": float(tags.get("ssl_steps", "nan")),
        "pretraining_minutes": metrics.get("time/ssl_s", float("nan")) / 60,
        "best_epoch": metrics.get("best/epoch", float("nan")),
        "epochs": metrics.get("time/epochs", float("nan")),
        "lr": metrics.get("best/lr_max", float("nan")),
        "device": tags.get("device", ""),
        "precision": tags.get("precision_used", ""),
    }
