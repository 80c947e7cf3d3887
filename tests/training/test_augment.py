"""Image and mask move together, nothing is invented, and chance is an argument."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import max_pool2d

from litsexp.training import augment

SIDE = 64


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def disc(row: float, column: float, radius: float) -> Tensor:
    """(SIDE, SIDE) bool; position and radius in pixels."""
    y, x = torch.meshgrid(torch.arange(float(SIDE)), torch.arange(float(SIDE)), indexing="ij")
    return torch.hypot(y - row, x - column) < radius


@pytest.fixture
def labels() -> Tensor:
    """32 slices, each with a liver at the image's left and a tumor in it."""
    slice_ = disc(30, 24, 14).to(torch.uint8)
    slice_[disc(34, 20, 5)] = 2
    return slice_.expand(32, -1, -1).clone()


def as_hu(labels: Tensor) -> Tensor:
    """An image that is its own mask: -1000, 0 or 1000 HU."""
    return (labels.float()[:, None] - 1) * 1000


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("MAX_ROTATION_DEG", "MAX_SCALE", "ELASTIC_SD", "MAX_BRIGHTNESS", "MAX_CONTRAST"):
        monkeypatch.setattr(augment, limit, 0.0)


def test_image_and_mask_move_together(labels: Tensor) -> None:
    hu, moved = augment.move(as_hu(labels), labels, generator())
    for threshold, label in ((-500, 1), (500, 2)):
        image, mask = (hu > threshold).float(), (moved >= label).float()[:, None]
        inside, outside = -max_pool2d(-mask, 3, 1, 1), max_pool2d(mask, 3, 1, 1)
        assert ((image >= inside) & (image <= outside)).all()  # they differ at most in the boundary pixels
        assert (image - mask).abs().sum() < 0.05 * mask.sum()


def test_it_moves_every_slice_in_its_own_way(labels: Tensor) -> None:
    _, moved = augment.move(as_hu(labels), labels, generator())
    assert len({slice_.numpy().tobytes() for slice_ in moved}) == len(labels)
    assert all((after != before).float().mean() > 0.01 for after, before in zip(moved, labels, strict=True))
    area = (moved > 0).sum((1, 2)) / (labels > 0).sum((1, 2))
    assert 0.7 < area.min() < 0.95 < 1.05 < area.max() < 1.4


def test_shapes_types_and_labels_stay(labels: Tensor) -> None:
    hu, moved = augment.move(as_hu(labels), labels, generator())
    assert (hu.shape, hu.dtype) == ((32, 1, SIDE, SIDE), torch.float32)
    assert (moved.shape, moved.dtype) == (labels.shape, torch.uint8)
    assert set(moved.unique().tolist()) == {0, 1, 2}
    assert hu.min() > -1000.01 and hu.max() < 1000.01


def test_outside_the_image_the_border_continues_and_the_mask_ends() -> None:
    hu, labels = torch.full((16, 1, SIDE, SIDE), 55.0), torch.ones((16, SIDE, SIDE), dtype=torch.uint8)
    moved_hu, moved = augment.move(hu, labels, generator())
    torch.testing.assert_close(moved_hu, hu)
    assert (moved == 0).any() and (moved[:, 16:48, 16:48] == 1).all()


def test_a_seed_repeats_and_another_differs(labels: Tensor) -> None:
    first, same, other = (augment.move(as_hu(labels), labels, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0], same[0]) and torch.equal(first[1], same[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


def test_global_randomness_is_neither_read_nor_moved(labels: Tensor) -> None:
    torch.manual_seed(1)
    state, first = torch.get_rng_state(), augment.move(as_hu(labels), labels, generator())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first[0], augment.move(as_hu(labels), labels, generator())[0])


@pytest.mark.usefixtures("still")
def test_without_limits_only_the_mirror_is_left(labels: Tensor) -> None:
    image = as_hu(labels)
    hu, moved = augment.move(image, labels, generator())
    mirrored = 0
    for after_hu, after, before_hu, before in zip(hu, moved, image, labels, strict=True):
        flipped = not torch.equal(after, before)
        mirrored += flipped
        torch.testing.assert_close(after, before.flip(-1) if flipped else before)
        torch.testing.assert_close(after_hu, before_hu.flip(-1) if flipped else before_hu, rtol=0, atol=0.1)
    assert 8 <= mirrored <= 24  # half of 32


def test_rotation_keeps_distances_and_its_limit(still: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "MAX_ROTATION_DEG", 15.0)
    mask = disc(31.5, 11.5, 5).to(torch.uint8).expand(64, -1, -1)  # 20 pixels to the left of the centre
    _, moved = augment.move(mask.float()[:, None], mask, generator())
    angles = []
    for after in moved:
        row, column = (after.nonzero().float().mean(0) - 31.5).tolist()
        assert math.hypot(row, column) == pytest.approx(20, abs=0.5)
        angles.append(math.degrees(math.atan2(row, abs(column))))
    assert -16 < min(angles) < -10 and 10 < max(angles) < 16


def test_jitter_stays_in_range_and_treats_channels_alike() -> None:
    grey = torch.linspace(0, 1, SIDE).expand(32, 3, SIDE, SIDE)
    image = augment.jitter(grey, generator())
    assert image.min() == 0 and image.max() == 1
    assert torch.equal(image[:, 0], image[:, 1]) and torch.equal(image[:, 0], image[:, 2])
    assert (image.diff(dim=-1) >= 0).all()  # brighter stays brighter
    assert grey.min() == 0 and torch.equal(grey[0], grey[31])  # the input is not written to
    middle = image[:, 0, 0, SIDE // 2]
    assert len(middle.unique()) == 32 and (middle - 0.5).abs().max() <= augment.MAX_BRIGHTNESS + 0.01
    slope = (image[:, 0, 0, 36] - image[:, 0, 0, 28]) / (grey[0, 0, 0, 36] - grey[0, 0, 0, 28])
    assert 0.8 <= slope.min() < 0.9 < 1.1 < slope.max() <= 1.2
    assert torch.equal(image, augment.jitter(grey, generator())) and not torch.equal(
        image, augment.jitter(grey, generator(1))
    )


@pytest.mark.usefixtures("still")
def test_jitter_without_limits_changes_nothing() -> None:
    image = torch.rand((4, 3, 8, 8), generator=generator())
    torch.testing.assert_close(augment.jitter(image, generator()), image)
