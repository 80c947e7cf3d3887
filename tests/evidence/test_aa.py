"""The A/A test: deals by hand, p values as the judge's own, and a share that is 5 % where it should be."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import aa
from litsexp.evidence.aa_figure import aa_figure
from litsexp.evidence.judge import judge_claims
from litsexp.evidence.measures import measure_of
from litsexp.spec.claim import Claim
from litsexp.spec.design import cells
from litsexp.spec.study import StudyConfig

TUMOR = measure_of("dice_tumor")
CLAIM = {"id": "same", "says": "They differ.", "factor": "init", "better": "imagenet", "than": "scratch"}


def runs(rng, folds=3, seeds=6, patients=12, run_sd=0.1, crossed=False):
    """One arm: a row a patient and run; runs of all folds i.i.d., every run meets every patient where crossed."""
    own = rng.normal(0.5, 0.15, folds * patients)
    rows = []
    for fold, seed in itertools.product(range(folds), range(seeds)):
        luck, first = rng.normal(0, run_sd), 0 if crossed else fold * patients
        for case in range(first, first + patients):
            score = own[case] + luck + rng.normal(0, 0.08)
            rows.append({"fold": fold, "seed": seed, "case": case, "dice_tumor": score})
    return pd.DataFrame(rows)


def grids(cases):
    return [part.pivot(index="case", columns="seed", values="dice_tumor") for _, part in cases.groupby("fold")]


def mean_shares(seeds_an_arm, samples=25, **how):
    """Over many samples of runs: the share of false verdicts, and of patients alone."""
    p = []
    for number in range(samples):
        rng = np.random.default_rng(number)
        folds = grids(runs(rng, **how))
        p.append(aa.p_values(folds, aa.deal([fold.shape[1] for fold in folds], seeds_an_arm, rng, most=200)))
    return (np.array(p) < 0.05).mean(axis=(0, 2))


def test_the_baseline_runs_alone_on_the_studys_own_cells() -> None:
    study = StudyConfig.model_validate(
        {"question": "Q?", "seeds": [1, 2], "factors": {"init": ["scratch"]}, "claims": [CLAIM]}
    )
    alone = aa.aa_study(study, 3)
    assert StudyConfig.model_validate(alone.model_dump()) == alone
    changed = {name for name in StudyConfig.model_fields if getattr(alone, name) != getattr(study, name)}
    assert changed == {"question", "seeds", "factors", "claims"}
    keys, theirs = ({c.run_key(s.split, "data"): c for c in cells(s)} for s in (alone, study))
    assert {(c.fold, c.seed) for key, c in keys.items() if key in theirs} == {(f, s) for f in range(3) for s in (1, 2)}
    assert len(keys) == 9


def test_a_search_has_a_baseline_too() -> None:
    search = StudyConfig.model_validate({"question": "Q?", "design": "search", "search": {"trials": 3}})
    alone = aa.aa_study(search, 2)
    assert StudyConfig.model_validate(alone.model_dump()).design == "ablation"


@pytest.mark.parametrize(("runs_a_fold", "k", "number"), [([4], 1, 6), ([4], 2, 6), ([3, 2], 1, 6), ([4, 4], 2, 72)])
def test_few_deals_are_all_dealt_once(runs_a_fold: list[int], k: int, number: int) -> None:
    """4 runs: 6 pairs; 3 ways to pair all, 2 ways to orient the second pair; 3 pairs on one fold x 2 orientations."""
    deals = aa.deal(runs_a_fold, k, np.random.default_rng(0))
    assert deals.shape == (number, len(runs_a_fold), 2, k)

    def unlabelled(one):
        sides = [tuple(tuple(sorted(zip(*fold[::way], strict=True))) for fold in one.tolist()) for way in (1, -1)]
        return min(sides)

    assert len({unlabelled(one) for one in deals}) == number


def test_many_deals_are_drawn_disjoint_and_the_same_with_the_same_seed() -> None:
    deals = aa.deal([8, 7], 3, np.random.default_rng(0), most=50)
    assert deals.shape == (50, 2, 2, 3)
    assert all(len(set(fold.ravel())) == 6 for one in deals for fold in one)
    assert deals[:, 0].max() == 7 and deals[:, 1].max() == 6
    assert (deals[:, 0] != deals[:, 1]).any()  # each fold is dealt by itself
    assert np.array_equal(deals, aa.deal([8, 7], 3, np.random.default_rng(0), most=50))
    assert not np.array_equal(deals, aa.deal([8, 7], 3, np.random.default_rng(1), most=50))


@pytest.mark.parametrize("crossed", [False, True])
def test_every_deal_is_judged_as_the_judge_would(crossed: bool) -> None:
    """Also where scores are undefined under some runs only: those pairs are left out of that deal alone."""
    rng = np.random.default_rng(5)
    cases = runs(rng, folds=2, crossed=crossed)
    cases.loc[rng.random(len(cases)) < 0.1, "dice_tumor"] = math.nan
    deals = aa.deal([6, 6], 3, rng, most=10)
    p, models_p = aa.p_values(grids(cases), deals)
    assert len(set(p)) > 5
    for one, of_this, of_models in zip(deals, p, models_p, strict=True):
        arms = [
            cases[(cases["fold"] == fold) & (cases["seed"] == seed)].assign(arm=name, seed=position)
            for fold, sides in enumerate(one)
            for name, side in zip("ab", sides, strict=True)
            for position, seed in enumerate(side)
        ]
        (verdict,) = judge_claims([(Claim.model_validate(CLAIM), (("a", "b"),))], pd.concat(arms), None)
        assert of_this == pytest.approx(verdict.p, abs=1e-12)
        assert of_models == pytest.approx(2 * verdict.false_claim, abs=1e-12)


def test_exchanged_arms_give_the_same_p() -> None:
    cases = runs(np.random.default_rng(2))
    deals = aa.deal([6, 6, 6], 2, np.random.default_rng(0), most=40)
    assert np.allclose(aa.p_values(grids(cases), deals), aa.p_values(grids(cases), deals[:, :, ::-1]), atol=1e-12)


@pytest.mark.parametrize("crossed", [False, True])
def test_identical_arms_are_seldom_told_apart_but_by_patients_alone_often(crossed: bool) -> None:
    both, patients_only = mean_shares(3, crossed=crossed)
    assert 0.02 < both < 0.06
    assert patients_only > 0.4


def test_without_noise_of_runs_patients_alone_are_enough() -> None:
    both, patients_only = mean_shares(3, run_sd=0.0)
    assert both < 0.03
    assert 0.02 < patients_only < 0.08


def test_the_table_counts_and_says_where_the_judge_gives_no_verdict() -> None:
    cases = runs(np.random.default_rng(0), folds=3, seeds=4)
    cases.loc[cases["case"].isin([0, 13]), "dice_tumor"] = math.nan  # nothing to find
    table = aa.false_verdicts(cases, [TUMOR])
    assert table["metric"].tolist() == ["dice_tumor"] * 2
    assert table["seeds"].tolist() == [1, 2]
    assert table["run_pairs"].tolist() == [3, 6]
    assert table["settled"].tolist() == [False, True]
    assert table["patients"].tolist() == [34, 34]
    assert table["deals"].tolist() == [6**3 * 4, 12**3 // 2]  # all there are
    assert table["low"].tolist() == [0, 0] and table["high"].tolist() == [3 / 18] * 2  # 6 pairs of runs a fold
    pd.testing.assert_frame_equal(table, aa.false_verdicts(cases, [TUMOR]))


def test_draws_are_seeded() -> None:
    cases = runs(np.random.default_rng(0), seeds=5)
    table = aa.false_verdicts(cases, [TUMOR], seed=3)
    assert table["deals"].tolist() == [2000, 2000]
    pd.testing.assert_frame_equal(table, aa.false_verdicts(cases, [TUMOR], seed=3))
    assert not table["patients_only"].equals(aa.false_verdicts(cases, [TUMOR], seed=4)["patients_only"])


def test_five_patients_settle_nothing() -> None:
    table = aa.false_verdicts(runs(np.random.default_rng(0), patients=5, crossed=True), [TUMOR])
    assert (table["patients"] == 5).all()
    assert not table["settled"].any()


def test_the_poorest_fold_limits_the_seeds_and_a_lonely_run_cannot_be_dealt() -> None:
    cases = runs(np.random.default_rng(0), seeds=4)
    lost = cases[(cases["fold"] != 1) | (cases["seed"] == 2) | (cases["seed"] == 3)]
    assert aa.false_verdicts(lost, [TUMOR])["seeds"].tolist() == [1]
    assert aa.false_verdicts(cases[(cases["fold"] != 1) | (cases["seed"] == 2)], [TUMOR]).empty
    assert aa.false_verdicts(pd.DataFrame(), []).empty


def test_a_measure_that_is_nowhere_defined_has_no_share() -> None:
    cases = runs(np.random.default_rng(0), seeds=2).assign(dice_tumor=math.nan)
    table = aa.false_verdicts(cases, [TUMOR])
    assert table[["false", "patients_only"]].isna().all(axis=None)
    assert table["patients"].tolist() == [0]


def test_one_pair_of_runs_has_an_interval_over_patients_only() -> None:
    table = aa.false_verdicts(runs(np.random.default_rng(0), folds=1, seeds=2), [TUMOR])
    assert table["deals"].tolist() == [1]
    assert math.isnan(table["false"][0])
    assert table["patients_only"][0] in (0.0, 1.0)


@pytest.mark.parametrize(("draws", "low", "high"), [(1, 0, 1), (18, 0, 3 / 18), (84, 1 / 84, 8 / 84)])
def test_the_band_is_binomial(draws: int, low: float, high: float) -> None:
    def at_most(number):
        return sum(math.comb(draws, i) * 0.05**i * 0.95 ** (draws - i) for i in range(number + 1))

    assert aa.band(draws) == (low, high)
    assert at_most(round(high * draws)) >= 0.975 > at_most(round(high * draws) - 1)
    assert at_most(round(low * draws)) >= 0.025 > at_most(round(low * draws) - 1)


def test_the_scatter_of_runs_by_hand() -> None:
    """Two patients, three runs of 0.6, 0.5 and 0.1 (+-0.1): variance 0.07, no residual; 0.1 is below half of 0.5."""
    rows = [
        {"fold": 0, "seed": seed, "case": case, "dice_tumor": run + (0.1 if case else -0.1), "lesions_false": 9 * seed}
        for seed, run in enumerate((0.6, 0.5, 0.1))
        for case in (0, 1)
    ]
    table = aa.run_spread(pd.DataFrame(rows), [TUMOR, measure_of("lesions_false")])
    tumor, lesions = table.to_dict("records")
    assert tumor["mean"] == pytest.approx(0.4)
    assert tumor["run_sd"] == pytest.approx(math.sqrt(0.07))
    assert [tumor[f"seed_{seed}"] for seed in range(3)] == pytest.approx([0.6, 0.5, 0.1])
    assert (tumor["runs"], tumor["collapsed"]) == (3, 1)
    assert pd.isna(lesions["collapsed"])  # less is better


@pytest.fixture(scope="module")
def tested() -> aa.AATest:
    rng, study = np.random.default_rng(0), StudyConfig.model_validate({"question": "A & B?"})
    cases = {"test": ("phantom, 36 patients, seed 0", runs(rng, seeds=4))}
    cases["external"] = ("elsewhere, 12 patients", runs(rng, seeds=4, crossed=True).assign(dice_liver=math.nan))
    return aa.aa_test("mini", study, 4, cases)


def test_it_tells_what_was_scored_on_either_cohort(tested: aa.AATest) -> None:
    content = json.loads(tested.as_json())
    assert content["cohorts"] == {"test": "phantom, 36 patients, seed 0", "external": "elsewhere, 12 patients"}
    scored = [(row["cohort"], row["metric"], row["seeds"]) for row in content["false_verdicts"]]
    both = [("external", metric, k) for k in (1, 2) for metric in ("dice_tumor", "dice_liver")]
    assert scored == [("test", "dice_tumor", 1), ("test", "dice_tumor", 2), *both]
    assert content["false_verdicts"][-1]["false"] is None
    assert [row["runs"] for row in content["runs"]] == [12, 12, 0]
    assert "one sample of 12 runs" in content["caveat"]


def test_numbers_for_a_tracker(tested: aa.AATest) -> None:
    scalars = tested.scalars
    shares = tested.shares.set_index(["cohort", "metric", "seeds"])
    assert scalars["aa/false/dice_tumor/k2"] == shares.loc[("test", "dice_tumor", 2), "false"]
    assert (
        scalars["aa/patients_only_external/dice_tumor/k1"] == shares.loc[("external", "dice_tumor", 1), "patients_only"]
    )
    assert scalars["aa/run_sd/dice_tumor"] == pytest.approx(0.1, abs=0.05)
    assert not any("dice_liver" in name for name in scalars)  # undefined
    share = scalars["aa/false/dice_tumor/k2"]
    assert f"- dice_tumor, 2 seeds an arm: {share:.1%}" in tested.note


def test_the_picture_has_a_row_a_measure_and_the_same_bytes(tested: aa.AATest) -> None:
    svg = aa_figure(tested)
    assert svg == aa_figure(tested)
    shown = ("tumor Dice", "liver Dice", "test patients", "elsewhere, 12 patients", "1 to 2 seeds an arm")
    assert all(words in svg for words in shown)
