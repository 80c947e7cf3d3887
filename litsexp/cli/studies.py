"""Commands on studies: study, score-runs, list."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litsexp.cli.answer import pace, show
from litsexp.cli.options import (
    STUDIES,
    Address,
    Data,
    External,
    File,
    Keep,
    Native,
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
from litsexp.cli.where import opener, pages
from litsexp.display import console, say
from litsexp.spec.catalog import TABLES
from litsexp.spec.reading import load_study
from litsexp.spec.tables import load_plugins

if TYPE_CHECKING:
    from litsexp.study.session import Session

Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Runs at a time; auto: as many as fit on the GPU, by the memory that a rehearsal takes. Default: a core "
        "each (at most 8), one on a GPU, 20 on a cluster.",
    ),
]
Scorers = Annotated[
    int | None,
    typer.Option(min=1, help="Runs at a time; default: a core each (at most 8), one on a GPU, 20 on a cluster."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads a run; another number changes the last bits. Default: 1.")
]
Executor = Annotated[
    str | None, typer.Option(help="Where runs run; `litsexp list` shows the choices. Default: by --workers.")
]

Options = Annotated[
    list[str] | None,
    typer.Option(
        "--executor-option",
        metavar="KEY=VALUE",
        help="A long option of sbatch, such as partition=gpu, or array (jobs that are ready together go as one array); "
        "what a Ray task needs, such as num_gpus=0.5; repeatable.",
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        min=0,
        help="How often a run whose worker died (killed, out of memory or time, node lost) is run again, when the "
        "others have ended. An exception in the training itself would only come again.",
    ),
]

commands = typer.Typer()


@commands.command(rich_help_panel=STUDIES)
def study(
    file: File,
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
    native: Native = False,
    settings: Settings = None,
    plugins: Plugins = None,
    tracking_uri: Uri = None,
    storage: Storage = None,
    mlruns: Runs = Path("mlruns"),
    stores: Stores = Path("data"),
) -> None:
    """Run a study to its verdicts. The same command goes on after an interruption, and never runs a cell twice.

    Example: `litsexp study experiments/mini.yaml --workers 2 --set run.epochs=3`

    Example: `litsexp study experiments/paper.yaml --data ~/LiTS --external ~/other-hospital`

    Example: `litsexp study experiments/paper.yaml --data ~/LiTS --tracking-uri http://head:5000 --executor slurm
    --executor-option partition=gpu --executor-option gres=gpu:1 --executor-option time=04:00:00 --retries 1`

    Example: `litsexp study experiments/paper.yaml --data ~/LiTS --tracking-uri http://head:5000 --executor ray
    --address head:6379 --executor-option num_gpus=0.5 --retries 1`
    """
    from litsexp.cli.outset import tell_outset
    from litsexp.pipeline import run_study
    from litsexp.study.places import Places

    load_plugins(plugins or ())
    engine = engine_options(executor, executor_options, address)
    asked, name = load_study(file, settings or (), data, external), experiment_name(file, data)
    places = Places.below(mlruns, tracking_uri, storage, stores)
    command = command_of(file, data, external, settings, plugins, native)

    def tell(session: Session, number: int | None) -> None:
        tell_outset(session, executor, number, threads, mlruns)

    with going_on("finished runs"):
        conclusion = run_study(
            asked,
            places,
            before=tell,
            name=name,
            executor=executor,
            workers=workers,
            threads=threads,
            executor_options=engine,
            retries=retries,
            send_stores=send_stores,
            keep_weights=keep_weights,
            native=native,
            command=command,
        )
    show(conclusion.evidence)
    say(f"report: {conclusion.report}")
    say(f"runs:   {opener(places, mlruns)}  (MLflow experiment {conclusion.experiment!r})")
    for line in pages(places, conclusion.experiment_id):
        say(line)
    if conclusion.trained_s:
        say(pace(conclusion))
    tell_failures(conclusion.failures)


@commands.command("score-runs", rich_help_panel=STUDIES)
def score_runs(
    file: File,
    data: Data = None,
    external: External = None,
    native: Native = False,
    workers: Scorers = None,
    threads: Threads = None,
    executor: Executor = None,
    executor_options: Options = None,
    address: Address = None,
    settings: Settings = None,
    plugins: Plugins = None,
    tracking_uri: Uri = None,
    storage: Storage = None,
    mlruns: Runs = Path("mlruns"),
    stores: Stores = Path("data"),
) -> None:
    """Score a study's finished runs where a scoring is missing, training nothing, and write its report again.

    With `--native` every run labels its test cases' whole volumes in their own pixels: what resampling costs, and what
    is painted where no liver is, is then seen beside the scores on stored slices. With `--external` it labels another
    cohort. The same command goes on after an interruption.

    Example: `litsexp score-runs experiments/mini.yaml --native`
    """
    from litsexp.pipeline import run_study
    from litsexp.study.places import Places

    load_plugins(plugins or ())
    engine = engine_options(executor, executor_options, address)
    asked, name = load_study(file, settings or (), data, external), experiment_name(file, data)
    places = Places.below(mlruns, tracking_uri, storage, stores)
    command = command_of(file, data, external, settings, plugins, native)
    with going_on("scored runs"):
        conclusion = run_study(
            *(asked, places),
            name=name,
            executor=executor,
            workers=workers,
            threads=threads,
            executor_options=engine,
            train=False,
            score=True,
            native=native,
            command=command,
        )
    show(conclusion.evidence)
    say(f"report: {conclusion.report}")
    tell_failures(conclusion.failures)


@commands.command("list", rich_help_panel=STUDIES)
def list_tables(
    concept: Annotated[
        str | None, typer.Argument(help="Only this table: metric, encoder, init, window, loss …")
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Print what a study file may name: every table with one line a row.

    Example: `litsexp list init`
    """
    load_plugins(plugins or ())
    if concept is not None and concept not in TABLES:
        raise typer.BadParameter(f"found {concept!r}; expected one of {', '.join(TABLES)}")
    for name, table in TABLES.items() if concept is None else [(concept, TABLES[concept])]:
        say(name, style="bold")
        for row_name, row in table.items():  # one line each, also on a pipe or a narrow terminal
            say(f"{row_name:<24}{row.words}")


def tell_failures(failures: Mapping[str, str]) -> None:
    """Runs (name -> reason) by reason, and exit code 1; nothing where none failed."""
    if not failures:
        return
    for reason in dict.fromkeys(failures.values()):
        names = [name for name, why in failures.items() if why == reason]
        say(f"{len(names)} failed: {reason}\n  " + "\n  ".join(names), style="red")
    console.print("The same command runs the failed ones again.")
    raise typer.Exit(1)


def experiment_name(file: Path, data: Path | None) -> str:
    """Of the MLflow experiment: the file's stem, and the folder's where ``--data`` replaced the file's cohort."""
    return f"{file.stem}-{data.resolve().name}" if data else file.stem


def command_of(
    file: Path,
    data: Path | None,
    external: Path | None,
    settings: list[str] | None,
    plugins: list[str] | None,
    native: bool,
) -> str:
    """What to type to get the same study again."""
    options = {"--data": [data], "--external": [external], "--set": settings, "--plugin": plugins}
    words = [str(word) for name, values in options.items() for value in values or () if value for word in (name, value)]
    return shlex.join(["python", "run_study.py", str(file), *words, *["--native"] * native])
