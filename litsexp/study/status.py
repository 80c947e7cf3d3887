"""Where a study stands, read by whoever reaches MLflow and the ledger's database: nothing is held or left there."""

import tempfile
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from litsexp.spec.design import Cell, cells, design_digest
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.clients import no_answer, opened_client
from litsexp.study.locks import driver_of
from litsexp.study.places import Places
from litsexp.study.views import every_run

State = Literal["finished", "running", "pruned", "failed", "interrupted", "waiting"]
PRUNED: State = "pruned"
STATES: dict[str, State] = {"FINISHED": "finished", "RUNNING": "running", "FAILED": "failed", "KILLED": "interrupted"}


@dataclass(frozen=True)
class CellStatus:
    """The latest attempt of a cell."""

    name: str
    arm: str
    fold: int
    seed: int
    state: State
    attempt: int = 0
    since_s: float = 0.0  # of a running one: for how long; of an ended one: how long it took
    epoch: int = 0  # that it has finished, of a running one
    epochs: int = 0
    where: str = ""  # host, device, or job, as far as the run says
    reason: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class Status:
    """A study."""

    name: str
    run_id: str  # of its parent run
    state: str  # of that: RUNNING while a driver is at it
    cells: list[CellStatus]
    planned: int
    driver: str | None  # who it is, and since when; empty: nobody; None: that cannot be told from here
    seconds_left: float | None  # at the pace of the finished runs; None: none has finished, or all have

    def count(self, state: State) -> int:
        """How many cells are in it."""
        return sum(cell.state == state for cell in self.cells)


def status_of(study: StudyConfig, name: str, places: Places, now_s: float | None = None) -> Status:
    """The cells of this study in MLflow; LitsexpError where MLflow does not answer, or has no such study.

    Which study is meant is told by what it runs: a reworded question is the same, another seed is not. Of studies that
    differ in their data alone (a folder that changed) it is the one that was begun last.
    """
    client, experiment_id = _experiment(places, name)
    runs = every_run(client, experiment_id)
    parents = [run for run in runs if "claims_preregistered" in run.data.tags]
    parent = next((run for run in reversed(parents) if _is_of(client, run, study)), None)
    if parent is None:
        others = f", but {len(parents)} of other designs or settings" if parents else ""
        raise LitsexpError(f"{name}: found no such study in MLflow{others}; expected one that was begun; run it first")
    design = {} if study.search else _by_key(study, _fingerprint(parent, runs))
    known = _latest(runs, None if study.search else design, parent)
    now = time.time() if now_s is None else now_s
    planned = study.search.trials if study.search else len(design)
    shown = design or dict.fromkeys(known)  # a search's are those that were sampled
    found = [_status(client, cell, known.get(key), now) for key, cell in shown.items()]
    driver = driver_of(places.storage_url, f"{name}-{parent.data.tags['study_digest']}", places.root)
    return Status(name, parent.info.run_id, parent.info.status, found, planned, driver, _left(found, planned))


def _experiment(places: Places, name: str) -> tuple[MlflowClient, str]:
    uri = places.tracking_uri
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise LitsexpError(f"{uri}: found no database; expected one that a study wrote; see --mlruns")
    try:
        client = opened_client(uri)
        found = client.get_experiment_by_name(name)
    except (MlflowException, SQLAlchemyError) as error:
        raise no_answer(uri, error) from None
    if found is None:
        raise LitsexpError(f"{name}: found no experiment of this name in MLflow; expected a study that was begun")
    return client, str(found.experiment_id)


def _is_of(client: MlflowClient, parent: Run, study: StudyConfig) -> bool:
    """Whether this parent run is of the study, by the study.yaml among its artifacts, whatever slices it found."""
    try:
        kept = StudyConfig.model_validate(yaml.safe_load(_text(client, parent.info.run_id, "study.yaml")))
    except (OSError, ValueError, ValidationError, MlflowException, yaml.YAMLError):
        return False
    same = kept.data.cohort == study.data.cohort or Path(kept.data.cohort).name == Path(study.data.cohort).name
    return same and design_digest(kept, "") == design_digest(study, "")


def _text(client: MlflowClient, run_id: str, path: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8")


def _fingerprint(parent: Run, runs: Iterable[Run]) -> str:
    """Of the slices that its cells see; empty where no run tells yet."""
    own = (run for run in runs if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.info.run_id)
    told = next((run.data.tags["data_fingerprint"] for run in own if "data_fingerprint" in run.data.tags), "")
    inputs = parent.inputs.dataset_inputs if parent.inputs else []
    cohort = (one.dataset.digest for one in inputs if any(tag.value == "cohort" for tag in one.tags))
    return told or next(cohort, "")


def _by_key(study: StudyConfig, fingerprint: str) -> dict[str, Cell]:
    return {cell.run_key(study.split, fingerprint): cell for cell in cells(study)}


def _latest(runs: Iterable[Run], design: Container[str] | None, parent: Run) -> dict[str, Run]:
    """Run key -> the attempt that counts: a finished one, whichever study trained it, else the last of its own.

    Of the keys of a ``design``; without one, of a search, of those that it has tried itself.
    """
    found: dict[str, Run] = {}
    for run in runs:  # oldest first
        key, done = run.data.tags.get("run_key"), run.info.status == "FINISHED"
        own = run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.info.run_id
        if key and (own or done) and (key not in found or done or found[key].info.status != "FINISHED"):
            found[key] = run
    if design is None:
        return {key: run for key, run in found.items() if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.info.run_id}
    return {key: run for key, run in found.items() if key in design}


def _place(run: Run) -> tuple[str, int, int]:
    params = run.data.params
    return params.get("arm", "?"), int(params.get("fold", -1)), int(params.get("seed", -1))


def _status(client: MlflowClient, cell: Cell | None, run: Run | None, now_s: float) -> CellStatus:
    if run is None:
        assert cell is not None  # a search knows only those that ran
        return CellStatus(cell.name, cell.arm.name, cell.fold, cell.seed, "waiting")
    (arm, fold, seed), tags = _place(run), run.data.tags
    arm = cell.arm.name if cell else arm  # the study that trained it may have called it otherwise
    state = PRUNED if tags.get("pruned") == "true" else STATES.get(run.info.status, "waiting")
    end_s = now_s if state == "running" else (run.info.end_time or run.info.start_time) / 1000
    return CellStatus(
        name=cell.name if cell else f"{arm} · fold {fold} · seed {seed}",
        arm=arm,
        fold=fold,
        seed=seed,
        state=state,
        attempt=int(tags.get("attempt", 1)),
        since_s=max(0.0, end_s - run.info.start_time / 1000),
        epoch=len(client.get_metric_history(run.info.run_id, "valid/score")) if state == "running" else 0,
        epochs=int(run.data.params.get("epochs", 0)),
        where=" ".join(tags[name] for name in ("host", "slurm_job", "ray_node", "device") if tags.get(name)),
        reason=tags.get("reason", ""),
        run_id=run.info.run_id,
    )


def _left(found: list[CellStatus], planned: int) -> float | None:
    """Seconds until the last cell, at the pace of the finished ones and as many at a time as run now."""
    took = [cell.since_s for cell in found if cell.state == "finished" and cell.since_s > 0]
    running = [cell for cell in found if cell.state == "running"]
    done = sum(cell.state in ("finished", "pruned") for cell in found)
    if not took or done >= planned:
        return None
    to_do = (planned - done) * fmean(took) - sum(min(cell.since_s, fmean(took)) for cell in running)
    return max(0.0, to_do / max(1, len(running)))
