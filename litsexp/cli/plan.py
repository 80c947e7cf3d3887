"""``litsexp plan``: what a study costs and what it could settle, before anything is trained."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from litsexp.cli.options import Data, External, File, Keep, Plugins, Runs, Settings, Storage, Stores, Uri, measuring
from litsexp.cli.studies import experiment_name
from litsexp.display import console, say
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import load_study
from litsexp.spec.tables import load_plugins

if TYPE_CHECKING:
    from litsexp.evidence.planning import Noise, Power, Range
    from litsexp.plan import ClaimPlan, Plan
    from litsexp.study.forecast import Forecast


def plan(
    file: File,
    data: Data = None,
    external: External = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Runs at a time, as `litsexp study` takes them.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads a run. Default: 1.")] = None,
    executor: Annotated[str | None, typer.Option(help="Where runs would run. Default: by --workers.")] = None,
    noise: Annotated[
        str | None,
        typer.Option(
            metavar="RUN,PATIENT,RESIDUAL",
            help="Standard deviations of paired differences: between pairs of runs, between patients, and the rest. "
            "Default: as the finished runs of this study show.",
        ),
    ] = None,
    keep_weights: Keep = "all",
    no_hours: Annotated[
        bool, typer.Option("--no-hours", help="Rehearse nothing; tell the claims' power alone.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON, too.")
    ] = None,
    settings: Settings = None,
    plugins: Plugins = None,
    tracking_uri: Uri = None,
    storage: Storage = None,
    mlruns: Runs = Path("mlruns"),
    stores: Stores = Path("data"),
) -> None:
    """Say what a study costs and what it could settle, before anything is trained.

    Hours come from a rehearsal: two tiny runs of each kind of arm, on this machine, as many at a time as there will be.
    Power comes from how runs and patients vary: in the study's finished runs (two seeds are a pilot), or as --noise
    says. It is the probability that a difference of the claim's margin gets its verdict, at 0.05 / number of claims.
    Nothing is left but the slice store, which the study will use.

    Example: `litsexp plan experiments/paper.yaml --data ~/LiTS --workers 1`

    Example: `litsexp plan experiments/mini.yaml --no-hours --noise 0.05,0.15,0.08 --set 'seeds=[0,1,2]'`

    A pilot: `litsexp study FILE.yaml --set 'seeds=[0,1]'`, then `litsexp plan FILE.yaml --set 'seeds=[0,1,2,3,4]'`
    """
    from litsexp.cli.findings import refuse_to_overwrite, write_new
    from litsexp.plan import plan_study
    from litsexp.study.places import Places

    if json_file:
        refuse_to_overwrite(json_file)
    load_plugins(plugins or ())
    given = parse_noise(noise) if noise is not None else None
    asked, name = load_study(file, settings or (), data, external), experiment_name(file, data)
    places = Places.below(mlruns, tracking_uri, storage, stores)
    with measuring():
        planned = plan_study(
            *(asked, places, name),
            executor=executor,
            workers=workers,
            threads=threads,
            noise=given,
            hours=not no_hours,
            keep_weights=keep_weights,
        )
    show(planned)
    if json_file:
        write_new(json_file, (json.dumps(as_json(planned), indent=1) + "\n").encode())


def parse_noise(text: str) -> Noise:
    """``0.05,0.15,0.08`` as standard deviations; LitsexpError where it is not three numbers from 0 on."""
    from litsexp.evidence.planning import Noise

    try:
        run, patient, residual = (float(part) for part in text.split(","))
        usable = all(0 <= value < math.inf for value in (run, patient, residual))
    except ValueError:
        usable = False
    if not usable:
        raise LitsexpError(f"--noise: found {text!r}; expected three numbers from 0 on, as 0.05,0.15,0.08")
    return Noise(run, patient, residual)


def show(planned: Plan) -> None:
    """Cost, then a table of the claims, then what the columns do not say."""
    done = f", {planned.done} of them done" if planned.done else ""
    say(f"{planned.cells} runs{done}", style="bold")
    if planned.forecast:
        say(cost(planned.forecast))
        for line in pretraining_words(planned.forecast):
            say(line)
        if any(claim.claim.metric.startswith("native:") for claim in planned.claims):
            say("not in it: the scoring of whole volumes, which claims about native: ask for")
    if not planned.claims:
        say("This study makes no claims.")
        return
    known = [claim for claim in planned.claims if claim.needed]
    if known:
        console.print(table(known))
        say(
            "power: of a difference of the margin, at 0.05 / number of claims, as for Holm's worst case. Needed: what "
            "alone brings 0.8;\nin brackets the runs that each arm needs more. Ranges: runs' noise is known to 10-90 %."
        )
    for claim in planned.claims:
        say(words(claim))


def cost(f: Forecast) -> str:
    """Hours, parallelism and disk in one line."""
    each, at_most = sum(f.run_s) / f.cells, "at most " * f.at_most
    early = " (runs may stop early)" * f.at_most
    time = f"{at_most}{duration(f.wall_s)} for {f.cells} runs of {duration(each)} each on average{early}"
    weights = "" if f.keep_weights == f.cells else f"; {f.keep_weights or 'no'} runs keep their weights"
    disk = f"{f.disk_bytes / 1e9:.2f} GB of {'weights, ' * (f.keep_weights > 0)}pictures and tables{weights}"
    return f"time:   {time}, {f.workers} at a time\ndisk:   {disk}"


def pretraining_words(f: Forecast) -> list[str]:
    """A line a method and length: what it costs, and in how many supervised steps that much time goes."""
    groups = sorted({(one.init, one.steps) for one in f.pretrained})
    lines = []
    for init, steps in groups:
        ones = [one for one in f.pretrained if (one.init, one.steps) == (init, steps)]
        each_s = sum(one.seconds for one in ones) / len(ones)
        worth = round(sum(one.supervised_steps for one in ones) / len(ones))
        cost = f"{len(ones)} x {steps} steps of {duration(each_s)}, in the time above"
        lines.append(f"{init}: {cost}; each takes as long as {worth} supervised steps of its arm")
    return lines


def table(claims: list[ClaimPlan]) -> Table:
    """A line a claim: power now, where the variance is, what is needed."""
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("claim", "margin", "power", "from runs", "seeds needed", "patients", "folds"):
        result.add_column(title, justify="left" if title == "claim" else "right", no_wrap=title != "claim")
    for one in claims:
        if one.powers is None or one.needed is None:
            continue
        seeds, folds = one.needed.seeds, one.needed.folds
        needed = [_needed(seeds, one.needed.runs_for_seeds), one.needed.patients.words]
        needed.append("-" if one.design.folds < 2 else _needed(folds, one.needed.runs_for_folds))
        share = f"{one.powers[0].from_runs:.0%}"
        result.add_row(escape(one.claim.id), f"{one.claim.margin:g}", power_words(one.powers), share, *needed)
    return result


def power_words(powers: tuple[Power, Power, Power]) -> str:
    """``0.62``, or ``0.41-0.80`` where the noise is known roughly."""
    low, high = (f"{power.power:.2f}" for power in (powers[2], powers[1]))
    return low if low == high else f"{low}-{high}"


def words(one: ClaimPlan) -> str:
    """What is known of the noise, and what limits the claim."""
    if one.powers is None or one.needed is None or one.noises is None:
        return f"{one.claim.id}: {one.source}"
    noise, now = one.noises[0], one.powers[0]
    parts = f"run SD {noise.run_sd:.3f}, patient SD {noise.patient_sd:.3f}, residual SD {noise.residual_sd:.3f}"
    shares = f"{now.from_runs:.0%} of the variance from runs, {now.from_patients:.0%} from patients"
    said = f"{one.claim.id}: {parts} ({one.source}); {shares}"
    if one.design.run_pairs < 5:
        said += f"; {one.design.run_pairs} pairs of runs get no verdict, 5 are the least"
    if one.needed.patients.number is None:
        said += f"; no number of patients settles {one.claim.margin:g} while runs differ by {noise.run_sd:.2g}"
    if one.needed.seeds.number is None:
        said += f"; no number of seeds settles {one.claim.margin:g} while patients differ by {noise.patient_sd:.2g}"
    return said.replace("%", " %")


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def as_json(planned: Plan) -> dict[str, Any]:
    """Everything; what is unknown is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    claims = [{**dataclasses.asdict(one), "claim": one.claim.model_dump(mode="json")} for one in planned.claims]
    found: dict[str, Any] = plain({**dataclasses.asdict(dataclasses.replace(planned, claims=())), "claims": claims})
    return found


def _needed(needed: Range, runs: int | None) -> str:
    return needed.words if not runs else f"{needed.words} (+{runs})"
