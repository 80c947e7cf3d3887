"""The one way from stored HU to network input: windows, equalisation, normaliser, and the order of the stages."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from litsexp.data.ct.windows import windowed
from litsexp.data.store import Store
from litsexp.spec.catalog import AUGMENTATIONS, ENCODINGS, WINDOWS, Augmentation, Encoding
from litsexp.spec.run import RunConfig
from litsexp.training import augment
from litsexp.training.inputs import EQUALISE_BINS, Inputs, channels, equalised, normalise


@pytest.fixture(scope="module")
def hu(phantom_store: Store) -> Tensor:
    return torch.from_numpy(np.array(phantom_store.hu[::5])).float()[:, None]


def equalised_in_numpy(slice_: NDArray[np.integer]) -> NDArray[np.float64]:
    """Histogram, cumulative share, linear between bin centres, in whole numbers as far as they go."""
    low, high = int(slice_.min()), int(slice_.max())
    width = max(high - low, 1)
    bins = np.minimum((slice_.astype(np.int64) - low) * EQUALISE_BINS // width, EQUALISE_BINS - 1)
    share = np.bincount(bins.ravel(), minlength=EQUALISE_BINS).cumsum() / slice_.size
    centers = low + (np.arange(EQUALISE_BINS) + 0.5) * width / EQUALISE_BINS
    return np.interp(slice_, centers, share)


@pytest.mark.parametrize("window", ["liver", "custom", "wide"])
def test_one_window_thrice(hu: Tensor, window: str) -> None:
    (view,) = WINDOWS[window].views
    image = channels(hu, window)
    assert image.shape == (len(hu), 3, 64, 64)
    for channel in range(3):
        np.testing.assert_array_equal(image[:, channel].numpy(), windowed(hu[:, 0].numpy(), *view))
    assert image.min() == 0 and image.max() == 1


def test_a_window_by_hand() -> None:
    """Liver: 150 wide around 30, that is -45 to 105 HU."""
    hu = torch.tensor([-1024.0, -45, 30, 67.5, 105, 3071]).reshape(1, 1, 1, 6)
    torch.testing.assert_close(channels(hu, "liver")[0, 2, 0], torch.tensor([0, 0, 0.5, 0.75, 1, 1]))


def test_the_notebooks_three_channels(hu: Tensor) -> None:
    image = channels(hu, "notebook")
    assert image.shape == (len(hu), 3, 64, 64)
    assert torch.equal(image[:, :1], channels(hu, "liver")[:, :1])
    assert torch.equal(image[:, 1:2], channels(hu, "custom")[:, :1])
    assert torch.equal(image[:, 2:], equalised(hu))


def test_equalised_is_numpys_histogram_and_interpolation(hu: Tensor) -> None:
    for ours, slice_ in zip(equalised(hu)[:, 0], hu[:, 0].numpy().astype(np.int16), strict=True):
        np.testing.assert_allclose(ours.numpy(), equalised_in_numpy(slice_), atol=2e-6)


@pytest.mark.parametrize("width", [1, 2, 7, 99, 100, 101, 200, 1000, 4095])
def test_equalised_puts_whole_hu_into_the_right_bin(width: int) -> None:
    """A value on the edge of two bins belongs to the upper one, whatever float32 makes of the division."""
    slice_ = (np.arange(64 * 64) % (width + 1) - 1024).astype(np.int16).reshape(64, 64)
    ours = equalised(torch.from_numpy(slice_).float()[None, None])[0, 0].numpy()
    np.testing.assert_allclose(ours, equalised_in_numpy(slice_), atol=2e-6)


def test_equalised_spreads_the_values_evenly_and_keeps_their_order() -> None:
    rng = np.random.default_rng(0)
    slice_ = rng.normal(50, 20, (1, 1, 128, 128)).astype(np.float32)  # also what comes from augmentation: not whole
    out = equalised(torch.from_numpy(slice_))
    assert out.min() > 0 and out.max() == 1
    assert np.abs(np.quantile(out, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.03
    assert (np.diff(out.numpy().ravel()[slice_.ravel().argsort()]) >= 0).all()


def test_equalised_edge_cases() -> None:
    constant = torch.full((8, 8), -1024.0)
    two = torch.cat([torch.full((6, 8), -100.0), torch.full((2, 8), 900.0)])
    nearly = constant.clone()
    nearly[0, 0] += 0.25  # less than a unit, as after augmentation
    out = equalised(torch.stack([constant, two, nearly])[:, None])[:, 0]
    assert (out[0] == 1).all()
    torch.testing.assert_close(out[1], torch.where(two < 0, 0.75, 1.0))
    assert out[2].isfinite().all() and out[2].min() > 0 and out[2].max() <= 1


def test_each_slice_is_equalised_by_itself(hu: Tensor) -> None:
    torch.testing.assert_close(equalised(hu)[3:4], equalised(hu[3:4]), rtol=0, atol=0)


def test_normalise_maps_zero_one_to_minus_one_one() -> None:
    assert normalise(torch.tensor([0, 0.5, 1])).tolist() == [-1, 0, 1]


@pytest.fixture
def batch(phantom_store: Store) -> tuple[Tensor, Tensor]:
    """Eight slices as they are stored."""
    return torch.from_numpy(phantom_store.hu[:8].copy()), torch.from_numpy(phantom_store.labels[:8].copy())


def test_without_a_generator_nothing_is_augmented(batch: tuple[Tensor, Tensor]) -> None:
    image, labels = Inputs(RunConfig(augment="paper"))(*batch)
    assert torch.equal(image, normalise(channels(batch[0].float()[:, None], "notebook")))
    assert torch.equal(labels, batch[1].long())


def test_the_stages_of_the_paper_by_hand(batch: tuple[Tensor, Tensor]) -> None:
    """HU are moved before the window cuts them off, and the channels jittered after it."""
    image, labels = Inputs(RunConfig(window="wide"))(*batch, Generator().manual_seed(4))
    generator = Generator().manual_seed(4)
    moved, mask = augment.move(batch[0].float()[:, None], batch[1], generator)
    assert torch.equal(image, normalise(augment.jitter(channels(moved, "wide"), generator)))
    assert torch.equal(labels, mask.long())


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Toy rows that write down when they are called."""
    calls: list[str] = []

    def gray(hu: Tensor, window: str) -> Tensor:
        calls.append(f"encode {window}")
        return (hu.float()[:, None] > 0).float().expand(-1, 3, -1, -1)

    def move(image: Tensor, labels: Tensor, _: Generator) -> tuple[Tensor, Tensor]:
        calls.append("move")
        return image.flip(-1), labels.flip(-1)

    def jitter(image: Tensor, _: Generator) -> Tensor:
        calls.append("jitter")
        return 1 - image

    monkeypatch.setitem(ENCODINGS, "gray", Encoding("a toy", gray, windowed=True))
    monkeypatch.setitem(AUGMENTATIONS, "mirror", Augmentation("a toy", move, jitter))
    yield calls


def test_an_encoding_that_is_windowed_needs_no_window(batch: tuple[Tensor, Tensor], rows: list[str]) -> None:
    image, labels = Inputs(RunConfig(encoding="gray", augment="mirror", window="liver"))(*batch, Generator())
    assert rows == ["encode liver", "move", "jitter"]
    expected = 1 - (batch[0] > 0).float().flip(-1)
    assert torch.equal(image, normalise(expected[:, None].expand(-1, 3, -1, -1)))
    assert torch.equal(labels, batch[1].flip(-1).long())
