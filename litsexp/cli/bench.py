"""``litsexp bench``: what litsexp claims of itself, measured on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from litsexp.cli.options import Storage, Uri, measuring
from litsexp.display import console, progress_bar, say
from litsexp.spec.errors import LitsexpError

if TYPE_CHECKING:
    from litsexp.evidence.simulation import Row
    from litsexp.study.driving import Driven
    from litsexp.study.session import Session

bench = typer.Typer(no_args_is_help=True, help="Measure what litsexp claims of itself.")
COLUMNS = {  # of the table: title -> field of a row
    "coverage": "coverage",
    "false": "false_single",
    "false of 4": "false_family",
    "wrongly equivalent": "wrong_equivalence",
    "power": "power",
    "power of 4": "power_family",
    "half-width": "half_width",
    "patients alone: false": "patients_only_single",
    "patients alone: false of 4": "patients_only_family",
}
NARROW = ("cover", "false", "of 4", "equi-\nvalent", "power", "of 4", "half-\nwidth", "alone", "of 4")  # on a terminal
DRIVER = {  # the same of the driver's: title -> field, digits
    "cells": ("cells", 0),
    "driver,\nms a cell": ("cell_ms", 1),
    "of it\nCPU": ("cell_cpu_ms", 1),
    "resume,\ns": ("resume_s", 1),
    "results,\nms a cell": ("results_ms", 1),
    "conclude,\ns": ("conclude_s", 1),
    "report,\nMB": ("report_mb", 2),
    "peak\nmemory, MB": ("memory_mb", 0),
}
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every number as JSON, too.")]
BELOW, CHANCE, MISSED = "gate", "chance?", "misses"


@bench.callback()
def _group() -> None:
    """One command a bench."""


@bench.command("driver")
def bench_driver(
    counts: Annotated[
        str, typer.Option("--cells", metavar="N,N,…", help="Studies of so many cells, each in turn.")
    ] = "200,1000",
    tracking_uri: Uri = None,
    storage: Storage = None,
    json_file: JsonFile = None,
) -> None:
    """What does a cell cost the driver, and does the cost grow with the study? Trains nothing.

    Runs that end as soon as they are handed out, and leave in MLflow what real ones do. Timed are, of the driver alone:
    a cell queued, asked for, its run opened, told; the finished study opened again, nothing left to do; its results
    read, curves and cases of each cell; the end of a study, which reads them once more, judges the claim and writes
    tables and report. SQLite in a temporary folder, or the servers that are named: a study is left in those.

    A column that does not grow is what to look for; "resume" and "conclude" are of the whole study, and grow with it.
    10,000 cells take half an hour or more, and 4 GB.

    Example: `litsexp bench driver --cells 200,1000,3000`

    Example: `litsexp bench driver --cells 10000 --json driver.json`
    """
    from litsexp.cli.findings import refuse_to_overwrite, write_new
    from litsexp.data.cohorts import store_of
    from litsexp.spec.cohort import DataConfig
    from litsexp.study.driving import Counter, drive
    from litsexp.study.places import Places

    if not re.fullmatch(r"0*[1-9][0-9]*(,0*[1-9][0-9]*)*", "".join(counts.split())):
        raise LitsexpError(f"--cells: found {counts!r}; expected numbers from 1 on, as 200,1000")
    asked = [int(part) for part in counts.split(",")]
    if json_file:
        refuse_to_overwrite(json_file)
    rows: list[Driven] = []
    with measuring(), _shown(rows), tempfile.TemporaryDirectory(prefix="litsexp-driver-") as name:
        places = Places.below(Path(name) / "mlruns", tracking_uri, storage, Path(name) / "data")
        store = store_of(DataConfig(patients=20, size=32), places.stores, progress_bar)
        for count in asked:
            with progress_bar(f"{count} cells") as advance:
                rows.append(drive(count, store, places, Counter(advance, count), _report))
    if json_file:
        write_new(json_file, (json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n").encode())


@contextlib.contextmanager
def _shown(rows: list[Driven]) -> Iterator[None]:
    """Print what there is at the end, also where a later study is stopped, or fails."""
    try:
        yield
    finally:
        if rows:
            console.print(driver_table(rows))


def _report(session: Session) -> Path:
    from litsexp.pipeline import conclude

    return conclude(session, "litsexp bench driver").report


def driver_table(rows: list[Driven]) -> Table:
    """A line a study."""
    table = Table(box=None, pad_edge=False)
    for title in DRIVER:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*(f"{getattr(row, field):.{digits}f}" for field, digits in DRIVER.values()))
    return table


@bench.command("stats")
def bench_stats(
    studies: Annotated[int, typer.Option(min=100, help="Simulated studies a row, of four claims each.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same table.")] = 0,
    only: Annotated[
        Literal["nested", "crossed"] | None,
        typer.Option(
            help="nested: patients tested in their fold; crossed: every run meets all, as an external cohort."
        ),
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="A dozen rows that tell the story, in seconds.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Are verdicts right where the truth is known? Simulates studies and judges them as real ones are.

    Columns: how often the 95 % interval covers the true effect; false verdicts of one claim, and of a family of four
    after Holm, where nothing differs; "equivalent" though the effect is as large as the margin; how often a real
    difference of 0.10 gets its verdict, alone and as the only real one of four; the interval's median half-width; and
    the false verdicts of an earlier procedure that looked at patients alone. The whole table takes about 4 minutes.

    Example: `litsexp bench stats --short --markdown`

    Example: `litsexp bench stats --only crossed --studies 10000 --json crossed.json`
    """
    from litsexp.cli.findings import refuse_to_overwrite, write_new
    from litsexp.evidence import simulation

    if json_file:
        refuse_to_overwrite(json_file)
    chosen = (simulation.selection if short else simulation.settings)(
        [False, True] if only is None else [only == "crossed"]
    )
    with measuring(), progress_bar("simulated designs") as advance:
        rows = list(simulation.simulate(chosen, studies, seed, advance))
    if json_file:
        write_new(json_file, (json.dumps([as_json(row) for row in rows], indent=1) + "\n").encode())
    if markdown:
        typer.echo("\n".join(as_markdown(rows)))
    else:
        console.print(as_table(rows))
    for line in notes(rows):
        say(line)


