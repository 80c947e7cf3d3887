"""Pictures: their size, their bytes, and the color of pixels that are known."""

import io

import numpy as np
import pytest
from PIL import Image

from litsexp.evaluation.overlays import (
    FALSE,
    GAP_PX,
    LINE_PX,
    LIVER,
    MISSED,
    PALE,
    PANEL_PX,
    PANELS,
    STRONG,
    TUMOR,
    overlay,
    side_by_side,
    to_png,
    to_webp,
)

SIDE = 64
GRAY = 102  # of 0.4: 15 HU in window (150, 30)


@pytest.fixture
def slice_():
    """A liver with a tumor in its middle; the prediction is shifted by 8 columns."""
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[8:56, 8:48], truth[24:40, 16:32] = 1, 2
    prediction = np.roll(truth, 8, axis=1)
    return np.full((SIDE, SIDE), 0.4, np.float32), truth, prediction


def pixel(picture, panel, row, column):
    """The picture's color in the middle of a slice's pixel."""
    scale = PANEL_PX // SIDE
    left = PANELS.index(panel) * (PANEL_PX + GAP_PX)
    return picture.getpixel((left + column * scale + scale // 2, 2 * LINE_PX + row * scale + scale // 2))


def blend(color, opacity):
    return tuple(round((1 - opacity) * GRAY + opacity * channel) for channel in color)


@pytest.mark.parametrize(
    ("shape", "panel"),
    [((64, 64), (256, 256)), ((512, 512), (256, 256)), ((96, 96), (256, 256)), ((50, 100), (128, 256))],
)
def test_panels_have_one_size_whatever_the_slice(shape, panel):
    labels = np.ones(shape, np.uint8)
    picture = overlay(np.zeros(shape, np.float32), labels, labels, "case 1 · z 2")
    assert picture.mode == "RGB"
    assert picture.size == (4 * panel[1] + 3 * GAP_PX, panel[0] + 3 * LINE_PX)


def test_equal_slices_give_equal_bytes_that_are_a_png(slice_):
    first, second = (to_png(overlay(*slice_, "case 1 · z 2")) for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).format == "PNG"
    assert to_png(overlay(*slice_, "case 1 · z 3")) != first  # the title is in the picture


def test_error_panel_colors(slice_):
    picture = overlay(*slice_, "case 1 · z 2")
    assert pixel(picture, "error", 30, 28) == blend(TUMOR, STRONG)  # tumor in both
    assert pixel(picture, "error", 30, 20) == blend(MISSED, STRONG)  # tumor, predicted as liver
    assert pixel(picture, "error", 30, 36) == blend(FALSE, STRONG)  # liver, predicted as tumor
    assert pixel(picture, "error", 12, 11) == blend(MISSED, PALE)  # liver, predicted as background
    assert pixel(picture, "error", 12, 52) == blend(FALSE, PALE)  # background, predicted as liver
    assert pixel(picture, "error", 12, 30) == (GRAY, GRAY, GRAY)  # liver in both
    assert pixel(picture, "error", 2, 2) == (GRAY, GRAY, GRAY)  # background in both


def test_a_tumor_missed_altogether_is_strong_even_outside_the_predicted_liver(slice_):
    image, truth, prediction = slice_
    picture = overlay(image, truth, 0 * prediction, "case 1 · z 2")
    assert pixel(picture, "error", 30, 20) == blend(MISSED, STRONG)
    assert pixel(picture, "error", 12, 20) == blend(MISSED, PALE)


def test_truth_and_prediction_panels_fill_the_tumor_and_outline_the_liver(slice_):
    picture = overlay(*slice_, "case 1 · z 2")
    for panel, shift in (("truth", 0), ("prediction", 8)):
        assert pixel(picture, panel, 30, 24 + shift) == blend(TUMOR, STRONG)
        assert pixel(picture, panel, 12, 24 + shift) == (GRAY, GRAY, GRAY)
        top_left = PANELS.index(panel) * (PANEL_PX + GAP_PX) + (8 + shift) * 4, 2 * LINE_PX + 8 * 4
        assert picture.getpixel(top_left) == LIVER
    assert pixel(picture, "image", 30, 24) == (GRAY, GRAY, GRAY)


def test_a_channel_becomes_gray_values(slice_):
    _, truth, prediction = slice_
    for value, gray in ((0, 0), (0.5, 128), (0.25, 64), (1, 255)):
        picture = overlay(np.full(truth.shape, value, np.float32), truth, prediction, "")
        assert pixel(picture, "image", 30, 30) == (gray, gray, gray)


def test_a_title_too_long_leaves_the_dice_in_place(slice_):
    short, long = (overlay(*slice_, title) for title in ("case 1", "a title " * 60))
    dice = (short.width - 150, 0, short.width, LINE_PX)
    assert short.size == long.size
    assert short.crop(dice).tobytes() == long.crop(dice).tobytes()


def test_masks_that_do_not_fit_are_refused(slice_):
    image, truth, prediction = slice_
    with pytest.raises(ValueError, match="expected one"):
        overlay(image, truth[1:], prediction, "")
    with pytest.raises(ValueError, match="labels up to 3"):
        overlay(image, truth, prediction + 1, "")


def test_side_by_side_shows_the_truth_and_each_prediction_cut_alike(slice_):
    image, truth, prediction = slice_
    panels = side_by_side(image, truth, [prediction, truth], side_px=96)
    assert [panel.size for panel in panels] == [(96, 96)] * 3
    shifted, same = (np.asarray(panel) for panel in panels[1:])
    assert not (shifted == same).all()
    colors = {tuple(color) for color in same.reshape(-1, 3)}
    assert len(colors) == 2  # gray, and tumor that was found: no error anywhere


def test_what_any_prediction_paints_is_in_the_cut(slice_):
    """A false tumor far from the liver is seen; so is what lies at the picture's rim."""
    image, truth, prediction = slice_
    prediction[60:63, 60:63] = 2
    far = np.asarray(side_by_side(image, truth, [prediction])[1])
    false = np.rint((1 - STRONG) * GRAY + STRONG * np.array(FALSE))
    assert (far.reshape(-1, 3) == false).all(axis=1).sum() > 100
    small = np.zeros_like(truth)
    small[:4, :2] = 1
    corner = np.asarray(side_by_side(image, small, [np.zeros_like(truth)], side_px=50)[1])
    missed = np.rint((1 - PALE) * GRAY + PALE * np.array(MISSED))
    assert corner.shape == (50, 50, 3)  # a square of five pixels: the four rows, and some room
    assert (corner == missed).all(axis=-1).mean() == pytest.approx(8 / 25, abs=0.02)


def test_without_a_label_the_whole_slice_is_shown(slice_):
    image, *_ = slice_
    nothing = np.zeros((SIDE, 2 * SIDE), np.uint8)
    (shown, empty) = side_by_side(np.tile(image, (1, 2)), nothing, [nothing], side_px=128)
    assert shown.size == empty.size == (128, 64)


def test_equal_pictures_give_equal_bytes_that_are_a_webp(slice_):
    first, again = (to_webp(side_by_side(slice_[0], slice_[1], [slice_[2]])[1]) for _ in range(2))
    assert first == again and first[8:12] == b"WEBP"
    assert len(first) < 8000
