"""The way back to a volume's own pixels: as torch resamples, whatever the shape, the direction and the size."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from litsexp.data.ct.volume import flipped
from litsexp.data.store.resize import Resize, squared
from litsexp.evaluation.native import WayBack

SIZE = 16


def some_probabilities(size: int = SIZE, sharp: float = 6.0) -> np.ndarray:
    """Smooth ones, (4, 3, size, size), whose background is certain in most pixels; the last slice shows nothing."""
    rng = np.random.default_rng(3)
    logits = functional.interpolate(torch.from_numpy(rng.normal(size=(4, 3, 5, 5))), (size, size), mode="bicubic")
    logits[:, 0] += 0.4
    logits[3, 0] += 100
    return (logits * sharp).softmax(1).float().numpy()


def by_torch(probabilities: np.ndarray, side: int) -> np.ndarray:
    """Upright squares of labels, resampled by torch as a whole."""
    tensor = torch.from_numpy(probabilities)
    far = functional.interpolate(tensor, (side, side), mode="bilinear", align_corners=False)
    return far.argmax(1).numpy().astype(np.uint8)


@pytest.mark.parametrize("side", [16, 17, 40, 64])
def test_labels_are_those_of_linear_resampling(side: int) -> None:
    probabilities = some_probabilities()
    labels = WayBack((side, side), (False, False), SIZE).labels(probabilities)
    expected = by_torch(probabilities, side)
    assert labels.dtype == np.uint8 and labels.shape == (4, side, side)
    assert set(np.unique(labels)) == {0, 1, 2} and not labels[3].any()
    assert (labels != expected).mean() < 1e-3  # a tie decided by the last bit


def test_at_its_own_size_nothing_is_resampled() -> None:
    probabilities = some_probabilities()
    labels = WayBack((SIZE, SIZE), (False, False), SIZE).labels(probabilities)
    np.testing.assert_array_equal(labels, probabilities.argmax(1))


def test_a_finer_store_is_averaged() -> None:
    probabilities = some_probabilities()
    labels = WayBack((8, 8), (False, False), SIZE).labels(probabilities)
    means = probabilities.reshape(4, 3, 8, 2, 8, 2).mean((3, 5))
    np.testing.assert_array_equal(labels, means.argmax(1))


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("plane", [(24, 19), (19, 24), (24, 24)])
def test_a_plane_comes_back_in_its_own_direction_without_its_margin(
    plane: tuple[int, int], flips: tuple[bool, bool]
) -> None:
    truth = np.zeros(plane, np.uint8)
    truth[4:15, 3:9], truth[6:11, 5:8] = 1, 2
    square = flipped(squared(truth, 0, flips), flips)  # as a store of its own size would have it
    probabilities = np.stack([square == label for label in range(3)])[None].astype(np.float32)
    back = WayBack(plane, flips, len(square)).labels(probabilities)
    np.testing.assert_array_equal(back[0], truth)


def test_there_and_back_again_loses_borders_alone() -> None:
    truth = np.zeros((64, 64), np.uint8)
    truth[10:50, 12:44], truth[20:40, 20:36] = 1, 2
    small = Resize(64, 32).labels(truth)
    probabilities = np.stack([small == label for label in range(3)])[None].astype(np.float32)
    back = WayBack((64, 64), (False, False), 32).labels(probabilities)[0]
    assert (back != truth).mean() < 0.02
