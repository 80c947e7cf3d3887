"""A study as MLflow keeps it, read back from its parent run alone: no CT, no store, no study file is asked for."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from litsexp.spec.design import Cell, cells, design_digest
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.reading import first_problem
from litsexp.spec.study import StudyConfig
from litsexp.study.jobs import EPOCHS_TAG
from litsexp.study.scorings import CohortKind, scoring_tag
from litsexp.study.shelf import Shelf, place

FACTS = ("git_commit", "platform", "device", "precision_used")  # and every version.*
WANTED: tuple[CohortKind, ...] = ("test", "train", "native")
PARENTS = "attributes.status = 'FINISHED' and tags.claims_preregistered LIKE '%'"


@dataclass(frozen=True)
class KeptStudy:
    """A study whose parent run has finished, and what its finished runs scored."""

    name: str  # as its report's folder is called: mini-70c9bea9
    run_id: str
    root: Path | None
    study: StudyConfig
    planned: int
    finished: int
    cohort: str
    phantom: bool
    fingerprint: str
    preregistered: dict[str, str]
    rulings: dict[str, str]  # claim id -> as recorded
    effects: dict[str, float]
    facts: dict[str, str]  # of the runs that finished; several values are parted by "; "
    tables: dict[str, pd.DataFrame]  # test, train, epochs, native: ``arm, fold, seed, case``, a column a metric


def find_study(words: str, mlruns: Path, uri: str | None, name: str = "") -> KeptStudy:
    """The study that ``words`` name: a folder, a report, a run, or an experiment.

    Args:
        words: a folder with an ``mlflow.db`` (its study that ended last), ``FOLDER:NAME`` or ``FOLDER:RUN_ID`` (of the
            studies there that one), a report's folder or its report.html; or NAME or RUN_ID alone, of ``uri``.
        mlruns: where a database is looked for that ``words`` and ``uri`` do not name.
        uri: of MLflow; default: the database in ``mlruns``.
        name: of the experiment, where ``words`` name a folder alone.

    Raises:
        LitsexpError: there is no such study, it has not finished, or it cannot be read.
    """
    shelf, chosen = place(words, mlruns, uri)
    experiments = shelf.experiments()
    parents = shelf.runs(list(experiments), PARENTS)
    parents.sort(key=lambda run: run.info.end_time or 0)
    known = {run.info.run_id: experiments[run.info.experiment_id] for run in parents}
    chosen = chosen or name
    matching = [run for run in parents if chosen in ("", run.info.run_id, known[run.info.run_id], _key(run, known))]
    if not matching:
        raise LitsexpError(_not_found(words, chosen, shelf, known))
    return _read(shelf, matching[-1], known[matching[-1].info.run_id])


def _key(run: Run, known: Mapping[str, str]) -> str:
    """The name of the folder that its report is in."""
    return f"{known[run.info.run_id]}-{run.data.tags['study_digest'][:8]}"


def _not_found(words: str, chosen: str, shelf: Shelf, known: Mapping[str, str]) -> str:
    studies = sorted(set(known.values()))
    there = f"one of {', '.join(studies)}, or a parent run's id" if studies else "a finished study, and there is none"
    try:
        run = shelf.client.get_run(chosen)
    except (MlflowException, SQLAlchemyError):
        what = f"no finished study {chosen!r}" if chosen else "no finished study"
        return f"--compare {words}: found {what} in {shelf.name}; expected {there}"
    if "run_key" in run.data.tags:
        parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID, "")
        return f"--compare {words}: found one run of a study; expected the study's parent run, which is {parent}"
    return f"--compare {words}: found a study that is {run.info.status}; expected a finished one; run it to its end"


def _read(shelf: Shelf, parent: Run, experiment: str) -> KeptStudy:
    run_id, tags = parent.info.run_id, parent.data.tags
    study = _study(shelf, parent, experiment)
    children = shelf.runs([parent.info.experiment_id], "attributes.status = 'FINISHED' and tags.run_key LIKE '%'")
    children = [run for run in children if run.data.tags.get("pruned") != "true"]
    fingerprint = _fingerprint(study, parent, children)
    planned = cells(study)
    done = dict(_finished(study, planned, fingerprint, run_id, children))
    if not done:
        raise LitsexpError(f"run {run_id}: found no finished run of this study; expected one; run the study first")
    claims, known = [claim.id for claim in study.claims], parent.data.metrics
    return KeptStudy(
        name=_key(parent, {run_id: experiment}),
        run_id=run_id,
        root=shelf.root,
        study=study,
        planned=len(planned),
        finished=len(done),
        cohort=tags.get("cohort", "unknown cohort"),
        phantom=tags.get("phantom") == "true",
        fingerprint=fingerprint,
        preregistered=json.loads(tags.get("claims_preregistered", "{}")),
        rulings={name: tags[f"verdict.{name}"] for name in claims if f"verdict.{name}" in tags},
        effects={name: known[f"effect/{name}"] for name in claims if f"effect/{name}" in known},
        facts=_facts(list(done.values())),
        tables=_tables(shelf, experiment, study, done, fingerprint),
    )


def _study(shelf: Shelf, parent: Run, experiment: str) -> StudyConfig:
    where = f"run {parent.info.run_id}: study.yaml"
    try:
        content: Any = yaml.safe_load(shelf.artifact(parent, experiment, "study.yaml"))
        study = StudyConfig.model_validate(content)
    except yaml.YAMLError as error:
        raise LitsexpError(f"{where}: not valid YAML ({one_line(error)}); expected what a study wrote") from None
    except ValidationError as error:
        told = "another version of litsexp wrote it, or its plugin is missing (--plugin)"
        raise LitsexpError(f"{where}: {first_problem(error, content)}; {told}") from None
    if study.search is not None:
        raise LitsexpError(f"{where}: found design: search, whose arms are its results; expected ablation or factorial")
    return study


def _fingerprint(study: StudyConfig, parent: Run, children: list[Run]) -> str:
    """Of the slices; LitsexpError where no run is left that tells."""
    own = [run for run in children if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.info.run_id]
    for run in own:
        return str(run.data.tags["data_fingerprint"])
    for fingerprint in {run.data.tags["data_fingerprint"]: None for run in children}:
        if design_digest(study, fingerprint) == parent.data.tags["study_digest"]:
            return str(fingerprint)
    gone = "found no finished run of this study; expected one; run the study first"
    raise LitsexpError(f"run {parent.info.run_id}: {gone}")


def _finished(
    study: StudyConfig, planned: list[Cell], fingerprint: str, parent: str, children: list[Run]
) -> Iterator[tuple[Cell, Run]]:
    """Each cell with its finished run: by content, or, where another version named contents otherwise, by its place."""
    by_key = {run.data.tags["run_key"]: run for run in children}
    own = [run for run in children if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent]
    by_place = {tuple(run.data.params.get(name) for name in ("arm", "fold", "seed")): run for run in own}
    for cell in planned:
        try:
            found = by_key.get(cell.run_key(study.split, fingerprint))
        except LitsexpError:  # a weights file that is not there: nothing is trained here, so it need not be
            found = None
        found = found or by_place.get((cell.arm.name, str(cell.fold), str(cell.seed)))
        if found is not None:
            yield cell, found


def _facts(runs: list[Run]) -> dict[str, str]:
    names = {name for run in runs for name in run.data.tags if name.startswith("version.") or name in FACTS}
    values = {name: sorted({run.data.tags.get(name, "unknown") for run in runs}) for name in sorted(names)}
    return {name: "; ".join(found) for name, found in values.items()}


def _tables(
    shelf: Shelf, experiment: str, study: StudyConfig, done: Mapping[Cell, Run], fingerprint: str
) -> dict[str, pd.DataFrame]:
    """What the runs scored, as far as the study's claims are about it; a run that has not scored it has no rows."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for cell, run in done.items():
        for kind in [kind for kind in WANTED if kind == "test" or kind in study.needs]:
            folder = _folder(run, kind, fingerprint, study.leaks)
            if folder is not None:
                path = "/".join(part for part in (folder, "cases.parquet") if part != ".")
                parts.setdefault(kind, []).append(_labelled(shelf.artifact(run, experiment, path), cell))
        if "epochs" in study.needs and (path := run.data.tags.get(EPOCHS_TAG)):
            parts.setdefault("epochs", []).append(_labelled(shelf.artifact(run, experiment, path), cell))
    return {kind: pd.concat(tables, ignore_index=True) for kind, tables in parts.items()}


def _folder(run: Run, kind: CohortKind, fingerprint: str, held_out: bool) -> str | None:
    """Where a run's scoring lies; None where there is none.

    Raises:
        LitsexpError: there are several, and none is known by its key (another version of litsexp wrote them).
    """
    tags = run.data.tags
    known = tags.get(scoring_tag(kind, tags["run_key"], fingerprint, held_out))
    if known is not None:
        return str(known)
    starts = {"test": (".", "test/")}.get(kind, (f"{kind}/",))
    folders = {value for name, value in tags.items() if name.startswith("scored.") and value.startswith(starts)}
    if len(folders) > 1:
        several = (
            f"found {len(folders)} scorings of {kind} cases, none of which this version of litsexp knows by its key"
        )
        raise LitsexpError(f"run {run.info.run_id}: {several}; expected one; load its plugin (--plugin)")
    return folders.pop() if folders else None


def _labelled(parquet: bytes, cell: Cell) -> pd.DataFrame:
    table = pd.read_parquet(io.BytesIO(parquet))
    return table.assign(arm=cell.arm.name, fold=cell.fold, seed=cell.seed)
