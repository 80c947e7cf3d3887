"""Image and mask move together, nothing is invented, and chance is an argument."""

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import max_pool2d

from litsexp.spec.catalog import AUGMENTATIONS
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import resolve
from litsexp.training import augment
from litsexp.training.inputs import Inputs

SIDE = 64
MOVING = [name for name, row in AUGMENTATIONS.items() if row.move]


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


def moved_by(name: str, image: Tensor, labels: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    move = resolve(AUGMENTATIONS[name].move or "")
    return move(image, labels, generator(seed))


def test_these_rows_move() -> None:
    assert MOVING == ["paper", "flips", "geometric", "elastic"]
    assert [name for name, row in AUGMENTATIONS.items() if row.jitter] == ["paper", "intensity"]


def test_paper_is_what_it_was_before_it_had_parts(labels: Tensor) -> None:
    """Areas of liver and tumor that the first version made, and where its generator stood then."""
    chance = generator()
    hu, moved = augment.move(as_hu(labels), labels, chance)
    assert [(int((one > 0).sum()), int((one == 2).sum())) for one in moved[:6]] == [
        (714, 75),
        (663, 78),
        (709, 82),
        (751, 81),
        (657, 76),
        (514, 64),
    ]
    assert float(torch.rand(1, generator=chance)) == pytest.approx(0.618818, abs=1e-6)
    assert float(hu.mean()) == pytest.approx(-830.541, abs=0.01)


@pytest.mark.parametrize("name", MOVING)
def test_an_image_that_is_its_mask_stays_it(labels: Tensor, name: str) -> None:
    """Cut at the middle between two labels, the image is the moved mask, but for a rim of one pixel."""
    hu, moved = moved_by(name, as_hu(labels), labels)
    assert not torch.equal(moved, labels)
    for threshold, label in ((-500, 1), (500, 2)):
        image, mask = (hu > threshold).float(), (moved >= label).float()[:, None]
        inside, outside = -max_pool2d(-mask, 3, 1, 1), max_pool2d(mask, 3, 1, 1)
        assert ((image >= inside) & (image <= outside)).all()
        rim = (outside - inside).sum()
        assert (image != mask).sum() <= (0 if name == "flips" else 0.1 * rim)


@pytest.mark.parametrize("name", MOVING)
def test_image_and_mask_do_not_drift_apart(name: str) -> None:
    """Bilinear and nearest take the same places: centroids agree to 0.02 px on average, half a pixel would be a bug."""
    mask = disc(31.5, 31.5, 14).to(torch.uint8).expand(256, -1, -1)
    hu, moved = moved_by(name, as_hu(mask), mask)
    apart = centroids(hu[:, 0] > -500) - centroids(moved > 0)
    assert apart.mean(0).abs().max() < 0.02 and apart.abs().max() < 0.3
    assert (centroids(moved > 0) - 31.5).mean(0).abs().max() < 0.1  # nor away from where they were
    assert (hu > -500).sum() / (moved > 0).sum() == pytest.approx(1, abs=0.005)


def centroids(masks: Tensor) -> Tensor:
    """(B, H, W) bool -> (B, 2): row and column in pixels."""
    at = torch.arange(float(SIDE), dtype=torch.double)
    weight = masks.double() / masks.sum((1, 2), keepdim=True)
    return torch.stack([(weight.sum(2) * at).sum(1), (weight.sum(1) * at).sum(1)], 1)


@pytest.mark.parametrize("name", MOVING)
def test_channels_that_are_windowed_move_as_hu_do(labels: Tensor, name: str) -> None:
    image = torch.rand((32, 3, SIDE, SIDE), generator=generator(7))
    moved, mask = moved_by(name, image, labels)
    assert (moved.shape, moved.dtype) == (image.shape, torch.float32)
    assert moved.min() >= 0 and moved.max() <= 1
    for channel in range(3):
        alone, same = moved_by(name, image[:, channel : channel + 1], labels)
        assert torch.equal(alone[:, 0], moved[:, channel]) and torch.equal(same, mask)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_row_repeats_by_its_seed_and_changes_what_its_name_says(labels: Tensor, name: str) -> None:
    hu, see = (as_hu(labels)[:, 0] / 20).short(), Inputs(RunConfig(augment=name, window="wide"))
    plain, first, same, other = (see(hu, labels, chance) for chance in (None, generator(), generator(), generator(1)))
    assert torch.equal(first[0], same[0]) and torch.equal(first[1], same[1])
    assert torch.equal(first[0], other[0]) == (name == "none")
    assert torch.equal(first[0], plain[0]) == (name == "none")
    assert torch.equal(first[1], plain[1]) == (name in ("none", "intensity"))


def test_flips_mirror_half_of_the_slices_left_right_and_nothing_else(labels: Tensor) -> None:
    hu, moved = moved_by("flips", as_hu(labels), labels)
    mirrored = [torch.equal(after, before.flip(-1)) for after, before in zip(moved, labels, strict=True)]
    assert 8 <= sum(mirrored) <= 24
    assert all(torch.equal(after, labels[0]) for after, flipped in zip(moved, mirrored, strict=True) if not flipped)
    assert torch.equal(hu, as_hu(moved))


def test_geometric_is_paper_without_its_deformation(labels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    geometric = moved_by("geometric", as_hu(labels), labels)
    assert not torch.equal(moved_by("paper", as_hu(labels), labels)[1], geometric[1])
    monkeypatch.setattr(augment, "ELASTIC_SD", 0.0)
    paper = moved_by("paper", as_hu(labels), labels)
    assert torch.equal(paper[0], geometric[0]) and torch.equal(paper[1], geometric[1])


def test_elastic_neither_turns_nor_mirrors_nor_shifts(labels: Tensor) -> None:
    _, moved = moved_by("elastic", as_hu(labels), labels)
    assert (centroids(moved > 0) - centroids(labels > 0)).abs().max() < 2.5  # pixels; a mirror image is 15 away
    overlap = ((moved > 0) & (labels > 0)).sum((1, 2)) / (labels > 0).sum((1, 2))
    assert 0.85 < overlap.min() < 0.97
    field = augment._displacement(1024, (SIDE, SIDE), generator()) * SIDE / 2
    assert field.mean((0, 1, 2)).abs().max() < 0.02  # pixels: six standard errors
    assert field.mean(0).abs().max() < 0.15 and 0.3 < field.std() < 0.9
