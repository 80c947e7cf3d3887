import math

import pandas as pd
import pytest

from litsexp.evidence import tables


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


def test_tables_for_papers(shown, tmp_path, make_evidence, make_study):
    paths = tables.write_tables(shown, tmp_path)
    assert [path.name for path in paths] == ["verdicts.csv", "verdicts.tex", "arms.csv", "arms.tex"]
    tex = paths[1].read_text()
    assert r"\toprule" in tex
    assert r"95 \% CI" in tex
    assert set(pd.read_csv(paths[2])["arm"]) == {"baseline", "init=scratch", "augment=none"}
    assert "0.900 [0.900, 0.900]" in paths[3].read_text()
    assert tables.write_tables(make_evidence(make_study(claims=[])), tmp_path / "none")[0].exists()
