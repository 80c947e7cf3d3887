"""What ``litsexp look`` draws is what training gets: the first batch of its own loader."""

from typing import Any

import numpy as np
import pytest
import torch
from fastai.callback.core import CancelFitException
from torch import Tensor

from litsexp.data.splits import make_splits
from litsexp.data.store import Store
from litsexp.evaluation.inputs import Band
from litsexp.spec.design import Cell, arms
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study import look as looking
from litsexp.study.look import asked_arms, look, most_tumor
from litsexp.training.loaders import Slices
from litsexp.training.loop import build_learner

STUDY = StudyConfig.model_validate(
    {
        "question": "?",
        "split": {"folds": 2, "valid": 0.25, "seed": 0},
        "seeds": [3, 4],
        "run": {"init": "scratch", "batch_size": 8, "steps_per_epoch": 2},
        "factors": {
            "encoding": ["jpeg:90"],
            "window": ["liver"],
            "augment": ["none", "intensity"],
            "dice_weight": [0.0],
            "init": ["imagenet"],
        },
    }
)


@pytest.fixture
def bands(phantom_store: Store, monkeypatch: pytest.MonkeyPatch) -> list[Band]:
    drawn: list[Any] = []
    monkeypatch.setattr(looking, "input_sheet", lambda title, note, bands: drawn.extend([title, note, *bands]))
    look(STUDY, phantom_store, "toy", cases=3)
    assert drawn[0] == "toy: what the networks see"
    assert drawn[1].startswith("phantom, no real patients · 64 px · fold 0, seed 3, first batch of the first epoch")
    return drawn[2:]


def test_arms_that_see_the_same_share_a_band(bands: list[Band]) -> None:
    assert [list(band.arms) for band in bands] == [
        ["baseline", "dice_weight=0", "init=imagenet"],
        ["encoding=jpeg:90"],
        ["window=liver"],
        ["augment=none"],
        ["augment=intensity"],
    ]
    assert bands[1].settings == "encoding jpeg:90 · window notebook · augment paper"
    assert (
        list(bands[0].channels)
        == list(bands[1].channels)
        == ["-45 to 105 HU", "-40 to 160 HU", "histogram-equalised HU"]
    )
    assert list(bands[2].channels) == ["-45 to 105 HU"]
    assert bands[3].augmented == "in training: slices as they are"


@pytest.mark.parametrize("number", [0, 1])
def test_it_is_the_first_batch_that_a_network_gets(bands: list[Band], phantom_store: Store, number: int) -> None:
    """Caught at the network's door, in the first step of fastai's own fit."""
    band, split = bands[number], make_splits(phantom_store.has_tumor, STUDY.split)[0]
    arm = next(arm for arm in arms(STUDY) if arm.name == band.arms[0])
    seed = Cell(arm, fold=0, seed=3).random_seed
    learner = build_learner(arm.run, Slices(phantom_store, torch.device("cpu")), split, seed)
    caught: list[tuple[Tensor, Tensor]] = []

    def catch(_: object, images: tuple[Tensor]) -> None:
        caught.append((images[0].clone(), learner.y))
        raise CancelFitException

    learner.model.net.register_forward_pre_hook(catch)
    learner.fit(1)
    ((images, labels),) = caught
    order = learner.dls.train.order(0)[0]
    titles = [title_of(phantom_store, row) for row in order]
    for seen in band.slices:
        place = titles.index(seen.title)
        np.testing.assert_array_equal(seen.augmented.labels, labels[place])
        np.testing.assert_array_equal(seen.plain.labels, phantom_store.labels[order[place]])
        np.testing.assert_array_equal(seen.augmented.channels, (images[place] * 0.5 + 0.5).clamp(0, 1))


def test_only_what_is_augmented_differs_from_what_is_stored(bands: list[Band]) -> None:
    for band in bands:
        for seen in band.slices:
            moved = not np.array_equal(seen.plain.labels, seen.augmented.labels)
            changed = not np.array_equal(seen.plain.channels, seen.augmented.channels)
            assert moved == (band.arms[0] not in ("augment=none", "augment=intensity"))
            assert changed == (band.arms[0] != "augment=none")


def title_of(store: Store, row: int) -> str:
    return f"phantom case {store.index['case'].iat[row]}, z {store.index['z'].iat[row]}"


def test_of_the_batch_the_slices_with_most_tumor_of_different_cases(phantom_store: Store, bands: list[Band]) -> None:
    rows = np.arange(len(phantom_store.index))
    places = most_tumor(phantom_store, rows, 3)
    tallest = phantom_store.index.groupby("case")["tumor_pixels"].max().nlargest(3)
    assert list(phantom_store.index["case"].iloc[places]) == list(tallest.index)
    assert list(phantom_store.index["tumor_pixels"].iloc[places]) == list(tallest)
    assert len(most_tumor(phantom_store, rows, 99)) == len(phantom_store.cases)
    assert all(1 <= len(band.slices) <= 3 for band in bands)


def test_one_arm_alone_and_a_misspelt_one_lists_them_all() -> None:
    assert [arm.name for arm in asked_arms(STUDY, "window=liver")] == ["window=liver"]
    assert len(asked_arms(STUDY, None)) == 7
    with pytest.raises(LitsexpError) as error:
        asked_arms(STUDY, "window=livr")
    assert "--arm: found 'window=livr'; expected one of 'baseline', 'encoding=jpeg:90'" in str(error.value)
    assert "did you mean 'window=liver'?" in str(error.value)