def as_table(rows: list[Row]) -> Table:
    """A line a row, with an empty one where the number of patients changes."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("n", "runs", "run\nSD", *NARROW):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    before = rows[0].setting.patients
    for row in rows:
        s, style = row.setting, "dim" if mark(row) == BELOW else "yellow" if mark(row) else ""
        if s.patients != before:
            table.add_row()
        before = s.patients
        settings = [
            f"{s.patients}{'×' * s.crossed}",
            f"{s.folds}×{s.seeds}",
            f"{s.run_sd:.2f}{'↓' * bool(s.collapses)}",
        ]
        table.add_row(*settings, *numbers(row), mark(row), style=style)
    return table


def as_markdown(rows: list[Row]) -> list[str]:
    """The same table as Markdown's lines."""
    lines = [["patients", "runs", "run SD", *COLUMNS, ""], [*["--:"] * (3 + len(COLUMNS)), "---"]]
    lines += [[*design(row), *numbers(row), mark(row)] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def design(row: Row) -> list[str]:
    """Patients, folds x seeds, and the noise, in words."""
    s = row.setting
    noise = f"{s.run_sd:.2f}" + (f", {s.collapses:.0%} collapse" if s.collapses else "")
    return [f"{s.patients}{' crossed' * s.crossed}", f"{s.folds}×{s.seeds}", noise]


def numbers(row: Row) -> list[str]:
    """What came out, in the table's order."""
    return [f"{getattr(row, field):.3f}" for field in COLUMNS.values()]


def mark(row: Row) -> str:
    """Empty where the row is as asked; else why it is not."""
    from litsexp.evidence.planning import MIN_RUN_PAIRS

    if row.setting.run_pairs < MIN_RUN_PAIRS:
        return BELOW
    if not row.misses:
        return ""
    return CHANCE if row.by_chance else MISSED


def notes(rows: list[Row]) -> list[str]:
    """What the marks mean, where there are any, and how exact the numbers are."""
    from litsexp.evidence.planning import MIN_RUN_PAIRS
    from litsexp.evidence.simulation import standard_error

    studies = rows[0].studies
    error = standard_error(0.05, studies)
    said = [f"{studies:,} simulated studies a row; Monte Carlo standard error of a share of 0.05: {error:.4f}."]
    found = {mark(row) for row in rows}
    if any(row.setting.crossed for row in rows):
        said.append("Crossed (×): every run meets every patient, as on an external cohort.")
    if any(row.setting.collapses for row in rows):
        said.append("Collapses (↓): 1 run in 12 of the compared arm loses 0.3; the baseline's runs do not.")
    if BELOW in found:
        said.append(f"{BELOW}: fewer than {MIN_RUN_PAIRS} pairs of runs get no verdict; shown is what one would be.")
    if CHANCE in found:
        said.append(f"{CHANCE}: outside of what is asked, but within two standard errors of it; try more --studies.")
    for reason, group in itertools.groupby(sorted((r for r in rows if mark(r) == MISSED), key=why), key=why):
        missed = list(group)
        worst = f"coverage down to {min(row.coverage for row in missed):.3f}"
        worst += f", false in a family up to {max(row.false_family for row in missed):.3f}"
        worst += f", wrongly equivalent up to {max(row.wrong_equivalence for row in missed):.3f}"
        said.append(f"{MISSED}, {len(missed)} rows ({worst}): {reason}.")
    return said


def why(row: Row) -> str:
    """The likely reason of a row that is worse than asked."""
    from litsexp.evidence.simulation import PATIENT_SD

    s = row.setting
    if s.collapses:
        return "rare collapses of one side are no normal noise, and few pairs of runs do not show them"
    if not s.promised:
        return "runs differ by more than the 0.10 up to which anything is promised"
    if s.run_sd**2 / s.run_pairs < PATIENT_SD**2 / s.patients:
        return "few patients, and their differences are skewed: Student's t is a little short so far out in the tail"
    return "most noise is between few pairs of runs: Satterthwaite's degrees of freedom are a few too many"


def as_json(row: Row) -> dict[str, object]:
    """All of a row, flat."""
    found = dataclasses.asdict(row)
    return {**found.pop("setting"), **found, "misses": row.misses, "mark": mark(row)}
