import dataclasses
import math

import pandas as pd
import pytest

from litsexp.evidence import tables
from litsexp.evidence.measures import measure_of


def test_arm_scores_count_a_patient_once():
    cases = pd.DataFrame({"arm": "a", "fold": 0, "seed": [0, 1, 0, 1], "case": [1, 1, 2, 2]})
    cases["dice_tumor"] = [0.2, 0.4, 0.9, math.nan]
    row = tables.arm_scores(cases, ["dice_tumor"]).iloc[0]
    assert row["patients"] == 2
    assert row["mean"] == pytest.approx((0.3 + 0.9) / 2)


def test_verdict_table_keeps_the_numbers(shown):
    table = tables.verdict_table(shown.verdicts)
    assert list(table["claim"]) == ["transfer", "pixels"]
    assert table["effect"][0] == shown.verdicts[0].effect
    assert list(table["post_hoc"]) == [False, True]
    assert tables.verdict_table([]).empty


def test_verdict_tables_say_which_way_is_better(shown_elsewhere, tmp_path):
    fewer = shown_elsewhere.verdicts[0].claim.model_copy(update={"metric": "lesions_false"})
    verdict = dataclasses.replace(shown_elsewhere.verdicts[0], claim=fewer, measure=measure_of(fewer.metric))
    table = tables.verdict_table([verdict, shown_elsewhere.verdicts[1]])
    assert list(table["metric"]) == ["lesions_false", "pixel_acc"]
    assert list(table["higher_is_better"]) == [False, True]
    assert list(table["unit"]) == ["a case", ""]
    tables.write_tables(shown_elsewhere, tmp_path)
    for name in ("verdicts", "external_verdicts"):
        assert pd.read_csv(tmp_path / f"{name}.csv")["higher_is_better"].all()
    less = dataclasses.replace(shown_elsewhere, verdicts=[verdict], external=None)
    tables.write_tables(less, tmp_path)
    assert "false lesions a case (less is better)" in (tmp_path / "verdicts.tex").read_text()


def test_arms_are_scored_by_measures():
    """Precision counts silence, which the metric's own column leaves out; what nobody scored has no row."""
    cases = pd.DataFrame({"arm": "a", "fold": 0, "seed": 0, "case": [1, 2], "precision_tumor": [0.8, math.nan]})
    cases = cases.assign(tp_tumor=[8, 0], fp_tumor=[2, 0], fn_tumor=[0, 9])
    scores = tables.arm_scores(cases, ["precision_tumor", "lesion_f1"])
    assert list(scores["metric"]) == ["precision_tumor"]
    assert (scores["mean"][0], scores["patients"][0]) == (pytest.approx(0.4), 2)


def test_tables_for_papers(shown, tmp_path, make_evidence, make_study):
    paths = tables.write_tables(shown, tmp_path)
    assert [path.name for path in paths] == [
        "verdicts.csv",
        "verdicts.tex",
        "arms.csv",
        "arms.tex",
        "noise.csv",
        "noise.tex",
    ]
    tex = paths[1].read_text()
    assert r"\toprule" in tex
    assert r"Effect [95 \% CI] & These models & p (Holm) & Patients & Run pairs & Verdict" in tex
    assert "% 95 % CI: new patients and new runs, on these training sets; of these models: these trained models" in tex
    low, high = shown.verdicts[0].models_low, shown.verdicts[0].models_high
    assert f"& [{low:.2f}, {high:.2f}] &" in tex
    assert set(pd.read_csv(paths[2])["arm"]) == {"baseline", "init=scratch", "augment=none"}
    assert "0.900 [0.900, 0.900]" in paths[3].read_text()
    assert tables.write_tables(make_evidence(make_study(claims=[])), tmp_path / "none")[0].exists()


def test_a_phantoms_tables_say_phantom(shown_elsewhere, tmp_path, make_evidence, make_study):
    for path in tables.write_tables(shown_elsewhere, tmp_path):
        text = path.read_text()
        if path.suffix == ".csv":
            assert pd.read_csv(path)["cohort"].str.contains("phantom").all()
        else:
            assert text.startswith("% phantom results: phantom, ")
            assert " (phantom) & " in text  # what is printed
    real = make_evidence(make_study(), cohort="lits, 12 patients", phantom=False, verdicts=[])
    for path in tables.write_tables(real, tmp_path / "real"):
        assert "phantom" not in path.read_text()


def test_a_table_of_the_noise_floor(shown_elsewhere, tmp_path, make_evidence, make_study):
    tables.write_tables(shown_elsewhere, tmp_path)
    for name, noise in (("noise", shown_elsewhere.noise), ("external_noise", shown_elsewhere.external_noise)):
        table = pd.read_csv(tmp_path / f"{name}.csv").set_index("metric")
        assert table.loc["dice_tumor", "halves"] == pytest.approx(noise[0].halves)
        assert table.loc["dice_tumor", ["arm", "runs", "deals"]].tolist() == ["baseline", 6, 8]
        assert (
            f"{noise[0].run_sd:.3f} & {noise[0].halves:.3f} & {noise[0].halves_max:.3f} & 6"
            in (tmp_path / f"{name}.tex").read_text()
        )
    tables.write_tables(make_evidence(make_study(seeds=[0])), tmp_path / "one seed")
    empty = pd.read_csv(tmp_path / "one seed" / "noise.csv")
    assert len(empty) == 0 and "halves" in empty


def test_external_tables_stand_apart(shown_elsewhere, tmp_path):
    names = [path.name for path in tables.write_tables(shown_elsewhere, tmp_path)]
    tables_there = ("external_verdicts", "external_arms", "external_noise")
    assert names[6:] == [f"{name}.{kind}" for name in tables_there for kind in ("csv", "tex")]
    claims = pd.read_csv(tmp_path / "external_verdicts.csv")
    assert list(claims["claim"]) == ["transfer", "pixels"]
    assert claims["internal_effect"][0] == pytest.approx(shown_elsewhere.verdicts[0].effect)
    assert claims["external_effect"][0] == pytest.approx(shown_elsewhere.external.verdicts[0].effect)
    assert list(claims["external_patients"]) == [7, 8]
    assert list(claims["external_run_pairs"]) == list(claims["internal_run_pairs"]) == [6, 6]
    assert claims["external_run_pairs_agreeing"][0] == 6
    arms = pd.read_csv(tmp_path / "external_arms.csv").set_index(["arm", "metric"])
    row = arms.loc[("baseline", "dice_liver")]
    assert (row["internal"], row["external"], row["patients"]) == pytest.approx((0.9, 0.8, 8))
    assert row["gap"] == pytest.approx(-0.1)
    assert "0.800 ($-$0.100)" in (tmp_path / "external_arms.tex").read_text()


def test_gaps_of_what_learns_nothing(shown_elsewhere, shown):
    there = shown_elsewhere.external.trivial
    table = tables.gap_table(shown.trivial, there, ["dice_liver", "pixel_acc"], by="predictor")
    assert list(zip(table["predictor"], table["metric"], strict=True)) == [("all background", "dice_liver")]
    assert table["gap"].tolist() == pytest.approx([0.1])
    assert len(tables.gap_table(shown.cases, pd.DataFrame(), ["dice_liver"])) == 0  # no run scored an external case
