"""The evidence as tables, for papers (CSV, LaTeX) and for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from litsexp.evidence import stats
from litsexp.evidence.claims import Verdict, digits_for, metric_words, patient_means, plain
from litsexp.evidence.material import Evidence


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A row a claim, numbers unrounded."""
    rows = [
        {
            "claim": verdict.claim.id,
            "metric": verdict.claim.metric,
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


def arm_scores(cases: pd.DataFrame, metrics: Sequence[str], by: str = "arm", order: Sequence[str] = ()) -> pd.DataFrame:
    """Mean over patients and its 95 % bootstrap interval: ``arm, metric, mean, low, high, patients``, long.

    A patient's seeds are averaged first; undefined scores are left out, so ``patients`` may differ between metrics.
    """
    rows = []
    for arm in (order or sorted(cases[by].unique())) if len(cases) else ():
        one = cases[cases[by] == arm].assign(**{name: 0 for name in ("fold", "seed") if name not in cases})
        means = patient_means(one, [m for m in metrics if m in cases])
        for metric in means.columns:
            values = means[metric].dropna().to_numpy(dtype=np.float64)
            mean, low, high = stats.bootstrap_mean(values, np.random.default_rng(0))
            rows.append({by: arm, "metric": metric, "mean": mean, "low": low, "high": high, "patients": len(values)})
    return pd.DataFrame(rows, columns=[by, "metric", "mean", "low", "high", "patients"])


def write_tables(evidence: Evidence, directory: Path) -> list[Path]:
    """``verdicts`` and ``arms`` as .csv (numbers unrounded) and .tex (booktabs, rounded); returns the four paths."""
    directory.mkdir(parents=True, exist_ok=True)
    verdicts = verdict_table(evidence.verdicts)
    scores = arm_scores(evidence.cases, evidence.metrics, order=evidence.arm_names)
    paper = [
        {
            "Claim": v.claim.id,
            "Comparison": " vs. ".join(v.comparison),
            "Metric": metric_words(v.claim.metric),
            "Effect [95 % CI]": _interval(v.effect, v.low, v.high, digits_for(v.claim.margin)),
            "p (Holm)": f"{v.p_adjusted:.4f}" if v.p_adjusted >= 1e-4 else "<0.0001",
            "Patients": v.n_patients,
            "Verdict": v.verdict + ", substantially" * v.substantial + " (post hoc)" * v.post_hoc,
        }
        for v in evidence.verdicts
    ]
    wide: dict[str, dict[str, str]] = {name: {"Arm": name} for name in evidence.arm_names}
    for row in scores.to_dict("records"):
        wide[row["arm"]][metric_words(row["metric"])] = _interval(row["mean"], row["low"], row["high"], 3)
    arms_wide = pd.DataFrame(list(wide.values())).fillna("--")
    written = []
    for stem, numbers, rounded in (("verdicts", verdicts, pd.DataFrame(paper)), ("arms", scores, arms_wide)):
        csv, tex = directory / f"{stem}.csv", directory / f"{stem}.tex"
        numbers.to_csv(csv, index=False, lineterminator="\n")
        tex.write_text(rounded.to_latex(index=False, escape=True), encoding="utf-8")
        written += [csv, tex]
    return written


def _interval(mean: float, low: float, high: float, digits: int) -> str:
    if math.isnan(mean):
        return "--"
    return f"{plain(mean, digits)} [{plain(low, digits)}, {plain(high, digits)}]"
