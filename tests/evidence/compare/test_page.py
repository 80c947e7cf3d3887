"""The comparison of two studies in a real browser, in both themes."""

import numpy as np
import pytest

from litsexp.evidence.compare.comparison import compare
from litsexp.evidence.compare.report import render

from ...browser import looked_at, needs_axe, needs_browser


@needs_browser
@needs_axe
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault_and_nothing_is_fetched(make_study, make_scores, make_side, tmp_path, theme):
    rng, asked = np.random.default_rng(0), make_study()
    old = make_side(make_scores(asked, rng))
    new = make_side(make_scores(asked, rng, shift=-0.2), facts={"version.torch": "2.10.0", "device": "cpu"})
    path = tmp_path / "report.html"
    path.write_text(render(compare(old, new)), encoding="utf-8")
    assert looked_at(path, tmp_path / "profile", theme) == ([], [])
