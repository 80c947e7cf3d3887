"""A study: arms, cells, identity of a run, and the pairs of arms that a claim compares."""

import itertools

import pytest

from litsexp.spec.claim import Claim
from litsexp.spec.cohort import DataConfig, SplitConfig
from litsexp.spec.design import Arm, Cell, arms, cells, contexts, differing_fields
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig

SPLIT = SplitConfig(folds=3)
ABC = "abc"
CLAIM = {"id": "window", "says": "It helps.", "factor": "window", "better": "liver", "than": "notebook"}
FACTORS = {"init": ["scratch"], "window": ["liver", "wide"], "dice_weight": [0.0]}


def study(**sections):
    return StudyConfig.model_validate({"question": "Does it help?", **sections})


def factorial(**sections):
    return study(
        design="factorial", factors={"init": ["imagenet", "scratch"], "window": ["notebook", "liver"]}, **sections
    )


def run_key(fold=0, seed=0, split=SPLIT, fingerprint="abc", **settings):
    return Cell(Arm("any", RunConfig(**settings)), fold, seed).run_key(split, fingerprint)


# arms and cells


def test_an_ablation_is_the_baseline_and_one_change_at_a_time():
    its = arms(study(factors=FACTORS))
    assert [arm.name for arm in its] == ["baseline", "init=scratch", "window=liver", "window=wide", "dice_weight=0"]
    assert its[0].run == RunConfig()
    for arm in its[1:]:
        assert differing_fields(its[0].run, arm.run) == {arm.name.split("=")[0]}


def test_a_factorial_is_every_combination():
    its = arms(factorial())
    assert [arm.name for arm in its] == [
        "init=imagenet, window=notebook",
        "init=imagenet, window=liver",
        "init=scratch, window=notebook",
        "init=scratch, window=liver",
    ]
    assert its[0].run == RunConfig()
    assert len({arm.run for arm in its}) == 4


@pytest.mark.parametrize(
    ("run", "factors"),
    [
        ({"focal_gamma": 1.0}, {"loss": ["focal", "tversky"]}),
        ({"loss": "focal", "focal_gamma": 1.0}, {"loss": ["ce_dice"]}),
        ({"warmup": 0.4, "frozen_epochs": 1}, {"schedule": ["fine_tune", "constant"]}),
    ],
)
def test_a_setting_of_some_rows_may_stand_where_one_arm_uses_it(run, factors):
    """Else no two losses could be compared under another gamma; the arms still differ in the loss alone."""
    baseline, *others = arms(study(run=run, factors=factors))
    assert all(differing_fields(baseline.run, arm.run) == set(factors) for arm in others)


def test_designs_without_factors_have_the_baseline_only():
    for design in ("ablation", "factorial"):
        assert arms(study(design=design)) == [Arm("baseline", RunConfig())]
    search = study(design="search", search={"trials": 3}, factors={"window": ["liver", "wide"]})
    assert arms(search) == [Arm("baseline", RunConfig())]


def test_cells_finish_a_fold_with_all_arms_before_the_next():
    its = cells(study(split={"folds": 3}, seeds=[4, 2], factors={"window": ["liver"]}))
    assert len(its) == 2 * 3 * 2
    expected = itertools.product([4, 2], [0, 1, 2], ["baseline", "window=liver"])
    assert [(cell.seed, cell.fold, cell.arm.name) for cell in its] == list(expected)
    assert its[0].name == "baseline · fold 0 · seed 4"


def test_a_holdout_has_one_fold():
    split = {"train": 0.7, "valid": 0.15, "test": 0.15}
    assert [cell.fold for cell in cells(study(split=split))] == [0]


def test_no_two_cells_of_a_study_have_one_key():
    its = cells(factorial(seeds=[0, 1]))
    assert len({cell.run_key(SPLIT, ABC) for cell in its}) == len(its) == 24


def test_levels_become_the_settings_they_set():
    claim = {**CLAIM, "factor": "lr", "better": "1e-4", "than": 0.001, "where": {"dice_weight": "0"}}
    its = study(design="factorial", factors={"lr": ["1e-4", "0.001", "find"], "dice_weight": [0]}, claims=[claim])
    assert its.factors == {"lr": (1e-4, 1e-3, "find"), "dice_weight": (0.0,)}
    assert [type(level) for level in its.factors["dice_weight"]] == [float]
    assert (its.claims[0].better, its.claims[0].than, its.claims[0].where) == (1e-4, 1e-3, {"dice_weight": 0.0})
    assert [(a.run.lr, b.run.lr) for a, b in contexts(its, its.claims[0])] == [(1e-4, 1e-3)]


def test_levels_that_look_alike_are_named_in_full():
    files = ["file:a/x.safetensors", "file:b/x.safetensors", "file:c/y.safetensors"]
    names = [arm.name for arm in arms(study(factors={"init": files}))]
    assert names == ["baseline", "init=file:a/x.safetensors", "init=file:b/x.safetensors", "init=file:y.safetensors"]
    rates = [0.00012345671, 0.00012345672]
    names = [arm.name for arm in arms(study(factors={"lr": rates}, run={"init": "file:a/x.safetensors"}))]
    assert names == ["baseline", "lr=0.00012345671", "lr=0.00012345672"]
    beside_baseline = study(factors={"init": ["file:b/x.safetensors"]}, run={"init": "file:a/x.safetensors"})
    assert arms(beside_baseline)[1].name == "init=file:b/x.safetensors"


# identity of a run


