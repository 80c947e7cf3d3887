"""The report on somebody's table in a real browser, in both themes."""

import numpy as np
import pytest

from litsexp.evidence.foreign.judged import as_claims, judged
from litsexp.evidence.foreign.report import render

from ...browser import looked_at, needs_axe, needs_browser


@needs_browser
@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault_and_nothing_is_fetched(make_table, make_claim, tmp_path, theme):
    table = make_table(np.random.default_rng(0))
    path = tmp_path / "report.html"
    path.write_text(render(judged(table, as_claims({"claims": [make_claim()]}), "results.csv")), encoding="utf-8")
    assert looked_at(path, tmp_path / "profile", theme) == ([], [])
