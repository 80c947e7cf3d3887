"""The command ``status``: what runs where, since when, what failed and why, and how long it takes yet."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from litsexp.cli.options import Data, File, Plugins, Runs, Settings, Storage, Uri
from litsexp.cli.studies import experiment_name
from litsexp.display import MARKS, console, duration, say
from litsexp.spec.reading import load_study
from litsexp.spec.tables import load_plugins

if TYPE_CHECKING:
    from litsexp.study.status import CellStatus, State, Status

LISTED = 20  # cells that run or failed; of more it says how many
SIGNS: dict[State, str] = {
    **{"finished": MARKS["finished"], "pruned": MARKS["pruned"], "failed": MARKS["failed"]},
    **{"running": "[cyan]▶[/]", "interrupted": "[yellow]![/]", "waiting": "[dim]·[/]"},
}


def status(
    file: File,
    data: Data = None,
    json_output: Annotated[bool, typer.Option("--json", help="Everything as JSON, for other programs.")] = False,
    settings: Settings = None,
    plugins: Plugins = None,
    tracking_uri: Uri = None,
    storage: Storage = None,
    mlruns: Runs = Path("mlruns"),
) -> None:
    """Say where a study stands: what runs where and since when, what failed and why, how long it takes yet.

    It works from any machine that reaches MLflow, beside a running driver, and leaves nothing. Who drives the study is
    told by the ledger's database (--storage): without it, a driver that was killed is not told from one that runs.

    Example: `litsexp status experiments/mini.yaml`

    Example: `litsexp status experiments/paper.yaml --data ~/LiTS --tracking-uri http://127.0.0.1:5001`
    """
    from litsexp.study.places import Places
    from litsexp.study.status import status_of

    load_plugins(plugins or ())
    asked, name = load_study(file, settings or (), data), experiment_name(file, data)
    found = status_of(asked, name, Places.below(mlruns, tracking_uri, storage))
    if json_output:
        print(json.dumps(asdict(found), indent=1))
        return
    show(found)


def show(found: Status) -> None:
    """One line in sum, a table of arms by fold and seed, then the cells that run or did not finish."""
    counts = ", ".join(f"{found.count(state)} {state}" for state in SIGNS if found.count(state))
    say(
        f"{found.name}: {found.count('finished')} of {found.planned} runs finished ({counts}); {_driver(found)}",
        style="bold",
    )
    if found.cells:
        console.print(_table(found.cells))
    for state, title in (("running", "running"), ("failed", "failed"), ("interrupted", "interrupted")):
        cells = [cell for cell in found.cells if cell.state == state]
        for cell in cells[:LISTED]:
            say(f"{title}: {_line(cell)}", style="red" if state == "failed" else "")
        if len(cells) > LISTED:
            say(f"… and {len(cells) - LISTED} more")
    if found.seconds_left is not None:
        say(f"time left: about {duration(found.seconds_left)} at the pace of the finished runs")


def _driver(found: Status) -> str:
    """Who is at it; a parent run that a killed driver left says RUNNING for ever."""
    if found.driver:
        return found.driver
    if found.state != "RUNNING":
        return f"no driver; it ended as {found.state}"
    return "a driver is at it" if found.driver is None else "its driver is gone; the same command goes on"


def _table(cells: list[CellStatus]) -> Table:
    """Arms down, folds and seeds across."""
    places = sorted({(cell.seed, cell.fold) for cell in cells})
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for seed, fold in places:
        table.add_column(f"s{seed} f{fold}", justify="center")
    marks = {(cell.arm, cell.seed, cell.fold): SIGNS[cell.state] for cell in cells}
    for arm in dict.fromkeys(cell.arm for cell in cells):
        table.add_row(escape(arm), *(marks.get((arm, *place), "") for place in places))
    return table


def _line(cell: CellStatus) -> str:
    """``baseline · fold 1 · seed 0: for 3 min, epoch 2 of 6, on node7 cuda, attempt 2``"""
    said = [f"{'for' if cell.state == 'running' else 'after'} {duration(cell.since_s)}"]
    said += [f"epoch {cell.epoch} of {cell.epochs}"] if cell.state == "running" else []
    said += [f"on {cell.where}"] if cell.where else []
    said += [f"attempt {cell.attempt}"] if cell.attempt > 1 else []
    return f"{cell.name}: {', '.join(said)}" + (f": {cell.reason}" if cell.reason else "")
