"""Time to a share of the common best: worked out by hand, censored by rule, and calibrated on identical arms."""

import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import stats
from litsexp.evidence.judge import Verdict, judge
from litsexp.evidence.kinds import Tables
from litsexp.evidence.kinds.convergence import Curve, time_to_share
from litsexp.spec.study import StudyConfig

CLAIM = {"id": "sooner", "says": "Pretraining gets there sooner.", "metric": "epochs_to:dice_tumor", "margin": 1}
CLAIM |= {"factor": "init", "better": "imagenet", "than": "scratch"}
FAST, SLOW = (0.5, 0.8, 0.8, 0.8), (0.1, 0.3, 0.5, 0.8)


def curve(*scores: float, images: int = 0) -> Curve:
    return Curve(np.arange(1, len(scores) + 1) * float(images or 1), np.array(scores))


@pytest.mark.parametrize(
    ("better", "than", "needed"),
    [
        ((0.2, 0.5, 0.9), (0.1, 0.3, 0.5), (2, 3, False, False)),  # common best 0.5: 0.45 of both
        ((0.5, 0.1, 0.5), (0.5, 0.5, 0.5), (1, 1, False, False)),  # reached once is reached
        ((0.2, 0.5, 0.9), (0.0, 0.0, 0.05), (3, 4, False, True)),  # one never learned: 0.81, and one epoch more
        ((0.0,), (0.2, 0.5, 0.9), (4, 3, True, False)),  # and where it was stopped early
        ((0.0, 0.05), (0.02, 0.09), (math.nan, math.nan, False, False)),  # neither did
        ((math.nan, math.nan), (math.nan, math.nan), (math.nan, math.nan, False, False)),  # no tumor
    ],
)
def test_epochs_by_hand(better: tuple[float, ...], than: tuple[float, ...], needed: tuple[float, ...]) -> None:
    assert time_to_share(curve(*better), curve(*than), 0.9) == pytest.approx(needed, nan_ok=True)


def test_images_are_counted_where_epochs_differ_in_size() -> None:
    found = time_to_share(curve(0.5, 0.8, images=100), curve(0.5, 0.6, 0.8, 0.8, images=50), 0.9)
    assert found == (200.0, 150.0, False, False)


def epochs(arms: dict[str, tuple[float, ...]], cases: int = 6, seeds: int = 5, folds: int = 2) -> pd.DataFrame:
    """Every run of an arm has the same curve on every patient of its fold."""
    rows = [
        {"arm": arm, "fold": fold, "seed": seed, "case": 10 * fold + case, "epoch": epoch, "dice_tumor": score}
        for arm, scores in arms.items()
        for fold in range(folds)
        for seed in range(seeds)
        for case in range(cases)
        for epoch, score in enumerate(scores)
    ]
    return pd.DataFrame(rows).assign(images=lambda table: 32 * (table["epoch"] + 1))


def verdict(table: pd.DataFrame | None, **changes: object) -> Verdict:
    study = {"question": "?", "factors": {"init": ["scratch"]}, "claims": [CLAIM | changes]}
    tested = pd.DataFrame([{"arm": arm, "fold": 0, "seed": 0, "case": 0} for arm in ("baseline", "init=scratch")])
    return judge(StudyConfig.model_validate(study), Tables(tested, epochs=table), None, kind="phantom")[0]


def test_a_verdict_in_epochs_and_in_images() -> None:
    found = verdict(epochs({"baseline": FAST, "init=scratch": SLOW}))
    assert (found.effect, found.better_mean, found.than_mean, found.verdict) == (-2.0, 2.0, 4.0, "supported")
    assert (found.n_patients, found.n_run_pairs) == (12, 10)
    assert found.sentence == (
        "init=imagenet lowered the time to 90 % of the common best tumor Dice by 2.00 epochs [2.00, 2.00] against "
        "init=scratch on 12 phantom validation patients and 10 pairs of runs (adjusted p < 0.001): supported, "
        "substantially."
    )
    sooner = verdict(epochs({"baseline": FAST, "init=scratch": SLOW}), metric="images_to:dice_tumor", share=0.6)
    assert (sooner.better_mean, sooner.than_mean, sooner.measure.unit) == (32.0, 96.0, "images")
    assert "time to 60 % of" in sooner.sentence


def test_a_run_that_failed_is_counted_and_named() -> None:
    table = epochs({"baseline": FAST, "init=scratch": SLOW})
    failed = (table["arm"] == "init=scratch") & (table["seed"] == 0) & (table["fold"] == 0)
    table.loc[failed, "dice_tumor"] = 0.01
    found = verdict(table)
    assert found.than_mean == pytest.approx(4.1)  # 5 of one run of ten
    (said,) = found.asked.cautions(found)
    assert said.startswith("In 6 of 60 comparisons of a patient's two runs init=scratch never came so far; it counts")


def test_older_runs_have_no_such_table() -> None:
    for table in (None, pd.DataFrame()):
        found = verdict(table)
        assert found.verdict == "inconclusive"
        assert found.reason == "no finished run has scored time to 90 % of the common best tumor Dice"
    half = epochs({"baseline": FAST})
    assert verdict(half).reason.startswith("no finished run of init=scratch has scored time to")


def curves(runs: int, patients: int, rng: np.random.Generator, speed: float, failing: float) -> np.ndarray:
    """(runs, patients, 15): saturating, with a speed of the run's and of the patient's own, and noise an epoch."""
    rate = 0.4 * speed * np.exp(0.25 * rng.standard_normal((runs, 1)) + 0.4 * rng.standard_normal((runs, patients)))
    scores = 0.6 * (1 - np.exp(-rate[..., None] * np.arange(1, 16))) + 0.08 * rng.standard_normal((runs, patients, 15))
    return np.clip(scores, 0, 1) * np.where(rng.random((runs, 1, 1)) < failing, 0.1, 1)


def told_apart(speed: float, failing: float, studies: int = 150) -> tuple[float, float, float]:
    """3 folds of 5 validation patients, 3 seeds: how often p < 0.05, by patients alone too; and the mean effect."""
    rng, p, effects = np.random.default_rng(0), [], []
    labels = [(10 * fold + case, 10 * fold + seed) for fold in range(3) for seed in range(3) for case in range(5)]
    for _ in range(studies):
        ours, theirs = (curves(9, 5, rng, faster, failing).reshape(45, 15) for faster in (speed, 1.0))
        needed = [time_to_share(curve(*a), curve(*b), 0.9)[:2] for a, b in zip(ours, theirs, strict=True)]
        difference = np.array([a - b for a, b in needed])
        defined = ~np.isnan(difference)
        patients, runs = (np.array(each)[defined] for each in zip(*labels, strict=True))
        found = stats.paired(difference[defined], patients, runs)
        p.append([float(found.p), float(found.models_p)])
        effects.append(float(found.effect))
    both, by_patients = (np.array(p) < 0.05).mean(0)
    return float(both), float(by_patients), float(np.mean(effects))


@pytest.mark.parametrize("failing", [0.0, 0.1])
def test_identical_arms_are_seldom_told_apart(failing: float) -> None:
    """Of 1,500 studies 0.015 and 0.034; of the 150 here the share may be off by two standard errors."""
    false, by_patients, mean = told_apart(1.0, failing)
    assert false <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 150)
    assert by_patients > 0.1
    assert abs(mean) < 0.3


def test_a_faster_arm_is_found_to_be_faster() -> None:
    found, _, mean = told_apart(2.0, 0.0)
    assert mean < -1
    assert found > 0.5
