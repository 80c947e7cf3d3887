"""What holds on the external cohort: each claim's verdict there beside the one here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from litsexp.evidence.judge import Verdict
from litsexp.evidence.kinds import RUN_PAIR
from litsexp.evidence.words import enough_digits, interval, patients, run_pairs


@dataclass(frozen=True)
class Replication:
    """One claim on both cohorts, by the same runs. There every run meets every patient.

    Both intervals cover new patients and new runs: that all patients there share their runs is part of it.
    """

    here: Verdict
    there: Verdict
    agreeing: int  # pairs of runs there whose mean difference has the sign of the effect there

    @property
    def holds(self) -> str:
        """``holds`` where both verdicts are the same, else ``does not hold``; ``open`` where one is inconclusive."""
        if "inconclusive" in (self.here.verdict, self.there.verdict):
            return "open"
        return "holds" if self.here.verdict == self.there.verdict else "does not hold"

    @property
    def numbers(self) -> str:
        """``+0.08 [0.03, 0.12] on 11 external patients and 9 pairs of runs``; empty without patients."""
        there = self.there
        if not there.n_patients:
            return ""
        shown = [x for x in (there.effect, there.low, there.high) if not math.isnan(x)]
        digits = enough_digits(there.claim.margin, *shown)
        effect = f"{there.effect:+z.{digits}f}{there.measure.per}{interval(there.low, there.high, digits)}"
        return f"{effect} on {patients(there.n_patients, there.kind)} and {run_pairs(there.n_run_pairs)}"

    @property
    def words(self) -> str:
        """The numbers, and what they mean for the verdict here."""
        if not self.there.n_patients:
            return f"could not be compared there; {self.there.reason}"
        here, there = self.here.verdict, self.there.verdict
        if here == there:
            ruling = f"{there} there too"
        elif there == "inconclusive":
            ruling = f"{here} here, inconclusive there" + (f" ({self.there.reason})" if self.there.reason else "")
        else:
            ruling = f"{there} there, {here} here"
        if not {here, there} & {"supported", "contradicted"}:  # neither verdict is about a direction
            return f"{self.numbers}: {ruling}"
        if self.here.n_patients:
            same = self.here.effect * self.there.effect > 0
            ruling = f"{'same' if same else 'not the same'} direction, {ruling}"
        return f"{self.numbers}: {ruling}; {self.agreeing} of {self.there.n_run_pairs} pairs have this sign"


def replications(here: Sequence[Verdict], there: Sequence[Verdict]) -> list[Replication]:
    """Both verdicts of each claim that can be asked of another cohort, in the study file's order.

    ValueError where the two are not of the same claims.
    """
    here = [verdict for verdict in here if verdict.asked.portable]
    if [verdict.claim.id for verdict in here] != [verdict.claim.id for verdict in there]:
        raise ValueError(
            f"{len(here)} verdicts here and {len(there)} there; expected the same claims in the same order"
        )
    return [Replication(a, b, _agreeing(b)) for a, b in zip(here, there, strict=True)]


def _agreeing(verdict: Verdict) -> int:
    """How many of the verdict's pairs of runs have the sign of its effect."""
    difference = verdict.pairs["better"] - verdict.pairs["than"]
    means = difference.groupby([verdict.pairs[name] for name in RUN_PAIR]).mean()
    return int((means * verdict.effect > 0).sum())
