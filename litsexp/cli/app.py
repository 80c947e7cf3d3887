"""The command line: study, report and ui here; what needs no study is in ``commands``."""

from __future__ import annotations

import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from litsexp import __version__
from litsexp.cli.data import Stores, commands, store_of
from litsexp.display import LiveDisplay, console, say
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import load_study
from litsexp.spec.study import StudyConfig

if TYPE_CHECKING:
    from litsexp.evidence.material import Evidence
    from litsexp.study.session import Places, Session

app = typer.Typer(
    name="litsexp",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Does this choice really help a 2D U-Net segment liver and tumor, and by how much?",
)
BADGES = {"supported": "green", "contradicted": "red", "equivalent": "blue", "inconclusive": "yellow"}

File = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The study file.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="CT volumes in LiTS layout instead; leaves out a phantom external one."),
]
External = Annotated[
    Path | None,
    typer.Option("--external", metavar="DIR", help="CT volumes of another scanner: every run scores them at its end."),
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key; repeatable.")]
Uri = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow; default: mlruns/mlflow.db (SQLite).")]
Storage = Annotated[str | None, typer.Option("--storage", help="Optuna's database; default: mlruns/optuna.db.")]
Runs = Annotated[Path, typer.Option("--mlruns", metavar="DIR", help="Folder for databases, artifacts, reports.")]


@dataclass(frozen=True)
class Request:
    """A study as the command line asks for it."""

    file: Path
    data: Path | None
    external: Path | None
    overrides: Sequence[str]
    places: Places
    stores: Path

    def study(self) -> StudyConfig:
        """The resolved study file."""
        return load_study(self.file, self.overrides, self.data, self.external)

    @property
    def name(self) -> str:
        """Of the MLflow experiment: the file's stem, and the folder's where ``--data`` replaced the file's cohort."""
        return f"{self.file.stem}-{self.data.resolve().name}" if self.data else self.file.stem

    def command(self) -> str:
        """What to type to get the same study again."""
        data = ["--data", str(self.data)] if self.data else []
        external = ["--external", str(self.external)] if self.external else []
        settings = [word for override in self.overrides for word in ("--set", override)]
        return shlex.join(["python", "run_study.py", str(self.file), *data, *external, *settings])


@app.command()
def study(
    file: File,
    data: Data = None,
    external: External = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; default: one a core (at most 8), one on a GPU.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads a run; another number changes the last bits. Default: 1.")
    ] = None,
    settings: Settings = None,
    tracking_uri: Uri = None,
    storage: Storage = None,
    mlruns: Runs = Path("mlruns"),
    stores: Stores = Path("data"),
) -> None:
    """Run a study to its verdicts. The same command goes on after an interruption, and never runs a cell twice.

    Example: `litsexp study experiments/mini.yaml --workers 2 --set run.epochs=3`

    Example: `litsexp study experiments/paper.yaml --data ~/LiTS --external ~/other-hospital`
    """
    from litsexp.evidence.conclusion import conclude
    from litsexp.study.session import trials_table

    request = _request(file, data, external, settings, tracking_uri, storage, mlruns, stores)
    asked = request.study()
    with _open(request, asked) as session:
        with LiveDisplay(console, asked, session.cohort_tags["cohort"]) as display:
            session.run(workers, threads, display)
        with console.status("writing the report"):
            search = trials_table(session) if asked.search else None
            conclusion = conclude(session, request.places.root / "reports", search, request.command())
    _show(conclusion.evidence)
    if asked.search and search is not None and len(search):
        say(f"best trial: {dict(search.iloc[0])}")
    say(f"report: {conclusion.report}")
    say(f"runs:   {_where(request.places, mlruns)}  (MLflow experiment {session.name!r})")
    if session.trained_s:
        say(_pace(session))
    if session.failures:
        for reason, names in _grouped(session.failures).items():
            say(f"{len(names)} failed: {reason}\n  " + "\n  ".join(names), style="red")
        console.print("The same command runs the failed ones again.")
        raise typer.Exit(1)


