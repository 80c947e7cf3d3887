"""The evidence as tables, for papers (CSV, LaTeX) and for the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from litsexp.evidence import stats
from litsexp.evidence.external import Replication
from litsexp.evidence.judge import Verdict, patient_means
from litsexp.evidence.material import Evidence, External
from litsexp.evidence.measures import measure_of, measured
from litsexp.evidence.words import digits_for, plain


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A row a claim, numbers unrounded."""
    rows = [
        {
            "claim": verdict.claim.id,
            **_measure(verdict),
            "better": verdict.comparison[0],
            "than": verdict.comparison[1],
            "margin": verdict.claim.margin,
            "effect": verdict.effect,
            "low": verdict.low,
            "high": verdict.high,
            "p": verdict.p,
            "p_adjusted": verdict.p_adjusted,
            "superiority": verdict.superiority,
            "patients": verdict.n_patients,
            "undefined": verdict.n_undefined,
            "missing": verdict.n_missing,
            "better_mean": verdict.better_mean,
            "than_mean": verdict.than_mean,
            "verdict": verdict.verdict,
            "substantial": verdict.substantial,
            "patients_needed": verdict.patients_needed,
            "post_hoc": verdict.post_hoc,
            "says": verdict.claim.says,
            "sentence": verdict.sentence,
        }
        for verdict in verdicts
    ]
    return pd.DataFrame(rows).astype({"patients_needed": "Int64"}) if rows else pd.DataFrame()


def _measure(verdict: Verdict) -> dict[str, Any]:
    """What a claim is about, and which way is better: there a negative effect supports it where less is."""
    measure = verdict.measure
    return {"metric": measure.name, "higher_is_better": measure.higher_is_better, "unit": measure.unit}


def arm_scores(cases: pd.DataFrame, metrics: Sequence[str], by: str = "arm", order: Sequence[str] = ()) -> pd.DataFrame:
    """Mean over patients and its 95 % bootstrap interval: ``arm, metric, mean, low, high, patients``, long.

    A patient's seeds are averaged first; undefined scores are left out, so ``patients`` may differ between metrics.
    """
    rows = []
    for arm in (order or sorted(cases[by].unique())) if len(cases) else ():
        one = cases[cases[by] == arm].assign(**{name: 0 for name in ("fold", "seed") if name not in cases})
        scored = [name for name in metrics if measure_of(name).scored(one)]
        means = patient_means(measured(one, scored), scored)
        for metric in means.columns:
            values = means[metric].dropna().to_numpy(dtype=np.float64)
            mean, low, high = stats.bootstrap_mean(values, np.random.default_rng(0))
            rows.append({by: arm, "metric": metric, "mean": mean, "low": low, "high": high, "patients": len(values)})
    return pd.DataFrame(rows, columns=[by, "metric", "mean", "low", "high", "patients"])


def replication_table(pairs: Sequence[Replication]) -> pd.DataFrame:
    """A row a claim: effect, interval, patients and verdict here (internal) and there (external), numbers unrounded."""
    rows = []
    for pair in pairs:
        claim, (better, than) = pair.here.claim, pair.here.comparison
        row = {"claim": claim.id, **_measure(pair.here), "better": better, "than": than, "margin": claim.margin}
        for side, verdict in (("internal", pair.here), ("external", pair.there)):
            numbers = {name: getattr(verdict, name) for name in ("effect", "low", "high", "p", "p_adjusted")}
            numbers |= {"patients": verdict.n_patients, "verdict": verdict.verdict}
            row |= {f"{side}_{name}": value for name, value in numbers.items()}
        row |= {"holds": pair.holds, "run_pairs": pair.runs, "run_pairs_agreeing": pair.agreeing}
        rows.append({**row, "sentence": pair.there.sentence})
    return pd.DataFrame(rows)


def gap_table(evidence: Evidence, metrics: Sequence[str], by: Literal["arm", "predictor"] = "arm") -> pd.DataFrame:
    """A row an arm (or trivial predictor) and metric: its mean score here and on the external cohort, and the gap.

    Columns ``arm, metric, internal, external, low, high, patients, gap``: ``low`` and ``high`` bound the external mean,
    ``gap`` is external minus internal. Here and there are different patients, so it is no paired difference. Without
    rows where there is no external cohort.
    """
    empty = pd.DataFrame()
    external = evidence.external
    if by == "arm":
        here, there, order = evidence.cases, external.cases if external else empty, evidence.arm_names
    else:
        here, there, order = evidence.tested_trivial, external.trivial if external else empty, []
    inside = arm_scores(here, metrics, by, order)[[by, "metric", "mean"]].rename(columns={"mean": "internal"})
    outside = arm_scores(there, metrics, by, order).rename(columns={"mean": "external"})
    table = outside.merge(inside, on=[by, "metric"], how="left").astype({"external": float, "internal": float})
    table["gap"] = table["external"] - table["internal"]
    return table[[by, "metric", "internal", "external", "low", "high", "patients", "gap"]]


