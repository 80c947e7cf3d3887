"""Before anything is trained: how many cells, hours and bytes a study takes, and what its claims could settle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from litsexp.data.cohorts import store_of
from litsexp.data.splits import make_splits
from litsexp.display import progress_bar
from litsexp.evidence.kinds import Tables, kind_of
from litsexp.evidence.measures import measure_of
from litsexp.evidence.planning import Design, Needs, Noise, Power, needs, noise_of, power_of, ranged
from litsexp.spec.claim import Claim
from litsexp.spec.design import Cell, cells, contexts
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.cohorts import check_external
from litsexp.study.executors import executor_of, runs_at_a_time, runs_elsewhere
from litsexp.study.forecast import Forecast, forecast
from litsexp.study.gpu_room import runs_left
from litsexp.study.keeping import KeepWeights, check_choice, keeper
from litsexp.study.pilot import finished_cells
from litsexp.study.places import Places
from litsexp.study.preflight import check_needs
from litsexp.study.rehearsal import kind_of as kind_of_run
from litsexp.study.rehearsal import rehearse
from litsexp.study.results import Results
from litsexp.study.session import Session

SECOND_SEED = "its finished runs have one seed; run a second one, or give --noise"
NOT_PLANNED = "power is planned for scores of test patients and their interactions; this claim is about something else"
SOON_STEPS = 500  # fewer than this many optimiser steps are not worth a rehearsal
NOTHING_KNOWN = "how runs and patients vary is not known; give --noise, or run two seeds of it as a pilot"


@dataclass(frozen=True)
class ClaimPlan:
    """What the design could settle of one claim; likely, with lucky and with unlucky noise."""

    claim: Claim
    design: Design
    noises: tuple[Noise, Noise, Noise] | None  # None: not known
    source: str  # of the noise, or why it is not known
    powers: tuple[Power, Power, Power] | None
    needed: Needs | None


@dataclass(frozen=True)
class Plan:
    """A study before it runs."""

    name: str
    cells: int
    done: int  # of them, in MLflow
    forecast: Forecast | None  # of the others; None: not asked for
    claims: tuple[ClaimPlan, ...]


def plan_study(
    study: StudyConfig,
    places: Places,
    name: str,
    *,
    executor: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    noise: Noise | None = None,
    hours: bool = True,
    keep_weights: KeepWeights = "all",
) -> Plan:
    """Count, rehearse, and read the pilot; leaves nothing but the slice store.

    Args:
        study: to be planned.
        places: where its runs would go, and where those of a pilot are.
        name: of the MLflow experiment.
        executor: where cells would run, as are ``workers`` and ``threads``.
        workers: runs at a time.
        threads: of a run.
        noise: of the claims' differences, in units of their measure; default: what the finished runs show.
        hours: whether to rehearse.
        keep_weights: which runs would keep them, for the disk.

    Raises:
        LitsexpError: what would refuse the study itself; a noise for claims of several units.
    """
    check_choice(keep_weights, study)
    units = {measure_of(claim.metric).unit for claim in study.claims if kind_of(claim).planned}
    if noise is not None and len(units) > 1:
        raise LitsexpError(f"--noise: found claims in several units ({sorted(units)}); expected one; leave --noise out")
    store = store_of(study.data, places.stores, bar=progress_bar)
    external = store_of(study.external_data, places.stores, bar=progress_bar) if study.external_data else None
    check_external(store, external)
    splits = make_splits(store.has_tumor, study.split)
    asked = cells(study)[:1] * study.search.trials if study.search else cells(study)
    done, results = ([], None) if study.search else finished_cells(name, study, store, places)
    left = [cell for cell in asked if cell not in done]
    expected = None
    if hours and left:
        keeps = keeper(keep_weights, study)
        check_needs(left, store, places, keeps)
        at_a_time = runs_at_a_time(executor, workers)
        runs = [cell.arm.run for cell in left]
        valid = max(len(store.rows_of(split.valid)) for split in splits)
        with progress_bar("rehearsed runs") as advance:
            run = executor_of(executor, workers, threads)
            paces = rehearse(runs, store, valid, external is not None, run, min(at_a_time, len(left)), advance)
        expected = forecast(left, paces, store, splits, external, at_a_time, keeps, "train" in study.needs)
    patients = sum(len(split.test) for split in splits)
    claims = tuple(plan_claim(study, claim, patients, noise, done, results) for claim in study.claims)
    return Plan(name, len(asked), len(asked) - len(left), expected, claims)


def minutes_ahead(
    session: Session, executor: str | None, workers: int | None, threads: int | None
) -> tuple[float, str] | None:
    """Minutes that an open study's missing runs will take, and how that is known; None where they are soon done.

    By the finished runs, or else by a rehearsal of the first arm; None, too, where this machine cannot rehearse.
    """
    study, finished, left = session.study, session.tracking.finished(), runs_left(session)
    at_a_time = min(runs_at_a_time(executor, workers), max(1, len(left)))
    if sum(_steps(cell, session) for cell in left) < SOON_STEPS:
        return None
    known = [run.data.metrics for key, run in finished.items() if key in session.cells]
    spent = [m["time/fit_s"] + m["time/evaluation_s"] for m in known if {"time/fit_s", "time/evaluation_s"} <= m.keys()]
    if spent:
        return len(left) * fmean(spent) / at_a_time / 60, f"as the {len(spent)} finished runs took"
    if runs_elsewhere(executor):
        return None
    check_needs(left, session.store, session.places, session.keeps)
    valid = max(len(session.store.rows_of(split.valid)) for split in session.splits)
    first, others = [left[0].arm.run], session.external is not None
    with progress_bar("rehearsing the first arm") as advance:
        run = executor_of(executor, workers, threads)
        paces = rehearse(first, session.store, valid, others, run, at_a_time, advance)
    of_first = dict.fromkeys((kind_of_run(cell.arm.run) for cell in left), next(iter(paces.values())))
    asked = (session.store, session.splits, session.external, at_a_time, session.keeps, "train" in study.needs)
    return forecast(left, of_first, *asked).wall_s / 60, "if every arm takes as long as the first, just rehearsed"


def _steps(cell: Cell, session: Session) -> int:
    """Optimiser steps of a run."""
    run = cell.arm.run
    slices = len(session.store.rows_of(session.splits[cell.fold].train))
    return run.epochs * (run.steps_per_epoch or max(1, round(run.train_fraction * slices) // run.batch_size))


def plan_claim(
    study: StudyConfig,
    claim: Claim,
    patients: int,
    noise: Noise | None,
    done: Sequence[Cell],
    results: Results | None,
) -> ClaimPlan:
    """Power and needs of one claim in the study's design, from a noise that is given or that its pilot shows."""
    arms = contexts(study, claim)
    whole = Design(patients, study.split.n_folds, len(study.seeds), len(arms))
    if not (asked := kind_of(claim)).planned:
        return ClaimPlan(claim, whole, None, NOT_PLANNED, None, None)
    if noise is not None:
        return _with_noise(claim, whole, (noise, noise, noise), "--noise", len(study.claims))
    if results is None or not len(results.cases):
        return ClaimPlan(claim, whole, None, NOTHING_KNOWN, None, None)
    measure = measure_of(claim.metric)
    names = tuple(tuple(arm.name for arm in compared) for compared in arms)
    tested = asked.pairs(claim, measure, names, Tables(results.cases))
    pairs = tested.dropna(ignore_index=True)
    if not len(pairs):
        return ClaimPlan(claim, whole, None, f"no finished pair of runs has scored {measure.words}", None, None)
    found, pilot = noise_of(pairs)
    if not found.known:
        return ClaimPlan(claim, whole, None, SECOND_SEED, None, None)
    defined = round(patients * pilot.patients / tested["case"].nunique())  # others have nothing to score
    design = Design(defined, whole.folds, whole.seeds, whole.contexts)
    source = f"{pilot.patients} patients, {pilot.folds} folds, {pilot.seeds} seeds"
    return _with_noise(claim, design, ranged(found), source, len(study.claims))


def _with_noise(
    claim: Claim, design: Design, noises: tuple[Noise, Noise, Noise], source: str, claims: int
) -> ClaimPlan:
    likely, lucky, unlucky = (power_of(noise, design, claim.margin, claims) for noise in noises)
    needed = needs(noises, design, claim.margin, claims)
    return ClaimPlan(claim, design, noises, source, (likely, lucky, unlucky), needed)
