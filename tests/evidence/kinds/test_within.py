"""Claims about one arm: large lesions against small ones, and against what learns nothing."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import stats
from litsexp.evidence.judge import Verdict, judge
from litsexp.evidence.kinds import Tables
from litsexp.evidence.words import cautions
from litsexp.spec.study import StudyConfig

SIZES = {"id": "size", "says": "Small ones stay hard.", "metric": "lesion_recall", "factor": "lesion_size"}
SIZES |= {"better": "gt20mm", "than": "lt10mm"}
BESIDE = {"id": "acc", "says": "It segments.", "metric": "foreground_acc", "factor": "arm", "better": "baseline"}
BESIDE |= {"than": "liver everywhere", "margin": 0.01}


def study(claim: dict[str, Any], **changes: Any) -> StudyConfig:
    sections = {"question": "?", "factors": {"init": ["scratch"]}, "claims": [claim | changes], "seeds": [0, 1]}
    return StudyConfig.model_validate(sections)


def cases() -> pd.DataFrame:
    """Of 12 patients, each in one of three folds; patient 0 has no small lesion, and scratch finds none at all."""
    rng, rows = np.random.default_rng(0), []
    for arm, case, seed in [
        (arm, case, seed) for arm in ("baseline", "init=scratch") for case in range(12) for seed in (0, 1)
    ]:
        row = {"arm": arm, "fold": case % 3, "seed": seed, "case": case, "foreground_acc": 0.95 + 0.01 * rng.random()}
        row |= {"lesions_true": 4 + 2 * (case > 0), "lesions_detected": 0}
        row |= {"lesions_true_gt20mm": 4, "lesions_detected_gt20mm": 4 - seed if arm == "baseline" else 0}
        row |= {"lesions_true_lt10mm": 2 * (case > 0), "lesions_detected_lt10mm": int(arm == "baseline" and case % 2)}
        rows.append(row)
    return pd.DataFrame(rows)


def verdict(claim: dict[str, Any], tables: Tables) -> Verdict:
    return judge(study(claim), tables, None)[0]


def test_the_recall_of_two_sizes_is_compared_within_each_patient_and_run_of_the_baseline() -> None:
    found = verdict(SIZES, Tables(cases()))
    own = cases().query("arm == 'baseline' and case > 0")
    difference = own["lesions_detected_gt20mm"] / 4 - own["lesions_detected_lt10mm"] / 2
    expected = stats.paired(difference, own["case"], own["fold"] * 10 + own["seed"])
    assert [found.effect, found.low, found.high] == pytest.approx([expected.effect, expected.low, expected.high])
    assert (found.n_patients, found.n_undefined, found.n_run_pairs, found.verdict) == (11, 1, 6, "supported")
    assert (
        "Left out: 1 patient whose lesion recall is undefined (no lesion of one of the two sizes" in cautions(found)[0]
    )
    assert "lesion_size=gt20mm raised lesion recall by" in found.sentence


def test_nothing_is_said_of_sizes_that_no_run_has_counted() -> None:
    found = verdict(SIZES, Tables(cases().drop(columns="lesions_true_lt10mm")))
    assert (found.verdict, found.n_patients) == ("inconclusive", 0)
    assert "no finished run has scored lesion recall" in found.sentence


def test_a_trivial_predictor_is_an_arm_that_scores_the_same_in_every_run() -> None:
    table = cases()
    shares = {case: 0.9 + 0.1 * (case % 2) for case in range(13)}  # a patient whom no run has tested is left out
    rows = [{"case": case, "foreground_acc": share, "predictor": "liver everywhere"} for case, share in shares.items()]
    rows += [row | {"predictor": "all background", "foreground_acc": 0.0} for row in rows]
    found = verdict(BESIDE, Tables(table, trivial=pd.DataFrame(rows)))
    own = table[table["arm"] == "baseline"]
    expected = stats.paired(
        own["foreground_acc"] - own["case"].map(shares), own["case"], own["fold"] * 10 + own["seed"]
    )
    assert [found.effect, found.p] == pytest.approx([float(expected.effect), float(expected.p)])
    assert (found.n_patients, found.n_run_pairs, found.than_mean) == (12, 6, pytest.approx(0.95))
    assert "baseline changed foreground accuracy by" in found.sentence
    assert "against liver everywhere" in found.sentence


@pytest.mark.parametrize(
    ("claim", "changes", "told"),
    [
        (
            SIZES,
            {"metric": "dice_tumor"},
            "metric: found 'dice_tumor' with factor 'lesion_size'; expected lesion_recall",
        ),
        (SIZES, {"than": "small"}, "found lesion_size = 'small'; expected one of lt10mm, 10to20mm, gt20mm"),
        (SIZES, {"than": "gt20mm"}, "found better and than both 'gt20mm'; expected two levels"),
        (SIZES, {"where": {"init": "scratch"}}, "where, grows: found with factor 'lesion_size'"),
        (
            BESIDE,
            {"than": "tumor everywhere"},
            "expected one of baseline, init=scratch, all background, liver everywhere",
        ),
        (BESIDE, {"better": "liver everywhere", "than": "baseline"}, "better: found the arm 'liver everywhere'"),
    ],
)
def test_what_is_no_such_claim_is_refused(claim: dict[str, Any], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        study(claim, **changes)