@app.command()
def report(
    file: File,
    data: Data = None,
    external: External = None,
    settings: Settings = None,
    tracking_uri: Uri = None,
    storage: Storage = None,
    mlruns: Runs = Path("mlruns"),
    stores: Stores = Path("data"),
) -> None:
    """Write a study's report again from the runs there are, training nothing.

    Example: `litsexp report experiments/mini.yaml`
    """
    from litsexp.evidence.conclusion import conclude
    from litsexp.study.session import trials_table

    request = _request(file, data, external, settings, tracking_uri, storage, mlruns, stores)
    asked = request.study()
    with _open(request, asked) as session:
        search = trials_table(session) if asked.search else None
        conclusion = conclude(session, request.places.root / "reports", search, request.command())
    _show(conclusion.evidence)
    say(f"report: {conclusion.report}")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    tracking_uri: Uri = None,
    mlruns: Runs = Path("mlruns"),
) -> None:
    """Open the MLflow UI on the studies' database, on 127.0.0.1 only.

    Example: `litsexp ui --port 5001`
    """
    if tracking_uri is None and not (mlruns / "mlflow.db").is_file():
        raise LitsexpError(f"{mlruns / 'mlflow.db'}: not there; run a study first, or name its folder with --mlruns")
    uri = tracking_uri or f"sqlite:///{mlruns.resolve() / 'mlflow.db'}"
    console.print(f"MLflow UI on http://127.0.0.1:{port} (this machine only); Ctrl-C ends it")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    raise typer.Exit(subprocess.run([*command, "--port", str(port)], check=False).returncode)  # noqa: S603 (no shell)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


app.add_typer(commands)  # without a name: its commands stand beside these


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a LitsexpError becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is an interruption, too
    logger = logging.getLogger("litsexp")
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [logging.StreamHandler()]  # the plain message on stderr
    try:
        app(args=arguments, prog_name="litsexp", standalone_mode=True)
    except LitsexpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _request(
    file: Path,
    data: Path | None,
    external: Path | None,
    settings: list[str] | None,
    uri: str | None,
    storage: str | None,
    mlruns: Path,
    stores: Path,
) -> Request:
    from litsexp.study.session import Places

    return Request(file, data, external, settings or (), Places.below(mlruns, uri, storage), stores)


@contextmanager
def _open(request: Request, asked: StudyConfig) -> Iterator[Session]:
    """Data, splits and the study's lock; Ctrl-C inside leaves a study that goes on with the same command."""
    from litsexp.data.splits import make_splits
    from litsexp.study.session import open_study

    try:
        store = store_of(asked.data, request.stores)
        external = store_of(asked.external_data, request.stores) if asked.external_data else None
        splits = make_splits(store.has_tumor, asked.split)
        with open_study(request.name, asked, store, splits, request.places, external) as session:
            yield session
    except KeyboardInterrupt:
        print("interrupted; finished runs are kept, and the same command goes on", file=sys.stderr)
        sys.exit(130)


def _where(places: Places, mlruns: Path) -> str:
    """How to see the runs: the server's address, or the command that opens the database."""
    if not places.tracking_uri.startswith("sqlite"):
        return places.tracking_uri
    if places.tracking_uri != type(places).below(mlruns).tracking_uri:
        return shlex.join(["litsexp", "ui", "--tracking-uri", places.tracking_uri])
    return "litsexp ui" if mlruns == Path("mlruns") else shlex.join(["litsexp", "ui", "--mlruns", str(mlruns)])


def _pace(session: Session) -> str:
    """How long this session took, beside what its runs needed."""
    needed_s = sum(session.trained_s)
    runs, ratio = len(session.trained_s), session.wall_s / needed_s
    minutes = f"{session.wall_s / 60:.1f} min for {runs} runs of {needed_s / 60:.1f} min together"
    return f"time:   {minutes} (fit and evaluation): wall time is {ratio:.2f} of their sum"


def _grouped(failures: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of the failed runs by reason."""
    return {reason: [name for name in failures if failures[name] == reason] for reason in failures.values()}


def _show(evidence: Evidence) -> None:
    """The verdict table and the same in words; below it, what holds on an external cohort."""
    say(f"\n{evidence.study.question}", style="bold")
    if evidence.warning:
        say(evidence.warning, style="magenta")
    if not evidence.verdicts:
        console.print("This study file makes no claims.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("phantom claim" if evidence.phantom else "claim", no_wrap=True)
    for name in ("effect", "95 % interval", "adjusted p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for v in evidence.verdicts:
        ruling = f"[{BADGES[v.verdict]}]{v.verdict}[/]" + (", substantially" if v.substantial else "")
        cells = [f"{v.effect:+.3f}", rf"\[{v.low:.3f}, {v.high:.3f}]", f"{v.p_adjusted:.3g}"]
        table.add_row(v.claim.id, *cells, str(v.n_patients), ruling + (" (post hoc)" if v.post_hoc else ""))
    console.print(table)
    for v in evidence.verdicts:
        say(f"{v.claim.id}: {v.sentence}")
    if evidence.external:
        say(f"\nOn the external cohort ({evidence.external.cohort}), from which nothing was learned:", style="bold")
        for pair in evidence.replications:
            say(f"{pair.here.claim.id}: {pair.words}")
