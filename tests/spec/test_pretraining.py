"""Settings of pretraining: where they count, and where they are refused because nothing would come of them."""

from typing import Any

import pytest

from litsexp.spec.cohort import SplitConfig
from litsexp.spec.design import Arm, Cell, cells
from litsexp.spec.pretraining import AFTERWARDS, OWN, learns
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig

METHODS = ["ssl:restoration", "ssl:masked"]
CHANGED: dict[str, Any] = {"ssl_steps": 90, "ssl_batch_size": 8, "ssl_lr": 0.01}


def key(**settings: Any) -> str:
    return Cell(Arm("one", RunConfig.model_validate(settings)), 0, 0).run_key(SplitConfig(folds=3), "data")


def study(**parts: Any) -> StudyConfig:
    return StudyConfig.model_validate({"question": "?", **parts})


def refusal(**parts: Any) -> str:
    with pytest.raises(ValueError, match="expected init: ssl:restoration or ssl:masked") as error:
        study(**parts)
    return str(error.value)


def test_the_methods_learn_and_the_others_do_not() -> None:
    assert [learns(RunConfig(init=init)) for init in (*METHODS, "scratch", "imagenet")] == [True, True, False, False]
    assert set(CHANGED) == set(OWN)


@pytest.mark.parametrize("name", OWN)
def test_they_count_where_an_encoder_is_pretrained_and_nowhere_else(name: str) -> None:
    changed = {name: CHANGED[name]}
    assert key(init="ssl:masked", **changed) != key(init="ssl:masked")
    assert key(init="scratch", **changed) == key(init="scratch")  # the same run: found again


def test_every_method_is_a_run_of_its_own() -> None:
    assert len({key(init=init) for init in (*METHODS, "scratch")}) == 3


@pytest.mark.parametrize("name", OWN)
def test_they_are_refused_where_no_arm_pretrains(name: str) -> None:
    assert f"{name}: found {CHANGED[name]}, but no arm pretrains" in refusal(run={name: CHANGED[name]})
    assert study(run={"init": "scratch", name: CHANGED[name]}, factors={"init": METHODS})  # two arms do


def test_an_arm_that_ignores_them_cannot_vary_them() -> None:
    run = {"init": "scratch"}
    error = refusal(run=run, design="factorial", factors={"init": ["scratch", "ssl:masked"], "ssl_steps": [5, 9]})
    assert "ssl_steps: found 5 in an arm with init = scratch, which ignores it" in error
    both = study(run=run, design="factorial", factors={"init": METHODS, "ssl_steps": [5, 9]})
    split = SplitConfig(folds=3)
    assert len({cell.run_key(split, "data") for cell in cells(both)}) == len(cells(both)) == 12


def test_a_search_that_may_sample_a_pretraining_takes_them() -> None:
    parts = {"design": "search", "search": {"trials": 2}, "run": {"init": "scratch", "ssl_steps": 90}}
    assert study(**parts, factors={"init": ["scratch", "ssl:masked"]})
    assert "no arm pretrains" in refusal(**parts, factors={"window": ["wide", "liver"]})
    mixed = {"init": ["scratch", "ssl:masked"], "ssl_steps": [5, 9]}
    assert "which ignores it" in refusal(**parts, factors=mixed)


def test_a_new_setting_has_to_say_whether_it_changes_the_pretraining() -> None:
    """Name it in AFTERWARDS, or here: it changes the network or its input."""
    decide = {"encoder", "architecture", "encoder_depth", "decoder_width", "init", "encoding", "window"}
    assert set(RunConfig.model_fields) - AFTERWARDS - set(OWN) == decide | {"precision", "channels_last"}
    assert set(RunConfig.model_fields) >= AFTERWARDS


def test_a_claim_about_the_initialisation_alone_is_one() -> None:
    claim = {"id": "ssl", "says": "It helps.", "factor": "init", "better": "ssl:masked", "than": "scratch"}
    assert study(run={"init": "scratch", "ssl_steps": 90}, factors={"init": ["ssl:masked"]}, claims=[claim])
