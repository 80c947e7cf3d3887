"""The judge on anybody's table: its numbers, and what it says cannot be said."""

import math

import numpy as np
import pandas as pd
import pytest

import litsexp
from litsexp.evidence.foreign.judged import judged
from litsexp.evidence.words import cautions
from litsexp.spec.reading import as_claims

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.fixture
def notes_of(make_claim):
    def of(table, **content):
        return judged(table, as_claims({"claims": [make_claim()]} | content), "/home/me/results.csv").notes

    return of


def slow_interval(pairs):
    """Patients and runs as EVIDENCE writes them, in loops: effect, low, high, p."""
    by_patient, by_run = {}, {}
    for row in pairs.itertuples():
        difference = row.better - row.than
        by_patient.setdefault(row.case, []).append(((row.fold, row.seed), difference))
        by_run.setdefault((row.fold, row.seed), []).append(difference)
    n, r = len(by_patient), len(by_run)
    patients = [sum(d for _, d in seen) / len(seen) for seen in by_patient.values()]
    runs = [sum(seen) / len(seen) for seen in by_run.values()]
    share = dict.fromkeys(by_run, 0.0)
    for seen in by_patient.values():
        for run, _ in seen:
            share[run] += 1 / len(seen) / n
    effect, grand = sum(patients) / n, sum(runs) / r
    v_patients = sum((d - effect) ** 2 for d in patients) / (n - 1) / n
    v_runs = sum((d - grand) ** 2 for d in runs) / (r - 1) * sum(w**2 for w in share.values())
    v = v_patients + v_runs
    df = v**2 / (v_patients**2 / (n - 1) + v_runs**2 / (r - 1))
    reach = scipy_stats.t.ppf(0.975, df) * math.sqrt(v)
    return effect, effect - reach, effect + reach, 2 * scipy_stats.t.sf(abs(effect) / math.sqrt(v), df)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [{"folds": 3, "seeds": 2, "gaps": 5}, {"folds": 7, "patients": 4, "gaps": 3}])
def test_an_irregular_table_gets_the_interval_over_patients_and_runs(make_table, make_claim, seed, shape):
    table = make_table(np.random.default_rng(seed), run_sd=0.05, **shape)
    (verdict,) = litsexp.judge_table(table, [make_claim()])
    assert len(verdict.pairs) < len(table) / 2  # it is irregular
    expected = slow_interval(verdict.pairs)
    assert (verdict.effect, verdict.low, verdict.high, verdict.p) == pytest.approx(expected, rel=1e-9)


def test_these_models_are_a_paired_t_test_and_a_false_claim_is_half_its_p(make_table, make_claim):
    table = make_table(np.random.default_rng(0), effect=0.02)
    (verdict,) = litsexp.judge_table(table, [make_claim()])
    new, old = (table[table["arm"] == arm].sort_values("case")["kappa"] for arm in ("new", "old"))
    theirs = scipy_stats.ttest_rel(new.to_numpy(), old.to_numpy())
    assert (verdict.models_low, verdict.models_high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert verdict.false_claim == pytest.approx(theirs.pvalue / 2)
    assert verdict.low < verdict.models_low
    assert verdict.models_high < verdict.high


def test_identical_trainings_are_rarely_called_different_and_these_models_often(make_table, make_claim):
    """The reason for all this: with run noise, patients alone find a difference between identical trainings."""
    rng, found, alone = np.random.default_rng(7), 0, 0
    for _ in range(30):
        (verdict,) = litsexp.judge_table(make_table(rng, effect=0, run_sd=0.1), [make_claim(margin=0)])
        found += verdict.verdict in ("supported", "contradicted")
        alone += verdict.models_low > 0 or verdict.models_high < 0
    assert found <= 5  # 0.05 of 30 is 1.5; more than 5 has a probability of 0.003
    assert alone >= 10


def test_a_true_difference_is_found_and_said_with_the_arms_own_names(make_table, make_claim):
    table = make_table(np.random.default_rng(0)).replace({"new": "Swin, lr 1/2", "old": "U-Net/plain"})
    claim = make_claim(better="Swin, lr 1/2", than="U-Net/plain")
    (verdict,) = litsexp.judge_table(table, {"claims": [claim], "metrics": {"kappa": {"words": "tumor Dice"}}})
    assert verdict.verdict == "supported"
    assert verdict.sentence.startswith("Swin, lr 1/2 raised tumor Dice by 0.1")
    assert " over U-Net/plain on 30 patients " in verdict.sentence
    assert verdict.post_hoc


def test_where_less_is_better_the_claim_is_supported_below_0(make_table, make_claim):
    table = make_table(np.random.default_rng(0), effect=-0.1)
    metrics = {"kappa": {"words": "ASSD", "higher_is_better": False, "unit": "mm"}}
    (verdict,) = litsexp.judge_table(table, {"claims": [make_claim()], "metrics": metrics})
    assert verdict.verdict == "supported"
    assert "new lowered ASSD by" in verdict.sentence
    assert litsexp.judge_table(table, [make_claim()])[0].verdict == "contradicted"


def test_files_and_a_kind_of_patients(make_table, make_claim, tmp_path):
    make_table(np.random.default_rng(0)).to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "claims.yaml").write_text(f"claims: [{make_claim()}]\nkind: phantom\n")
    (verdict,) = litsexp.judge_table(tmp_path / "results.csv", str(tmp_path / "claims.yaml"))
    assert "on 30 phantom patients" in verdict.sentence


