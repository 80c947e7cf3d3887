"""From an open study to its conclusion: verdicts, tables, report, and the same on the study's parent run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.evaluation.cases import trivial_cases
from litsexp.evidence.claims import Verdict, judge
from litsexp.evidence.material import Evidence, External, Picture
from litsexp.evidence.report import write_report
from litsexp.evidence.tables import write_tables
from litsexp.spec.keys import digest
from litsexp.study.cohorts import cohort_name
from litsexp.study.tracking import Results, versions

if TYPE_CHECKING:
    from litsexp.study.session import Session

PICTURED_ARMS = 3


@dataclass(frozen=True)
class Conclusion:
    """What a study ended with."""

    evidence: Evidence
    report: Path
    results: Results

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """One a claim, on the patients that the study tested."""
        return self.evidence.verdicts


def conclude(session: Session, reports: Path, search: pd.DataFrame | None = None, command: str = "") -> Conclusion:
    """Judge the claims, write report and tables below ``reports``, log them to the parent run and finish it.

    Args:
        session: the open study; what has not finished is reported as missing.
        reports: folder for all studies' reports.
        search: a search's trials.
        command: that repeats the study, for the reader.
    """
    results = session.tracking.read(session.cells)
    phantom = session.store.phantom
    kind = "phantom" if phantom else ""
    verdicts = judge(session.study, results.cases, session.parent.preregistered, kind=kind)
    evidence = Evidence(
        name=session.name,
        study=session.study,
        cohort=cohort_name(session.study.data, session.store),
        phantom=phantom,
        verdicts=verdicts,
        cases=results.cases,
        curves=results.curves,
        runs=results.runs,
        trivial=trivial_cases(session.store.index, np.asarray(session.store.labels)),
        split=split_table(session.store, session.splits),
        pictures=pictures(session, results.runs, session.store),
        facts=facts(session, results.runs, command),
        search=search,
        notes=[f"{name} failed: {reason}" for name, reason in session.failures.items()],
        external=external_part(session, results),
    )
    directory = reports / f"{session.name}-{session.digest[:8]}"
    directory.mkdir(parents=True, exist_ok=True)
    write_tables(evidence, directory)
    report = write_report(evidence, directory / "report.html")
    session.tracking.log_score(session.parent, scalars(evidence))
    tags = {**session.cohort_tags, **verdict_tags(evidence)}
    session.tracking.conclude(session.parent, note(evidence), tags, directory)
    return Conclusion(evidence, report, results)


def external_part(session: Session, results: Results) -> External | None:
    """What the finished runs scored on the external cohort, judged by the same claims; None without one."""
    store, asked = session.external, session.study.external
    if store is None or asked is None:
        return None
    kind = "external phantom" if store.phantom else "external"
    return External(
        cohort=cohort_name(asked, store),
        phantom=store.phantom,
        verdicts=judge(session.study, results.external, session.parent.preregistered, kind=kind),
        cases=results.external,
        trivial=trivial_cases(store.index, np.asarray(store.labels)),
        pictures=pictures(session, results.runs, store, "external"),
    )


def split_table(store: Store, splits: list[Split]) -> pd.DataFrame:
    """A row a case: the fold that tests it (-1 for none), pixels, slices and voxel size in mm."""
    tested = {case: fold for fold, split in enumerate(splits) for case in split.test}
    by_case = store.index.groupby("case", sort=True)
    table = by_case.agg(
        liver_pixels=("liver_pixels", "sum"), tumor_pixels=("tumor_pixels", "sum"), slices=("z", "size")
    ).reset_index()
    table.insert(1, "test_fold", [tested.get(case, -1) for case in table["case"]])
    spacing = by_case[["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]].first()
    table["spacing"] = [_millimetres(row) for row in spacing.to_numpy()]
    return table


def _millimetres(spacing: NDArray[np.float64]) -> str:
    """``0.70 × 0.70 × 5.00``; where the volume's header does not tell, ``unknown``."""
    if np.isnan(spacing).all():
        return "unknown"
    return " × ".join("unknown" if np.isnan(value) else f"{value:.2f}" for value in spacing)


def pictures(
    session: Session, runs: pd.DataFrame, store: Store, folder: Literal["test", "external"] = "test"
) -> list[Picture]:
    """Best and worst cases of the first arms, as their runs drew them: of the test, or of the external cohort."""
    kind = "phantom case" if store.phantom else "case"
    caption = {"test": "test case of fold {}", "external": "external cohort, scored by the run of fold {}"}[folder]
    shown = []
    for arm in list(dict.fromkeys(runs["arm"]))[:PICTURED_ARMS]:
        done = runs[(runs["arm"] == arm) & (runs["status"] == "FINISHED")]
        for run_id, fold in zip(done["run_id"].head(1), done["fold"].head(1), strict=True):
            for path in session.tracking.pictures(run_id, folder):
                rank, _, case = Path(path).stem.partition("_case_")
                png = session.tracking.artifact(run_id, path)
                shown.append(Picture(f"{arm}: {rank}, {kind} {case}", caption.format(fold), png))
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
        **({"external fingerprint": session.external.fingerprint} if session.external else {}),
        "claims digest": digest({claim.id: claim.digest for claim in session.study.claims}),
        "claims digest before the first run": digest(registered) if registered else "none",
        "device": ", ".join(sorted({str(device) for device in done.get("device", ())})),
        "precision": ", ".join(sorted({str(name) for name in done.get("precision", ())})),
        "training and evaluation, all runs": f"{float(done['minutes'].sum()):.1f} min" if len(done) else "none",
        "MLflow": f"{uri}, experiment {session.name}, run {run}",
        "in the MLflow UI": f"{server}/#/experiments/{experiment}/runs/{run}",
        **versions(),
    }


def scalars(evidence: Evidence) -> dict[str, float]:
    """The effects, as metrics of the parent run."""
    there = evidence.external.verdicts if evidence.external else ()
    effects = {f"effect/{verdict.claim.id}": verdict.effect for verdict in evidence.verdicts}
    effects |= {f"effect_external/{verdict.claim.id}": verdict.effect for verdict in there}
    return {name: effect for name, effect in effects.items() if not math.isnan(effect)}


def verdict_tags(evidence: Evidence) -> dict[str, str]:
    """The verdicts, as tags of the parent run."""
    there = evidence.external.verdicts if evidence.external else ()
    tags: dict[str, str] = {f"verdict.{verdict.claim.id}": verdict.verdict for verdict in evidence.verdicts}
    return tags | {f"verdict_external.{verdict.claim.id}": verdict.verdict for verdict in there}


def note(evidence: Evidence) -> str:
    """Question and answer in Markdown, for the parent run's page."""
    lines = [f"- **{verdict.claim.id}**: {verdict.sentence}" for verdict in evidence.verdicts]
    search = evidence.study.search is not None
    none = "A search tests no claim: see the trials in the report." if search else "This study makes no claims."
    paragraphs = [f"**{evidence.study.question}**", evidence.warning, "\n".join(lines) or none]
    if evidence.external:
        pairs = "\n".join(f"- **{pair.here.claim.id}**: {pair.words}" for pair in evidence.replications)
        paragraphs += [f"On the external cohort ({evidence.external.cohort}), from which nothing was learned:", pairs]
    return "\n\n".join(part for part in [*paragraphs, "report.html stands among the artifacts."] if part)
