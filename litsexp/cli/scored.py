"""What `litsexp score` tells: three tables a system, remarks grouped by kind, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from litsexp.cli.findings import grouped
from litsexp.evaluation.detection import ALL, made_up, recalls, structures
from litsexp.evaluation.folders import Scored
from litsexp.evaluation.lits import DIGITS
from litsexp.evaluation.volumes import MISSED

_COLUMNS = {"dice": "Dice", "sensitivity": "sensitivity", "precision": "precision"}
_SURFACES = {"assd": "ASSD mm", "rmsd": "RMSD mm", "msd": "max mm", "hd95": "HD95 mm", "nsd": "NSD"}
_BINS = {
    ALL: "all",
    "lt10mm": "< 10 mm",
    "10to20mm": "10-20 mm",
    "gt20mm": "> 20 mm",
    "lt20hu": "< 20 HU",
    "20to40hu": "20-40 HU",
    "gt40hu": "> 40 HU",
}


def tell(shown: Console, systems: Sequence[Scored]) -> None:
    """Print each system's tables, and what a user should know."""
    for scored in systems:
        cases = f"{'phantom ' if scored.phantom else ''}case{'s' * (len(scored.cases) != 1)}"
        _say(shown, f"{scored.arm}: {len(scored.cases)} {cases}", "bold")
        surfaces = [_surfaces(scored)] if f"{MISSED}_liver" in scored.cases else []
        for table in (_structures(scored), *surfaces, _lesions(scored), _lits(scored)):
            shown.print(table)
        _say(shown, _made_up(scored), "")
        for reason, names in _reasons(scored).items():
            of = ", ".join(names) if len(names) < len(scored.lits) else "all of them"
            _say(shown, f"· {of}: the official scorer {reason}", "")
        for text in (*grouped(scored.remarks), *scored.notes):
            _say(shown, f"! {text}", "yellow")


def as_json(systems: Sequence[Scored]) -> str:
    """Everything; what is undefined or unknown is null."""
    content = {"systems": [_content(scored) for scored in systems]}
    return json.dumps(_finite(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _content(scored: Scored) -> dict[str, Any]:
    return {
        "arm": scored.arm,
        "phantom": scored.phantom,
        "summary": {
            "structures": structures(scored.cases),
            "lesions": recalls(scored.cases),
            "made_up": made_up(scored.cases),
        },
        "lits": scored.summary,
        "official": scored.official,
        "differences": {score.name: score.why for score in scored.lits if score.why},
        "remarks": [{"case": case, "remark": remark} for case, remark in scored.remarks],
        "notes": list(scored.notes),
        "cases": scored.cases.to_dict("records"),
    }


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _structures(scored: Scored) -> Table:
    """A row a structure: means over the cases where a score is defined; ``n`` of them for Dice."""
    table = _table("mean of cases", *_COLUMNS.values(), "n")
    for row in structures(scored.cases):
        table.add_row(str(row["structure"]), *(_number(float(row[name])) for name in _COLUMNS), str(row["n_dice"]))
    return table


def _surfaces(scored: Scored) -> Table:
    """The same of the surfaces; a missed structure has the volume's diagonal as its distances."""
    table = _table("surfaces", *_SURFACES.values(), "n", "missed")
    for row in structures(scored.cases):
        missed = int(scored.cases[f"{MISSED}_{row['structure']}"].sum())
        means = (_number(float(row[name])) for name in _SURFACES)
        table.add_row(str(row["structure"]), *means, str(row["n_assd"]), str(missed))
    return table


def _lesions(scored: Scored) -> Table:
    """A row a kind of lesion."""
    table = _table("lesions", "true", "detected", "recall", "at IoU > 0")
    for row in recalls(scored.cases):
        if row["cases"]:
            shares = [_number(float(row[name])) if name in row else "" for name in ("recall", "recall_any")]
            table.add_row(_BINS[str(row["lesions"])], str(row["true"]), str(row["detected"]), *shares)
    return table


def _lits(scored: Scored) -> Table:
    """A row a score of the summary; the official number where it is another."""
    table = _table("LiTS summary", "score", "official")
    for score in scored.lits:
        official = "" if not score.why else _number(score.official)
        table.add_row(score.name, _number(score.value), f"[yellow]{official}[/]" if official else "")
    return table


def _made_up(scored: Scored) -> str:
    found = made_up(scored.cases)
    said = f"false lesions a case: {found['false_per_case']:.2f} (at IoU > 0: {found['false_per_case_any']:.2f})"
    free = int(found["tumor_free_cases"])
    return said + (f"; a tumor-free case ({free}): {found['false_per_tumor_free_case']:.2f}" if free else "")


def _reasons(scored: Scored) -> dict[str, list[str]]:
    """Why the official number is another, and of which scores."""
    reasons: dict[str, list[str]] = {}
    for score in scored.lits:
        if score.why:
            reasons.setdefault(score.why, []).append(score.name)
    return reasons


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(escape(name), justify="right", no_wrap=True)
    return table


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.{DIGITS}f}"


def _say(shown: Console, text: str, style: str) -> None:
    """Whatever brackets a path holds, and no line broken."""
    shown.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
