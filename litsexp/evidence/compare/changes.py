"""What changed in one arm's scores, or in one claim's effect, from study A to study B: always B minus A."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from litsexp.evidence import stats
from litsexp.evidence.compare.sides import Pairing, Side, both
from litsexp.evidence.judge import ALPHA, MIN_PATIENTS, MIN_RUN_PAIRS, Verdict
from litsexp.evidence.kinds import Kind, Tables, kind_of
from litsexp.evidence.kinds.kind import CELL_CASE, SIDES, runs_of
from litsexp.evidence.measures import Measured, main_metrics, measure_of
from litsexp.evidence.words import digits_for, interval, patients, run_pairs
from litsexp.spec.claim import ARM, SHARE, Claim
from litsexp.spec.tables import argument_of

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["identical", "same", "better", "worse", "unclear"]
ALONE = ("score", "native")  # kinds of which one study has a number by itself, without a partner
UNPAIRED = "cannot be compared without pairs of runs"
NOTHING = stats.Difference(*[math.nan] * 4)


class About(NamedTuple):
    """What a row is about: the first fields of a ``Change``."""

    what: str
    measure: Measured
    margin: float


@dataclass(frozen=True)
class Change:
    """B minus A in one measure, of one arm or of one claim's effect; in the measure's units, its sign kept."""

    what: str  # the arm's name, or the claim's id
    measure: Measured
    margin: float  # the smallest difference that matters
    a: float  # mean over the patients that are compared, or the effect
    b: float
    effect: float
    low: float  # 95 % interval: new patients and new runs
    high: float
    p: float  # two-sided, of that interval
    n_patients: int
    n_runs: int  # pairs of runs; unpaired: the runs of the side that has fewer
    paired: bool
    identical: bool = False  # every paired number is bitwise the same
    reason: str = ""  # why nothing can be said
    p_adjusted: float = math.nan  # Holm, over all rows that differ at all
    verdict: Outcome = "unclear"

    @property
    def substantial(self) -> bool:
        """Whether it has a direction and the effect itself, not all of its interval, is beyond the margin."""
        return self.verdict in ("better", "worse") and abs(self.effect) > self.margin

    @property
    def found(self) -> str:
        """``-0.021 [-0.034, -0.008]``; empty where there is none."""
        if math.isnan(self.effect):
            return ""
        digits = digits_for(self.margin) + 1
        return f"{self.effect:+z.{digits}f}{self.measure.per}{interval(self.low, self.high, digits)}"

    @property
    def words(self) -> str:
        """``changed: worse, beyond the margin of 0.02``, and why where it is unclear."""
        margin = f"the margin of {self.margin:g}{self.measure.per}"
        if self.verdict in ("better", "worse"):
            return f"changed: {self.verdict}, {'beyond' if self.substantial else 'though by no more than'} {margin}"
        if self.verdict == "same":
            return f"same, within {margin}"
        return f"unclear; {self.reason}" if self.reason else self.verdict


def arm_changes(a: Side, b: Side, pairing: Pairing, margin: float) -> list[Change]:
    """A row an arm that both have and a measure that both have scored, not yet ruled upon.

    The measures are the main metrics and those of the claims; of a claim's the margin is the claim's (the smallest of
    several), of any other ``margin``.
    """
    tables, names = both(a, b), [name for name in a.arm_names if name in b.arm_names]
    asked = [_asked(name, *key, least) for name in names for key, least in margins(a, b, margin).items()]
    found = [_arm_change(claim, a, b, tables, pairing) for claim in asked]
    return [change for change in found if change is not None]


def margins(a: Side, b: Side, margin: float) -> dict[tuple[str, float], float]:
    """(metric, share) of every measure -> the margin that it is judged by."""
    found = {(metric, SHARE): math.inf for metric in main_metrics()}
    for claim in (*a.study.claims, *b.study.claims):
        key = (claim.metric, claim.share)
        found[key] = min(found.get(key, math.inf), claim.margin)
    return {key: margin if math.isinf(least) else least for key, least in found.items()}


def claim_change(then: Verdict, now: Verdict, pairing: Pairing) -> Change:
    """The difference of a claim's two effects, not yet ruled upon; above 0 (in the measure's sign) it has grown."""
    about = About(now.claim.id, now.measure, now.claim.margin)
    if pairing.paired and then.arms == now.arms:
        merged = _merged(then, now)
        equal = len(merged) > 0 and bool((merged["better"] == merged["than"]).all()) and _same_pairs(then, now)
        return _of_pairs(now.asked, merged, about, equal)
    lost = "" if then.n_patients and now.n_patients else "one study has nothing to compare"
    here, there = (verdict.asked.estimate(verdict.pairs, 1 - ALPHA) for verdict in (now, then))
    found = stats.unpaired(here, there, 1 - ALPHA)
    numbers = min(then.n_patients, now.n_patients), min(then.n_run_pairs, now.n_run_pairs)
    return Change(*about, then.effect, now.effect, *found, *numbers, paired=False, reason=lost)


def ruled(changes: Sequence[Change]) -> list[Change]:
    """Every row with its verdict, in the order given; p are adjusted (Holm) over all rows that are not identical.

    ``identical``: every number is bitwise the same; ``same``: the interval lies within the margin; ``better`` or
    ``worse``: the adjusted p is below 0.05; else ``unclear``, and always with fewer than 6 patients or 5 pairs of runs.
    """
    tested = [change for change in changes if not change.identical]
    adjusted = iter(stats.holm([1.0 if math.isnan(change.p) else change.p for change in tested]))
    return [_rule(change, 1.0 if change.identical else next(adjusted)) for change in changes]


def _rule(change: Change, p: float) -> Change:
    known = replace(change, p_adjusted=p)
    if change.identical:
        return replace(known, verdict="identical")
    if change.reason or (reason := _too_few(change)):
        return replace(known, reason=change.reason or reason)
    if -change.margin < change.low and change.high < change.margin:
        return replace(known, verdict="same")
    if p < ALPHA:
        return replace(known, verdict="better" if change.effect * change.measure.sign > 0 else "worse")
    return known


def _too_few(change: Change) -> str:
    if change.n_patients < MIN_PATIENTS:
        return f"{patients(change.n_patients)} cannot settle it, at least {MIN_PATIENTS} are needed"
    if change.n_runs < MIN_RUN_PAIRS:
        few = run_pairs(change.n_runs) if change.paired else f"{change.n_runs} run{'s' * (change.n_runs != 1)} a study"
        return f"{few} cannot settle it; at least {MIN_RUN_PAIRS} are needed"
    return ""


def _asked(arm: str, metric: str, share: float, margin: float) -> Claim:
    """That the arm is better in B than in A."""
    sides: dict[str, str] = {"better": f"B: {arm}", "than": f"A: {arm}"}
    return Claim(id="change", says="B is better.", metric=metric, factor=ARM, **sides, margin=margin, share=share)


def _arm_change(asked: Claim, a: Side, b: Side, tables: Tables, pairing: Pairing) -> Change | None:
    """One row; None where either study has not scored the measure at all."""
    kind, measure = kind_of(asked), measure_of(asked.metric, asked.share)
    if not all(kind.scored(asked, measure, side.tables) for side in (a, b)):
        return None
    names = (str(asked.better), str(asked.than))
    about = About(names[0].removeprefix("B: "), measure, asked.margin)
    if not pairing.paired:
        return _of_two(kind, tables, names, about)
    tested = kind.pairs(asked, measure, (names,), tables)
    equal = len(tested) > 0 and bool(((tested["better"] == tested["than"]) | tested[SIDES].isna().all(axis=1)).all())
    return _of_pairs(kind, tested.dropna(subset=SIDES, ignore_index=True), about, equal)


def _of_pairs(kind: Kind, pairs: pd.DataFrame, about: About, equal: bool) -> Change:
    """From a table like that of ``Kind.pairs``: ``better`` is B's, ``than`` is A's."""
    if not len(pairs):
        reason = "" if equal else "the two studies have no finished run and defined score in common"
        return Change(*about, math.nan, math.nan, *NOTHING, 0, 0, paired=True, identical=equal, reason=reason)
    found, (mean_b, mean_a) = kind.estimate(pairs, 1 - ALPHA), kind.means(pairs)
    difference = stats.Difference(float(found.effect), float(found.low), float(found.high), float(found.p))
    counted = kind.number(pairs), int(runs_of(pairs).nunique())
    return Change(*about, mean_a, mean_b, *difference, *counted, paired=True, identical=equal)


def _of_two(kind: Kind, tables: Tables, names: Sequence[str], about: About) -> Change:
    """Of two groups of patients and runs; ``names``: of the arm in B, and in A."""
    if kind.name not in ALONE:
        return Change(*about, math.nan, math.nan, *NOTHING, 0, 0, paired=False, reason=UNPAIRED)
    base = measure_of(argument_of(about.measure.name)) if kind.name == "native" else about.measure
    table = kind.table(tables)
    scored = table.assign(value=base.values(table)).dropna(subset=["value"])
    sides = [scored[scored["arm"] == name] for name in names]
    if not all(len(side) for side in sides):
        reason = "one study has no finished run of it with a score"
        return Change(*about, math.nan, math.nan, *NOTHING, 0, 0, paired=False, reason=reason)
    runs = [side.groupby(CELL_CASE[:2]).ngroup() for side in sides]
    here, there = (
        stats.paired(side["value"], side["case"], run, 1 - ALPHA) for side, run in zip(sides, runs, strict=True)
    )
    counted = min(side["case"].nunique() for side in sides), min(run.nunique() for run in runs)
    means = float(there.effect), float(here.effect)
    return Change(*about, *means, *stats.unpaired(here, there, 1 - ALPHA), *counted, paired=False)


def _keys(pairs: pd.DataFrame) -> list[str]:
    return [name for name in ("context", *CELL_CASE, "trained") if name in pairs]


def _merged(then: Verdict, now: Verdict) -> pd.DataFrame:
    """A row a patient and pair of runs of both studies: ``better`` is the difference now, ``than`` that of then."""
    keys, gains = _keys(now.pairs), []
    for verdict in (now, then):
        table = verdict.pairs
        gains.append(table.assign(gain=table["better"] - table["than"])[[*keys, "gain"]])
    both_gains = gains[0].merge(gains[1], on=keys, suffixes=("_now", "_then"))
    return both_gains.rename(columns={"gain_now": "better", "gain_then": "than"})


def _same_pairs(then: Verdict, now: Verdict) -> bool:
    """Whether the two studies compare the same numbers, bitwise."""
    tables = [
        verdict.pairs[[*_keys(verdict.pairs), *SIDES]].sort_values(_keys(verdict.pairs), ignore_index=True)
        for verdict in (then, now)
    ]
    return tables[0].equals(tables[1])
