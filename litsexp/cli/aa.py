"""``litsexp aa``: are identical arms told apart?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from litsexp.cli.options import (
    Address,
    Data,
    External,
    File,
    Keep,
    Plugins,
    Runs,
    SendStores,
    Settings,
    Storage,
    Stores,
    Uri,
    engine_options,
    going_on,
)
from litsexp.cli.studies import Executor, Options, Retries, Threads, Workers, experiment_name, tell_failures
from litsexp.display import console, say
from litsexp.spec.reading import load_study
from litsexp.spec.tables import load_plugins

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.evidence.aa import AATest

MOST_COLUMNS = 5  # numbers of seeds that a terminal's width shows; the files have all


def aa(
    file: File,
    seeds: Annotated[int, typer.Option(min=2, help="Runs of the baseline on each fold: seeds 0, 1, ...")] = 8,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON here, too.")
    ] = None,
    data: Data = None,
    external: External = None,
    workers: Workers = None,
    threads: Threads = None,
    executor: Executor = None,
    executor_options: Options = None,
    address: Address = None,
    retries: Retries = 0,
    send_stores: SendStores = False,
    keep_weights: Keep = "all",
    settings: Settings = None,
    plugins: Plugins = None,
    tracking_uri: Uri = None,
    storage: Storage = None,
    mlruns: Runs = Path("mlruns"),
    stores: Stores = Path("data"),
) -> None:
    """Test the verdicts themselves: how often are runs of one and the same arm called different? 5 % is allowed.

    Trains the study's baseline alone, with seeds 0, 1, ... on every fold, and deals its runs again and again to two
    arms of 1, 2, ... seeds that differ in nothing. Beside the verdict's share of false claims stands that of an
    interval over patients alone. Runs of the study are taken over, and the study takes over these: nothing runs twice,
    and the same command goes on after an interruption.

    Example: `litsexp aa experiments/mini.yaml --seeds 8 --workers 2`

    Example: `litsexp aa experiments/paper.yaml --data ~/LiTS --seeds 4 --json aa.json`
    """
    from litsexp.aa import run_aa
    from litsexp.cli.findings import refuse_to_overwrite, write_new
    from litsexp.study.places import Places

    if json_file is not None:
        refuse_to_overwrite(json_file)
    load_plugins(plugins or ())
    engine = engine_options(executor, executor_options, address)
    asked, name = load_study(file, settings or (), data, external), experiment_name(file, data)
    places = Places.below(mlruns, tracking_uri, storage, stores)
    with going_on("finished runs"):
        result = run_aa(
            *(asked, places),
            seeds=seeds,
            name=name,
            executor=executor,
            workers=workers,
            threads=threads,
            executor_options=engine,
            retries=retries,
            send_stores=send_stores,
            keep_weights=keep_weights,
        )
    _show(result.test)
    if json_file is not None:
        write_new(json_file, result.test.as_json().encode())
    say(f"table, JSON, picture: {result.directory}")
    tell_failures(result.failures)


def _show(test: AATest) -> None:
    """Of each cohort how often identical arms were told apart, and how its runs scatter."""
    for cohort, words in test.cohorts.items():
        shares, spread = (table[table["cohort"] == cohort] for table in (test.shares, test.spread))
        say(f"\n{'Test patients' if cohort == 'test' else 'External patients'} ({words})", style="bold")
        if len(shares):
            low, high = shares[["low", "high"]].iloc[0]
            allowed = f"allowed: 5 % (band: {100 * low:.0f} to {100 * high:.0f} %)"
            say(f"False verdicts / by patients alone, in %, by seeds an arm; {allowed}")
            console.print(_share_table(shares))
        say("The runs")
        console.print(_spread_table(spread))
    say(test.caveat)


def _share_table(shares: pd.DataFrame) -> Table:
    """A row a measure, a column a number of seeds an arm."""
    numbers = [int(number) for number in sorted(shares["seeds"].unique())]
    numbers = numbers if len(numbers) <= MOST_COLUMNS else [*numbers[: MOST_COLUMNS - 1], numbers[-1]]
    table = Table(box=None, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for number in numbers:
        table.add_column(f"{number} seed{'s' * (number > 1)}", justify="right", no_wrap=True)
    cells = {(row["metric"], row["seeds"]): _cell(row) for row in shares.to_dict("records")}
    for metric in shares["metric"].unique():
        table.add_row(escape(metric), *(cells[metric, number] for number in numbers))
    return table


def _cell(row: Mapping[Hashable, Any]) -> str:
    """``4 / 48``, the first in parentheses where the judge gives no verdict."""
    ours, patients_only = (_percent(row[name]) for name in ("false", "patients_only"))
    return f"{ours if row['settled'] else f'({ours})'} / [dim]{patients_only}[/]"


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.0f}"


def _spread_table(spread: pd.DataFrame) -> Table:
    """A row a measure: mean, run SD, collapsed runs, and the mean of each seed."""
    import pandas as pd

    seeds = [name for name in spread if str(name).startswith("seed_")]
    table = Table(box=None, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for name in ("mean", "run SD", "collapsed"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mean of seed 0, 1, ...")
    for row in spread.to_dict("records"):
        collapsed = "–" if pd.isna(row["collapsed"]) else f"{row['collapsed']} of {row['runs']}"
        means = " ".join(_number(row[name], 2) for name in seeds)
        table.add_row(escape(row["metric"]), _number(row["mean"], 3), _number(row["run_sd"], 3), collapsed, means)
    return table


def _number(value: float, digits: int) -> str:
    return "–" if value != value else f"{value:.{digits}f}"