@pytest.mark.parametrize(
    "other",
    [
        {"fold": 1},
        {"seed": 1},
        {"fingerprint": "abd"},
        {"split": SplitConfig(folds=4)},
        {"split": SplitConfig(folds=3, valid=0.25)},
        {"split": SplitConfig(folds=3, seed=1)},
        {"split": SplitConfig(train=0.6, valid=0.2, test=0.2)},
    ],
    ids=str,
)
def test_run_key_changes_with_fold_seed_split_and_data(other):
    assert run_key(**other) != run_key()


def test_a_cohorts_description_is_no_part_of_run_key():
    """The stored slices are, by their fingerprint."""
    plain, other = (cells(study(data=data))[0] for data in ({}, {"patients": 4, "site": "B", "lesions": "large"}))
    assert plain.run_key(SPLIT, ABC) == other.run_key(SPLIT, ABC)


def test_run_key_does_not_depend_on_what_is_asked():
    plain = study(factors=FACTORS)
    asked = study(question="Another?", claims=[CLAIM], factors={**FACTORS, "augment": ["none"]}, seeds=[0, 1])
    keys = {cell.run_key(SPLIT, ABC) for cell in cells(asked)}
    assert {cell.run_key(SPLIT, ABC) for cell in cells(plain)} < keys


def test_run_key_is_16_hex_digits_and_blind_to_how_a_number_is_written():
    assert len(run_key()) == 16
    assert int(run_key(), 16) >= 0
    assert run_key(dice_weight=1, weight_decay=0) == run_key(dice_weight=1.0, weight_decay=0.0)
    assert run_key() == run_key()


def test_a_weights_file_counts_by_its_bytes(tmp_path):
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, content in zip(files, (b"same", b"same", b"other"), strict=True):
        file.write_bytes(content)
    a, b, c = (run_key(init=f"file:{file}") for file in files)
    assert a == b != c
    with pytest.raises(LitsexpError, match=r"gone.safetensors: cannot be read \(No such file"):
        run_key(init=f"file:{tmp_path / 'gone.safetensors'}")


# claims


def test_contexts_of_an_ablation_are_one_pair():
    its = study(factors=FACTORS, claims=[CLAIM])
    assert [(a.name, b.name) for a, b in contexts(its, its.claims[0])] == [("window=liver", "baseline")]
    between = Claim(**{**CLAIM, "better": "liver", "than": "wide"})
    assert [(a.name, b.name) for a, b in contexts(its, between)] == [("window=liver", "window=wide")]


def test_contexts_of_a_factorial_are_one_pair_a_setting_of_the_rest():
    its = factorial()
    everywhere, scratch = Claim(**CLAIM), Claim(**CLAIM, where={"init": "scratch"})
    pairs = contexts(its, everywhere)
    assert len(pairs) == 2
    assert all(differing_fields(a.run, b.run) == {"window"} for a, b in pairs)
    assert [(a.name, b.name) for a, b in contexts(its, scratch)] == [
        ("init=scratch, window=liver", "init=scratch, window=notebook")
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("says", "It hurts."),
        ("margin", 0.03),
        ("than", "wide"),
        ("metric", "dice_liver"),
        ("where", {"init": "scratch"}),
    ],
)
def test_a_claims_digest_changes_with_it(field, value):
    assert Claim(**{**CLAIM, field: value}).digest != Claim(**CLAIM).digest == Claim(**CLAIM).digest


# the external cohort


def test_the_external_cohort_is_stored_as_the_data_are():
    its = study(data={"size": 96, "slices": "all"}, external={"patients": 5, "lesions": "large"})
    expected = DataConfig(patients=5, seed=1, site="B", lesions="large", size=96, slices="all")
    assert its.external_data == expected
    assert study().external_data is None


def test_the_unit_of_the_split_is_the_baselines_setting() -> None:
    asked = study(split={"folds": 3, "unit": "slice"}, factors={"split_unit": ["patient"]})
    assert asked.split == SplitConfig(folds=3)
    assert [arm.run.split_unit for arm in arms(asked)] == ["slice", "patient"]
    assert asked.leaks
    assert asked == study(run={"split_unit": "slice"}, factors={"split_unit": ["patient"]})
    assert StudyConfig.model_validate(asked.model_dump(mode="json")) == asked
    assert not study(split={"folds": 3, "unit": "patient"}).leaks
    assert study(split={"unit": "slice"}) == study(run={"split_unit": "slice"})
    assert study(factors={"split_unit": ["slice"]}).leaks


def test_an_honest_run_of_a_leaking_study_is_the_same_run() -> None:
    """So its training is not repeated, and only its scoring differs."""
    honest = cells(study(split={"folds": 3, "unit": "slice"}, factors={"split_unit": ["patient"]}))[1]
    assert honest.run_key(SPLIT, ABC) == cells(study())[0].run_key(SPLIT, ABC)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"split": {"folds": 3, "unit": "slices"}}, "split.unit: found 'slices'; expected 'patient' or 'slice'"),
        (
            {"split": {"folds": 3, "unit": "slice"}, "run": {"split_unit": "patient"}},
            "split.unit: found 'slice' beside run.split_unit = 'patient'; expected one of the two",
        ),
        (
            {"design": "search", "search": {"trials": 2}, "run": {"split_unit": "slice"}},
            "split_unit: found with design",
        ),
        ({"design": "search", "search": {}, "factors": {"split_unit": ["slice"]}}, "split_unit: found with design"),
    ],
)
def test_a_leak_is_asked_for_plainly(sections, message) -> None:
    with pytest.raises(ValueError, match=message):
        study(**sections)
