"""A search's own page: what it tried, exploratory, and read in a browser like the report."""

import itertools
import math
import re

import pandas as pd
import pytest

from litsexp.evidence import search_page
from litsexp.evidence.figures import ARM_COLOURS
from litsexp.evidence.search_figure import history, importances, parallel_coordinates

TRIALS = pd.DataFrame(
    {
        "trial": [3, 1, 0, 4, 2, 5],
        "state": ["COMPLETE"] * 4 + ["PRUNED", "FAIL"],
        "valid/score": [0.7, 0.6, 0.5, 0.2, 0.9, math.nan],
        "lr": [1e-3, 1e-2, 3e-3, 1e-4, 1e-2, 1e-3],
        "window": ["liver", "wide", "wide", "liver", "wide", "liver"],
    }
)
DONE = TRIALS[TRIALS["state"] == "COMPLETE"]


@pytest.fixture
def page(make_evidence, make_study):
    asked = make_study(design="search", search={"trials": 6}, claims=[])
    return lambda trials=TRIALS, **more: search_page.render(make_evidence(asked, search=trials, **more))


def ends(svg):
    """Colour -> height where its line begins and ends, in the figure's pixels."""
    found = re.findall(r'<path d="M [\d.]+ ([\d.]+) \n?(.*?)"[^>]*style="fill: none; stroke: (#\w+)', svg, re.DOTALL)
    return {colour: (float(first), float(rest.split()[-1])) for first, rest, colour in found if "C" in rest}


def test_a_line_a_finished_trial_the_best_in_colour():
    svg = parallel_coordinates(DONE.reset_index(drop=True), ["lr", "window"])
    drawn = ends(svg)
    assert set(drawn) == set(ARM_COLOURS[1:5])  # four trials
    best, second, _, last = (drawn[colour] for colour in ARM_COLOURS[1:5])
    assert best[1] < second[1] < last[1]  # a higher score is higher up, and SVG counts from the top
    assert second[0] < best[0] < last[0]  # so is a higher learning rate
    for text in (">lr<", ">window<", ">validation score<", ">liver<", ">wide<", ">0.0001<", ">0.01<"):
        assert text in svg, text


def test_the_learning_rates_axis_is_logarithmic():
    thirds = DONE.assign(lr=[1e-4, 1e-3, 1e-2, 1e-1]).reset_index(drop=True)
    heights = [ends(parallel_coordinates(thirds, ["lr"]))[colour][0] for colour in ARM_COLOURS[1:5]]
    steps = [a - b for a, b in itertools.pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.01)


def test_bars_are_ordered_and_say_their_part():
    svg = importances({"lr": 0.25, "window": 0.75})
    assert re.findall(r">(\d+ %)<", svg) == ["75 %", "25 %"]
    assert svg.index(">window<") < svg.index(">lr<")


def test_the_best_so_far_knows_no_pruned_trial():
    svg = history(TRIALS)
    assert "best so far" in svg and "pruned: its last epoch's" in svg
    assert "pruned" not in history(DONE)


def test_the_page_says_that_it_is_exploratory_and_lists_every_trial(page):
    html = page(importances={"lr": 0.25, "window": 0.75})
    assert "exploratory</span>" in html and "nothing here tests a claim" in html
    assert html.count("<tr>") == 1 + len(TRIALS)
    assert "With 4 finished trials it says little." in html
    assert "://" not in html.replace("http-equiv", "")
    assert html.count('role="img"') == 3


@pytest.mark.parametrize("trials", [TRIALS.head(0), TRIALS.head(1), TRIALS.tail(1)], ids=["none", "one", "failed"])
def test_with_too_few_trials_it_says_so(page, trials):
    html = page(trials)
    assert html.count("It takes two finished trials to compare.") == 2
    assert "Too few finished trials" in html
