"""The report on somebody's table in a real browser, in both themes."""

import numpy as np
import pytest

from litsexp.evidence.foreign.judged import as_claims, judged
from litsexp.evidence.foreign.report import render

from ...browser import browser, needs_axe, needs_browser


@needs_browser
@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault_and_nothing_is_fetched(make_table, make_claim, tmp_path, theme):
    table = make_table(np.random.default_rng(0))
    path = tmp_path / "report.html"
    path.write_text(render(judged(table, as_claims({"claims": [make_claim()]}), "results.csv")), encoding="utf-8")
    with browser(tmp_path / "profile") as browse:
        page = browse(path.as_uri())
        page.wait("document.readyState === 'complete' && !!document.querySelector('svg.chart')")
        page.theme(theme)
        assert page.faults() == []
        assert [event for event in page.events if event["method"] == "Log.entryAdded"] == []
