"""Named arms and the claims about them; claims that a gain grows; what belongs to one kind of claim only."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from litsexp.spec.claim import Claim, contrast_of
from litsexp.spec.design import arms, contexts, design_digest, differing_fields
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import as_claims, first_problem
from litsexp.spec.study import StudyConfig

ARMS = {"longer": {"init": "scratch", "steps_per_epoch": 150}, "warm": {"lr": "2e-3"}}
CLAIM = {"id": "c", "says": "It helps.", "factor": "arm", "better": "warm", "than": "longer"}
GROWS = {"id": "g", "says": "It grows.", "factor": "init", "better": "imagenet", "than": "scratch"}
GROWS |= {"grows": {"train_fraction": [1.0, 0.25]}}
FACTORS = {"init": ["scratch"], "train_fraction": [0.25]}


def content(**sections: Any) -> dict[str, Any]:
    return {"question": "Does it help?", "factors": FACTORS, "arms": ARMS, **sections}


def study(**sections: Any) -> StudyConfig:
    return StudyConfig.model_validate(content(**sections))


def problem(**sections: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        study(**sections)
    return first_problem(refused.value, content(**sections))


def test_a_named_arm_is_the_baseline_with_its_settings_changed() -> None:
    found = {arm.name: arm.run for arm in arms(study())}
    assert list(found) == ["baseline", "init=scratch", "train_fraction=0.25", "longer", "warm"]
    assert differing_fields(found["baseline"], found["longer"]) == {"init", "steps_per_epoch"}
    assert found["warm"].lr == 2e-3
    assert study().arms["warm"] == {"lr": 2e-3}


def test_named_arms_are_part_of_the_design() -> None:
    digests = {design_digest(study(arms=named), "abc") for named in ({}, ARMS, {"warm": {"lr": 1e-2}})}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"x": {"lr": "fast"}}, "arms.x.lr: found 'fast'; expected a number or 'find'"),
        ({"x": {"ini": "scratch"}}, "arms.x.ini: unknown key; did you mean 'init'?"),
        ({"x": {"frozen_epochs": 9}}, "arms.x: frozen_epochs: found 9 with epochs = 6; expected at most epochs"),
        ({"baseline": {"lr": 0.1}}, "arms: found the name 'baseline'; expected a-z, 0-9, - and _, and not baseline"),
        ({"init=x": {"lr": 0.1}}, "arms: found the name 'init=x'; expected a-z, 0-9, - and _, and not baseline"),
        ({"x": {}}, "arms: x: found {}, the baseline's own settings; expected a change"),
        ({"x": {"epochs": 6}}, "arms: x: found {'epochs': 6}, the baseline's own settings; expected a change"),
        (
            {"x": {"init": "scratch"}},
            "arms.x: found the settings of the arm init=scratch; expected settings of its own",
        ),
        ({"x": 3}, "arms.x: found 3; expected keys such as encoder, architecture"),
    ],
)
def test_what_is_no_arm_of_its_own_is_refused(named: Any, told: str) -> None:
    assert problem(arms=named) == told


def test_named_arms_belong_to_an_ablation() -> None:
    assert problem(design="factorial").startswith("arms: found with design: factorial; expected design: ablation")


def test_a_claim_about_arms_holds_what_they_differ_in() -> None:
    asked = study(claims=[CLAIM])
    differing = {"warm": ("imagenet", None, 2e-3), "longer": ("scratch", 150, 1e-3)}
    names = ("init", "steps_per_epoch", "lr")
    assert asked.claims[0].compares == {arm: dict(zip(names, levels, strict=True)) for arm, levels in differing.items()}
    assert [tuple(arm.name for arm in pair) for pair in contexts(asked, asked.claims[0])] == [("warm", "longer")]
    assert StudyConfig.model_validate(asked.model_dump(mode="json")) == asked  # as it is logged, and read again


def test_a_changed_arm_makes_another_claim() -> None:
    slower = {**ARMS, "warm": {"lr": 1e-2}}
    assert study(claims=[CLAIM]).claims[0].digest != study(claims=[CLAIM], arms=slower).claims[0].digest


def test_the_baseline_and_a_factors_arm_can_be_compared_by_name() -> None:
    for than, differs in (("baseline", ["init", "steps_per_epoch"]), ("init=scratch", ["steps_per_epoch"])):
        (found,) = study(claims=[CLAIM | {"better": "longer", "than": than, "differs": differs}]).claims
        assert list(found.compares["longer"]) == differs


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"than": "longr"},
            "claims: c: than: found the arm 'longr'; expected one of baseline, .*did you mean 'longer'",
        ),
        ({"than": "warm"}, "claims.c: found better and than both 'warm'; expected two levels"),
        ({"where": {"init": "scratch"}}, "claims: c: where: found .* in a claim about two arms; expected none"),
        ({"differs": ["init"]}, r"claims: c: differs: found \['init'\], but warm and longer differ in init, .*, lr;"),
        ({"compares": {"warm": {}}}, "claims: c: compares: found .*; expected nothing: it is filled in"),
        ({"grows": {"init": ["imagenet", "scratch"]}}, "claims.0: grows: found with factor 'arm'"),
    ],
)
def test_a_claim_that_says_something_else_of_its_arms_is_refused(changes: dict[str, Any], told: str) -> None:
    assert re.search(told, problem(claims=[CLAIM | changes]))


def test_named_arms_do_not_join_the_claims_about_factors() -> None:
    pair = {"a": {"steps_per_epoch": 9}, "b": {"steps_per_epoch": 9, "init": "scratch"}}
    claim = {key: value for key, value in GROWS.items() if key != "grows"}
    asked = study(claims=[claim], arms=pair)
    assert len(contexts(asked, asked.claims[0])) == 1


def test_a_gain_grows_over_four_arms() -> None:
    levels = {"init": ["imagenet", "scratch"], "train_fraction": [1.0, 0.25], "augment": ["none", "paper"]}
    asked = study(design="factorial", factors=levels, arms={}, claims=[GROWS])
    fours = [[(arm.run.init, arm.run.train_fraction) for arm in four] for four in contexts(asked, asked.claims[0])]
    one = [("imagenet", 0.25), ("scratch", 0.25), ("imagenet", 1.0), ("scratch", 1.0)]
    assert fours == [one, one]  # without augmentation, and with it
    completed = study(claims=[GROWS], arms={"small": {"init": "scratch", "train_fraction": 0.25}})
    (four,) = contexts(completed, completed.claims[0])
    assert [arm.name for arm in four] == ["train_fraction=0.25", "small", "baseline", "init=scratch"]


@pytest.mark.parametrize(
    ("grows", "told"),
    [
        (
            {"train_fraction": [1.0, 0.25]},
            "for which no four arms differ in init and this alone; expected design: fact",
        ),
        ({"train_fraction": [1.0, 0.5]}, r"found train_fraction = 0.5; expected one of \[1.0, 0.25\]"),
        ({"train_fraction": [1.0, 1.0]}, "expected another factor, and two of its levels"),
        ({"init": ["imagenet", "scratch"]}, "expected another factor, and two of its levels"),
        ({"train_fraction": 1.0}, "claims.0.grows.train_fraction: found 1.0; expected a list"),
        ({"lr": [1.0, 2.0]}, "found factor 'lr', which is not varied"),
    ],
)
def test_a_gain_that_cannot_grow_is_refused(grows: Any, told: str) -> None:
    assert re.search(told, problem(claims=[GROWS | {"grows": grows}]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metric": "gap:dice_tumr"}, "did you mean 'dice_tumor'"),
        ({"metric": "gaps:dice_tumor"}, "found 'gaps:dice_tumor'; expected one of .*gap:METRIC"),
        ({"metric": "epochs_to:burden_error", "margin": 1}, "expected after the colon one of dice_liver, dice_tumor"),
        ({"metric": "epochs_to:dice_tumor"}, "margin: missing; expected the smallest number of epochs that matters"),
        ({"share": 0.8}, "share: found with metric 'dice_tumor'; expected epochs_to:METRIC or images_to:METRIC"),
        ({"differs": ["init"]}, "differs: found with factor 'init'; expected factor: arm"),
    ],
)
def test_what_belongs_to_one_kind_of_claim_is_refused_in_another(changes: dict[str, Any], told: str) -> None:
    plain = {key: value for key, value in GROWS.items() if key != "grows"}
    with pytest.raises(ValueError, match=told):
        Claim.model_validate(plain | changes)


def test_a_contrast_is_known_by_its_metric() -> None:
    row = contrast_of("images_to:dice_liver")
    assert row is not None and (row.needs, row.unit) == ("epochs", "images")
    assert contrast_of("dice_liver") is contrast_of("lesion_f1") is None
    asked = study(claims=[GROWS | {"id": "o", "grows": {}, "metric": "gap:lesion_f1"}])
    assert asked.needs == {"train"} and study().needs == set()


@pytest.mark.parametrize("extra", [{"grows": {"init": ["a", "b"]}}, {"differs": ["init"]}, {"share": 0.9}])
def test_a_table_has_arms_and_scores_alone(extra: dict[str, Any]) -> None:
    claim = {"id": "a", "says": "s", "metric": "gap:any", "better": "x", "than": "y", "margin": 0.1}
    assert as_claims({"claims": [claim]}).claims[0].metric == "gap:any"
    with pytest.raises(LitsexpError, match=r"claims\.0(\.grows|\.differs|: share)"):
        as_claims({"claims": [claim | extra]})


def test_a_named_arm_can_leak() -> None:
    assert not study().leaks
    assert study(arms={**ARMS, "careless": {"split_unit": "slice"}}).leaks
