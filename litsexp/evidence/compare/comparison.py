"""The comparison of two studies: arms, claims, and what a pipeline should make of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from litsexp.evidence.compare.changes import Change, arm_changes, claim_change, ruled
from litsexp.evidence.compare.sides import Pairing, Side, differences, notes, paired_sides, same_question
from litsexp.evidence.judge import Verdict, judge
from litsexp.evidence.leaks import marked
from litsexp.spec.claim import ARM, TRIVIAL, Claim
from litsexp.spec.errors import LitsexpError

if TYPE_CHECKING:
    import pandas as pd

MARGIN = 0.02  # of measures that no claim has a margin for
RANK = {"contradicted": 0, "inconclusive": 1, "equivalent": 1, "supported": 2}
EFFECT_WORDS = {"better": "larger", "worse": "smaller"}  # of a claim's effect, towards what it says and away from it
LEARNS_NOTHING = "rulings and effects as they were recorded: the scores of what learns nothing are not kept in MLflow"


@dataclass(frozen=True)
class ClaimChange:
    """One claim then (A) and now (B); both are judged by this litsexp."""

    claim: Claim
    then: str  # ruling in A; empty where A does not have the claim
    now: str
    then_effect: float
    now_effect: float
    change: Change | None  # of the effect; None where it cannot be asked
    note: str = ""  # why it cannot, or what else to know
    same_question: bool = True  # no: the claim asks for something else in B, and what was asked in A is gone

    @property
    def fell(self) -> bool:
        """Whether the ruling is a worse one now."""
        known = bool(self.then and self.now) and self.same_question
        return known and RANK[self.now] < RANK[self.then]

    @property
    def gone(self) -> bool:
        """Whether B has no ruling on what was asked in A."""
        return bool(self.then) and not (self.now and self.same_question)

    @property
    def worse(self) -> bool:
        """Whether that is more than a ruling that chance may have turned: the effect fell, too, or it was reversed."""
        smaller = self.change is not None and self.change.verdict == "worse"
        return self.fell and (smaller or (self.then, self.now) == ("supported", "contradicted"))

    @property
    def words(self) -> str:
        """``supported → inconclusive; effect smaller, beyond the margin of 0.05``."""
        rulings = f"{self.then} → {self.now}" if self.then != self.now else self.now
        if not (self.then and self.now):
            return f"only in {'A' if self.then else 'B'}: {self.then or self.now}"
        if self.change is None:
            return rulings
        told = self.change.words
        for word, of_effect in EFFECT_WORDS.items():
            told = told.replace(f"changed: {word}", of_effect)
        return f"{rulings}; effect {told}"


@dataclass(frozen=True)
class Comparison:
    """Two studies side by side: all that a report of it shows. B is read against A."""

    a: Side
    b: Side
    pairing: Pairing
    differences: pd.DataFrame  # about, what, a, b
    arms: Sequence[Change]
    claims: Sequence[ClaimChange]
    notes: Sequence[str]

    @property
    def phantom(self) -> bool:
        """Whether patients of either are synthetic, which has to be said wherever a result is shown."""
        return self.a.phantom or self.b.phantom

    @property
    def cohort(self) -> str:
        """Of both, where they differ."""
        return " against ".join(dict.fromkeys([self.a.cohort, self.b.cohort]))

    @property
    def worse(self) -> list[str]:
        """What got worse, and should stop a pipeline: a score beyond its margin, or a claim."""
        scores = [f"{_row(c)}: {c.found}" for c in self.arms if c.verdict == "worse" and c.substantial]
        return scores + [f"{claim.claim.id}: {claim.words}" for claim in self.claims if claim.worse]

    @property
    def unclear(self) -> list[str]:
        """What is not shown to be as good as before: unclear, a little worse, a ruling that fell, what is gone."""
        scores = [_row(c) for c in self.arms if c.verdict == "unclear" or (c.verdict == "worse" and not c.substantial)]
        scores += [f"arm {name}" for name in self.a.arm_names if name not in self.b.arm_names]
        claims = [c.claim.id for c in self.claims if not c.worse and (c.fell or c.gone or _unclear(c.change))]
        return scores + [f"claim {name}" for name in claims]

    def exit_code(self, strict: bool = False) -> int:
        """1 where something got worse (``strict``: or is unclear), else 0."""
        return int(bool(self.worse or (strict and self.unclear)))

    @property
    def conclusion(self) -> str:
        """In one line."""
        if self.worse:
            return f"{len(self.worse)} got worse: {'; '.join(self.worse)}"
        rows = [*self.arms, *(claim.change for claim in self.claims if claim.change)]
        if rows and all(row.identical for row in rows):
            return "Identical: every score of every pair of runs is bitwise the same."
        number = len(self.unclear)
        return "Nothing got worse" + (f"; {number} {'are' if number != 1 else 'is'} unclear." if number else ".")


def compare(a: Side, b: Side, margin: float = MARGIN) -> Comparison:
    """B against A, every arm and claim that both have; all p adjusted together (Holm).

    ``margin``: the smallest difference that matters in measures that no claim has a margin for.

    Raises:
        LitsexpError: there is nothing that both have.
    """
    pairing, renamed = paired_sides(a, b)
    arms = arm_changes(a, renamed, pairing, margin)
    if not arms:
        found = f"arms {', '.join(a.arm_names)} in A ({a.name}) and {', '.join(b.arm_names)} in B ({b.name})"
        raise LitsexpError(f"--compare: found {found}; expected an arm with finished runs in both; name other studies")
    claims = list(_claim_changes(a, renamed, pairing))
    changes = ruled([*arms, *(claim.change for claim in claims if claim.change)])
    arms, rest = changes[: len(arms)], iter(changes[len(arms) :])
    claims = [replace(claim, change=next(rest)) if claim.change else claim for claim in claims]
    return Comparison(a, b, pairing, differences(a, b), arms, claims, notes(a, b))


def _row(change: Change) -> str:
    return f"{change.what}, {change.measure.words}"


def _unclear(change: Change | None) -> bool:
    return change is not None and change.verdict == "unclear"


def _claim_changes(a: Side, b: Side, pairing: Pairing) -> Iterator[ClaimChange]:
    """Every claim of either, in A's order; changes not yet ruled upon."""
    then, now = (_verdicts(side) for side in (a, b))
    claims = {claim.id: claim for claim in (*b.study.claims, *a.study.claims)}
    for name in dict.fromkeys(claim.id for claim in (*a.study.claims, *b.study.claims)):
        one, other, claim = then.get(name), now.get(name), claims[name]
        if claim.factor == ARM and claim.than in TRIVIAL:
            rulings = (side.rulings.get(name, "") for side in (a, b))
            effects = (side.effects.get(name, math.nan) for side in (a, b))
            yield ClaimChange(claim, next(rulings), next(rulings), next(effects), next(effects), None, LEARNS_NOTHING)
        elif one is not None and other is not None:
            same = same_question(one.claim, other.claim)
            change = claim_change(one, other, pairing) if same else None
            note = "" if same else "the claim asks for something else now: its effects cannot be compared"
            said = "; ".join(part for part in (note, *_recorded(a, b, {"A": one, "B": other})) if part)
            yield ClaimChange(claim, one.verdict, other.verdict, one.effect, other.effect, change, said, same)
        elif one is not None:
            yield ClaimChange(claim, one.verdict, "", one.effect, math.nan, None)
        elif other is not None:
            yield ClaimChange(claim, "", other.verdict, math.nan, other.effect, None)


def _verdicts(side: Side) -> Mapping[str, Verdict]:
    found = marked(judge(side.study, side.tables, side.preregistered, kind=side.kind), side.study)
    return {verdict.claim.id: verdict for verdict in found}


def _recorded(a: Side, b: Side, verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    """Where the ruling that was recorded when the study ended is another one."""
    for (mark, verdict), side in zip(verdicts.items(), (a, b), strict=True):
        known = side.rulings.get(verdict.claim.id, verdict.verdict)
        if known != verdict.verdict:
            yield f"recorded in {mark} when it ended: {known}"
