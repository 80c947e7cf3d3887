"""What is to be undone: which pixels a distortion changes, and that no channel tells what another one hides."""

import pytest
import torch
from torch import Generator, Tensor

from litsexp.training.ssl import distortions
from litsexp.training.ssl.distortions import (
    CELLS,
    HIDDEN,
    PATCHES,
    SWAPS,
    distorted,
    with_curve,
    with_hidden_patches,
    with_paint,
    with_swaps,
)


def drawn(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    """Twelve slices of 32 px, whose three channels differ."""
    return torch.rand((12, 3, 32, 32), generator=drawn(9)) * 2 - 1


@pytest.mark.parametrize("distort", [distorted, with_hidden_patches])
def test_a_generator_decides_all_and_slices_differ(distort: distortions.Distortion, images: Tensor) -> None:
    images[:] = images[0]
    before = images.clone()
    (a, counts), (b, _) = distort(images, drawn()), distort(images, drawn())
    assert torch.equal(a, b) and not torch.equal(a, distort(images, drawn(1))[0])
    assert len({one.numpy().tobytes() for one in a}) == len(images)
    assert a.shape == images.shape and counts.shape == (12, 1, 32, 32)
    assert torch.equal(images, before)  # it is the target
    assert a.min() >= -1 and a.max() <= 1


def test_a_curve_rises_or_falls_over_the_whole_range_alike_in_all_channels() -> None:
    ramp = torch.linspace(-1, 1, 1024).view(1, 1, 32, 32).repeat(40, 3, 1, 1)
    changed = with_curve(ramp, drawn())
    assert torch.equal(changed[:, 0], changed[:, 1]) and torch.equal(changed[:, 0], changed[:, 2])
    values = changed[:, 0].flatten(1)
    falling = values[:, 0] > values[:, -1]
    assert 8 < falling.sum() < 32  # about half
    rising = torch.where(falling[:, None], values.flip(1), values)
    assert (rising.diff(dim=1) >= -1e-5).all()
    assert rising[:, 0].tolist() == pytest.approx([-1] * 40, abs=1e-5)
    assert rising[:, -1].tolist() == pytest.approx([1] * 40, abs=1e-5)
    assert (rising - ramp[:, 0].flatten(1)).abs().max() > 0.3  # no straight lines alone


def test_the_curve_through_its_own_corners_is_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    def thirds(shape: tuple[int, ...] | int, generator: Generator) -> Tensor:
        """Control points (1/3, 1/3), (2/3, 2/3): a straight line; and none that fall."""
        return torch.tensor([1 / 3, 2 / 3]).expand(shape) if isinstance(shape, tuple) else torch.ones(shape)

    image = torch.rand(2, 3, 8, 8) * 2 - 1
    monkeypatch.setattr(torch, "rand", thirds)
    assert torch.allclose(with_curve(image, drawn()), image, atol=1e-5)


def test_swaps_change_places_and_no_values(images: Tensor) -> None:
    moved = with_swaps(images, drawn())
    side = 32 // CELLS
    differs = (moved != images).view(12, 3, CELLS, side, CELLS, side).any(5).any(3)
    assert torch.equal(differs[:, 0], differs[:, 1])
    assert differs[:, 0].flatten(1).sum(1).tolist() == [2 * SWAPS] * 12
    assert torch.equal(moved.flatten(2).sort().values, images.flatten(2).sort().values)
    assert torch.equal(with_swaps(moved, drawn()), images)  # the same pairs change back


def test_paint_is_noise_in_some_boxes_or_around_them_and_the_same_in_all_channels(images: Tensor) -> None:
    many = images.repeat(10, 1, 1, 1)
    painted = with_paint(many, drawn())
    changed = painted != many
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert torch.equal(painted[:, 0][changed[:, 0]], painted[:, 2][changed[:, 0]])
    shares = changed[:, 0].flatten(1).float().mean(1)
    outer = changed[:, 0, 0, 0] & changed[:, 0, -1, -1] & changed[:, 0, 0, -1]
    assert 30 < outer.sum() < 90
    assert 0.05 < shares[~outer].mean() < 0.4 and shares.min() > 0
    assert shares.max() < 1  # something is left to see


def test_hidden_patches_are_mid_grey_and_alone_count(images: Tensor) -> None:
    given, hidden = with_hidden_patches(images + 2, drawn())
    side = 32 // PATCHES
    patches = hidden.view(12, PATCHES, side, PATCHES, side).transpose(2, 3).flatten(3).flatten(1, 2)
    assert torch.equal(patches.amin(2), patches.amax(2))  # whole patches
    assert patches[..., 0].sum(1).tolist() == [round(HIDDEN * 64)] * 12 == [38] * 12
    everywhere = hidden.expand_as(given) > 0
    assert (given[everywhere] == 0).all()
    assert torch.equal(given[~everywhere], (images + 2)[~everywhere])


def test_restoration_counts_everywhere(images: Tensor) -> None:
    assert (distorted(images, drawn())[1] == 1).all()
