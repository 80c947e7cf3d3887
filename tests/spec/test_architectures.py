"""What an architecture cannot have is refused where the study file is read."""

from collections.abc import Iterator
from typing import Any

import pytest

from litsexp.spec.catalog import ARCHITECTURES
from litsexp.spec.design import arms, differing_fields
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.spec.tables import register

WHOLE = ["dynunet", "swin_unetr", "vnet"]
SCRATCH = {"init": "scratch"}


@pytest.fixture(autouse=True)
def table_as_it_was() -> Iterator[None]:
    before = dict(ARCHITECTURES.data), dict(ARCHITECTURES.added)
    yield
    ARCHITECTURES.data, ARCHITECTURES.added = before


def study(**sections: Any) -> StudyConfig:
    return StudyConfig.model_validate({"question": "?", **sections})


@pytest.mark.parametrize("architecture", WHOLE)
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"encoder": "resnet18"}, "encoder: found resnet18 with .*expected encoder: tf_efficientnet_lite0, or arch"),
        ({"init": "imagenet"}, "init: found imagenet with .*expected init: scratch, or architecture: one of dynamic_u"),
        ({"init": "file:x.pth"}, "init: found file:x.pth with"),
        ({"frozen_epochs": 1}, "frozen_epochs: found 1 with .*expected frozen_epochs: 0, or"),
        ({"encoder_frozen": True}, "encoder_frozen: found True with .*expected encoder_frozen: False, or"),
        ({"decoder_width": 64}, "decoder_width: found 64 with .*expected no decoder_width, or architecture: one of un"),
        ({"encoder_depth": 3}, "encoder_depth: found 3 with"),
    ],
)
def test_a_network_without_an_encoder_has_none_of_its_settings(
    architecture: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        RunConfig(**{"architecture": architecture, **SCRATCH, **changes})
    with pytest.raises(ValueError, match=told):  # as a level
        study(run={**SCRATCH, **changes, "architecture": "unet"}, factors={"architecture": [architecture]})


def test_a_registered_architecture_says_what_it_has() -> None:
    register("architecture", "plain", words="a toy", make=print, encoder=False)
    register("architecture", "wide", words="a toy", make=print, shaped=True)
    register("architecture", "usual", words="a toy", make=print)
    assert RunConfig(architecture="usual", encoder="resnet18", frozen_epochs=1).init == "imagenet"
    assert RunConfig(architecture="wide", decoder_width=64).decoder_width == 64
    with pytest.raises(ValueError, match=r"found imagenet with architecture = plain, .*one of .*, wide, usual "):
        RunConfig(architecture="plain")
    with pytest.raises(ValueError, match="decoder_width: found 64 with architecture = usual"):
        RunConfig(architecture="usual", decoder_width=64)


def test_architectures_in_a_factorial_differ_in_nothing_else() -> None:
    names = list(ARCHITECTURES)
    its = arms(study(design="factorial", run=SCRATCH, factors={"architecture": names, "window": ["liver", "wide"]}))
    assert len(its) == 2 * len(names)
    for first, second in zip(its[:-2:2], its[2::2], strict=True):
        assert differing_fields(first.run, second.run) == {"architecture"}


def test_a_search_that_could_sample_what_there_is_not_is_refused() -> None:
    levels = {"architecture": ["unet", "dynunet"], "frozen_epochs": [0, 1]}
    with pytest.raises(ValueError, match="frozen_epochs: found 1 with architecture = dynunet"):
        study(design="search", search={"trials": 2}, run=SCRATCH, factors=levels)
    levels = {"architecture": ["unet", "dynunet"], "window": ["wide", "liver"]}
    study(design="search", search={"trials": 2}, run=SCRATCH, factors=levels)
