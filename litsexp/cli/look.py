"""``litsexp look``: a picture of what the networks of a study get to see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litsexp.cli.options import Data, File, Plugins, Settings, Stores, going_on
from litsexp.display import console, progress_bar, say
from litsexp.spec.reading import load_study
from litsexp.spec.tables import load_plugins


def look(
    file: File,
    arm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this arm, as 'window=liver'; default: all of the study.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="The picture; default: ./<FILE's name>-look.png.")
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="Slices an arm, each of another case.")] = 2,
    data: Data = None,
    settings: Settings = None,
    plugins: Plugins = None,
    stores: Stores = Path("data"),
) -> None:
    """Draw what the networks of a study see, arm by arm: every channel, augmented and not, and the mask on it.

    The slices are the first batch that training gets (fold 0, first seed, first epoch), from training's own loader:
    encoded, augmented and windowed, only without the normaliser. Look before you train: is the tumor in the window,
    does the mask lie on the liver, is an augmentation too strong? Arms that see the same, as those that differ in their
    loss, share one band of the picture. Nothing is trained, and no file is ever overwritten: a default name that is
    taken gets a number.

    Example: `litsexp look experiments/windows.yaml`

    Example: `litsexp look experiments/jpeg.yaml --arm encoding=jpeg:90 --cases 4 --data ~/LiTS --set data.size=128`
    """
    from litsexp.cli.findings import free_name, refuse_to_overwrite, write_new
    from litsexp.data.cohorts import store_of
    from litsexp.evaluation.overlays import to_png
    from litsexp.study.look import asked_arms
    from litsexp.study.look import look as look_at

    if out is not None:
        refuse_to_overwrite(out)
    load_plugins(plugins or ())
    study = load_study(file, settings or (), data)
    asked_arms(study, arm)  # a misspelt one is refused before a store is built
    with going_on("the cases that are stored"):
        store = store_of(study.data, stores, bar=progress_bar)
        with console.status("drawing"):
            picture = to_png(look_at(study, store, file.stem, arm, cases))
        path = out or free_name(Path(f"{file.stem}-look.png"))
        write_new(path, picture)
    say(f"what the networks see: {path}")
