"""``litsexp score``: masks of any system against the truth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from litsexp.cli.options import measuring
from litsexp.display import console, progress_bar
from litsexp.spec.errors import LitsexpError

if TYPE_CHECKING:
    from litsexp.evaluation.folders import Scored


def score(
    predictions: Annotated[
        list[Path], typer.Argument(metavar="PREDICTIONS", help="Folder with a system's masks; one a system.")
    ],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Folder with the true masks, and CT volumes where there are any.")
    ],
    arms: Annotated[
        list[str] | None,
        typer.Option("--arm", metavar="NAME", help="What a system is called, once a folder; default: its name."),
    ] = None,
    surface: Annotated[
        bool, typer.Option("--surface", help="Surfaces, too: ASSD, RMSD, maximum, HD95 and NSD, in mm.")
    ] = False,
    tolerance: Annotated[float, typer.Option(metavar="MM", min=0, help="NSD's tolerance, with --surface.")] = 2.0,
    partial: Annotated[
        bool, typer.Option("--partial", help="Score the cases that both folders have; a missing one is no error.")
    ] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON, too; - is stdout.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a row a case: the table of litsexp judge.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Cases at a time; default: one a core, at most 8.")
    ] = None,
) -> None:
    """Score masks of any system: overlap, lesions, tumor burden, surfaces, and the official LiTS summary.

    Masks are NIfTI files (0 background, 1 liver, 2 tumor) whose names end in the case's number: nnU-Net's
    `liver_12.nii.gz`, a submission's `test-segmentation-12.nii`. The truth is `segmentation-N`, `labelsTr/liver_N`, or
    any such masks. With the CT in its folder or beside it, lesions are also told apart by their contrast to the liver.

    Example: `litsexp score nnunet_predictions ~/LiTS --surface --json scores.json`

    Two systems, and does one really win? A claims file and one more command give the verdict:

    `litsexp score plain da5 ~/LiTS --csv scores.csv`

    `litsexp judge scores.csv claims.yaml`

    Masks in folders fold_N (nnU-Net's cross-validation) get a column fold; folders of one --arm are its seeds.

    A lesion is 6-connected, and detected at IoU > 0.5 with what was predicted there. Where the official scorer has a
    fault, its own number stands beside the right one, with the reason.

    Exit code 0: scored; 2: a file is missing, misnamed, damaged or of another shape (all are named, nothing is
    written), or the command itself is wrong. No file is ever overwritten.
    """
    from litsexp.cli.findings import refuse_to_overwrite, write_new
    from litsexp.cli.scored import as_json, tell
    from litsexp.evaluation.folders import table_of

    for path in (csv_file, Path(json_file) if json_file not in (None, "-") else None):
        if path is not None:
            refuse_to_overwrite(path)
    shown = Console(stderr=True) if json_file == "-" else console  # stdout is the JSON's alone
    names = _names(predictions, arms)
    with measuring():
        scored = _scored(predictions, truth, names, tolerance if surface else None, partial, processes, shown)
    tell(shown, scored)
    if csv_file is not None:
        write_new(csv_file, table_of(scored).to_csv(index=False).encode())
        shown.print(f"table of cases: {csv_file}", markup=False, highlight=False, soft_wrap=True)
    if json_file == "-":
        typer.echo(as_json(scored), nl=False)
    elif json_file:
        write_new(Path(json_file), as_json(scored).encode())


def _names(predictions: list[Path], arms: list[str] | None) -> list[str]:
    """What each folder's system is called."""
    names = arms or [path.resolve().name for path in predictions]
    if len(names) != len(predictions):
        found = f"{len(names)} names for {len(predictions)} folders"
        raise LitsexpError(f"--arm: found {found}; expected one a folder, in their order")
    if not arms and len(set(names)) < len(names):
        found = f"two folders called {max(names, key=names.count)!r}"
        raise LitsexpError(f"--arm: found {found}; expected names for them: --arm once a folder (one name: its seeds)")
    return names


def _scored(
    predictions: list[Path],
    truth: Path,
    names: list[str],
    surface_mm: float | None,
    partial: bool,
    processes: int | None,
    shown: Console,
) -> list[Scored]:
    """Every system; the problems of all of them are told, a line each, before the command ends."""
    from litsexp.evaluation.folders import FolderProblems
    from litsexp.evaluation.folders import score as score_folder

    found, problems = [], dict[str, None]()
    for folder, name in zip(predictions, names, strict=True):
        with progress_bar(f"scoring {name}", shown) as advance:
            try:
                found.append(
                    score_folder(
                        folder,
                        truth,
                        arm=name,
                        surface_mm=surface_mm,
                        partial=partial,
                        processes=processes,
                        progress=advance,
                    )
                )
            except FolderProblems as error:
                problems |= dict.fromkeys(error.problems)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(2)
    return found
