"""The evidence as tables, for papers (CSV, LaTeX) and for the report."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from litsexp.evidence import stats
from litsexp.evidence.external import Replication
from litsexp.evidence.failed import reasons
from litsexp.evidence.judge import Verdict
from litsexp.evidence.material import Evidence
from litsexp.evidence.measures import Measured, measure_of
from litsexp.evidence.native import beside_stored, lesion_findings
from litsexp.evidence.noise import Noise
from litsexp.evidence.words import COVERED, MODELS, digits_for, interval, plain

NOTE = f"95 % CI: {COVERED}; of these models: {MODELS}"
SHOWN_ROWS = 500  # of a table on a page; a longer one is a CSV beside it, too
EFFECT = ("effect", "low", "high", "p", "p_adjusted", "models_low", "models_high", "runs_share", "false_claim")


class Source(Protocol):
    """What a written table is labelled with."""

    @property
    def cohort(self) -> str:
        """Whose patients."""

    @property
    def phantom(self) -> bool:
        """Whether they are synthetic."""


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A row a claim, numbers unrounded."""
    numbers = ("n_patients", "n_run_pairs", "n_undefined", "n_dropped", "n_missing")
    counted = ("superiority", *numbers, "better_mean", "than_mean")
    ruled = ("verdict", "substantial", "post_hoc")
    rows = [
        {**_claim(v), **_fields(v, *EFFECT, *counted, *ruled), "says": v.claim.says, "sentence": v.sentence}
        for v in verdicts
    ]
    leaks = {"leaking": ["; ".join(v.leaking) for v in verdicts]} if any(v.leaking for v in verdicts) else {}
    return pd.DataFrame(rows).assign(**leaks)


def replication_table(pairs: Sequence[Replication]) -> pd.DataFrame:
    """A row a claim: effect, interval, patients and verdict here (internal) and there (external), numbers unrounded."""
    rows = []
    for pair in pairs:
        row = _claim(pair.here)
        for side, verdict in (("internal", pair.here), ("external", pair.there)):
            found = _fields(verdict, *EFFECT, "n_patients", "n_run_pairs", "verdict")
            row |= {f"{side}_{name}": value for name, value in found.items()}
        row |= {"external_run_pairs_agreeing": pair.agreeing, "holds": pair.holds}
        rows.append({**row, "sentence": pair.there.sentence})
    return pd.DataFrame(rows)


def noise_table(noise: Sequence[Noise]) -> pd.DataFrame:
    """A row a measure: the noise floor, numbers unrounded; columns alone where it is not known."""
    columns = [field.name for field in dataclasses.fields(Noise)]
    return pd.DataFrame([dataclasses.asdict(each) for each in noise], columns=columns)


def _claim(verdict: Verdict) -> dict[str, Any]:
    """What a claim is about, and which way is better: there a negative effect supports it where less is."""
    claim, measure, (better, than) = verdict.claim, verdict.measure, verdict.comparison
    about = {"metric": measure.name, "higher_is_better": measure.higher_is_better, "unit": measure.unit}
    return {"claim": claim.id, **about, "better": better, "than": than, "margin": claim.margin}


def _fields(verdict: Verdict, *names: str) -> dict[str, Any]:
    return {name.removeprefix("n_"): getattr(verdict, name) for name in names}


def arm_scores(
    cases: pd.DataFrame, metrics: Sequence[str | Measured], by: str = "arm", order: Sequence[str] = ()
) -> pd.DataFrame:
    """Mean over patients and its 95 % t interval: ``arm, metric, mean, low, high, patients``, long.

    A patient's seeds are averaged first; undefined scores are left out, so ``patients`` may differ between metrics.
    """
    scored = [measure for measure in map(measure_of, metrics) if measure.scored(cases)]
    ordered = cases.sort_values([name for name in ("case", "seed", "fold") if name in cases], kind="stable")
    rows = []
    for arm in (order or sorted(cases[by].unique())) if len(cases) else ():
        one = ordered[ordered[by] == arm]
        for measure in scored:
            means = measure.values(one).groupby(one["case"]).mean().dropna().to_numpy()
            found = stats.mean_interval(means)
            rows.append([arm, measure.name, *found, len(means)])
    return pd.DataFrame(rows, columns=[by, "metric", "mean", "low", "high", "patients"])


def best_trials(search: pd.DataFrame, most: int) -> pd.DataFrame:
    """A search's finished trials, highest validation score first; a pruned one's is not comparable."""
    done = search[search["state"] == "COMPLETE"].drop(columns="state") if len(search) else search
    return done.sort_values("valid/score", ascending=False, kind="stable").head(most) if len(done) else done


