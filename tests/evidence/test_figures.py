"""Figures as SVG text: same bytes, right is better, and a line takes the colour of who does better."""

import dataclasses
import math
import re

import pandas as pd
import pytest

from litsexp.evidence import figures
from litsexp.evidence.measures import measure_of


@pytest.fixture
def fewer(shown):
    """The first verdict as if it were about false lesions: patients in whom ``better`` has more, and fewer."""
    claim = shown.verdicts[0].claim.model_copy(update={"id": "fewer", "metric": "lesions_false", "margin": 0.5})
    table = pd.DataFrame(
        {"better": [4.0, 1.0, 2.0], "than": [2.0, 3.0, 2.0]}, index=pd.Index([11, 12, 13], name="case")
    )
    table["difference"] = table["better"] - table["than"]
    numbers = {"effect": -0.4, "low": -1.2, "high": 0.3, "verdict": "supported"}
    return dataclasses.replace(
        shown.verdicts[0], claim=claim, measure=measure_of(claim.metric), differences=table, **numbers
    )


def test_claims_in_other_units_have_axes_of_their_own(shown, fewer):
    one = figures.forest(shown.verdicts)
    assert one == figures.forest(shown.verdicts)
    assert one.count("mean difference over patients") == 1
    assert "mean difference over patients, 95 % intervals (right of 0: better)" in one
    both = figures.forest([*shown.verdicts, fewer])
    assert both.count("mean difference over patients") == 2
    assert "mean difference over patients, a case, 95 % intervals (less is better; right of 0: better)" in both


def dots(svg, colour):
    return [float(x) for x in re.findall(rf'<use xlink:href="#\w+" x="([\d.]+)"[^>]*fill: {colour}', svg)]


def test_right_is_better_in_either_direction(shown, fewer):
    """The supported effect of -0.4 lies right of an equally supported one of +0.1 on a mirrored axis' zero."""
    colour = figures.VERDICT_COLOURS["supported"]
    (less,) = dots(figures.forest([fewer]), colour)
    (worse,) = dots(figures.forest([dataclasses.replace(fewer, effect=0.4, low=-0.3, high=1.2)]), colour)
    assert less > worse
    better = dataclasses.replace(shown.verdicts[0], verdict="supported", effect=0.1, low=0.05, high=0.15)
    worse = dataclasses.replace(better, effect=-0.1, low=-0.15, high=-0.05)
    assert dots(figures.forest([better]), colour) > dots(figures.forest([worse]), colour)


def lines(svg, colour):
    """(width, x of either end, y) of each straight line of this colour."""
    found = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \nL ([\d.]+) [\d.]+ \n"[^>]*style="([^"]*)"', svg)
    widths = [(re.search(r"stroke-width: ([\d.]+)", how), x, end, y) for x, y, end, how in found if colour in how]
    return sorted((float(width[1]) if width else 1.0, float(x), float(end), float(y)) for width, x, end, y in widths)


def test_both_intervals_are_drawn_and_named(shown):
    verdict = dataclasses.replace(
        shown.verdicts[0], verdict="equivalent", low=-0.2, high=0.4, models_low=0.0, models_high=0.2
    )
    svg = figures.forest([verdict])
    (thin, left, right, below), (thick, low, high, above) = lines(svg, figures.VERDICT_COLOURS["equivalent"])
    assert thin < thick and below > above
    assert (high - low) / (right - left) == pytest.approx(3, rel=0.02)
    assert low < left < right < high
    for name in ("new patients and new runs", "these trained models, new patients", "within the margin"):
        assert name in svg
    assert "two halves" not in svg and figures.NOISE_BAND["edgecolor"] not in svg


def test_the_noise_floor_is_a_hatched_band_of_the_claims_own_measure(shown):
    svg = figures.forest(shown.verdicts, shown.noise)
    assert "two halves of baseline" in svg
    assert svg.count("<pattern") == 1 and figures.NOISE_BAND["edgecolor"] in svg
    other = [dataclasses.replace(shown.noise[0], metric="dice_liver")]
    assert "two halves" not in figures.forest(shown.verdicts, other)
    wide = [dataclasses.replace(each, halves=5.0) for each in shown.noise]
    assert ">4</text>" in figures.forest(shown.verdicts, wide)  # the axis reaches as far


def test_one_pair_of_runs_has_the_thin_interval_alone(shown):
    verdict = dataclasses.replace(shown.verdicts[0], low=math.nan, high=math.nan, verdict="equivalent")
    (only,) = lines(figures.forest([verdict]), figures.VERDICT_COLOURS["equivalent"])
    assert only[0] == 1


def test_a_line_takes_the_colour_of_who_does_better(fewer):
    svg = figures.pairs(fewer, ("#111111", "#222222"))
    assert "false lesions a case (less is better)" in svg
    assert "patients, descending by difference (case number)" in svg
    lines = svg[svg.index("LineCollection_1") :].split("</g>")[0]
    assert re.findall(r"stroke: (#\w+)", lines) == ["#222222", figures.HAIR, "#111111"]
    cases = [label for label in re.findall(r">(\d+)</text>", svg) if label in ("11", "12", "13")]
    assert cases == ["11", "13", "12"]  # from who is worst to who is best served
