"""The command on what has run already: report, of one study or of two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litsexp.cli.answer import show
from litsexp.cli.compare import Json, Margin, Out, Strict, Two, compare_studies
from litsexp.cli.options import Data, External, Native, Plugins, Runs, Settings, Storage, Stores, Uri, going_on
from litsexp.cli.studies import command_of, experiment_name
from litsexp.display import say
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import load_study
from litsexp.spec.tables import load_plugins

MaybeFile = Annotated[Path | None, typer.Argument(metavar="FILE.yaml", help="The study file; optional with --compare.")]
NAMES = "expected FILE.yaml, or --compare STUDY_A STUDY_B; see litsexp report --help"


def report(
    file: MaybeFile = None,
    compare: Two = None,
    data: Data = None,
    external: External = None,
    native: Native = False,
    settings: Settings = None,
    plugins: Plugins = None,
    margin: Margin = None,
    strict: Strict = False,
    out: Out = None,
    json_file: Json = None,
    tracking_uri: Uri = None,
    storage: Storage = None,
    mlruns: Runs = Path("mlruns"),
    stores: Stores = Path("data"),
) -> None:
    """Write a study's report again from the runs there are, training nothing; or compare two studies.

    Example: `litsexp report experiments/mini.yaml`

    Example: `litsexp report --compare old/mlruns mlruns`

    Example: `litsexp report --compare mlruns/reports/mini-70c9bea9 mlruns/reports/mini-1f0e22ab --strict`

    `--compare` reads everything from MLflow, and neither CT nor study files. STUDY is a `--mlruns` folder (its study
    that ended last, or the one of FILE.yaml's name), `FOLDER:NAME` or `FOLDER:RUN_ID`, a report or its folder, or the
    name or the parent run's id of a study in `--tracking-uri` or `--mlruns`. It tells what differs (settings, versions,
    machine, data, claims), what changed in every arm's scores (B minus A, over new patients and new runs; all p
    adjusted together), and what became of each claim. Runs are paired by arm, fold and seed where the patients and
    folds are the same.

    Verdicts: identical (bitwise), same (the interval lies within the margin), better or worse (adjusted p below 0.05),
    else unclear; always unclear with fewer than 6 patients or 5 pairs of runs. The margin is that of the claims about
    the measure, else `--margin` (0.02).

    Exit code of `--compare`: 1: a score of an arm is worse and the effect is beyond its margin; or a claim's ruling
    fell (supported, then equivalent or inconclusive, then contradicted) and its effect is shown to be smaller, or it
    fell from supported to contradicted. `--strict`: 1 also where a row is unclear or worse within its margin, a ruling
    fell, or an arm or claim of A is gone. 2: the input is wrong. Else 0.
    """
    load_plugins(plugins or ())
    if compare is not None:
        _refuse("--compare", {"--external": external, "--native": native, "--set": settings, "--storage": storage})
        name = experiment_name(file, data) if file else ""
        compare_studies(compare, name, mlruns, tracking_uri, margin, strict, out, json_file)
    _refuse("FILE.yaml alone", {"--margin": margin is not None, "--strict": strict, "--out": out, "--json": json_file})
    if file is None:
        raise LitsexpError(f"report: found no study file; {NAMES}")
    _write_again(file, data, external, native, settings, plugins, tracking_uri, storage, mlruns, stores)


def _refuse(how: str, given: dict[str, object]) -> None:
    """LitsexpError where an option was given that does nothing there."""
    for option, value in given.items():
        if value:
            raise LitsexpError(f"{option}: found with {how}, where it does nothing; {NAMES}")


def _write_again(
    file: Path,
    data: Path | None,
    external: Path | None,
    native: bool,
    settings: list[str] | None,
    plugins: list[str] | None,
    tracking_uri: str | None,
    storage: str | None,
    mlruns: Path,
    stores: Path,
) -> None:
    from litsexp.pipeline import run_study
    from litsexp.study.places import Places

    asked, name = load_study(file, settings or (), data, external), experiment_name(file, data)
    places = Places.below(mlruns, tracking_uri, storage, stores)
    command = command_of(file, data, external, settings, plugins, native)
    with going_on("finished runs"):
        conclusion = run_study(asked, places, name=name, train=False, native=native, command=command)
    show(conclusion.evidence)
    say(f"report: {conclusion.report}")
