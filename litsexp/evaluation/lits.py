"""The LiTS challenge's summary over cases (Bilic et al. 2023), beside what its official scorer prints.

Pooled as that scorer does: lesions are counted over all cases; overlap and surfaces of lesions are means over detected
objects, its references merged, its predictions together; those of the liver are means over cases. Where the scorer is
wrong (``official``), ``value`` is right, ``official`` is its number, and ``why`` says what is different.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from litsexp.evaluation.cases import CaseMasks
from litsexp.evaluation.metrics import mean_defined
from litsexp.evaluation.objects import DISTANCES, OVERLAP, ObjectScores, Scores, detected_objects, overlap
from litsexp.evaluation.official import LARGE, OfficialDetection, detection, failure
from litsexp.evaluation.surfaces import lits_distances

PENALTIES = {"dice": 0.0, "jaccard": 0.0, "voe": 1.0} | dict.fromkeys(("rvd", *DISTANCES), LARGE)  # the official ones
DIGITS = 3  # the official scorer prints so many

_OBJECTS = "counts an object, not its lesions"
_DETECTED = "takes an object's IoU with another one's prediction, so that other objects are detected"
_RVD = "divides by the prediction: (reference - prediction) / prediction"
_SIGNED = "keeps the sign: the largest of reference - prediction"
_MM = "takes the millimetres beside the affine"
_NO_LIVER = "finds no liver without label 1, even where there is tumor"
_PENALTY = f"averages {LARGE:g} in for a liver without label 1"


@dataclass(frozen=True)
class LitsCase:
    """What one case adds to the summary."""

    case: int
    row: Scores  # as ``volumes.score_volume`` gives it
    liver: Scores  # dice, jaccard, voe, rvd, and with surfaces assd, rmsd, msd
    objects: Sequence[Scores]  # the same of each detected object
    no_number: str  # why the official scorer gives none; empty where it does
    official: OfficialDetection | None
    official_liver: Scores | None  # None where the prediction has no label 1: no liver, as that scorer sees it
    official_objects: Sequence[Scores]
    its_mm: bool  # that scorer takes other millimetres


@dataclass(frozen=True)
class LitsScore:
    """One row of the summary."""

    name: str  # as the official scorer calls it: lesion_recall, liver_dice_global ...
    value: float  # NaN where undefined
    official: float  # what the official scorer prints, NaN where nothing
    why: str  # empty where both agree to three decimals


def lits_case(
    case: CaseMasks, row: Mapping[str, float | int], stored: tuple[int, int, int], written_mm: Sequence[float]
) -> LitsCase:
    """One case's part; with surfaces where ``row`` has them.

    Args:
        case: its masks, cut to their box or not; ``row``: their scores, as ``volumes.score_volume`` gives them.
        stored: the arrays' axis of each voxel axis of the files, by whose scan the official scorer numbers lesions.
        written_mm: voxel size (z, y, x) as the truth's header says it beside the affine.
    """
    no_number = failure(case.matching)
    found = None if no_number else detection(case.matching, stored)
    tp, fp, fn = (int(row[f"{kind}_liver"]) for kind in ("tp", "fp", "fn"))
    liver = overlap(tp, fp, fn)
    its_liver = (liver | {"rvd": (fn - fp) / (tp + fp)}) if case.confusion[:, 1].any() else None
    mm: Sequence[float] | None = None
    its_mm: Sequence[float] | None = None
    if "assd_liver" in row:
        mm = case.spacing_mm
        its_mm = mm if np.allclose(mm, written_mm, rtol=1e-6) else written_mm
        liver |= {name: float(row[f"{name}_liver"]) for name in DISTANCES}
        if found and its_liver:
            its_liver |= liver_distances(case, written_mm) if its_mm is written_mm else _only(liver, DISTANCES)
    own = detected_objects(case.matching)
    kept = found.objects if found else ()
    scores = ObjectScores(case.matching, {*own, *kept}, mm)
    its_scores = scores if its_mm is mm else ObjectScores(case.matching, kept, its_mm)
    return LitsCase(
        case=case.case,
        row=row,
        liver=liver,
        objects=[scores.of(member) for member in own],
        no_number=no_number,
        official=found,
        official_liver=its_liver,
        official_objects=[_its(its_scores.of(member)) for member in kept],
        its_mm=its_mm is not mm,
    )


def liver_distances(case: CaseMasks, spacing_mm: Sequence[float]) -> dict[str, float]:
    """``assd``, ``rmsd`` and ``msd`` of the liver, which both masks have, with other millimetres than the case's."""
    return lits_distances(case.truth >= 1, case.prediction >= 1, spacing_mm)


def lits_summary(cases: Sequence[LitsCase]) -> list[LitsScore]:
    """The summary of at least one case; surfaces where the cases have them."""
    value, failed = _right(cases), [case for case in cases if case.no_number]
    if failed:
        fails = [case for case in failed if case.no_number == failed[0].no_number]
        named = ", ".join(str(case.case) for case in fails[:5]) + (" ..." if len(fails) > 5 else "")
        why = f"gives no number: {fails[0].no_number} (case{'s' * (len(fails) != 1)} {named})"
        return [LitsScore(name, number, math.nan, why) for name, number in value.items()]
    its = _official(cases)
    return [
        LitsScore(name, number, its[name], "" if agree(number, its[name]) else _why(name, number, cases))
        for name, number in value.items()
    ]


def agree(value: float, official: float) -> bool:
    """Whether both are printed alike."""
    return f"{value + 0.0:.{DIGITS}f}" == f"{official + 0.0:.{DIGITS}f}"


