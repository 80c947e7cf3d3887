"""What several commands share: options, and how Ctrl-C ends them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from litsexp.spec.errors import LitsexpError

STUDIES, DATA, MASKS, BELIEVE = "Studies", "CT", "Masks", "Can it be believed?"  # groups of commands in the help

File = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The study file.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="CT volumes in LiTS layout instead; leaves out a phantom external one."),
]
External = Annotated[
    Path | None,
    typer.Option(
        "--external", metavar="DIR", help="CT volumes of another scanner, scored by every run; trains none again."
    ),
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key; repeatable.")]
Native = Annotated[
    bool,
    typer.Option("--native", help="Score test cases at the volumes' own resolution and on all slices, too."),
]
Keep = Annotated[
    Literal["all", "baseline", "none"],
    typer.Option(
        "--keep-weights",
        metavar="all|baseline|none",
        help="Whose best weights MLflow keeps, a file of the network's size a run: of all runs; of the baseline's, for "
        "the registered model; of none. Scores are the same. Runs without label no volume, and cannot be scored later.",
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="MODULE", help="A module that registers arms, metrics …; repeatable."),
]
Uri = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow's server, http://HOST:PORT; default: mlruns/mlflow.db.")
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", help="Optuna's database, postgresql://USER@HOST/NAME; default: mlruns/optuna.db."),
]
Runs = Annotated[Path, typer.Option("--mlruns", metavar="DIR", help="Folder for databases, artifacts, reports.")]
Stores = Annotated[Path, typer.Option("--stores", metavar="DIR", help="Folder for phantom and slice stores.")]
SendStores = Annotated[
    bool,
    typer.Option(
        "--send-stores", help="Send the slice stores to MLflow once, for workers that do not see the --stores folder."
    ),
]

Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Of --executor ray: the cluster's head. Default: RAY_ADDRESS, or auto."),
]


def engine_options(executor: str | None, options: list[str] | None, address: str | None) -> list[str]:
    """What the executor is given: ``--executor-option``, and ``--address`` as one; LitsexpError where it takes none."""
    if address is None:
        return options or []
    if executor != "ray":
        raise LitsexpError(f"--address {address}: {executor or 'this machine'} has none; expected --executor ray")
    return [*(options or ()), f"address={address}"]


@contextmanager
def going_on(kept: str) -> Iterator[None]:
    """Ctrl-C inside is one line that says what is kept, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; {kept} are kept, and the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from None


@contextmanager
def measuring() -> Iterator[None]:
    """Ctrl-C inside is one line, and exit code 130: nothing is kept of a measurement."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; nothing is kept", file=sys.stderr)
        raise typer.Exit(130) from None
