"""``litsexp predict``: masks of CT volumes by finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litsexp.cli.options import Plugins, Runs, Settings, Stores, Uri, going_on
from litsexp.display import progress_bar, say
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import load_study
from litsexp.spec.tables import load_plugins

MOST_NAMED = 5


def predict(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Volumes to label, in any subfolders.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder for the masks.")],
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN_ID]", help="A finished run, as the MLflow UI shows it.")
    ] = None,
    best: Annotated[
        Path | None, typer.Option("--best", metavar="FILE.yaml", help="The study's best run on validation, instead.")
    ] = None,
    trained_on: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --best: the --data of the study, where it had one.")
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="All folds and seeds of the arm; probabilities are averaged.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=1, help="Another number is faster or slower, and changes the last bits.")
    ] = 1,
    settings: Settings = None,
    plugins: Plugins = None,
    tracking_uri: Uri = None,
    mlruns: Runs = Path("mlruns"),
    stores: Stores = Path("data"),
) -> None:
    """Label CT volumes with finished runs; a mask each, in the volume's own geometry, as uint8 NIfTI.

    All slices are labeled at the size that the run was trained on, and the probabilities resampled to the volume's own
    pixels: what `litsexp score` finds of these masks is what `litsexp score-runs --native` finds of the run. Of an
    ensemble, a patient of the study's own data is labeled by the runs that tested it, and by no other; patients are
    known by their pixels. Nothing is overwritten; the same command goes on after an interruption.

    Example: `litsexp predict 3f2a… --data ~/LiTS --out masks`

    Example: `litsexp predict --best experiments/mini.yaml --ensemble --data ~/new-patients --out masks`
    """
    from litsexp.cli.studies import experiment_name
    from litsexp.data.cohorts import store_of
    from litsexp.prediction import predict_folder
    from litsexp.study.executors.inline import torch_threads
    from litsexp.study.places import Places
    from litsexp.study.trained import best_of, connected, ensemble_of, trained_run

    if (run_id is None) == (best is None):
        found = "both" if run_id else "neither"
        raise LitsexpError(f"predict: found {found}; expected RUN_ID or --best FILE.yaml; see litsexp predict --help")
    load_plugins(plugins or ())
    places = Places.below(mlruns, tracking_uri, None, stores)
    client = connected(places.tracking_uri)
    if best is not None:
        study = load_study(best, settings or (), trained_on)
        store = store_of(study.data, places.stores, progress_bar)
        runs = best_of(experiment_name(best, trained_on), study, store, places, ensemble)
    else:
        assert run_id is not None
        runs = [trained_run(client, run_id)]
        runs = ensemble_of(client, runs[0]) if ensemble else runs
    for run in runs:
        say(f"run {run.run_id}: {run.name}, validation {run.score:.3f}")
    with going_on("masks that are written"), torch_threads(threads), progress_bar("volumes") as progress:
        done = predict_folder(client, runs, data, out, ensemble, progress)
    kept = f", {done.kept} were there" if done.kept else ""
    say(f"{done.written} masks written{kept}: {out}")
    if done.learned:
        named = ", ".join(list(done.learned)[:MOST_NAMED]) + " …" * (len(done.learned) > MOST_NAMED)
        many = "volume is a patient" if len(done.learned) == 1 else "volumes are patients"
        say(f"{len(done.learned)} {many} that the run has learned from: {named}; their scores flatter", style="yellow")
    if done.unchecked:
        say(f"whether the run has learned from these patients is not known: {done.unchecked}", style="yellow")