def gap_table(
    here: pd.DataFrame, there: pd.DataFrame, metrics: Sequence[str], by: str = "arm", order: Sequence[str] = ()
) -> pd.DataFrame:
    """A row an arm (or trivial predictor) and metric: its mean score here and on the external cohort, and the gap.

    Columns ``arm, metric, internal, external, low, high, patients, gap``: ``low`` and ``high`` bound the external mean,
    ``gap`` is external minus internal. Here and there are different patients, so it is no paired difference.
    """
    inside = arm_scores(here, metrics, by, order)[[by, "metric", "mean"]].rename(columns={"mean": "internal"})
    outside = arm_scores(there, metrics, by, order).rename(columns={"mean": "external"})
    table = outside.merge(inside, on=[by, "metric"], how="left").astype({"external": float, "internal": float})
    table["gap"] = table["external"] - table["internal"]
    return table[[by, "metric", "internal", "external", "low", "high", "patients", "gap"]]


def tumor_free_table(cases: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """A row an arm: its patients without tumor, those with false-positive tumor, and such pixels a patient on average.

    No row where no patient is free of tumor, or no pixels were counted.
    """
    counts = ["patients", "with_false_positives"]
    if not {"tp_tumor", "fp_tumor", "fn_tumor"} <= set(cases.columns):
        return pd.DataFrame(columns=["arm", *counts, "pixels_a_patient"])
    free = cases[cases["tp_tumor"] + cases["fn_tumor"] == 0]
    pixels = free.groupby(["arm", "case"])["fp_tumor"].agg(["mean", "max"])
    by_arm = pixels.assign(any=pixels["max"] > 0).groupby("arm")
    table = by_arm.agg(
        patients=("any", "size"), with_false_positives=("any", "sum"), pixels_a_patient=("mean", "mean")
    ).reindex(list(order) if len(free) else [])
    return table.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int)).rename_axis("arm").reset_index()


def write_tables(evidence: Evidence, directory: Path) -> list[Path]:
    """``verdicts``, ``arms``, ``noise``; of whole volumes ``native``, ``lesions``; ``external_...``; returns paths.

    Each as .csv (numbers unrounded, the cohort in its first column) and .tex (booktabs, rounded). A phantom's say so.
    What is too long for a page is a .csv more: ``runs``, ``split``, ``trials``, ``tumor_free``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    verdicts, metrics, names = evidence.verdicts, evidence.metrics, evidence.arm_names
    scores = arm_scores(evidence.cases, metrics, order=names)
    written = write_both(directory / "verdicts", verdict_table(verdicts), paper_verdicts(verdicts), evidence, NOTE)
    written += write_both(directory / "arms", scores, _wide(names, scores, paper_score), evidence)
    written += write_both(directory / "noise", noise_table(evidence.noise), _paper_noise(evidence.noise), evidence)
    if evidence.native is not None and len(evidence.native):
        for name, table in (
            ("native", beside_stored(evidence.cases, evidence.native, names)),
            ("lesions", lesion_findings(evidence.native, names)),
        ):
            written += write_both(directory / name, table, table.round(3), evidence, f"95 % CI: {COVERED}")
    if evidence.external:
        noise = evidence.external_noise
        there, pairs = evidence.external, evidence.replications
        gaps = gap_table(evidence.cases, there.cases, metrics, order=names)
        claims = replication_table(pairs), _paper_replications(pairs)
        written += write_both(directory / "external_verdicts", *claims, there, NOTE)
        written += write_both(directory / "external_arms", gaps, _wide(names, gaps, _paper_gap), there)
        written += write_both(directory / "external_noise", noise_table(noise), _paper_noise(noise), there)
    long = {"runs": run_table(evidence), "split": evidence.split, "trials": evidence.search}
    long["tumor_free"] = tumor_free_table(evidence.cases, names)
    for name, frame in long.items():
        if frame is not None and len(frame) > SHOWN_ROWS:
            written.append(directory / f"{name}.csv")
            labelled = frame.assign(cohort=evidence.cohort)[["cohort", *frame.columns]]
            labelled.to_csv(written[-1], index=False, lineterminator="\n")
    return written


def run_table(evidence: Evidence) -> pd.DataFrame:
    """A row a run: how it ended, and, where some run failed to learn, why it counts as one that did."""
    runs, why = evidence.runs, reasons(evidence.failed)
    if not why:
        return runs
    cells = zip(runs["arm"], runs["fold"], runs["seed"], strict=True)
    return runs.assign(failed_to_learn=[why.get(cell, "") for cell in cells])


def write_both(stem: Path, numbers: pd.DataFrame, rounded: pd.DataFrame, source: Source, note: str = "") -> list[Path]:
    """A table as ``stem.csv`` (numbers unrounded, the cohort in its first column) and ``stem.tex`` (rounded, noted)."""
    csv, tex = stem.with_suffix(".csv"), stem.with_suffix(".tex")
    labelled = numbers.assign(cohort=source.cohort)[["cohort", *numbers.columns]]
    labelled.to_csv(csv, index=False, lineterminator="\n")
    if source.phantom and len(rounded.columns):  # in the table itself: a comment is gone when it is printed
        rounded = rounded.rename(columns={rounded.columns[0]: f"{rounded.columns[0]} (phantom)"})
    text = _signs(rounded.to_latex(index=False, escape=True))
    comments = [f"% {'phantom results: ' * source.phantom}{source.cohort}", *([f"% {note}"] if note else [])]
    tex.write_text("\n".join([*comments, text]), encoding="utf-8")
    return [csv, tex]


def _signs(latex: str) -> str:
    """Minus and less-than as LaTeX sets them: a hyphen is no minus, and in its older fonts ``<`` is another letter."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", latex).replace("<", "$<$").replace(">", "$>$")


