"""What a study's end says on the terminal: the verdicts as a table and in sentences, or a search's best trials."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from litsexp.display import console, say
from litsexp.evidence.failed import reasons
from litsexp.evidence.tables import best_trials
from litsexp.evidence.words import COVERED, MODELS, named, noise

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.evidence.material import Evidence
    from litsexp.pipeline import Conclusion

BADGES = {"supported": "green", "contradicted": "red", "equivalent": "blue", "inconclusive": "yellow"}
BEST = 5  # trials of a search
TITLES = {"trial": "trial", "valid/score": "validation\nscore"}
ENDED = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}


def pace(conclusion: Conclusion) -> str:
    """How long this session took, beside what its runs needed."""
    runs, needed_s, wall_s = len(conclusion.trained_s), sum(conclusion.trained_s), conclusion.wall_s
    minutes = f"{wall_s / 60:.1f} min for {runs} runs of {needed_s / 60:.1f} min together"
    return f"time:   {minutes} (fit and evaluation): wall time is {wall_s / needed_s:.2f} of their sum"


def show(evidence: Evidence) -> None:
    """The verdict table and the same in words; below it, what holds on an external cohort."""
    say(f"\n{evidence.study.question}", style="bold")
    if evidence.warning:
        say(evidence.warning, style="magenta")
    if evidence.leak_warning:
        say(evidence.leak_warning, style="red")
    if evidence.search is not None:
        _tell_search(evidence.search)
    elif evidence.verdicts:
        console.print(_verdicts(evidence))
        say(f"95 % interval: {COVERED}; these models: {MODELS}.", style="dim")
    else:
        console.print("This study file makes no claims.")
    for v in evidence.verdicts:
        say(f"{v.claim.id}: {v.sentence}")
    for line in _training(evidence):
        say(line)
    if evidence.external:
        say(f"\nOn the external cohort ({evidence.external.cohort}), from which nothing was learned:", style="bold")
        for pair in evidence.replications:
            say(f"{pair.here.claim.id}: {pair.words}")


def _tell_search(trials: pd.DataFrame) -> None:
    """The best finished trials, and how the others ended."""
    best = best_trials(trials, BEST)
    states = trials["state"].value_counts().to_dict() if len(trials) else {}
    counted = ", ".join(f"{states[name]} {word}" for name, word in ENDED.items() if name in states)
    say(f"{len(trials)} trials: {counted or 'none finished'}; a search is exploratory and tests no claim")
    if not len(best):
        return
    table = Table(box=None, pad_edge=False)
    for name in best.columns:
        table.add_column(TITLES.get(name, escape(name)), justify="left" if best[name].dtype == object else "right")
    for row in best.itertuples(index=False):
        table.add_row(*(_short(value) for value in row))
    console.print(table)
    say("Put what it suggests into a fixed design, with a claim, before believing it.", style="dim")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _verdicts(evidence: Evidence) -> Table:
    """A row a claim, in 100 columns; in fewer, without the interval of these models, so that no verdict is cut."""
    wide = console.width >= 100
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("phantom claim" if evidence.phantom else "claim", no_wrap=True)
    names = ["effect", "95 % interval", *["these models"] * wide, "from\nruns", "adj. p", "n", "run\npairs"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=len("inconclusive"), overflow="fold")  # never cut, however narrow
    for v in evidence.verdicts:
        ruling = f"[{BADGES[v.verdict]}]{v.verdict}[/]" + (", substantially" if v.substantial else "")
        runs = "–" if math.isnan(v.runs_share) else f"{100 * v.runs_share:.0f} %"
        intervals = [_interval(v.low, v.high), *[_interval(v.models_low, v.models_high)] * wide]
        effect = "–" if math.isnan(v.effect) else f"{v.effect:+.3f}"
        numbers = [effect, *intervals, runs, f"{v.p_adjusted:.3g}", str(v.n_patients), str(v.n_run_pairs)]
        table.add_row(
            escape(v.claim.id), *numbers, ruling + " (leaking)" * bool(v.leaking) + " (post hoc)" * v.post_hoc
        )
    return table


def _interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) else escape(f"[{low:.3f}, {high:.3f}]")


def _training(evidence: Evidence) -> list[str]:
    """How noisy training is, in the claims' measures or else the first, and which runs failed to learn."""
    asked = {verdict.claim.metric for verdict in evidence.verdicts} or {each.metric for each in evidence.noise[:1]}
    found = [f"noise: {noise(each)}" for each in evidence.noise if each.metric in asked]
    if not evidence.noise and evidence.search is None:
        found.append("noise: not known, as no fold has two finished runs of the first arm; run a second seed")
    why = reasons(evidence.failed)
    if why:
        runs = named([f"{arm}, fold {fold}, seed {seed} ({said})" for (arm, fold, seed), said in why.items()])
        found.append(f"failed to learn: {len(why)} run{'s' * (len(why) != 1)}: {runs}")
    return found
