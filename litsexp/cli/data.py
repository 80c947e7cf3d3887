"""Commands on CT data that need no study: check, prepare, export, phantom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console

from litsexp.cli.options import DATA, Stores, going_on
from litsexp.display import console, progress_bar, say
from litsexp.spec.cohort import DataConfig, StoreConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import first_problem

if TYPE_CHECKING:
    from litsexp.data.store import Store

commands = typer.Typer()

_Config = TypeVar("_Config", bound=BaseModel)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="CT volumes in LiTS layout, anywhere below it.")]
Size = Annotated[int, typer.Option(help="Pixels a side.")]
Slices = Annotated[str, typer.Option(help="liver: slices that show liver; all; or e.g. 'liver+20% background'.")]
Processes = Annotated[
    int | None, typer.Option("--processes", min=1, help="Cases at a time; default: one a core, at most 8.")
]


@commands.command(rich_help_panel=DATA)
def prepare(
    directory: Folder,
    size: Size = 128,
    slices: Slices = "liver",
    stores: Stores = Path("data"),
    processes: Processes = None,
) -> None:
    """Build the slice store that studies of this size share. Built once, reused by every later study.

    Killed in the middle, the same command goes on with the cases that are done.

    Example: `litsexp prepare ~/LiTS --size 128 --slices liver`
    """
    data = _checked(DataConfig, {"cohort": str(directory), "size": size, "slices": slices})
    with going_on("the cases that are stored"):
        store = _prepared(directory, stores, data, processes)
    kind = "phantom cases" if store.phantom else "cases"
    say(f"{len(store.cases)} {kind}, {len(store.index)} slices of {store.size} px: {store.directory}")


@commands.command(rich_help_panel=DATA)
def export(
    directory: Folder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; new, or empty.")],
    form: Annotated[str, typer.Option("--format", help="jpeg or png. Masks are PNG: 0, 1 liver, 2 tumor.")] = "jpeg",
    quality: Annotated[int, typer.Option(help="JPEG's, 1 to 100; the notebook's was 90.")] = 100,
    window: Annotated[
        str, typer.Option(help="liver, custom, wide: gray images; notebook: liver, custom, equalised HU as RGB.")
    ] = "notebook",
    size: Size = 128,
    slices: Slices = "liver",
    subsampling: Annotated[
        str, typer.Option(help="JPEG's color: 4:4:4, 4:2:2, or 4:2:0, which mixes the notebook's channels.")
    ] = "4:4:4",
    seed: Annotated[int, typer.Option(help="Of the split: 70 % train, 15 % valid, 15 % test, by patient.")] = 0,
    no_split: Annotated[bool, typer.Option("--no-split", help="Leave split.csv out.")] = False,
    stores: Stores = Path("data"),
    processes: Processes = None,
) -> None:
    """Write images, masks and a split by patient for training code of your own, as the paper describes them.

    images/volume-N_slice_K.jpg and masks/volume-N_slice_K_mask.png, split.csv (a row a patient), slices.csv (a row
    an image), README.txt. All of it or nothing; the same input gives the same bytes. The pixels are those that studies
    train on: they come from the slice store of this size, which is built first, and kept, where it is missing.

    Example: `litsexp export ~/LiTS --out lits-jpeg --format jpeg --quality 100 --window notebook`

    The notebook's own: `litsexp export ~/LiTS --out lits-notebook --quality 90 --subsampling 4:2:0`
    """
    from litsexp.export import PAPER_SPLIT, ExportConfig, refuse_early
    from litsexp.export import export as export_store

    stored = _checked(StoreConfig, {"size": size, "slices": slices})
    split = None if no_split else {**PAPER_SPLIT.model_dump(), "seed": seed}
    image = {"format": form, "quality": quality, "subsampling": subsampling, "window": window}
    config = _checked(ExportConfig, {**image, "split": split})
    refuse_early(directory, out, config)
    with going_on("the cases that are stored"):
        store = _prepared(directory, stores, stored, processes)
        with progress_bar("exported cases") as advance:
            s = export_store(store, out, config, processes, advance)
    sides = f" (train {len(s.train)}, valid {len(s.valid)}, test {len(s.test)} patients)" if s else ""
    say(f"{len(store.cases)} patients, {len(store.index)} images{sides}: {out}")


@commands.command(rich_help_panel=DATA)
def check(
    directory: Folder,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON, too; - is stdout.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="The contact sheet; default: ./<DIR's name>-contact-sheet.png."),
    ] = None,
    no_sheet: Annotated[bool, typer.Option("--no-sheet", help="Draw no contact sheet.")] = False,
    processes: Processes = None,
) -> None:
    """Read and judge every case before a study does: a table, what is wrong or odd, and a contact sheet to look at.

    The sheet shows a liver slice a case. No file is ever overwritten: a default name that is taken gets a number, and
    any other is refused. Exit code 0: a study may use the folder, warnings or not; 1: it would refuse a case; 2: the
    command itself is wrong.

    Example: `litsexp check ~/LiTS --json check.json`
    """
    from litsexp.cli.findings import as_json, free_name, refuse_to_overwrite, tell, write_new
    from litsexp.data.check.folder import check_folder
    from litsexp.evaluation.contact import contact_sheet
    from litsexp.evaluation.overlays import to_png

    for path in (sheet, Path(json_file) if json_file not in (None, "-") else None):
        if path is not None:
            refuse_to_overwrite(path)
    shown = Console(stderr=True) if json_file == "-" else console  # stdout is the JSON's alone
    with progress_bar("reading cases", shown) as advance:
        report = check_folder(directory, processes, advance)
    tell(shown, report)
    if report.cases and not no_sheet:
        path = sheet or free_name(Path(f"{directory.resolve().name}-contact-sheet.png"))
        write_new(path, to_png(contact_sheet(report)))
        shown.print(f"contact sheet: {path}", markup=False, highlight=False, soft_wrap=True)
    if json_file == "-":
        typer.echo(as_json(report), nl=False)
    elif json_file:
        write_new(Path(json_file), as_json(report).encode())
    raise typer.Exit(0 if report.usable else 1)


@commands.command(rich_help_panel=DATA)
def phantom(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; must not exist.")],
    patients: Annotated[int, typer.Option(min=1)] = 30,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    size: Annotated[int, typer.Option(min=32, help="Pixels a side.")] = 96,
    site: Annotated[
        str,
        typer.Option(
            metavar="A|B",
            help="Whose scanner: A, portal venous; B, other patients, late arterial, with more noise, a sharper kernel "
            "and thicker slices.",
        ),
    ] = "A",
    lesions: Annotated[
        str,
        typer.Option(
            metavar="lits|large",
            help="lits: as many and as small as in LiTS; large: each patient's largest is 28 to 80 mm, which a small "
            "U-Net learns in minutes.",
        ),
    ] = "lits",
) -> None:
    """Write a synthetic abdominal CT cohort as NIfTI in LiTS layout. Same seed, same bytes.

    One patient in ten has no tumor. phantom.json says how the cohort was made, and of each patient which lesions.

    Example: `litsexp phantom data/my-phantom --patients 12 --seed 3`

    Does a model travel? A second hospital: `litsexp phantom data/site-b --patients 12 --site B`
    """
    from litsexp.data.phantom.cohort import write_cohort
    from litsexp.data.phantom.patient import PhantomConfig

    with progress_bar("phantom patients") as advance:
        write_cohort(directory, PhantomConfig(patients, seed, size, site=site, lesions=lesions), progress=advance)
    say(f"{patients} phantom patients: {directory}")


def _prepared(root: Path, stores: Path, data: StoreConfig, processes: int | None) -> Store:
    from litsexp.data.store import prepare as prepare_store

    with progress_bar("slice store") as advance:
        return prepare_store(root, stores / "stores", data, processes, progress=advance)


def _checked(config: type[_Config], content: dict[str, Any]) -> _Config:
    """The settings that these options make; LitsexpError that names the option that is wrong."""
    try:
        return config.model_validate(content)
    except ValidationError as error:
        raise LitsexpError("--" + first_problem(error, content).replace("split.", "", 1)) from None
