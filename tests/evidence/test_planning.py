"""Planning: the variance formulas against simulated studies, the search for what is needed, and the words."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import planning, stats
from litsexp.evidence.planning import Design, Noise, Range

NOISE = Noise(run_sd=0.10, patient_sd=0.15, residual_sd=0.08)
ALIKE = (NOISE, NOISE, NOISE)


def pairs_of(noise: Noise, design: Design, seed: int = 0, effect: float = 0.0) -> pd.DataFrame:
    """One simulated claim's pairs; patients dealt to the folds, or under every run."""
    rng = np.random.default_rng(seed)
    patients = rng.normal(0, noise.patient_sd, design.patients)
    rows = []
    for fold in range(design.folds):
        for run_seed in range(design.seeds):
            luck = rng.normal(0, noise.run_sd)
            tested = range(design.patients) if design.crossed else range(fold, design.patients, design.folds)
            for case in tested:
                value = effect + patients[case] + luck + rng.normal(0, noise.residual_sd)
                rows.append({"context": 0, "fold": fold, "seed": run_seed, "case": case, "better": value, "than": 0.0})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("noise", [NOISE, Noise(0.0, 0.15, 0.08), Noise(0.05, 0.02, 0.2)])
def test_variance_and_power_are_those_of_simulated_studies(noise: Noise, crossed: bool) -> None:
    design = Design(patients=18, folds=3, seeds=3, crossed=crossed)
    example = pairs_of(noise, design)
    case, run = example["case"].to_numpy(), (example["fold"] * 3 + example["seed"]).to_numpy()
    rng, studies = np.random.default_rng(1), 4000
    values = rng.normal(0, noise.patient_sd, (studies, 18))[:, case] + rng.normal(0, noise.run_sd, (studies, 9))[:, run]
    values += rng.normal(0, noise.residual_sd, values.shape)
    found, planned = stats.paired(values + 0.1, case, run), planning.power_of(noise, design, 0.1)
    assert np.mean(found.patients_variance + found.runs_variance) == pytest.approx(planned.standard_error**2, rel=0.03)
    true = noise.run_sd**2 / 9 + noise.patient_sd**2 / 18 + noise.residual_sd**2 / (18 * (9 if crossed else 3))
    assert found.effect.var() == pytest.approx(true, rel=0.08)
    assert planned.from_runs == pytest.approx(noise.run_sd**2 / 9 / true)
    assert planned.from_runs + planned.from_patients + planned.from_residual == pytest.approx(1)
    assert np.mean((found.p < 0.05) & (found.effect > 0)) == pytest.approx(planned.power, abs=0.06)


def test_more_claims_less_power_and_too_few_pairs_of_runs_none() -> None:
    design = Design(patients=36, folds=3, seeds=3)
    assert planning.power_of(NOISE, design, 0.1, claims=4).power < planning.power_of(NOISE, design, 0.1).power
    assert planning.power_of(NOISE, Design(36, 3, 1), 10.0).power == 0
    assert planning.power_of(Noise(0, 0, 0), design, 0.1).power == 1


@pytest.mark.parametrize(
    ("field", "noise"),
    [
        ("seeds", Noise(0.08, 0.08, 0.08)),
        ("patients", Noise(0.03, 0.20, 0.08)),
        ("folds", Noise(0.08, 0.08, 0.08)),
    ],
)
def test_what_is_needed_is_enough_and_one_less_is_not(field: str, noise: Noise) -> None:
    design = Design(patients=36, folds=3, seeds=2)
    needed = getattr(planning.needs((noise,) * 3, design, 0.1, claims=4), field).number
    assert needed > getattr(design, field)
    enough = [dataclasses.replace(design, **{field: number}) for number in (needed, needed - 1)]
    powers = [planning.power_of(noise, one, 0.1, claims=4).power for one in enough]
    assert powers[0] >= 0.8 > powers[1]


def test_runs_are_counted() -> None:
    design = Design(patients=36, folds=3, seeds=2, contexts=2)
    needed = planning.needs((Noise(0.12, 0.08, 0.08),) * 3, design, 0.1, claims=4)
    assert needed.seeds.number
    assert needed.folds.number
    assert needed.runs_for_seeds == (needed.seeds.number - 2) * 3 * 2
    assert needed.runs_for_folds == needed.folds.number * 2 * 2  # another split: none of the runs counts


