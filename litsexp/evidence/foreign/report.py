"""Verdicts on somebody's table as one self-contained HTML file, and as tables for papers."""

from pathlib import Path
from typing import Any

import pandas as pd

from litsexp.evidence import figures
from litsexp.evidence.foreign.judged import Judged
from litsexp.evidence.judge import ALPHA, MIN_PATIENTS, MIN_RUN_PAIRS, Verdict
from litsexp.evidence.report import environment
from litsexp.evidence.tables import arm_scores, paper_score, paper_verdicts, verdict_table, write_both
from litsexp.evidence.words import cautions, digits_for, interval


def write_all(found: Judged, directory: Path) -> None:
    """``report.html``, ``verdicts`` and ``arms`` as .csv (numbers unrounded) and .tex, in a folder that is there."""
    scores = arm_scores(found.cases, list(found.measures.values()), order=found.arm_names)
    rounded = paper_verdicts(found.verdicts)
    rounded.insert(4, "These models [95 % CI]", [_models(verdict) for verdict in found.verdicts])
    write_both(directory / "verdicts", verdict_table(found.verdicts), rounded, found)
    write_both(directory / "arms", scores, _paper_arms(found, scores), found)
    (directory / "report.html").write_text(render(found), encoding="utf-8", newline="\n")


def render(found: Judged) -> str:
    """The report as HTML text: no scripts, no external resources, no dates."""
    templates, verdicts = environment(), found.verdicts
    templates.filters["percent"] = percent
    colours = figures.arm_colours(found.arm_names)
    scores = arm_scores(found.cases, list(found.measures.values()), order=found.arm_names)
    content: dict[str, Any] = {
        "found": found,
        "verdicts": [(verdict, cautions(verdict)) for verdict in verdicts],
        "forest": figures.forest(verdicts),
        "pairs": [(v, figures.pairs(v, _sides(v, colours))) for v in verdicts if v.n_patients],
        "scores": scores.set_index(["arm", "metric"]).to_dict("index"),
        "colours": colours,
        "runs": _runs(found),
        "alpha": ALPHA,
        "least": {"patients": MIN_PATIENTS, "pairs": MIN_RUN_PAIRS},
    }
    return templates.get_template("table.html").render(**content)


def percent(share: float) -> str:
    """``6.2 %``, ``< 0.1 %``."""
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def _sides(verdict: Verdict, colours: dict[str, str]) -> tuple[str, str]:
    better, than = verdict.arms[0]
    return colours[better], colours[than]


def _runs(found: Judged) -> list[tuple[str, int, int, int, int]]:
    """Each arm with how many folds, seeds, runs and patients it has."""
    rows = []
    for name in found.arm_names:
        one = found.cases[found.cases["arm"] == name]
        runs = len(one[["fold", "seed"]].drop_duplicates())
        rows.append((name, one["fold"].nunique(), one["seed"].nunique(), runs, one["case"].nunique()))
    return rows


def _models(verdict: Verdict) -> str:
    return interval(verdict.models_low, verdict.models_high, digits_for(verdict.claim.margin)).strip() or "--"


def _paper_arms(found: Judged, scores: pd.DataFrame) -> pd.DataFrame:
    """A row an arm, a column a metric."""
    texts = scores.assign(text=[paper_score(row) for row in scores.itertuples()])
    wide = texts.pivot(index="arm", columns="metric", values="text").reindex(found.arm_names, columns=[*found.measures])
    titles = {name: measure.title for name, measure in found.measures.items()}
    return wide.rename(columns=titles).rename_axis(index="Arm", columns=None).reset_index()