def _why(name: str, value: float, cases: Sequence[LitsCase]) -> str:
    """What the official scorer does otherwise, of what can have made a difference in these cases."""
    structure, _, score = name.partition("_")
    if math.isnan(value):
        return "writes a number in the place of what is undefined"
    silent = any(case.official_liver is None for case in cases)
    reasons = {
        _OBJECTS: structure == "lesion" and score.startswith(("precision", "recall")),
        _RVD: score == "rvd",
        _SIGNED: score == "max_error",
        _DETECTED: structure == "lesion" and not score.endswith("greater_zero"),
        _MM: score in DISTANCES and any(case.its_mm for case in cases),
        _NO_LIVER: structure == "liver" and score not in DISTANCES and silent,
        _PENALTY: (structure == "burden" or score in ("rvd", *DISTANCES)) and structure != "lesion" and silent,
    }
    return "; ".join(reason for reason, holds in reasons.items() if holds)


def _right(cases: Sequence[LitsCase]) -> dict[str, float]:
    """Every score as it should be."""

    def total(name: str) -> float:
        return sum(case.row[name] for case in cases)

    predicted, true = total("lesions_predicted"), total("lesions_true")
    objects, livers = [scores for case in cases for scores in case.objects], [case.liver for case in cases]
    errors = [error for case in cases if not math.isnan(error := _burden_error(case))]
    return {
        "lesion_precision": _ratio(predicted - total("lesions_false"), predicted),
        "lesion_recall": _ratio(total("lesions_detected"), true),
        "lesion_precision_greater_zero": _ratio(predicted - total("lesions_false_any"), predicted),
        "lesion_recall_greater_zero": _ratio(total("lesions_touched"), true),
        **{f"lesion_{name}": mean_defined(scores[name] for scores in objects) for name in _names(cases)},
        "lesion_dice_per_case": mean_defined(_dice_per_case(case.row, "tumor") for case in cases),
        "lesion_dice_global": _ratio(2 * total("tp_tumor"), _sizes(cases, "tumor")),
        **{f"liver_{name}": mean_defined(scores[name] for scores in livers) for name in _names(cases)},
        "liver_dice_per_case": mean_defined(_dice_per_case(case.row, "liver") for case in cases),
        "liver_dice_global": _ratio(2 * total("tp_liver"), _sizes(cases, "liver")),
        "burden_rmse": math.sqrt(mean_defined(error**2 for error in errors)) if errors else math.nan,
        "burden_max_error": max(map(abs, errors), default=math.nan),
    }


def _official(cases: Sequence[LitsCase]) -> dict[str, float]:
    """Every score as the official scorer prints it; each case has its counts."""
    found = [case.official for case in cases if case.official]
    references, predictions = sum(one.references for one in found), sum(one.predictions for one in found)
    tp, tp_any = sum(one.tp for one in found), sum(one.tp_any for one in found)
    objects = [scores for case in cases for scores in case.official_objects] or [PENALTIES]
    livers = [case.official_liver or PENALTIES for case in cases]
    shown = [case for case in cases if case.official_liver]
    silent = [case for case in cases if not case.official_liver]
    tp_liver = sum(case.row["tp_liver"] for case in shown)
    size_liver = _sizes(shown, "liver") + sum(case.row["fn_liver"] + case.row["tp_liver"] for case in silent)
    dices = [_dice_per_case(case.row, "liver") for case in shown] + [0.0] * len(silent)
    errors = [0.0 - _burden_error(case) for case in shown] + [case.row["burden_true"] - LARGE for case in silent]
    right = _right(cases)
    return {
        "lesion_precision": tp / predictions if predictions else 0.0,
        "lesion_recall": tp / references if references else 0.0,
        "lesion_precision_greater_zero": tp_any / predictions if predictions else 0.0,
        "lesion_recall_greater_zero": tp_any / references if references else 0.0,
        **{f"lesion_{name}": float(np.mean([scores[name] for scores in objects])) for name in _names(cases)},
        "lesion_dice_per_case": right["lesion_dice_per_case"],
        "lesion_dice_global": right["lesion_dice_global"],
        **{f"liver_{name}": float(np.mean([scores[name] for scores in livers])) for name in _names(cases)},
        "liver_dice_per_case": float(np.mean(dices)),
        "liver_dice_global": 2 * tp_liver / size_liver,
        "burden_rmse": math.sqrt(float(np.mean(np.square(errors)))),
        "burden_max_error": max(errors),
    }


def _its(scores: Scores) -> Scores:
    """An object's scores with the official RVD: of p / r = 1 + RVD, that is r / p - 1."""
    return {**scores, "rvd": 1 / (1 + scores["rvd"]) - 1}


def _only(scores: Scores, names: Sequence[str]) -> dict[str, float]:
    return {name: scores[name] for name in names}


def _names(cases: Sequence[LitsCase]) -> tuple[str, ...]:
    """Scores of overlap, and of distance where there are surfaces."""
    return (*OVERLAP, *DISTANCES) if "assd" in cases[0].liver else OVERLAP


def _dice_per_case(row: Scores, structure: str) -> float:
    """As LiTS has it: 1 where both masks are empty, 0 where one of them is."""
    size = 2 * row[f"tp_{structure}"] + row[f"fp_{structure}"] + row[f"fn_{structure}"]
    return 2 * row[f"tp_{structure}"] / size if size else 1.0


def _sizes(cases: Sequence[LitsCase], structure: str) -> float:
    """Voxels of both masks together."""
    return sum(2 * c.row[f"tp_{structure}"] + c.row[f"fp_{structure}"] + c.row[f"fn_{structure}"] for c in cases)


def _burden_error(case: LitsCase) -> float:
    """Predicted - true tumor burden, NaN where the truth has no liver; a prediction without any has a burden of 0."""
    predicted = case.row["burden_predicted"]
    return (0.0 if math.isnan(predicted) else predicted) - case.row["burden_true"]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