class TestWhatCannotBeSaid:
    def test_one_run_an_arm(self, make_table, make_claim, notes_of):
        table = make_table(np.random.default_rng(0), folds=1, patients=12).drop(columns=["fold", "seed"])
        assert [note.split(":")[0] for note in notes_of(table, metrics={"kappa": {}})] == [
            "No column fold",
            "No column seed",
            "One run an arm",
        ]
        (verdict,) = litsexp.judge_table(table, [make_claim()])
        assert verdict.sentence.endswith(
            "inconclusive; 1 pair of runs cannot settle a claim about training; at least 5 are needed."
        )
        assert verdict.models_low > 0

    def test_folds_alone(self, make_table, notes_of):
        found = notes_of(make_table(np.random.default_rng(0)), metrics={"kappa": {}})
        assert len(found) == 1
        assert found[0].startswith("One seed: training noise cannot be told from fold differences.")

    def test_too_few_pairs_of_runs(self, make_table, notes_of):
        found = notes_of(make_table(np.random.default_rng(0), folds=2, seeds=2), metrics={"kappa": {}})
        assert [note[:51] for note in found] == ["4 pairs of runs: a claim about training needs 5. Wh"]

    def test_enough_folds_and_seeds_need_no_word(self, make_table, notes_of):
        assert notes_of(make_table(np.random.default_rng(0), seeds=2), metrics={"kappa": {}}) == []

    def test_a_direction_that_nobody_gave(self, make_table, notes_of):
        table = make_table(np.random.default_rng(0), seeds=2)
        assert notes_of(table)[0].startswith("Higher is taken as better in kappa:")

    def test_rows_without_a_partner_are_counted(self, make_table, notes_of):
        table = make_table(np.random.default_rng(0), seeds=2)
        lost = table[(table["arm"] == "new") & (table["fold"] == 1) & (table["seed"] == 1)]
        assert notes_of(table.drop(index=lost.index), metrics={"kappa": {}}) == [
            "Left out: 6 rows of old without a partner in new (same fold, seed and case)."
        ]

    def test_a_score_whose_partner_is_undefined_is_counted(self, make_table, make_claim):
        table = make_table(np.random.default_rng(0), seeds=2)
        table.loc[(table["arm"] == "new") & (table["case"] == "p0_0") & (table["seed"] == 0), "kappa"] = np.nan
        (verdict,) = litsexp.judge_table(table, [make_claim()])
        assert (verdict.n_dropped, verdict.n_undefined, verdict.n_patients) == (1, 0, 30)
        assert cautions(verdict) == [
            "Left out: 1 score of the others, undefined (empty in the table) in one run of a pair or in both."
        ]

    def test_arms_that_share_no_run_leave_nothing_to_compare(self, make_claim):
        table = pd.DataFrame({"arm": ["new", "old"], "case": [1, 1], "seed": [0, 1], "kappa": [0.5, 0.4]})
        (verdict,) = litsexp.judge_table(table, [make_claim()])
        assert "could not be compared" in verdict.sentence
