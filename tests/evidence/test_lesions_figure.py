"""Recall by size and contrast, as a figure."""

import re

import pandas as pd
import pytest

from litsexp.evidence.figures import ARM_COLOURS, arm_colours
from litsexp.evidence.lesions_figure import recalls
from litsexp.evidence.native import by_kind, lesion_findings

SIZES = ("lt10mm", "10to20mm", "gt20mm")


@pytest.fixture
def cases():
    """Two arms on two patients; the second arm finds nothing small."""
    rows = []
    for arm in ("baseline", "other"):
        for seed in (0, 1):
            for case in (1, 2):
                row = {"arm": arm, "fold": 0, "seed": seed, "case": case}
                row |= {f"lesions_true_{kind}": 2 for kind in SIZES}
                row |= {f"lesions_detected_{kind}": 2 - (arm == "other" and kind == "lt10mm") * 2 for kind in SIZES}
                rows.append(row)
    return pd.DataFrame(rows)


def test_a_group_a_kind_that_was_measured(cases):
    assert list(by_kind(cases)) == ["by diameter"]
    measured = cases.assign(**{f"lesions_true_{kind}": 1 for kind in ("lt20hu", "20to40hu", "gt40hu")})
    assert list(by_kind(measured)) == ["by diameter", "by contrast with the liver"]
    assert by_kind(cases.assign(**{f"lesions_true_{kind}": 0 for kind in SIZES})) == {}
    assert by_kind(cases[["arm", "case"]]) == {}


def test_a_dot_an_arm_and_kind_and_how_many_lesions_there_are(cases):
    groups = by_kind(cases)
    names = ["baseline", "other"]
    table = lesion_findings(cases, names, groups["by diameter"])
    svg = recalls(table, groups, arm_colours(names))
    assert "by diameter" in svg and svg.count(">4 lesions<") == 3
    assert "below 10 mm" in svg
    at = {
        colour: [float(y) for y in re.findall(rf'<use [^>]*y="([\d.]+)" style="fill: {colour}', svg)]
        for colour in ARM_COLOURS[:2]
    }
    assert at[ARM_COLOURS[0]][0] == at[ARM_COLOURS[1]][1]  # all found
    assert at[ARM_COLOURS[1]][0] > at[ARM_COLOURS[0]][0] + 50  # none found: far below
