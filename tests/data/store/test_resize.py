"""Resizing by hand: areas, centres, ties; and sums that are exact on every processor."""

import numpy as np
import pytest

from litsexp.data.store.resize import Resize, resize_weights, squared


def test_shrinking_averages_areas() -> None:
    images = np.array([[[0, 2, 10, 10], [4, 6, 10, 13], [-1024, 0, 1, 1], [0, 0, 1, 2]]], np.int16)
    assert Resize(images.shape[-1], 2).hu(images).tolist() == [[[3, 11], [-256, 1]]]  # 10.75 and 1.25 are rounded
    thirds = np.array([[[0, 30, 60]] * 3], np.int16)
    assert Resize(thirds.shape[-1], 2).hu(thirds).tolist() == [[[10, 50]] * 2]  # (0 + 30/2) / 1.5, (30/2 + 60) / 1.5


def test_enlarging_is_linear_between_centres() -> None:
    images = np.array([[[0, 100], [0, 100]]], np.int16)
    assert Resize(images.shape[-1], 4).hu(images).tolist() == [[[0, 25, 75, 100]] * 4]


def test_the_same_size_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    images, labels = (
        rng.integers(-1024, 3072, (2, 7, 7)).astype(np.int16),
        rng.integers(0, 3, (2, 7, 7)).astype(np.uint8),
    )
    np.testing.assert_array_equal(Resize(images.shape[-1], 7).hu(images), images)
    np.testing.assert_array_equal(Resize(labels.shape[-1], 7).labels(labels), labels)


@pytest.mark.parametrize(("size_in", "size_out"), [(512, 96), (500, 64), (37, 64), (64, 64), (4096, 512)])
def test_weights_are_whole_numbers_of_one_sum(size_in: int, size_out: int) -> None:
    weights = resize_weights(size_in, size_out)
    assert weights.shape == (size_out, size_in)
    assert (weights == np.rint(weights)).all() and (weights >= 0).all()
    assert set(weights.sum(axis=1)) == {weights[0].sum()}
    assert weights[0].sum() ** 2 * 3071 < 2**53  # every sum is exact in float64
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    if size_out <= size_in:
        assert set(weights.sum(axis=0)) == {size_out}  # every input pixel counts the same


def test_labels_go_by_area_and_ties_to_the_higher() -> None:
    blocks = {(0, 0, 0, 1): 0, (0, 0, 1, 1): 1, (0, 1, 1, 2): 1, (0, 0, 2, 2): 2, (1, 1, 2, 2): 2, (0, 0, 1, 2): 0}
    for block, expected in blocks.items():
        labels = np.array(block, np.uint8).reshape(1, 2, 2)
        assert Resize(labels.shape[-1], 1).labels(labels).item() == expected, block


@pytest.mark.parametrize("side", [512, 500, 97])
def test_labels_at_any_ratio_follow_the_area(side: int) -> None:
    labels = np.zeros((2, side, side), np.uint8)
    labels[1, side // 5 : side // 2, side // 3 : side - 7] = 1
    labels[1, side // 4 : side // 3, side // 2 : side // 2 + 9] = 2
    weights = resize_weights(side, 96)
    shares = [weights @ (labels[1] == label) @ weights.T for label in (0, 1, 2)]
    expected = 2 - np.argmax(shares[::-1], axis=0)
    found = Resize(labels.shape[-1], 96).labels(labels)
    np.testing.assert_array_equal(found[1], expected)
    assert not found[0].any() and set(np.unique(found)) == {0, 1, 2}


def test_a_margin_makes_a_plane_square_with_the_odd_pixel_last() -> None:
    plane = np.array([[1, 2, 3, 4]], np.int16)
    assert squared(plane, 9).tolist() == [[9] * 4, [1, 2, 3, 4], [9] * 4, [9] * 4]
    assert squared(plane, 9, (True, False)).tolist() == [[9] * 4, [9] * 4, [1, 2, 3, 4], [9] * 4]
    assert squared(plane.T, 9).tolist() == [[9, n, 9, 9] for n in (1, 2, 3, 4)]
    square = np.zeros((3, 3), np.uint8)
    assert squared(square, 9, (True, True)) is square
