"""What a study is about to do, told before anything is trained: arms, runs, patients, claims, time, places."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from litsexp.display import console, duration, say
from litsexp.plan import minutes_ahead
from litsexp.spec.design import arms
from litsexp.study.cohorts import cohort_name
from litsexp.study.executors import runs_at_a_time, runs_elsewhere
from litsexp.study.session import Session

SHOWN_ARMS = 12


def tell_outset(session: Session, executor: str | None, workers: int | None, threads: int | None, mlruns: Path) -> None:
    """Print it, the time last: where no run has finished yet it takes a rehearsal of the first arm."""
    study, finished = session.study, session.tracking.finished()
    done = sum(key in finished for key in session.cells)
    left = (study.search.trials if study.search else len(session.cells)) - done
    say(study.question, style="bold")
    for name, words in _lines(session, done, mlruns):
        _tell(name, words)
    if left <= 0:
        return
    found = minutes_ahead(session, executor, workers, threads)
    at_a_time = runs_at_a_time(executor, workers)
    pace = f", {min(at_a_time, left)} at a time" if left > 1 else ""
    unknown = "known when the first runs have ended" if runs_elsewhere(executor) else "soon done"
    how = f"about {duration(60 * found[0])}{pace} ({found[1]})" if found else f"{unknown}{pace}"
    _tell("time", f"{how}; Ctrl-C stops it, the same command goes on")


def _tell(name: str, words: str) -> None:
    console.print(f"[dim]{name:<10}[/]{escape(words)}", highlight=False, soft_wrap=True)


def _lines(session: Session, done: int, mlruns: Path) -> list[tuple[str, str]]:
    study, run = session.study, session.study.run
    steps = f" of {_count(run.steps_per_epoch, 'step')}" if run.steps_per_epoch else ""
    each = f"{_count(run.epochs, 'epoch')}{steps} of {run.batch_size} slices of {session.store.size} px"
    if study.search:
        runs = f"{study.search.trials} trials of one fold and seed, up to {each}"
        names = f"drawn from {', '.join(study.factors)} and lr" if study.factors else "drawn from lr"
    else:
        made = [_count(len(arms(study)), "arm"), _count(study.split.n_folds, "fold"), _count(len(study.seeds), "seed")]
        runs = f"{len(session.cells)} = {' × '.join(made)}, each {each}" + (f"; {done} done before" if done else "")
        shown = [arm.name for arm in arms(study)]
        names = ", ".join(shown[:SHOWN_ARMS]) + (f" and {len(shown) - SHOWN_ARMS} more" if shown[SHOWN_ARMS:] else "")
    patients = cohort_name(study.data, session.store)
    if session.external is not None and study.external is not None:
        patients += f"; scored only: {cohort_name(study.external, session.external)}"
    late = [c.id for c in study.claims if session.parent.preregistered.get(c.id) != c.digest]
    when = f"newer than the first run, so post hoc: {', '.join(late)}" if late else "written down before the first run"
    claims = f"{len(study.claims)} ({', '.join(c.id for c in study.claims)}), {when}"
    return [
        ("arms", names),
        ("runs", runs),
        ("patients", patients),
        ("claims", claims if study.claims else "none: a search tests no claim" if study.search else "none"),
        ("results", f"{mlruns} (report, MLflow, Optuna)"),
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
