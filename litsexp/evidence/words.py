"""Verdicts in sentences: what changed, by how much, on how many patients, and what to know before believing it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from litsexp.evidence.failed import FAILING, reasons
from litsexp.spec.claim import ARM, Claim
from litsexp.spec.design import format_level

if TYPE_CHECKING:
    import pandas as pd

    from litsexp.evidence.judge import Verdict
    from litsexp.evidence.noise import Noise

COVERED = "new patients and new runs, on these training sets"  # what the interval of a verdict covers
MODELS = "these trained models, new patients"  # and what the other one does
NAMED = 3  # of several things; of more it says how many


def comparison(claim: Claim) -> tuple[str, str]:
    """What a claim compares: ``init=imagenet``, ``init=scratch``; a table's arms by their names.

    Named arms with all settings in which they differ: ``arm ssl (init=ssl:restoration, epochs=6)``.
    """
    if not claim.compares:
        gain, (first, second) = f"gain of {' over '.join(_levels(claim))} with " * bool(claim.grows), sides(claim)
        return gain + first, gain + second
    told = []
    for name in (str(claim.better), str(claim.than)):
        settings = claim.compares[name].items()
        told.append(f"arm {name} ({', '.join(f'{setting}={format_level(level)}' for setting, level in settings)})")
    return told[0], told[1]


def sides(claim: Claim) -> tuple[str, str]:
    """The same in short: named arms by their names; of two gains, where the second and the first are."""
    for factor, (first, then) in claim.grows.items():
        return f"{factor}={format_level(then)}", f"{factor}={format_level(first)}"
    return (str(claim.better), str(claim.than)) if claim.factor == ARM else _levels(claim)


def _levels(claim: Claim) -> tuple[str, str]:
    return f"{claim.factor}={format_level(claim.better)}", f"{claim.factor}={format_level(claim.than)}"


def sentence(verdict: Verdict) -> str:
    """What changed, by how much, on how many patients and pairs of runs, and what follows.

    ``init=imagenet raised tumor Dice by 0.10 [0.08, 0.12] over init=scratch on 20 patients and 9 pairs of runs
    (adjusted p < 0.001): supported, substantially.``
    """
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
    whose = verdict.asked.patients_in_words(verdict) or patients(verdict.n_patients, _whose(verdict))
    found = f"{plain(effect, digits)}{measure.per}{interval(low, high, digits)}"
    thing = f"{'the ' * (not verdict.asked.scores)}{measure.words}"
    did = f"{better} {what} {thing} by {found} {'over' if what == 'raised' else 'against'} {than}"
    if verdict.claim.grows:
        did = _how_it_grew(verdict, digits)
    return (
        f"{did}{where and f' where {where}'} on {whose} and {run_pairs(verdict.n_run_pairs)} (adjusted {p}): "
        f"{_conclusion(verdict)}."
    )


def _how_it_grew(verdict: Verdict, digits: int) -> str:
    """``the gain of init=imagenet over init=scratch in tumor Dice is 0.08 [..] larger with A than with B``."""
    then, first = verdict.sides
    gain = f"the gain of {' over '.join(_levels(verdict.claim))} in {verdict.measure.words}"
    sign = verdict.measure.sign * (-1 if verdict.verdict == "contradicted" else 1)
    low, high = sorted(sign * bound for bound in (verdict.low, verdict.high))
    found = f"{plain(sign * verdict.effect, digits)}{verdict.measure.per}{interval(low, high, digits)}"
    if verdict.verdict in ("supported", "contradicted"):
        size = "larger" if verdict.verdict == "supported" else "smaller"
        return f"{gain} is {found} {size} with {then} than with {first}"
    return f"{gain} changed by {found} from {first} to {then}"


def uncertainty(verdict: Verdict) -> str:
    """What the sentence's interval covers, what limits it, and the interval of these models; as the sentence turns it.

    Empty where no patient could be compared.
    """
    if not verdict.n_patients:
        return ""
    low, high = verdict.models_low, verdict.models_high
    if _what_it_did(verdict) == "lowered":
        low, high = -high, -low
    found = f"The interval covers {COVERED}" if verdict.low == verdict.low else "No interval covers new runs"
    found += f": {limits(verdict)}." if limits(verdict) else "."
    shown = interval(low, high, enough_digits(verdict.claim.margin, low, high)) if low == low else ""
    return f"{found} {MODELS.capitalize()}:{shown}." if shown else found


def limits(verdict: Verdict) -> str:
    """``63 % of its variance comes from runs, 37 % from patients``; empty where there is none."""
    if math.isnan(verdict.runs_share):
        return ""
    runs = round(100 * verdict.runs_share)
    return f"{runs} % of its variance comes from runs, {100 - runs} % from patients"


def named(those: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    more = [f"and {len(those) - NAMED} more"] if len(those) > NAMED else []
    return "; ".join([*those[:NAMED], *more])


def noise(found: Noise) -> str:
    """``two halves of baseline differ by 0.02 in tumor Dice on average, by 0.05 at most``."""
    digits = enough_digits(0.01, found.halves, found.halves_max)
    apart, most = (f"{plain(value, digits)}{found.measure.per}" for value in (found.halves, found.halves_max))
    return f"two halves of {found.arm} differ by {apart} in {found.measure.words} on average, by {most} at most"


def _whose(verdict: Verdict) -> str:
    """What the sentence calls its patients: where every arm leaks, none of them is new to it."""
    return f"already seen {verdict.kind}".strip() if verdict.all_leak else verdict.kind


def _leaks(verdict: Verdict) -> list[str]:
    """Which arms learned from other slices of the tested patients, and what their scores are not."""
    if not verdict.leaking:
        return []
    who = "Both sides" if verdict.all_leak else named(verdict.leaking)
    return [f"{who} learned from other slices of the tested patients: such a score is no estimate for unseen patients."]


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


def cautions(verdict: Verdict, trivial: pd.DataFrame | None = None, failed: pd.DataFrame | None = None) -> list[str]:
    """What a reader should know before believing the verdict.

    ``trivial`` holds what no learning scores, ``failed`` the runs that failed to learn.
    """
    measure, asked = verdict.measure, verdict.asked
    told = verdict.n_patients and asked.scores
    found = _beaten_by_nothing(verdict, trivial) if told and trivial is not None else []
    share = asked.scores and measure.higher_is_better and not measure.unit
    if share and max(verdict.better_mean, verdict.than_mean) < FAILING:
        found.append(f"Both arms stay below {FAILING:g}: two models that hardly segment are compared.")
    if verdict.n_undefined:
        undefined = f"whose {measure.words} is undefined ({asked.undefined or measure.undefined})"
        found.append(f"Left out: {patients(verdict.n_undefined)} {undefined}.")
    if verdict.n_dropped:
        scores = f"{verdict.n_dropped} score{'s' * (verdict.n_dropped != 1)} of the others"
        found.append(f"Left out: {scores}, undefined ({measure.undefined}) in one run of a pair or in both.")
    if verdict.n_missing:
        found.append(f"Missing: {patients(verdict.n_missing)} without a finished run in each arm.")
    if len(verdict.arms) > 1:
        what = "fours of arms" if verdict.claim.grows else "pairs of arms"
        alone = " and ".join([verdict.claim.factor, *verdict.claim.grows])
        found.append(f"Averaged over {len(verdict.arms)} {what} that differ in {alone} alone.")
    found += asked.cautions(verdict)
    return _leaks(verdict) + found + (_failed_runs(verdict, failed) if failed is not None else [])


def _failed_runs(verdict: Verdict, failed: pd.DataFrame) -> list[str]:
    """A sentence an arm of which the verdict counts runs that failed to learn."""
    why, found = reasons(failed), []
    compared = verdict.pairs[["context", "fold", "seed"]].drop_duplicates()
    for arm in dict.fromkeys(name for names in verdict.arms for name in names):
        contexts = [index for index, names in enumerate(verdict.arms) if arm in names]
        cells = compared[compared["context"].isin(contexts)][["fold", "seed"]].drop_duplicates()
        runs = [(int(fold), int(seed)) for fold, seed in cells.itertuples(index=False)]
        lost = [f"fold {fold}, seed {seed} ({why[arm, fold, seed]})" for fold, seed in runs if (arm, fold, seed) in why]
        if lost:
            counted = f"{len(lost)} of {len(runs)} runs of {arm}"
            found.append(f"{counted} failed to learn, counted like any other: {named(lost)}.")
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
    """Decimals that show a margin: 2 for 0.02, 3 for 0.005, none for 500 images."""
    return min(6, max(2 * (margin < 10), -math.floor(math.log10(margin)))) if margin > 0 else 3


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
