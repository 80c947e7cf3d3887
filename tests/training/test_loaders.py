"""Loaders: which rows in which order, read as they are stored."""

import numpy as np
import pytest
import torch
from torch import Tensor

from litsexp.data.store import Store
from litsexp.spec.run import RunConfig
from litsexp.training.inputs import channels, normalise
from litsexp.training.loaders import EvalLoader, Slices, TrainLoader

RUN = RunConfig(batch_size=8)
ARMS = [
    RUN,
    RunConfig(batch_size=8, init="scratch"),
    RunConfig(batch_size=8, window="wide"),
    RunConfig(batch_size=8, augment="none"),
    RunConfig(batch_size=8, dice_weight=0.0),
    RunConfig(batch_size=8, encoding="jpeg:90"),
]


@pytest.fixture(scope="module")
def slices(phantom_store: Store) -> Slices:
    return Slices(phantom_store, torch.device("cpu"))


@pytest.mark.parametrize("count", [1, 8, 13, 16])
def test_eval_loader_gives_every_row_once_in_order(slices: Slices, count: int) -> None:
    rows = slices.store.rows_of(slices.store.cases)[::-1][:count].copy()  # an order of its own
    loader = EvalLoader(slices, rows, RUN)
    batches = list(loader)
    assert len(batches) == len(loader) == -(-count // 8)
    labels = torch.cat([labels for _, labels in batches])
    np.testing.assert_array_equal(labels.numpy(), slices.store.labels[rows])
    assert labels.dtype == torch.int64
    hu = torch.from_numpy(slices.store.hu[rows]).float()[:, None]
    torch.testing.assert_close(torch.cat([image for image, _ in batches]), normalise(channels(hu, "notebook")))


def test_eval_loader_does_not_augment(slices: Slices) -> None:
    rows = slices.store.rows_of([0])
    assert RUN.augment == "paper"
    first, second = (torch.cat([image for image, _ in EvalLoader(slices, rows, RUN)]) for _ in range(2))
    assert torch.equal(first, second)


def test_an_empty_eval_loader_is_empty(slices: Slices) -> None:
    loader = EvalLoader(slices, np.empty(0, np.int64), RUN)
    assert len(loader) == 0 and list(loader) == []


@pytest.mark.parametrize(("count", "steps"), [(21, 2), (21, 9), (16, 2), (8, 3), (40, 1)])
def test_an_epoch_is_full_batches_and_every_row_once_a_pass(slices: Slices, count: int, steps: int) -> None:
    rows = np.arange(count) + 2
    order = TrainLoader(slices, rows, RUN, steps, seed=0).order(epoch=0)
    assert order.shape == (steps, 8)
    drawn = order.ravel()
    for start in range(0, len(drawn), count):
        one_pass = drawn[start : start + count]
        assert len(set(one_pass)) == len(one_pass) and set(one_pass) <= set(rows)
        if len(one_pass) == count:
            assert set(one_pass) == set(rows)


def test_the_order_comes_from_seed_and_epoch_alone(slices: Slices) -> None:
    rows = np.arange(21)
    first = TrainLoader(slices, rows, RUN, 5, seed=0)
    for arm in ARMS:
        for epoch in (0, 1, 7):
            order = TrainLoader(slices, rows, arm, 5, seed=0).order(epoch)
            np.testing.assert_array_equal(order, first.order(epoch))
    assert not np.array_equal(first.order(0), first.order(1))
    assert not np.array_equal(first.order(0), TrainLoader(slices, rows, RUN, 5, seed=1).order(0))
    assert not np.array_equal(first.order(1), TrainLoader(slices, rows, RUN, 5, seed=1).order(0))


def test_iterating_follows_the_order_and_counts_epochs(slices: Slices) -> None:
    loader = TrainLoader(slices, np.arange(21), RunConfig(batch_size=8, augment="none"), 2, seed=3)
    for epoch in range(3):
        batches = list(loader)
        assert len(batches) == len(loader) == 2
        for rows, (image, labels) in zip(loader.order(epoch), batches, strict=True):
            np.testing.assert_array_equal(labels.numpy(), slices.store.labels[rows])
            hu = torch.from_numpy(slices.store.hu[rows]).float()[:, None]
            torch.testing.assert_close(image, normalise(channels(hu, "notebook")))


def test_augmentation_too_comes_from_seed_and_epoch_alone(slices: Slices) -> None:
    def masks(run: RunConfig, seed: int = 0, epochs: int = 1) -> Tensor:
        loader = TrainLoader(slices, np.arange(16), run, 2, seed)
        torch.manual_seed(torch.seed())  # global randomness has no say
        return [torch.cat([labels for _, labels in loader]) for _ in range(epochs)][-1]

    first = masks(RUN)
    for arm in ARMS:
        assert torch.equal(masks(arm), first) == (arm.augment == "paper")
    assert not torch.equal(masks(RUN, epochs=2), first)
    one = TrainLoader(slices, np.array([3]), RUN, 1, seed=0)  # the same row always, and each time moved otherwise
    (zeroth,), (later,) = list(one), list(one)
    assert not torch.equal(zeroth[1], later[1])
    assert not torch.equal(masks(RUN, seed=1), first)
    assert torch.equal(masks(RUN, seed=1, epochs=2), masks(RUN, seed=1, epochs=2))


@pytest.mark.parametrize("arm", ARMS)
def test_a_training_batch_is_normalised_and_labeled(slices: Slices, arm: RunConfig) -> None:
    for image, labels in TrainLoader(slices, np.arange(21), arm, 2, seed=0):
        assert (image.shape, image.dtype) == ((8, 3, 64, 64), torch.float32)
        assert (labels.shape, labels.dtype) == ((8, 64, 64), torch.int64)
        assert image.min() >= -1 and image.max() <= 1 and image.std() > 0.3
        assert set(labels.unique().tolist()) <= {0, 1, 2}


def test_a_batch_larger_than_the_data_takes_all_rows_every_step(slices: Slices) -> None:
    loader = TrainLoader(slices, np.arange(5), RUN, 4, seed=0)
    assert loader.order(0).shape == (4, 5)
    assert all(sorted(step) == [0, 1, 2, 3, 4] for step in loader.order(0))
    assert [len(labels) for _, labels in loader] == [5] * 4


def test_reading_leaves_the_store_as_it_is(slices: Slices) -> None:
    before = slices.store.hu[:8].copy()
    hu, _ = slices.read(np.arange(8))
    hu += 1
    np.testing.assert_array_equal(slices.store.hu[:8], before)
