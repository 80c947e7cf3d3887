"""What a verdict elsewhere says about the verdict here."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence.external import Replication, replications
from litsexp.evidence.judge import judge
from litsexp.evidence.measures import measure_of


def pair(shown, here, there, agreeing=3, effects=(0.1, 0.08), patients=11, **changes):
    """The same claim with these two rulings."""
    base = dataclasses.replace(shown.verdicts[0], verdict=here, effect=effects[0], kind="")
    numbers = {"effect": effects[1], "low": 0.03, "high": 0.12, "n_patients": patients, "n_run_pairs": 3}
    numbers |= {"kind": "external"} | changes
    return Replication(base, dataclasses.replace(base, verdict=there, **numbers), agreeing)


@pytest.mark.parametrize(
    ("here", "there", "holds", "words"),
    [
        ("supported", "supported", "holds", "same direction, supported there too; 3 of 3 pairs have this sign"),
        ("supported", "equivalent", "does not hold", "same direction, equivalent there, supported here; 3 of 3"),
        ("supported", "inconclusive", "open", "same direction, supported here, inconclusive there; 3 of 3"),
        ("inconclusive", "supported", "open", "same direction, supported there, inconclusive here; 3 of 3"),
        ("equivalent", "equivalent", "holds", ": equivalent there too"),
        ("inconclusive", "inconclusive", "open", ": inconclusive there too"),
        ("equivalent", "inconclusive", "open", ": equivalent here, inconclusive there"),
    ],
)
def test_a_verdict_holds_or_does_not_or_stays_open(shown, here, there, holds, words):
    found = pair(shown, here, there)
    assert found.holds == holds
    assert found.words.startswith("+0.08 [0.03, 0.12] on 11 external patients and 3 pairs of runs: ")
    assert words in found.words


def test_the_opposite_elsewhere_is_called_that(shown):
    found = pair(shown, "supported", "contradicted", effects=(0.1, -0.08), low=-0.12, high=-0.03, agreeing=2)
    assert found.holds == "does not hold"
    assert found.words == (
        "-0.08 [-0.12, -0.03] on 11 external patients and 3 pairs of runs: "
        "not the same direction, contradicted there, supported here; 2 of 3 pairs have this sign"
    )


def test_an_interval_that_excludes_0_is_seen_to(shown):
    assert pair(shown, "supported", "supported", effects=(0.1, 0.003), low=0.001, high=0.004).numbers.startswith(
        "+0.003 [0.001, 0.004] on 11"
    )


def test_where_less_is_better_the_numbers_keep_sign_and_unit(shown):
    fewer = shown.verdicts[0].claim.model_copy(update={"metric": "lesions_false"})
    found = pair(shown, "supported", "supported", effects=(-0.5, -0.4), low=-0.6, high=-0.2)
    found = dataclasses.replace(
        found, there=dataclasses.replace(found.there, claim=fewer, measure=measure_of(fewer.metric))
    )
    assert found.words == (
        "-0.40 a case [-0.60, -0.20] on 11 external patients and 3 pairs of runs: "
        "same direction, supported there too; 3 of 3 pairs have this sign"
    )


def test_without_patients_it_says_why(shown):
    nobody = pair(shown, "supported", "inconclusive", patients=0, reason="tumor Dice is undefined in every patient")
    assert nobody.words == "could not be compared there; tumor Dice is undefined in every patient"
    one = pair(
        shown, "supported", "inconclusive", patients=1, low=np.nan, high=np.nan, kind="external phantom", n_run_pairs=1
    )
    assert one.numbers == "+0.08 on 1 external phantom patient and 1 pair of runs"


def test_verdicts_elsewhere_are_of_the_same_claims_and_adjusted_among_themselves(shown, make_external):
    elsewhere = make_external(shown.study)
    pairs = replications(shown.verdicts, elsewhere.verdicts)
    assert [each.here.claim for each in pairs] == [each.there.claim for each in pairs] == list(shown.study.claims)
    alone = judge(shown.study, shown.cases, {"transfer": shown.study.claims[0].digest})
    assert [verdict.p_adjusted for verdict in alone] == [verdict.p_adjusted for verdict in shown.verdicts]
    with pytest.raises(ValueError, match="expected the same claims"):
        replications(shown.verdicts, elsewhere.verdicts[:1])


def test_an_external_patients_folds_are_averaged_and_count_once(make_study, make_external):
    """Every run scores every patient: 8 patients x 3 folds x 2 seeds are 8 patients and 6 runs an arm."""
    verdict, _ = make_external(make_study()).verdicts
    assert (verdict.n_patients, verdict.n_undefined, verdict.n_missing) == (7, 1, 0)
    assert verdict.n_run_pairs == 6
    assert verdict.verdict == "supported"
    assert "on 7 external phantom patients and 6 pairs of runs" in verdict.sentence
    cases = make_external(make_study()).cases
    by_hand = cases.pivot_table(index="case", columns="arm", values="dice_tumor")
    assert verdict.effect == pytest.approx((by_hand["baseline"] - by_hand["init=scratch"]).mean())


def test_one_run_that_went_wrong_widens_the_interval_and_shows_in_the_pairs(shown, make_external):
    """It moves every patient alike: these models' interval does not tell, the verdict's does."""
    elsewhere = make_external(shown.study)
    cases = elsewhere.cases.copy()
    wrong = (cases["arm"] == "init=scratch") & (cases["fold"] == 1) & (cases["seed"] == 0)
    cases.loc[wrong, "dice_tumor"] = 1.0
    verdicts = judge(shown.study, cases, None)
    found = replications(shown.verdicts, verdicts)[0]
    assert elsewhere.verdicts[0].verdict == "supported"
    assert (found.there.verdict, found.there.n_run_pairs) == ("inconclusive", 6)
    assert found.agreeing == int((pair_means(cases) * verdicts[0].effect > 0).sum()) < 6
    assert found.there.low < 0 < found.there.high
    assert found.there.models_high - found.there.models_low < 0.1
    assert found.there.runs_share > 0.9


def pair_means(cases: pd.DataFrame) -> pd.Series:
    wide = cases.pivot_table(index=["fold", "seed", "case"], columns="arm", values="dice_tumor")
    return (wide["baseline"] - wide["init=scratch"]).groupby(["fold", "seed"]).mean()


def test_a_claim_of_no_finished_run_has_no_pairs(shown):
    verdicts = judge(shown.study, pd.DataFrame(), None)
    assert [(pair.there.n_run_pairs, pair.agreeing) for pair in replications(verdicts, verdicts)] == [(0, 0)] * 2