def write_tables(evidence: Evidence, directory: Path) -> list[Path]:
    """``verdicts`` and ``arms``, and of an external cohort ``external_verdicts`` and ``external_arms``; returns paths.

    Each as .csv (numbers unrounded, the cohort in its first column) and .tex (booktabs, rounded). A phantom's say so.
    """
    directory.mkdir(parents=True, exist_ok=True)
    scores = arm_scores(evidence.cases, evidence.metrics, order=evidence.arm_names)
    rounded = _wide(evidence.arm_names, scores, lambda row: _interval(row["mean"], row["low"], row["high"], 3))
    written = [
        *_write(directory / "verdicts", verdict_table(evidence.verdicts), _paper_verdicts(evidence), evidence),
        *_write(directory / "arms", scores, rounded, evidence),
    ]
    if evidence.external:
        gaps = gap_table(evidence, evidence.metrics)
        rounded = _wide(evidence.arm_names, gaps, _paper_gap)
        pairs = evidence.replications
        written += _write(
            directory / "external_verdicts", replication_table(pairs), _paper_replications(pairs), evidence.external
        )
        written += _write(directory / "external_arms", gaps, rounded, evidence.external)
    return written


def _write(stem: Path, numbers: pd.DataFrame, rounded: pd.DataFrame, source: Evidence | External) -> list[Path]:
    csv, tex = stem.with_suffix(".csv"), stem.with_suffix(".tex")
    numbers = numbers.copy()
    numbers.insert(0, "cohort", source.cohort)
    numbers.to_csv(csv, index=False, lineterminator="\n")
    if source.phantom and len(rounded.columns):  # in the table itself: a comment is gone when it is printed
        rounded = rounded.rename(columns={rounded.columns[0]: f"{rounded.columns[0]} (phantom)"})
    text = rounded.to_latex(index=False, escape=True)
    tex.write_text(f"% {'phantom results: ' * source.phantom}{source.cohort}\n{text}", encoding="utf-8")
    return [csv, tex]


def _paper_verdicts(evidence: Evidence) -> pd.DataFrame:
    rows = [
        {
            "Claim": v.claim.id,
            "Comparison": " vs. ".join(v.comparison),
            "Metric": v.measure.title,
            "Effect [95 % CI]": _interval(v.effect, v.low, v.high, digits_for(v.claim.margin)),
            "p (Holm)": _p(v),
            "Patients": v.n_patients,
            "Verdict": v.verdict + ", substantially" * v.substantial + " (post hoc)" * v.post_hoc,
        }
        for v in evidence.verdicts
    ]
    return pd.DataFrame(rows)


def _paper_replications(pairs: Sequence[Replication]) -> pd.DataFrame:
    rows = []
    for pair in pairs:
        here, there, digits = pair.here, pair.there, digits_for(pair.here.claim.margin)
        row = {"Claim": here.claim.id, "Metric": here.measure.title}
        row["Internal effect [95 % CI]"] = _interval(here.effect, here.low, here.high, digits)
        row["External effect [95 % CI]"] = _interval(there.effect, there.low, there.high, digits)
        row |= {"External p (Holm)": _p(there), "External patients": str(there.n_patients)}
        rows.append({**row, "Internal": here.verdict, "External": there.verdict, "Holds": pair.holds})
    return pd.DataFrame(rows)


def _paper_gap(row: Mapping[str, Any]) -> str:
    """``0.412 (-0.110)``: the external mean, and in brackets what separates it from the internal one."""
    if math.isnan(row["external"]):
        return "--"
    return plain(row["external"], 3) + ("" if math.isnan(row["gap"]) else f" ({plain(row['gap'], 3)})")


def _wide(names: Sequence[str], scores: pd.DataFrame, cell: Callable[[Mapping[str, Any]], str]) -> pd.DataFrame:
    """A row an arm, a column a metric."""
    wide: dict[str, dict[str, str]] = {name: {"Arm": name} for name in names}
    for row in scores.to_dict("records"):
        wide[row["arm"]][measure_of(row["metric"]).title] = cell({str(name): value for name, value in row.items()})
    return pd.DataFrame(list(wide.values())).fillna("--")


def _p(verdict: Verdict) -> str:
    return f"{verdict.p_adjusted:.4f}" if verdict.p_adjusted >= 1e-4 else "<0.0001"


def _interval(mean: float, low: float, high: float, digits: int) -> str:
    if math.isnan(mean):
        return "--"
    return f"{plain(mean, digits)} [{plain(low, digits)}, {plain(high, digits)}]"
