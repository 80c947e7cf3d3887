"""Training minus test patients: worked out by hand, and calibrated where the truth is known."""

import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import stats
from litsexp.evidence.judge import Verdict, judge
from litsexp.evidence.kinds import Tables
from litsexp.spec.study import StudyConfig

CLAIM = {"id": "fits", "says": "Pretraining overfits less.", "metric": "gap:dice_tumor"}
CLAIM |= {"factor": "init", "better": "imagenet", "than": "scratch"}


def test_one_patient_on_each_side_of_two_runs_by_hand() -> None:
    # run 0 trains on a and b and tests c and d; run 1 the other way round
    patients, runs = np.array([0, 1, 2, 3, 2, 3, 0, 1]), np.repeat([0, 1], 4)
    trained = np.array([True, True, False, False] * 2)
    differences = [0.3, 0.1, 0.0, 0.2, 0.2, 0.4, 0.1, 0.1]
    found = stats.paired_gap(differences, patients, runs, trained)
    assert found.effect == pytest.approx(0.25 - 0.1)
    influence = np.array([0.05, -0.15, -0.05, 0.15]) - np.array([0.0, 0.0, -0.1, 0.1])
    assert found.patients_variance == pytest.approx((influence**2).sum() / 12)
    assert found.runs_variance == pytest.approx(np.var([0.2 - 0.1, 0.3 - 0.1], ddof=1) / 2)


def test_a_holdout_is_two_groups_of_patients() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(2, 8)), rng.normal(size=(2, 5))  # two runs each
    values = np.concatenate([train.ravel(), test.ravel()])
    patients = np.concatenate([np.tile(np.arange(8), 2), 8 + np.tile(np.arange(5), 2)])
    runs = np.concatenate([np.repeat([0, 1], 8), np.repeat([0, 1], 5)])
    found = stats.paired_gap(values, patients, runs, patients < 8)
    welch = train.mean(0).var(ddof=1) / 8 + test.mean(0).var(ddof=1) / 5
    assert found.patients_variance == pytest.approx(welch)
    assert found.effect == pytest.approx(train.mean() - test.mean())


@pytest.mark.parametrize("trained", [[True, True], [False, False]])
def test_without_a_side_there_is_no_gap(trained: list[bool]) -> None:
    assert np.isnan(stats.paired_gap([0.1, 0.2], [0, 1], [0, 0], trained).effect)


def layout(folds: int, seeds: int, patients: int = 36) -> pd.DataFrame:
    """Which run of a study tests which patients, and which it is trained on: of the others, a fifth validates."""
    rows = []
    for fold in range(folds):
        rest = [case for case in range(patients) if case % folds != fold]
        for seed in range(seeds):
            for case in range(patients):
                if case not in rest or rest.index(case) % 5:
                    rows.append({"fold": fold, "seed": seed, "case": case, "trained": case in rest})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("folds", "seeds", "run_sd"), [(3, 2, 0.05), (5, 1, 0.05), (3, 3, 0.1), (3, 3, 0.0)])
def test_the_interval_covers_the_truth_and_identical_arms_do_not_differ(folds: int, seeds: int, run_sd: float) -> None:
    plan, rng, studies, truth = layout(folds, seeds), np.random.default_rng(0), 1000, 0.08
    case, run = plan["case"].to_numpy(), (plan["fold"] * seeds + plan["seed"]).to_numpy()
    trained = plan["trained"].to_numpy()
    of_patient = 0.15 * (rng.standard_exponential((2, studies, 36)) - 1)  # as a training and as a test patient
    of_patient[1] = (of_patient[0] + of_patient[1]) / math.sqrt(2)
    of_run = run_sd * rng.standard_normal((2, studies, run.max() + 1))
    side = (~trained).astype(int)
    null = of_patient[side, :, case].T + of_run[side, :, run].T + 0.08 * rng.standard_normal((studies, len(plan)))
    assert (stats.paired_gap(null, case, run, trained).p < 0.05).mean() <= 0.055
    moved = stats.paired_gap(null + truth * trained, case, run, trained)
    assert ((moved.low <= truth) & (truth <= moved.high)).mean() >= 0.945
    assert moved.effect.mean() == pytest.approx(truth, abs=0.01)


def tables(baseline: float, scratch: float, folds: int = 3, seeds: int = 2) -> Tables:
    """Arms that score 0.5 on test patients, and so much more on training patients."""
    rng, parts = np.random.default_rng(0), []
    for arm, more in (("baseline", baseline), ("init=scratch", scratch)):
        plan = layout(folds, seeds).assign(arm=arm)
        parts.append(plan.assign(dice_tumor=0.5 + more * plan["trained"] + 0.02 * rng.standard_normal(len(plan))))
    both = pd.concat(parts, ignore_index=True)
    sides = (both[both["trained"] == trained].drop(columns="trained") for trained in (False, True))
    return Tables(*(side.reset_index(drop=True) for side in sides))


def verdict(found: Tables, **changes: object) -> Verdict:
    study = {"question": "?", "factors": {"init": ["scratch"]}, "claims": [CLAIM | changes]}
    return judge(StudyConfig.model_validate(study), found, None, kind="phantom")[0]


def test_an_arm_that_overfits_less_is_found() -> None:
    found = verdict(tables(0.1, 0.3))
    assert found.verdict == "supported"
    assert (found.better_mean, found.than_mean) == pytest.approx((0.1, 0.3), abs=0.02)
    assert found.effect == pytest.approx(found.better_mean - found.than_mean)
    assert "init=imagenet lowered the generalisation gap of tumor Dice by 0.2" in found.sentence
    assert "on 31 phantom training and 36 test patients and 6 pairs of runs" in found.sentence
    assert len(found.differences) == 31 and found.superiority == 1.0
    assert verdict(tables(0.3, 0.1)).verdict == "contradicted"
    assert verdict(tables(0.2, 0.2), margin=0.05).verdict == "equivalent"


def test_less_is_better_in_the_measure_itself() -> None:
    found = tables(0.1, 0.3)
    turned = Tables(*(table.assign(lesions_false=1 - table["dice_tumor"]) for table in (found.cases, found.train)))
    assert verdict(turned, metric="gap:lesions_false").effect == pytest.approx(verdict(found).effect)


def test_without_scored_training_patients_nothing_is_concluded() -> None:
    found = tables(0.1, 0.3)
    for train in (None, pd.DataFrame()):
        told = verdict(Tables(found.cases, train))
        assert told.reason == "no finished run has scored generalisation gap of tumor Dice"
        assert told.verdict == "inconclusive" and math.isnan(told.effect)
    assert found.train is not None
    older = verdict(Tables(found.cases, found.train[found.train["arm"] == "baseline"]))
    assert older.reason == "no finished run of init=scratch has scored generalisation gap of tumor Dice"


def test_few_test_patients_settle_nothing() -> None:
    found = tables(0.1, 0.3)
    few = verdict(Tables(found.cases[found.cases["case"] < 4], found.train))
    assert few.n_patients == 4 and few.reason.startswith("4 phantom patients cannot settle a claim")