def test_a_holdout_has_no_folds_to_add() -> None:
    needed = planning.needs(ALIKE, Design(patients=20, folds=1, seeds=3), 0.1)
    assert needed.folds == Range(None, None, None)
    assert needed.runs_for_folds is None


def test_no_number_of_patients_helps_where_runs_differ_nor_of_seeds_where_patients_do() -> None:
    runs = planning.needs((Noise(0.10, 0.1, 0.05),) * 3, Design(36, 3, 2), 0.08)
    assert runs.patients.number is None
    assert runs.seeds.number
    patients = planning.needs((Noise(0.01, 0.3, 0.05),) * 3, Design(20, 3, 2), 0.1)
    assert patients.seeds.number is None
    assert patients.patients.number


def test_the_range_is_wide_where_few_runs_tell_and_narrows_with_more() -> None:
    noise, few, many = Noise(0.06, 0.1, 0.05), Design(36, 3, 2), Design(36, 3, 12)
    widths = []
    for design in (few, many):
        found, seen = planning.noise_of(pairs_of(noise, design, seed=3))
        assert seen == design
        likely, low, high = planning.ranged(found)
        assert low.run_sd < likely.run_sd < high.run_sd
        widths.append(high.run_sd / max(low.run_sd, 1e-9))
    assert widths[0] > 1.5 * widths[1]


def test_the_range_covers_the_truth_in_eight_of_ten_pilots() -> None:
    design, covered = Design(24, 3, 3), 0
    for seed in range(60):
        _, low, high = planning.ranged(planning.noise_of(pairs_of(NOISE, design, seed))[0])
        covered += low.run_sd <= NOISE.run_sd <= high.run_sd
    assert 0.65 <= covered / 60 <= 0.93  # 0.8, within 2.5 standard errors


def test_words_of_a_range() -> None:
    assert Range(7, 5, 9).words == "5 to 9"
    assert Range(7, 7, 7).words == "7"
    assert Range(7, 5, None).words == "at least 5"
    assert Range(None, 5, None).words == "none"


def test_an_external_cohort_is_seen_as_crossed() -> None:
    found, design = planning.noise_of(pairs_of(NOISE, Design(12, 3, 1, crossed=True)))
    assert design.crossed
    assert (design.run_pairs, design.groups, design.runs_a_patient) == (3, 1, 3)
    assert found.run_df == 2  # three runs of one block, though there is one seed


class TestAdvice:
    def test_one_seed_is_told_to_run_a_second(self) -> None:
        said = planning.advice(pairs_of(NOISE, Design(30, 5, 1)), 0.05)
        assert said == "run a second seed first: one alone does not tell what comes from runs and what from patients"

    def test_names_seeds_and_that_patients_do_not_help(self) -> None:
        said = planning.advice(pairs_of(Noise(0.12, 0.03, 0.03), Design(30, 3, 3), seed=1), 0.08, claims=4)
        assert said.startswith("about ")
        assert " seeds would settle a difference of 0.08, no number of patients while runs differ by 0." in said
        assert said.endswith(" % of the variance is between runs")

    def test_names_both_where_both_help(self) -> None:
        said = planning.advice(pairs_of(Noise(0.05, 0.14, 0.08), Design(36, 3, 3), seed=5), 0.1, claims=4)
        assert " seeds, or " in said
        assert " patients, would settle a difference of 0.1; " in said
        assert said.endswith(" % of the variance is between patients")

    def test_says_where_the_design_was_enough(self) -> None:
        said = planning.advice(pairs_of(Noise(0.01, 0.05, 0.02), Design(36, 3, 3)), 0.5, per=" a case")
        assert said == "a difference of 0.5 a case would have shown with a probability of 1.00"

    def test_without_a_margin_there_is_nothing_to_settle(self) -> None:
        assert planning.advice(pairs_of(NOISE, Design(12, 3, 3)), 0.0) == ""

    def test_the_distance_is_the_margin_whatever_was_observed(self) -> None:
        near, far = (pairs_of(NOISE, Design(24, 3, 3), effect=effect) for effect in (0.0, 0.5))
        assert planning.advice(near, 0.1) == planning.advice(far, 0.1)


def test_all_scores_alike_need_no_plan() -> None:
    flat = pairs_of(Noise(0, 0, 0), Design(12, 3, 3))
    assert math.isnan(
        planning.power_of(planning.ranged(planning.noise_of(flat)[0])[0], Design(12, 3, 3), 0.1).from_runs
    )
