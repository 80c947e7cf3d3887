"""Whether a gain grows: the difference of two differences, of the same patients and pairs of runs."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import stats
from litsexp.evidence.judge import Verdict, judge
from litsexp.evidence.words import cautions
from litsexp.spec.design import arms
from litsexp.spec.study import StudyConfig

CLAIM = {"id": "grows", "says": "Pretraining helps more with less data.", "factor": "init"}
CLAIM |= {"better": "imagenet", "than": "scratch", "grows": {"train_fraction": [1.0, 0.25]}}
LEVELS = {"init": ["imagenet", "scratch"], "train_fraction": [1.0, 0.25]}


def study(**claim: Any) -> StudyConfig:
    sections = {"question": "?", "design": "factorial", "factors": LEVELS, "claims": [CLAIM | claim], "seeds": [0, 1]}
    return StudyConfig.model_validate(sections)


def cases(gain: float, small: float, sd: float = 0.02, column: str = "dice_tumor") -> pd.DataFrame:
    """Pretraining gains so much with all patients, and ``small`` with a quarter of them; scratch scores 0.3."""
    rng, rows = np.random.default_rng(0), []
    for arm in arms(study()):
        more = (gain if arm.run.train_fraction == 1 else small) * (arm.run.init == "imagenet")
        for case, seed in np.ndindex(24, 2):
            row = {"arm": arm.name, "fold": case % 3, "seed": seed, "case": case}
            rows.append(row | {column: 0.3 + more + sd * rng.standard_normal()})
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame, **claim: Any) -> Verdict:
    return judge(study(**claim), table, None)[0]


def test_the_effect_is_the_difference_of_gains_and_goes_through_the_same_statistics() -> None:
    table = cases(0.1, 0.2)
    found = verdict(table)
    wide = table.pivot(index=["case", "fold", "seed"], columns="arm", values="dice_tumor")
    gains = [
        wide[f"init=imagenet, train_fraction={level}"] - wide[f"init=scratch, train_fraction={level}"]
        for level in ("0.25", "1")
    ]
    by_hand = (gains[0] - gains[1]).reset_index(name="difference")
    expected = stats.paired(by_hand["difference"], by_hand["case"], by_hand["fold"] * 10 + by_hand["seed"])
    assert [found.effect, found.low, found.p] == pytest.approx(
        [float(x) for x in (expected.effect, expected.low, expected.p)]
    )
    assert (found.better_mean, found.than_mean) == pytest.approx((0.2, 0.1), abs=0.02)
    assert (found.n_patients, found.n_run_pairs, found.verdict) == (24, 6, "supported")


@pytest.mark.parametrize(
    ("gain", "small", "ruling", "said"),
    [
        (0.1, 0.2, "supported", r"is 0\.1\d \[0\.\d\d, 0\.\d\d\] larger with train_fraction=0.25 than with train_f"),
        (0.2, 0.1, "contradicted", r"is 0\.[01]\d \[0\.\d\d, 0\.\d\d\] smaller with train_fraction=0.25 than with"),
        (
            0.1,
            0.1,
            "equivalent",
            r"changed by -?0\.0\d \[-0\.\d\d, 0\.\d\d\] from train_fraction=1 to train_fraction=0",
        ),
    ],
)
def test_sentences(gain: float, small: float, ruling: str, said: str) -> None:
    found = verdict(cases(gain, small), margin=0.05)
    assert found.verdict == ruling
    assert found.sentence.startswith("the gain of init=imagenet over init=scratch in tumor Dice ")
    assert re.search(said, found.sentence)


def test_where_less_is_better_a_gain_is_a_decrease() -> None:
    found = verdict(cases(-0.1, -0.2, column="lesions_false"), metric="lesions_false")
    assert found.verdict == "supported"
    assert "in false lesions is 0." in found.sentence and "larger with train_fraction=0.25" in found.sentence


def test_scores_of_what_learns_nothing_are_no_gains() -> None:
    table, trivial = cases(0.01, 0.05), pd.DataFrame({"predictor": "all", "case": range(24), "dice_tumor": 0.9})
    assert cautions(verdict(table), trivial) == []


def test_four_runs_of_a_fold_and_seed_are_needed() -> None:
    table = cases(0.1, 0.2)
    lost = (table["arm"] == "init=scratch, train_fraction=1") & (table["fold"] == 0) & (table["seed"] == 0)
    assert verdict(table[~lost]).n_run_pairs == 5
    gone = verdict(table[table["arm"] != "init=scratch, train_fraction=1"])
    assert gone.reason == "no finished run of init=scratch, train_fraction=1"
    told = "gain of init=imagenet over init=scratch with train_fraction=0.25 and gain of"
    assert gone.sentence.startswith(told)


def test_identical_gains_are_seldom_told_apart() -> None:
    rng, studies = np.random.default_rng(0), 2000
    case, seed = (grid.ravel() for grid in np.indices((24, 2)))
    run = (case % 3) * 2 + seed
    four = [
        0.05 * rng.standard_normal((studies, 6))[:, run] + 0.08 * rng.standard_normal((studies, 48)) for _ in "abcd"
    ]
    four[0] += 0.15 * (rng.standard_exponential((studies, 24)) - 1)[:, case]
    assert (stats.paired((four[0] - four[1]) - (four[2] - four[3]), case, run).p < 0.05).mean() <= 0.055
