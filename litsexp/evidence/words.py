"""Verdicts in sentences: what changed, by how much, on how many patients, and what to know before believing it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from litsexp.spec.design import format_level

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.evidence.judge import Verdict

FAILING = 0.1  # share below which an arm does not segment


def sentence(verdict: Verdict) -> str:
    """``init=imagenet raised tumor Dice by 0.10 [0.08, 0.12] over init=scratch on 20 patients (...): supported.``"""
    better, than = verdict.comparison
    measure = verdict.measure
    if not verdict.n_patients:
        return f"{better} and {than} could not be compared in {measure.words}: inconclusive; {verdict.reason}."
    low, high, effect, what = verdict.low, verdict.high, verdict.effect, _what_it_did(verdict)
    if what == "lowered":
        low, high, effect = -high, -low, -effect
    shown = (low,) if what != "changed" else (effect, low, high)  # an interval that excludes 0 should be seen to
    digits = enough_digits(verdict.claim.margin, *shown)
    where = ", ".join(f"{name}={format_level(level)}" for name, level in verdict.claim.where.items())
    p = "p < 0.001" if verdict.p_adjusted < 0.001 else f"p = {verdict.p_adjusted:.3f}"
    return (
        f"{better} {what} {measure.words} by {plain(effect, digits)}{measure.per}{interval(low, high, digits)} "
        f"{'over' if what == 'raised' else 'against'} {than}{where and f' where {where}'} "
        f"on {patients(verdict.n_patients, verdict.kind)} (adjusted {p}): {_conclusion(verdict)}."
    )


def _what_it_did(verdict: Verdict) -> str:
    """``raised`` or ``lowered`` where the verdict has a direction, whichever of the two is better."""
    direction = {"supported": 1, "contradicted": -1}.get(verdict.verdict, 0) * verdict.measure.sign
    return {1: "raised", -1: "lowered"}.get(direction, "changed")


def _conclusion(verdict: Verdict) -> str:
    margin = f"{verdict.claim.margin:g}{verdict.measure.per}"
    if verdict.verdict in ("supported", "contradicted"):
        beyond = "substantially" if verdict.substantial else f"though by no more than the margin of {margin}"
        return f"{verdict.verdict}, {beyond}"
    if verdict.verdict == "equivalent":
        return f"equivalent within {margin}"
    if verdict.reason:
        return f"inconclusive; {verdict.reason}"
    return f"inconclusive; {verdict.advice}" if verdict.advice else "inconclusive"


def too_few(verdict: Verdict, patients_needed: int, run_pairs_needed: int) -> str:
    """Why a claim cannot be settled whatever the numbers are; empty where there is enough of both."""
    if verdict.n_patients < patients_needed:
        few = f"{patients(verdict.n_patients, verdict.kind)} cannot settle a claim"
        return f"{few}, at least {patients_needed} are needed"
    if verdict.n_run_pairs < run_pairs_needed:
        few = f"{run_pairs(verdict.n_run_pairs)} cannot settle a claim about training"
        return f"{few}; at least {run_pairs_needed} are needed"
    return ""


def cautions(verdict: Verdict, trivial: pd.DataFrame) -> list[str]:
    """What a reader should know before believing the verdict; ``trivial`` holds what no learning scores."""
    measure = verdict.measure
    found = _beaten_by_nothing(verdict, trivial) if verdict.n_patients else []
    if measure.higher_is_better and not measure.unit and max(verdict.better_mean, verdict.than_mean) < FAILING:
        found.append(f"Both arms stay below {FAILING:g}: two models that hardly segment are compared.")
    if verdict.n_undefined:
        undefined = f"whose {measure.words} is undefined ({measure.undefined})"
        found.append(f"Left out: {patients(verdict.n_undefined)} {undefined}.")
    if verdict.n_missing:
        found.append(f"Missing: {patients(verdict.n_missing)} without a finished run in each arm.")
    if len(verdict.arms) > 1:
        found.append(f"Averaged over {len(verdict.arms)} pairs of arms that differ in {verdict.claim.factor} alone.")
    return found


def _beaten_by_nothing(verdict: Verdict, trivial: pd.DataFrame) -> list[str]:
    """The trivial predictors that serve the same patients at least as well as either arm."""
    measure = verdict.measure
    if not measure.scored(trivial):
        return []
    same = trivial[trivial["case"].isin(verdict.differences.index)]
    means = same.assign(value=measure.values(same)).groupby("predictor")["value"].mean()
    best, found = max(measure.sign * mean for mean in (verdict.better_mean, verdict.than_mean)), []
    for name, mean in means.items():
        if measure.sign * mean >= best and (mean > 0 or not measure.higher_is_better):  # 0 of a share beats nobody
            score = f"{mean:.2f}{measure.per} in {measure.words}"
            found.append(f"Neither arm beats “{name}”, which scores {score} and learns nothing.")
    return found


def patients(number: int, kind: str = "") -> str:
    """``1 patient``, ``12 external phantom patients``."""
    return f"{number} {kind}{' ' * bool(kind)}patient{'s' * (number != 1)}"


def run_pairs(number: int) -> str:
    """``1 pair of runs``, ``9 pairs of runs``."""
    return f"{number} pair{'s' * (number != 1)} of runs"


def digits_for(margin: float) -> int:
    """Decimals that show a margin: 2 for 0.02, 3 for 0.005."""
    return min(6, max(2, -math.floor(math.log10(margin)))) if margin > 0 else 3


def enough_digits(margin: float, *shown: float) -> int:
    """Decimals that show the margin, and more where all of these numbers would look like 0 though one is not."""
    digits = digits_for(margin)
    while digits < 6 and any(shown) and all(float(plain(value, digits)) == 0 for value in shown):
        digits += 1
    return digits


def plain(value: float, digits: int) -> str:
    """Fixed decimals, without a minus before zero."""
    return f"{value:z.{digits}f}"


def interval(low: float, high: float, digits: int) -> str:
    """`` [0.08, 0.12]``, as it follows a number; empty where there is none."""
    return "" if math.isnan(low) else f" [{plain(low, digits)}, {plain(high, digits)}]"
