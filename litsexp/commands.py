"""Commands on CT data that need no study: prepare, phantom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from litsexp.config import DataConfig, LitsexpError, StudyConfig
from litsexp.display import console, progress_bar, say
from litsexp.studyfile import first_problem

if TYPE_CHECKING:
    from litsexp.data.store import Store

commands = typer.Typer()

PHANTOM_SIZE = 96  # pixels a side, unless the study wants more

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="CT volumes in LiTS layout, anywhere below it.")]
Stores = Annotated[Path, typer.Option("--stores", metavar="DIR", help="Folder for phantom and slice stores.")]
Processes = Annotated[
    int | None, typer.Option("--processes", min=1, help="Cases at a time; default: one a core, at most 8.")
]


@commands.command()
def prepare(
    directory: Folder,
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 128,
    slices: Annotated[
        str, typer.Option(help="liver: slices that show liver; all; or for example 'liver+20% background'.")
    ] = "liver",
    stores: Stores = Path("data"),
    processes: Processes = None,
) -> None:
    """Build the slice store that studies of this size share. Built once, reused by every later study.

    Killed in the middle, the same command goes on with the cases that are done.

    Example: `litsexp prepare ~/LiTS --size 128 --slices liver`
    """
    content = {"question": "prepare", "data": {"cohort": str(directory), "size": size, "slices": slices}}
    try:
        data = StudyConfig.model_validate(content).data
    except ValidationError as error:
        raise LitsexpError(first_problem(error, content).replace("data.", "--", 1)) from None
    store = store_of(data, stores, processes)
    say(f"{len(store.cases)} cases, {len(store.index)} slices of {store.size} px: {store.directory}")


@commands.command()
def phantom(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; must not exist.")],
    patients: Annotated[int, typer.Option(min=1)] = 30,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    size: Annotated[int, typer.Option(min=32, help="Pixels a side.")] = PHANTOM_SIZE,
) -> None:
    """Write a synthetic abdominal CT cohort as NIfTI in LiTS layout. Same seed, same bytes.

    Example: `litsexp phantom data/my-phantom --patients 12 --seed 3`
    """
    from litsexp.data.cohort import write_cohort
    from litsexp.data.phantom import PhantomConfig

    with progress_bar(console, "phantom patients") as advance:
        write_cohort(directory, PhantomConfig(patients, seed, size), progress=advance)
    say(f"{patients} phantom patients: {directory}")


def store_of(data: DataConfig, stores: Path, processes: int | None = None) -> Store:
    """The slice store of a cohort, built where it is missing; a phantom is written first."""
    from litsexp.data.store import prepare as prepare_store

    root = phantom_of(data, stores) if data.cohort == "phantom" else Path(data.cohort)
    with progress_bar(console, "slice store") as advance:
        return prepare_store(root, stores / "stores", data, processes, progress=advance)


def phantom_of(data: DataConfig, stores: Path) -> Path:
    """The folder of a study's phantom, written where it is missing."""
    from litsexp.data.cohort import write_cohort
    from litsexp.data.phantom import PhantomConfig

    config = PhantomConfig(data.patients, data.seed, max(PHANTOM_SIZE, data.size))
    directory = stores / f"phantom-{config.patients}-seed{config.seed}-{config.size}px"
    with progress_bar(console, "phantom patients") as advance:
        return write_cohort(directory, config, progress=advance)