def paper_verdicts(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A row a claim, as a paper prints it."""
    rows = [
        {
            "Claim": v.claim.id,
            "Comparison": " vs. ".join(v.comparison),
            "Metric": v.measure.title,
            "Effect [95 % CI]": _effect(v),
            "These models": _models(v),
            "p (Holm)": _p(v),
            "Patients": v.n_patients,
            "Run pairs": v.n_run_pairs,
            "Verdict": v.verdict + ", substantially" * v.substantial + _brackets(v),
        }
        for v in verdicts
    ]
    return pd.DataFrame(rows)


def _paper_replications(pairs: Sequence[Replication]) -> pd.DataFrame:
    rows = [
        {
            "Claim": pair.here.claim.id,
            "Metric": pair.here.measure.title,
            "Internal effect [95 % CI]": _effect(pair.here),
            "External effect [95 % CI]": _effect(pair.there),
            "These models": _models(pair.there),
            "External p (Holm)": _p(pair.there),
            "External patients": str(pair.there.n_patients),
            "Run pairs": str(pair.there.n_run_pairs),
            "Internal": pair.here.verdict,
            "External": pair.there.verdict,
            "Holds": pair.holds,
        }
        for pair in pairs
    ]
    return pd.DataFrame(rows)


def _paper_noise(noise: Sequence[Noise]) -> pd.DataFrame:
    columns = ["Metric", "Arm", "SD between runs", "Halves differ, mean", "Halves differ, max", "Runs"]
    numbers = [[_number(value, 3) for value in (each.run_sd, each.halves, each.halves_max)] for each in noise]
    rows = [[each.measure.title, each.arm, *three, each.runs] for each, three in zip(noise, numbers, strict=True)]
    return pd.DataFrame(rows, columns=columns)


def _wide(names: list[str], scores: pd.DataFrame, cell: Callable[[Any], str]) -> pd.DataFrame:
    """A row an arm, a column a metric; ``cell`` makes text of a row of ``scores``."""
    metrics, texts = scores["metric"].unique(), [cell(row) for row in scores.itertuples()]
    wide = scores.assign(text=texts).pivot(index="arm", columns="metric", values="text").reindex(names, columns=metrics)
    wide.columns = [measure_of(metric).title for metric in metrics]
    return wide.rename_axis("Arm").reset_index().fillna("--")


def paper_score(row: Any) -> str:
    """``0.412 [0.301, 0.500]``"""
    return _number(row.mean, 3) + interval(row.low, row.high, 3)


def _paper_gap(row: Any) -> str:
    """``0.412 (-0.110)``: the external mean, and in brackets what separates it from the internal one."""
    return _number(row.external, 3) + ("" if math.isnan(row.gap) else f" ({plain(row.gap, 3)})")


def _brackets(verdict: Verdict) -> str:
    """What has to stand beside a verdict even where there is little room."""
    return " (leaking)" * bool(verdict.leaking) + " (post hoc)" * verdict.post_hoc


def _p(verdict: Verdict) -> str:
    return f"{verdict.p_adjusted:.4f}" if verdict.p_adjusted >= 1e-4 else "<0.0001"


def _effect(verdict: Verdict) -> str:
    digits = digits_for(verdict.claim.margin)
    return _number(verdict.effect, digits) + interval(verdict.low, verdict.high, digits)


def _models(verdict: Verdict) -> str:
    """The interval of these trained models, new patients alone."""
    return interval(verdict.models_low, verdict.models_high, digits_for(verdict.claim.margin)).strip() or "--"


def _number(value: float, digits: int) -> str:
    return "--" if math.isnan(value) else plain(value, digits)
