"""What became of a claim, and what a pipeline makes of it."""

import math

import numpy as np
import pytest

from litsexp.evidence.compare.comparison import compare
from litsexp.evidence.compare.report import render
from litsexp.evidence.compare.tables import as_json
from litsexp.evidence.kinds import Tables

CLAIM = {"id": "transfer", "says": "It helps.", "factor": "init", "better": "imagenet", "than": "scratch"}
CLAIM |= {"margin": 0.05}


@pytest.fixture
def then_now(make_study, make_scores, make_side):
    """``then_now(0.1, -0.1)``: two studies in which the claim's gain is so much."""

    def make(then, now, seed=0, run_sd=0.02, **changes):
        asked, rng = make_study(), np.random.default_rng(seed)
        a, b = (make_side(make_scores(asked, rng, gain=gain, run_sd=run_sd)) for gain in (then, now))
        return compare(a, b, **changes)

    return make


def test_a_ruling_that_was_reversed_is_worse(then_now):
    found = then_now(0.2, -0.2)
    (claim,) = found.claims
    assert (claim.then, claim.now, claim.worse) == ("supported", "contradicted", True)
    assert claim.change.effect == pytest.approx(claim.now_effect - claim.then_effect)
    assert claim.words == "supported → contradicted; effect smaller, beyond the margin of 0.05"
    assert found.exit_code() == 1
    assert any(said.startswith("transfer: supported → contradicted") for said in found.worse)


def test_a_ruling_that_fell_without_its_effect_is_chance_until_shown(then_now):
    """Supported, then inconclusive, while the effects do not differ: nothing has been shown to get worse."""
    found = next(
        each
        for each in (then_now(0.05, 0.035, seed, run_sd=0.03) for seed in range(100))
        if (each.claims[0].then, each.claims[0].now) == ("supported", "inconclusive")
    )
    (claim,) = found.claims
    assert claim.fell
    assert not claim.worse
    assert (found.exit_code(), found.exit_code(strict=True)) == (0, 1)
    assert "claim transfer" in found.unclear


def test_a_ruling_that_rose_is_no_alarm(then_now):
    found = then_now(-0.2, 0.2)
    assert (found.claims[0].then, found.claims[0].now) == ("contradicted", "supported")
    assert not found.claims[0].fell
    assert found.claims[0].words.startswith("contradicted → supported; effect larger")
    assert found.exit_code() == 0


def test_a_smaller_effect_of_a_claim_that_still_holds_is_told_and_no_alarm(then_now):
    found = then_now(0.4, 0.2)
    (claim,) = found.claims
    assert (claim.then, claim.now, claim.change.verdict) == ("supported", "supported", "worse")
    assert claim.words == "supported; effect smaller, beyond the margin of 0.05"
    assert not claim.worse


def test_a_claim_that_is_gone_new_or_asks_for_something_else(make_study, make_scores, make_side):
    cases = make_scores(make_study(), np.random.default_rng(0))
    turned = CLAIM | {"better": "scratch", "than": "imagenet"}
    asked = [make_study(claims=[CLAIM, CLAIM | {"id": "gone"}]), make_study(claims=[turned, CLAIM | {"id": "new"}])]
    found = compare(*(make_side(cases, each) for each in asked))
    claims = {claim.claim.id: claim for claim in found.claims}
    assert claims["gone"].words == "only in A: supported"
    assert claims["new"].words == "only in B: supported"
    assert claims["transfer"].change is None
    assert "asks for something else" in claims["transfer"].note
    assert claims["transfer"].words == "supported → contradicted"
    assert not claims["transfer"].worse  # the question was reversed, not the answer
    assert [said for said in found.unclear if said.startswith("claim")] == ["claim transfer", "claim gone"]
    assert (found.exit_code(), found.exit_code(strict=True)) == (0, 1)
    assert "asks for something else" in render(found)


def test_what_learns_nothing_is_told_as_it_was_recorded(make_study, make_scores, make_side):
    claim = {"id": "floor", "says": "It learns.", "factor": "arm", "better": "baseline", "than": "all background"}
    asked = make_study(claims=[claim])
    cases = make_scores(asked, np.random.default_rng(0))
    a = make_side(cases, asked, rulings={"floor": "supported"}, effects={"floor": 0.3})
    b = make_side(cases, asked, rulings={"floor": "contradicted"}, effects={"floor": -0.1})
    (told,) = compare(a, b).claims
    assert (told.then, told.now, told.then_effect, told.now_effect) == ("supported", "contradicted", 0.3, -0.1)
    assert told.change is None
    assert "as they were recorded" in told.note
    (unknown,) = compare(a, make_side(cases, asked)).claims
    assert unknown.now == ""
    assert math.isnan(unknown.now_effect)


def test_another_ruling_than_the_recorded_one_is_noted(make_study, make_scores, make_side):
    cases = make_scores(make_study(), np.random.default_rng(0))
    found = compare(make_side(cases, rulings={"transfer": "inconclusive"}), make_side(cases))
    assert found.claims[0].note == "recorded in A when it ended: inconclusive"


@pytest.mark.parametrize("fingerprint", ["same", "other"])
def test_gaps_and_whole_volumes_are_compared_where_both_have_them(make_study, make_scores, make_side, fingerprint):
    claims = [CLAIM | {"id": name, "metric": f"{name}:dice_tumor"} for name in ("gap", "native")]
    asked, rng = make_study(claims=claims), np.random.default_rng(0)
    sides = []
    for shift, mark in ((0.0, "same"), (-0.3, fingerprint)):
        cases, train, native = (make_scores(asked, rng, shift=each, run_sd=0.02) for each in (0.0, 0.3 + shift, shift))
        train["fold"] = (train["fold"] + 1) % 3
        sides.append(make_side(cases, asked, tables=Tables(cases, train, native=native), fingerprint=mark))
    found = {(c.what, c.measure.name): c for c in compare(*sides).arms}
    assert found["baseline", "native:dice_tumor"].verdict == "worse"
    assert found["baseline", "native:dice_tumor"].paired == (fingerprint == "same")
    gap = found["baseline", "gap:dice_tumor"]
    if fingerprint == "same":
        assert gap.verdict == "better"  # it overfits less
        assert gap.effect == pytest.approx(-0.3, abs=0.1)
    else:
        assert gap.reason == "cannot be compared without pairs of runs"
    assert {c.verdict for c in compare(*sides).arms if c.measure.words == "tumor Dice"} <= {"same", "unclear"}


def test_one_study_without_a_score_gives_no_row(make_study, make_scores, make_side):
    cases = make_scores(make_study(), np.random.default_rng(0))
    found = compare(make_side(cases), make_side(cases.drop(columns="dice_liver")))
    assert {change.measure.name for change in found.arms} == {"dice_tumor"}


def test_report_and_json_say_phantom_and_hold_no_nan(then_now, make_side, make_scores, make_study):
    found = then_now(0.2, -0.2)
    html = render(found)
    assert html == render(found)
    assert html.count("badge phantom") == 1
    assert "transfer: supported → contradicted" in html
    assert "NaN" not in as_json(found, strict=False)
    real = make_side(make_scores(make_study(), np.random.default_rng(0)), phantom=False)
    assert "badge phantom" not in render(compare(real, real))
