"""A comparison as tables (CSV, LaTeX) and as JSON."""

import json
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from litsexp.evidence.compare.changes import Change
from litsexp.evidence.compare.comparison import ClaimChange, Comparison
from litsexp.evidence.tables import write_both
from litsexp.evidence.words import COVERED, digits_for, plain

NOTE = f"B minus A; 95 % CI: {COVERED}; p adjusted over all rows of arms and claims (Holm)"
NUMBERS = ("a", "b", "effect", "low", "high", "p", "p_adjusted", "n_patients", "n_runs", "paired", "verdict")


def write_tables(found: Comparison, directory: Path) -> list[Path]:
    """``differences``, ``arms``, ``claims``, each as .csv (numbers unrounded) and .tex, in a folder that is there."""
    differing = found.differences
    rounded = differing.rename(columns=dict(zip(differing, ("About", "What", "A", "B"), strict=True)))
    written = write_both(directory / "differences", differing, rounded, found)
    written += write_both(directory / "arms", arm_table(found), _paper_arms(found), found, NOTE)
    return written + write_both(directory / "claims", claim_table(found), _paper_claims(found), found, NOTE)


def arm_table(found: Comparison) -> pd.DataFrame:
    """A row an arm and measure, numbers unrounded."""
    return pd.DataFrame([{"arm": change.what, **_of_change(change)} for change in found.arms])


def claim_table(found: Comparison) -> pd.DataFrame:
    """A row a claim, numbers unrounded: rulings and effects of both studies, and the difference of its effects."""
    columns = ["claim", "ruling_a", "ruling_b", "fell", "worse", "effect_a", "effect_b", "note", *_COLUMNS]
    return pd.DataFrame([_of_claim(claim) for claim in found.claims], columns=columns)


def as_json(found: Comparison, strict: bool) -> str:
    """All of it; what is unknown or undefined is null."""
    sides = {
        mark: {"name": side.name, "run": side.run_id, "cohort": side.cohort, "runs": side.finished}
        for mark, side in (("a", found.a), ("b", found.b))
    }
    tables = {"differences": found.differences, "arms": arm_table(found), "claims": claim_table(found)}
    content = {
        **sides,
        "phantom": found.phantom,
        "pairing": found.pairing.words,
        "notes": list(found.notes),
        "conclusion": found.conclusion,
        "worse": found.worse,
        "unclear": found.unclear,
        "exit_code": found.exit_code(strict),
        **{name: [_plain(row) for row in table.to_dict("records")] for name, table in tables.items()},
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


_COLUMNS = ["metric", "higher_is_better", "unit", "margin", *(name.removeprefix("n_") for name in NUMBERS)]
_COLUMNS += ["substantial", "reason"]


def _of_change(change: Change) -> dict[str, Any]:
    measure = change.measure
    about = {"metric": measure.name, "higher_is_better": measure.higher_is_better, "unit": measure.unit}
    numbers = {name.removeprefix("n_"): getattr(change, name) for name in NUMBERS}
    return {**about, "margin": change.margin, **numbers, "substantial": change.substantial, "reason": change.reason}


def _of_claim(claim: ClaimChange) -> dict[str, Any]:
    about: dict[str, Any] = {"claim": claim.claim.id, "ruling_a": claim.then, "ruling_b": claim.now}
    about |= {"fell": claim.fell, "worse": claim.worse, "effect_a": claim.then_effect, "effect_b": claim.now_effect}
    rest = _of_change(claim.change) if claim.change else {"metric": claim.claim.metric, "margin": claim.claim.margin}
    return about | {"note": claim.note} | rest


def _plain(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {str(name): None if isinstance(x, float) and math.isnan(x) else x for name, x in row.items()}


def _paper_arms(found: Comparison) -> pd.DataFrame:
    rows = [
        {
            "Arm": change.what,
            "Metric": change.measure.title,
            "A": number(change.a, change.margin),
            "B": number(change.b, change.margin),
            "B - A [95 % CI]": change.found or "--",
            "p (Holm)": p_value(change),
            "Patients": change.n_patients,
            "Runs": change.n_runs,
            "Verdict": change.words,
        }
        for change in found.arms
    ]
    return pd.DataFrame(rows)


def _paper_claims(found: Comparison) -> pd.DataFrame:
    columns = ["Claim", "A", "B", "Effect A", "Effect B", "B - A [95 % CI]", "p (Holm)", "Change"]
    rows = []
    for claim in found.claims:
        effects = [number(effect, claim.claim.margin) for effect in (claim.then_effect, claim.now_effect)]
        told = (claim.change.found, p_value(claim.change)) if claim.change else ("", "--")
        rows.append([claim.claim.id, claim.then or "--", claim.now or "--", *effects, told[0] or "--", told[1]])
        rows[-1].append(claim.words)
    return pd.DataFrame(rows, columns=columns)


def number(value: float, margin: float) -> str:
    """A mean or an effect, one decimal finer than the margin."""
    return "--" if math.isnan(value) else plain(value, digits_for(margin) + 1)


def p_value(change: Change) -> str:
    """Adjusted; ``--`` where nothing is tested."""
    if change.identical or math.isnan(change.p):
        return "--"
    return f"{change.p_adjusted:.4f}" if change.p_adjusted >= 1e-4 else "<0.0001"
