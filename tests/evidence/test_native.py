"""Whole volumes beside stored slices, lesions by kind, and claims about them: worked out by hand."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import stats
from litsexp.evidence.judge import judge
from litsexp.evidence.kinds import Tables
from litsexp.evidence.measures import measure_of
from litsexp.evidence.native import FINDINGS, beside_stored, lesion_findings
from litsexp.evidence.report import render
from litsexp.evidence.tables import write_tables
from litsexp.spec.catalog import METRICS
from litsexp.spec.claim import CONTRAST_BINS, SIZE_BINS

from .conftest import evidence
from .toy import study, table

CLAIM = {"id": "whole", "says": "It helps.", "metric": "native:dice_tumor", "factor": "init"}
CLAIM |= {"better": "imagenet", "than": "scratch"}
ARMS = ["baseline", "init=scratch"]


def lesions(cases: pd.DataFrame, **counts: Any) -> pd.DataFrame:
    """The columns of a whole volume: two lesions a case, one of them found."""
    kinds = ["", *(f"_{kind}" for kind in (*SIZE_BINS, *CONTRAST_BINS))]
    found = {f"lesions_true{kind}": 0 for kind in kinds} | {f"lesions_detected{kind}": 0 for kind in kinds}
    found |= {"lesions_true": 2, "lesions_detected": 1, "lesions_touched": 2, "lesions_false": 1, "slices": 10}
    return cases.assign(**found | counts)


def test_a_claim_about_native_scores_is_judged_on_whole_volumes_alone() -> None:
    differences = 0.1 + 0.02 * np.tile([-1.0, 1.0], 6)
    whole = table({"baseline": 0.5 + differences, "init=scratch": [0.5] * 12})
    stored = table({"baseline": [0.3] * 12, "init=scratch": [0.9] * 12})
    verdict = judge(study([CLAIM]), Tables(stored, native=whole), None)[0]
    plain = judge(study([CLAIM | {"metric": "dice_tumor"}]), whole, None)[0]
    assert (verdict.effect, verdict.low, verdict.high, verdict.p) == (plain.effect, plain.low, plain.high, plain.p)
    assert verdict.verdict == plain.verdict == "supported" and verdict.n_patients == 12
    assert "raised tumor Dice at native resolution by 0.10" in verdict.sentence
    unscored = judge(study([CLAIM]), Tables(stored), None)[0]
    assert (unscored.verdict, unscored.n_patients) == ("inconclusive", 0)
    assert "no finished run has scored tumor Dice at native resolution" in unscored.reason


def test_less_is_better_where_it_is_of_the_metric_and_the_study_knows_what_it_needs() -> None:
    assert measure_of("native:lesions_false").higher_is_better is False
    assert measure_of("native:dice_liver").higher_is_better is True
    assert measure_of("native:lesions_false").unit == "a case"
    assert study([CLAIM]).needs == {"native"} and study().needs == set()
    with pytest.raises(ValueError, match=r"found 'native:dice_tumr'; expected .* did you mean 'dice_tumor'"):
        study([CLAIM | {"metric": "native:dice_tumr"}])
    for name in METRICS:  # a store's table has the same columns, and is never taken for a volume's
        assert not measure_of(f"native:{name}").scored(pd.DataFrame({name: [0.5]}))


def test_an_external_cohort_is_not_asked() -> None:
    asked = study([CLAIM])
    assert judge(asked, table({arm: [0.5] * 12 for arm in ARMS}), None, external=True) == []


def test_stored_and_native_are_paired_by_patient_and_run() -> None:
    stored = table({arm: [0.5] * 12 for arm in ARMS}, seeds=(0, 1), dice_liver=0.9)
    whole = stored.assign(dice_tumor=stored["dice_tumor"] - 0.01 * (stored["case"] % 3), dice_liver=0.8)
    found = beside_stored(stored, whole, ARMS).set_index(["arm", "metric"])
    row = found.loc["baseline", "dice_tumor"]
    own = whole[whole["arm"] == "baseline"]
    runs = own.groupby(["fold", "seed"]).ngroup()
    expected = stats.paired(own["dice_tumor"] - 0.5, own["case"], runs)
    assert (row["stored"], row["patients"]) == (0.5, 12)
    assert row["gap"] == pytest.approx(-0.01) and row["native"] == pytest.approx(0.49)
    assert (row["gap_low"], row["gap_high"]) == pytest.approx((expected.low, expected.high))
    assert found.loc["init=scratch", "dice_liver"]["gap"] == pytest.approx(-0.1)


def test_recall_is_a_mean_over_patients_who_have_such_lesions() -> None:
    whole = lesions(table({"baseline": [0.5] * 12}, seeds=(0, 1)))
    small = whole["case"] < 4
    whole.loc[small, "lesions_true_lt10mm"] = 4
    whole.loc[small & (whole["seed"] == 0), "lesions_detected_lt10mm"] = 2
    whole.loc[whole["case"] == 11, ["lesions_true", "lesions_detected", "lesions_touched"]] = 0
    whole.loc[whole["case"] == 11, "lesions_false"] = 5
    whole.loc[whole["case"] == 10, "lesions_true_lt20hu"] = math.nan  # its contrast is unknown
    found = lesion_findings(whole, ["baseline", "gone"]).set_index(["arm", "finding"])
    assert set(found.index.get_level_values("arm")) == {"baseline"} and len(found) == len(FINDINGS)
    row = found.loc["baseline", "recall_lt10mm"]
    assert (row["mean"], row["patients"], row["lesions"]) == (0.25, 4, 16)
    assert row["low"] < 0.25 < row["high"]  # the two seeds differ, and the interval knows
    assert found.loc["baseline", "recall"]["mean"] == 0.5 and found.loc["baseline", "recall"]["patients"] == 11
    assert found.loc["baseline", "touched"]["mean"] == 1
    assert found.loc["baseline", "false"]["mean"] == pytest.approx((11 + 5) / 12)
    free = found.loc["baseline", "false_in_tumor_free"]
    assert (free["mean"], free["patients"]) == (5, 1)
    assert found.loc["baseline", "recall_gt20mm"]["patients"] == 0
    assert math.isnan(found.loc["baseline", "recall_gt20mm"]["mean"])


def test_report_and_tables_show_whole_volumes_where_they_were_scored(tmp_path: Any) -> None:
    plain = evidence()
    assert 'id="native"' not in render(plain) and "native.csv" not in {p.name for p in write_tables(plain, tmp_path)}
    whole = evidence(native=lesions(plain.cases.assign(dice_tumor=plain.cases["dice_tumor"] / 2)))
    text = render(whole)
    section = text[text.index('<section id="native">') : text.index("</section>", text.index('<section id="native">'))]
    assert '<a href="#native">Whole volumes</a>' in text
    assert "below 10 mm" in section and "below 20 HU" in section and "in a tumor-free case" in section
    assert "init=scratch" in section and "Here 17 runs label all 120 slices" in section
    written = {path.name: path for path in write_tables(whole, tmp_path)}
    native = pd.read_csv(written["native.csv"])
    assert (native["gap"][native["metric"] == "dice_tumor"] < 0).all() and native["cohort"].str.contains(
        "phantom"
    ).all()
    assert set(pd.read_csv(written["lesions.csv"])["finding"]) == {finding.name for finding in FINDINGS}
