"""Learning curves over epochs and over images."""

import re

import pandas as pd
import pytest

from litsexp.evidence.curves_figure import curves, thinned
from litsexp.evidence.figures import arm_colours


@pytest.fixture
def table(shown):
    """As the driver writes it: epochs from 0."""
    return shown.curves.assign(epoch=shown.curves["epoch"] - 1)


def drawn(shown, table):
    return curves(table, arm_colours(shown.arm_names))


def lines(svg, arm):
    colour = arm_colours(["baseline", "init=scratch", "augment=none"])[arm]
    return re.findall(rf'd="(M[^"]+)" clip-path="[^"]+" style="fill: none; stroke: {colour}', svg)


def test_the_first_main_metrics_and_the_loss_epochs_from_1(shown, table):
    svg = drawn(shown, table)
    for title in ("tumor Dice, validation", "liver Dice, validation", "loss, validation"):
        assert title in svg
    assert svg.count(", validation") == 3
    assert "images seen" not in svg  # these runs do not tell
    assert set(re.findall(r">(\d+)</text>", svg)) == {"1", "2"}


def test_where_all_arms_see_as_many_images_they_are_a_second_axis(shown, table):
    svg = drawn(shown, table.assign(images=(table["epoch"] + 1) * 1000))
    assert svg.count("images seen in training") == 3
    assert ">1.5k<" in svg and ">2k<" in svg
    assert len(lines(svg, "baseline")) == 3


def test_where_arms_differ_the_curves_follow_over_images(shown, table):
    few = table["arm"] == "init=scratch"
    svg = drawn(shown, table.assign(images=(table["epoch"] + 1) * (1000 - 500 * few)))
    assert svg.count("images seen in training") == 3 and svg.count(">epoch<") == 3
    by_epoch, by_images = lines(svg, "baseline")[0], lines(svg, "baseline")[3]
    fewer = lines(svg, "init=scratch")[3]
    assert len(lines(svg, "baseline")) == 6
    ends = [float(re.findall(r"[ML] ([\d.]+)", path)[-1]) for path in (by_epoch, by_images, fewer)]
    assert ends[0] == pytest.approx(ends[1], abs=8) and ends[2] < ends[1] - 50  # it has seen half as many


def test_of_many_epochs_as_many_points_are_drawn_as_a_panel_has_room_for(shown, table):
    long = pd.concat(
        [table.assign(epoch=epoch, value=epoch * 37 % 101 / 101) for epoch in range(1000)], ignore_index=True
    )
    path = lines(drawn(shown, long), "baseline")[0]
    ends = lines(drawn(shown, long[long["epoch"].isin([0, 999])]), "baseline")[0]
    across, whole = ([float(x) for x in re.findall(r"[ML] ([\d.]+)", line)] for line in (path, ends))
    assert 50 < len(across) <= 200 and across == sorted(across)
    assert (across[0], across[-1]) == pytest.approx((whole[0], whole[-1]), abs=1)
    assert thinned(long) == "Drawn are 200 of 1,000 epochs." and thinned(table) == thinned(pd.DataFrame()) == ""
