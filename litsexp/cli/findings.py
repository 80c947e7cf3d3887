"""What `litsexp check` tells: a table of the cases, what was found grouped by kind, one line in sum, and files."""

import itertools
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from litsexp.data.check.folder import CaseReport, FolderReport
from litsexp.files import whole_file
from litsexp.spec.errors import LitsexpError

UNKNOWN = "?"
_MOST_VARIED = 4  # cases with one kind of warning in several variants that are told one by one
_VARYING = re.compile(r"\([^()]*\)|[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")  # details and numbers: not what kind it is


def tell(console: Console, report: FolderReport) -> None:
    """Print the table, the errors, the warnings and the summary."""
    if report.cases:
        console.print(table(report))
    for case in report.errors:
        _say(console, f"✗ {case.case}: {case.error.replace(f'{report.root}/', '')}", "red")
    for text in grouped((case.case, warning) for case in report.cases for warning in case.warnings):
        _say(console, f"! {text}", "yellow")
    for text in grouped((case.case, note) for case in report.cases for note in case.notes):
        _say(console, f"· {text}", "")
    _say(console, summary(report), "bold")


def table(report: FolderReport) -> Table:
    """A row a case, within a terminal's 80 columns; sizes and spacing along the patient's x, y and z."""
    result = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    result.add_column("case", justify="right", no_wrap=True)
    for name in ("voxels", "mm", "axes", "HU", "liver\nml", "tumor\nml", "lesions"):
        result.add_column(name, justify="left" if name == "axes" else "right", no_wrap=True)
    result.add_column("", no_wrap=True)
    for case in report.cases:
        mark = f"[yellow]! {len(case.warnings)}[/]" if case.warnings else "[green]✓[/]"
        result.add_row(str(case.case), *_cells(case), "[red]✗[/]" if case.error else mark)
    return result


def summary(report: FolderReport) -> str:
    """One line: how many cases of what kind, what was left out, and whether a study may use the folder."""
    if not report.cases:
        return f"{report.problem}; a study may not use it"
    cases = f"{'a phantom of ' if report.phantom else ''}{_count(len(report.cases), 'case')}"
    with_tumor = sum(bool(case.anatomy and case.anatomy.tumor_voxels) for case in report.cases)
    warned = sum(bool(case.warnings) for case in report.cases)
    said = f"{cases}: {with_tumor} with tumor, {_count(len(report.errors), 'error')}, {warned} with warnings; "
    left = {"unlabeled test volume": report.unlabeled, "other .nii file": report.others}
    if any(left.values()):
        said += " and ".join(_count(number, what) for what, number in left.items() if number) + " left out; "
    if report.usable:
        return said + "a study may use it"
    refused = ranges(case.case for case in report.errors)
    return f"{said}a study may not use it, {_count(len(report.errors), 'case')} refused: {refused}"


def as_json(report: FolderReport) -> str:
    """The whole report but the pictures; what is unknown or undefined is null."""
    content = {
        "folder": str(report.root),
        "usable": report.usable,
        "phantom": report.phantom,
        "problem": report.problem,
        "summary": summary(report),
        "unlabeled": report.unlabeled,
        "others": report.others,
        "cases": [_case_content(case) for case in report.cases],
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def grouped(found: Iterable[tuple[int, str]]) -> Iterator[str]:
    """A line a kind of text with its cases, ``28-47: ...``; texts of one kind differ in numbers or brackets only."""
    kinds: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for case, text in found:
        kinds[_VARYING.sub("#", text)][text].append(case)
    for variants in kinds.values():
        cases = [case for cases in variants.values() for case in cases]
        if len(variants) == 1 or len(cases) <= _MOST_VARIED:
            yield from (f"{ranges(holders)}: {text}" for text, holders in variants.items())
        else:
            yield f"{ranges(cases)}: {next(iter(variants))} (case {cases[0]}; the others alike)"


def ranges(cases: Iterable[int]) -> str:
    """Case numbers in short: ``3, 28-47``."""
    runs: list[list[int]] = []
    for case in sorted(set(cases)):
        if runs and case == runs[-1][1] + 1:
            runs[-1][1] = case
        else:
            runs.append([case, case])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def free_name(path: Path) -> Path:
    """``path``, or the first of ``path-2``, ``path-3``, ... that is not there."""
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], names) if not os.path.lexists(name))


def refuse_to_overwrite(path: Path) -> None:
    """LitsexpError where ``path`` is there already, or its folder is not."""
    if os.path.lexists(path):
        raise LitsexpError(f"{path}: is there already; expected a new file; remove it, or name another one")
    if not path.parent.is_dir():
        raise LitsexpError(f"{path}: there is no folder {path.parent}; expected one to write in; create it")


def write_new(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; LitsexpError where that fails, or it is there already."""
    refuse_to_overwrite(path)
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or error
        raise LitsexpError(f"{path}: cannot be written ({reason}); expected a folder to write in; name one") from None


def _cells(case: CaseReport) -> list[str]:
    if case.anatomy is None:
        return [""] * 7
    anatomy, (low_hu, high_hu) = case.anatomy, case.anatomy.hu_range
    return [
        "×".join(map(str, anatomy.shape)),
        UNKNOWN if any(map(math.isnan, anatomy.spacing_mm)) else "×".join(f"{mm:.2f}" for mm in anatomy.spacing_mm),
        anatomy.orientation,
        f"{low_hu:.0f}..{high_hu:.0f}",
        _millilitres(anatomy.liver_ml, 0),
        _millilitres(anatomy.tumor_ml, 1),
        str(anatomy.lesions),
    ]


def _millilitres(value: float, digits: int) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.{digits}f}"


def _case_content(case: CaseReport) -> dict[str, Any]:
    """All that is known of a case, but what is told among its warnings and what JSON cannot hold."""
    content = vars(case) | (vars(case.anatomy) if case.anatomy else {})
    left_out = ("anatomy", "thumbnail", "remarks", "liver_box")
    return {name: _finite(value) for name, value in content.items() if name not in left_out}


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _say(console: Console, text: str, style: str) -> None:
    """Whatever brackets a path holds, and no line broken."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
