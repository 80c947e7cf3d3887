"""From an open study to its conclusion: verdicts, tables, report, and the same on the study's parent run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from litsexp.config import StudyConfig, digest
from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.evaluation.cases import trivial_cases
from litsexp.evidence.claims import Verdict, judge
from litsexp.evidence.material import Evidence, Picture
from litsexp.evidence.report import write_report
from litsexp.evidence.tables import write_tables
from litsexp.study.tracking import Results, versions

if TYPE_CHECKING:
    from litsexp.study.runner import Session

PICTURED_ARMS = 3


@dataclass(frozen=True)
class Conclusion:
    """What a study ended with."""

    verdicts: list[Verdict]
    report: Path
    results: Results


def conclude(session: Session, reports: Path, search: pd.DataFrame | None = None, command: str = "") -> Conclusion:
    """Judge the claims, write report and tables below ``reports``, log them to the parent run and finish it.

    Args:
        session: the open study; what has not finished is reported as missing.
        reports: folder for all studies' reports.
        search: a search's trials.
        command: that repeats the study, for the reader.
    """
    results = session.tracking.read(session.cells)
    verdicts = judge(session.study, results.cases, session.parent.preregistered)
    evidence = Evidence(
        name=session.name,
        study=session.study,
        cohort=cohort_name(session.study, session.store),
        verdicts=verdicts,
        cases=results.cases,
        curves=results.curves,
        runs=results.runs,
        trivial=trivial_cases(session.store.index, np.asarray(session.store.labels)),
        split=split_table(session.store, session.splits),
        pictures=pictures(session, results.runs),
        facts=facts(session, results.runs, command),
        search=search,
        notes=[f"{name} failed: {reason}" for name, reason in session.failures.items()],
    )
    directory = reports / f"{session.name}-{session.digest[:8]}"
    directory.mkdir(parents=True, exist_ok=True)
    write_tables(evidence, directory)
    report = write_report(evidence, directory / "report.html")
    session.tracking.log_score(session.parent, scalars(verdicts))
    session.tracking.conclude(session.parent, note(session.study, verdicts), verdict_tags(verdicts), directory)
    return Conclusion(verdicts, report, results)


def cohort_name(study: StudyConfig, store: Store) -> str:
    """``phantom, 30 patients, seed 0``, or the folder's name and the number of its patients."""
    if study.data.cohort == "phantom":
        return f"phantom, {study.data.patients} patients, seed {study.data.seed}"
    return f"{Path(study.data.cohort).resolve().name}, {len(store.cases)} patients"


def split_table(store: Store, splits: list[Split]) -> pd.DataFrame:
    """A row a case: the fold that tests it (-1 for none), pixels, slices and voxel size in mm."""
    tested = {case: fold for fold, split in enumerate(splits) for case in split.test}
    by_case = store.index.groupby("case", sort=True)
    table = by_case.agg(
        liver_pixels=("liver_pixels", "sum"), tumor_pixels=("tumor_pixels", "sum"), slices=("z", "size")
    ).reset_index()
    table.insert(1, "test_fold", [tested.get(case, -1) for case in table["case"]])
    spacing = by_case[["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]].first()
    table["spacing"] = [" × ".join(f"{value:.2f}" for value in row) for row in spacing.to_numpy()]
    return table


def pictures(session: Session, runs: pd.DataFrame) -> list[Picture]:
    """Best and worst test cases of the first arms, as their runs drew them."""
    shown = []
    for arm in list(dict.fromkeys(runs["arm"]))[:PICTURED_ARMS]:
        done = runs[(runs["arm"] == arm) & (runs["status"] == "FINISHED")]
        for run_id, fold in zip(done["run_id"].head(1), done["fold"].head(1), strict=True):
            for path in session.tracking.pictures(run_id, "test"):
                rank, _, case = Path(path).stem.partition("_case_")
                png = session.tracking.artifact(run_id, path)
                shown.append(Picture(f"{arm}: {rank}, case {case}", f"test case of fold {fold}", png))
    return shown


def facts(session: Session, runs: pd.DataFrame, command: str) -> dict[str, str]:
    """What a sceptic wants to know, by name."""
    done = runs[runs["status"] == "FINISHED"]
    registered = session.parent.preregistered
    experiment, run, uri = session.tracking.experiment_id, session.parent.run_id, session.tracking.uri
    server = uri if uri.startswith("http") else "after litsexp ui: http://127.0.0.1:5000"
    return {
        "command": command,
        "design digest": session.digest,
        "data fingerprint": session.store.fingerprint,
        "claims digest": digest({claim.id: claim.digest for claim in session.study.claims}),
        "claims digest before the first run": digest(registered) if registered else "none",
        "device": ", ".join(sorted({str(device) for device in done.get("device", ())})),
        "precision": ", ".join(sorted({str(name) for name in done.get("precision", ())})),
        "training and evaluation, all runs": f"{float(done['minutes'].sum()):.1f} min" if len(done) else "none",
        "MLflow": f"{uri}, experiment {session.name}, run {run}",
        "in the MLflow UI": f"{server}/#/experiments/{experiment}/runs/{run}",
        **versions(),
    }


def scalars(verdicts: list[Verdict]) -> dict[str, float]:
    """The effects, as metrics of the parent run."""
    return {f"effect/{verdict.claim.id}": verdict.effect for verdict in verdicts if verdict.effect == verdict.effect}


def verdict_tags(verdicts: list[Verdict]) -> Mapping[str, str]:
    """The verdicts, as tags of the parent run."""
    return {f"verdict.{verdict.claim.id}": verdict.verdict for verdict in verdicts}


def note(study: StudyConfig, verdicts: list[Verdict]) -> str:
    """Question and answer in Markdown, for the parent run's page."""
    lines = [f"- **{verdict.claim.id}**: {verdict.sentence}" for verdict in verdicts]
    none = "A search tests no claim: see the trials in the report." if study.search else "This study makes no claims."
    answer = "\n".join(lines) or none
    return f"**{study.question}**\n\n{answer}\n\nreport.html stands among the artifacts."
