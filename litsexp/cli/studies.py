"""Commands on studies: study, score-runs, list."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from litsexp.cli.options import Data, External, File, Native, Plugins, Runs, Settings, Storage, Stores, Uri, going_on
from litsexp.cli.where import opener, pages
from litsexp.display import console, say
from litsexp.evidence.failed import reasons
from litsexp.evidence.words import COVERED, MODELS, named, noise
from litsexp.spec.catalog import TABLES
from litsexp.spec.reading import load_study
from litsexp.spec.tables import load_plugins

if TYPE_CHECKING:
    from litsexp.evidence.material import Evidence
    from litsexp.pipeline import Conclusion

Workers = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time; default: one a core (at most 8), one on a GPU.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads a run; another number changes the last bits. Default: 1.")
]
Executor = Annotated[
    str | None, typer.Option(help="Where runs run; `litsexp list` shows the choices. Default: by --workers.")
]

commands = typer.Typer()
BADGES = {"supported": "green", "contradicted": "red", "equivalent": "blue", "inconclusive": "yellow"}


@commands.command()
def study(
    file: File,
    data: Data = None,
    external: External = None,
    workers: Workers = None,
    threads: Threads = None,
    executor: Executor = None,
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
    """
    from litsexp.pipeline import run_study
    from litsexp.study.places import Places

    load_plugins(plugins or ())
    asked, name = load_study(file, settings or (), data, external), experiment_name(file, data)
    places = Places.below(mlruns, tracking_uri, storage, stores)
    command = command_of(file, data, external, settings, plugins, native)
    with going_on("finished runs"):
        conclusion = run_study(
            asked,
            places,
            name=name,
            executor=executor,
            workers=workers,
            threads=threads,
            native=native,
            command=command,
        )
    show(conclusion.evidence)
    say(f"report: {conclusion.report}")
    say(f"runs:   {opener(places, mlruns)}  (MLflow experiment {conclusion.experiment!r})")
    for line in pages(places, conclusion.experiment_id):
        say(line)
    if conclusion.trained_s:
        say(_pace(conclusion))
    tell_failures(conclusion.failures)


@commands.command("score-runs")
def score_runs(
    file: File,
    data: Data = None,
    external: External = None,
    native: Native = False,
    workers: Workers = None,
    threads: Threads = None,
    executor: Executor = None,
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
            train=False,
            score=True,
            native=native,
            command=command,
        )
    show(conclusion.evidence)
    say(f"report: {conclusion.report}")
    tell_failures(conclusion.failures)


@commands.command("list")
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


def _pace(conclusion: Conclusion) -> str:
    """How long this session took, beside what its runs needed."""
    runs, needed_s, wall_s = len(conclusion.trained_s), sum(conclusion.trained_s), conclusion.wall_s
    minutes = f"{wall_s / 60:.1f} min for {runs} runs of {needed_s / 60:.1f} min together"
    return f"time:   {minutes} (fit and evaluation): wall time is {wall_s / needed_s:.2f} of their sum"


def show(evidence: Evidence) -> None:
    """The verdict table and the same in words; below it, what holds on an external cohort."""
    say(f"\n{evidence.study.question}", style="bold")
    if evidence.warning:
        say(evidence.warning, style="magenta")
    if evidence.leak_warning:
        say(evidence.leak_warning, style="red")
    if evidence.search is not None and len(evidence.search):
        best = evidence.search.iloc[0]
        said = ", ".join(f"{name}={value}" for name, value in best.items() if name not in ("trial", "state"))
        say(f"best of {len(evidence.search)} trials: number {best['trial']}: {said}")
    if evidence.verdicts:
        console.print(_verdicts(evidence))
        say(f"95 % interval: {COVERED}; these models: {MODELS}.", style="dim")
    else:
        console.print("This study file makes no claims.")
    for v in evidence.verdicts:
        say(f"{v.claim.id}: {v.sentence}")
    for line in _training(evidence):
        say(line)
    if evidence.external:
        say(f"\nOn the external cohort ({evidence.external.cohort}), from which nothing was learned:", style="bold")
        for pair in evidence.replications:
            say(f"{pair.here.claim.id}: {pair.words}")


def _verdicts(evidence: Evidence) -> Table:
    """A row a claim, in 100 columns; in fewer, without the interval of these models, so that no verdict is cut."""
    wide = console.width >= 100
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("phantom claim" if evidence.phantom else "claim", no_wrap=True)
    names = ["effect", "95 % interval", *["these models"] * wide, "from\nruns", "adj. p", "n", "run\npairs"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=len("inconclusive"), overflow="fold")  # never cut, however narrow
    for v in evidence.verdicts:
        ruling = f"[{BADGES[v.verdict]}]{v.verdict}[/]" + (", substantially" if v.substantial else "")
        runs = "–" if math.isnan(v.runs_share) else f"{100 * v.runs_share:.0f} %"
        intervals = [_interval(v.low, v.high), *[_interval(v.models_low, v.models_high)] * wide]
        effect = "–" if math.isnan(v.effect) else f"{v.effect:+.3f}"
        numbers = [effect, *intervals, runs, f"{v.p_adjusted:.3g}", str(v.n_patients), str(v.n_run_pairs)]
        table.add_row(
            escape(v.claim.id), *numbers, ruling + " (leaking)" * bool(v.leaking) + " (post hoc)" * v.post_hoc
        )
    return table


def _interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) else escape(f"[{low:.3f}, {high:.3f}]")


def _training(evidence: Evidence) -> list[str]:
    """How noisy training is, in the claims' measures or else the first, and which runs failed to learn."""
    asked = {verdict.claim.metric for verdict in evidence.verdicts} or {each.metric for each in evidence.noise[:1]}
    found = [f"noise: {noise(each)}" for each in evidence.noise if each.metric in asked]
    if not evidence.noise and evidence.search is None:
        found.append("noise: not known, as no fold has two finished runs of the first arm; run a second seed")
    why = reasons(evidence.failed)
    if why:
        runs = named([f"{arm}, fold {fold}, seed {seed} ({said})" for (arm, fold, seed), said in why.items()])
        found.append(f"failed to learn: {len(why)} run{'s' * (len(why) != 1)}: {runs}")
    return found
