"""The sheet of what networks see: every pixel is there, and the words that say what it is."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from litsexp.evaluation.inputs import Band, Seen, View, input_sheet
from litsexp.evaluation.overlays import LIVER, PAPER, TUMOR

SIZE = 32


def view(gray: int, channels: int = 3) -> View:
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[8:24, 8:24] = 1
    labels[12:20, 12:20] = 2
    image = np.stack([np.full((SIZE, SIZE), gray + channel, np.float32) for channel in range(channels)]) / 255
    return View(image, labels)


def band(channels: int = 3, count: int = 2, **changes: Any) -> Band:
    seen = [Seen(f"case {n}, z 5", view(40 + 10 * n, channels), view(140 + 10 * n, channels)) for n in range(count)]
    names = ["-45 to 105 HU", "-40 to 160 HU", "equalised"][:channels]
    said = {"settings": "encoding hu", "augmented": "in training: flips"}
    fields: dict[str, Any] = {"arms": ["baseline"], "channels": names, **said}
    return Band(**{**fields, "slices": seen, **changes})


def colors(sheet: Image.Image) -> dict[tuple[int, ...], int]:
    found = np.asarray(sheet).reshape(-1, 3)
    values, counts = np.unique(found, axis=0, return_counts=True)
    return dict(zip(map(tuple, values.tolist()), counts.tolist(), strict=True))


def test_every_channel_is_there_in_gray_and_all_of_them_in_color() -> None:
    found = colors(input_sheet("mini", "64 px", [band()]))
    panel = 160 * 160  # 32 px five times
    for first in (40, 50, 140, 150):
        for channel in range(3):
            assert found[(first + channel,) * 3] >= panel
        rest = found[first, first + 1, first + 2]  # red, green, blue, where no outline lies
        assert 0.9 * panel < rest < panel
    assert found[LIVER] > 8 * 60 and found[TUMOR] > 4 * 60


def test_one_view_is_shown_once() -> None:
    one, three = input_sheet("mini", "", [band(1)]), input_sheet("mini", "", [band(3)])
    assert one.width < 0.6 * three.width and one.height == three.height
    assert colors(one)[40, 40, 40] > 160 * 160 * 1.9  # the panel, and the one with outlines


def test_outlines_leave_what_is_in_them_visible() -> None:
    sheet = np.asarray(input_sheet("", "", [band(1, count=1)]))
    rows, columns = np.nonzero((sheet == TUMOR).all(-1) & (np.arange(sheet.shape[1]) < sheet.shape[1] // 2)[None])
    at_middle = rows[rows > 60]  # below the legend's swatch
    middle = (at_middle.min() + at_middle.max()) // 2, (columns[rows > 60].min() + columns[rows > 60].max()) // 2
    assert tuple(sheet[middle]) == (40, 40, 40)


def test_bands_lie_one_below_the_other() -> None:
    alone, twice = input_sheet("t", "", [band()]), input_sheet("t", "", [band(), band(1)])
    assert twice.width == alone.width
    assert 1.7 * alone.height < twice.height < 2 * alone.height


@pytest.mark.parametrize(("size", "panel"), [(32, 160), (64, 192), (128, 256), (256, 256), (320, 160), (512, 256)])
def test_pixels_become_squares_and_large_slices_are_reduced(size: int, panel: int) -> None:
    image, labels = np.full((1, size, size), 77 / 255, np.float32), np.zeros((size, size), np.uint8)
    labels[size // 4 : size // 2, size // 4 : size // 2] = 2
    seen = [Seen("case 0, z 0", View(image, labels), View(image, labels))]
    sheet = input_sheet("", "", [band(1, slices=seen)])
    columns = (np.asarray(sheet) == 77).all(-1).sum(0)  # letters have some gray of this kind, too
    assert np.bincount(columns)[100:].argmax() + 100 == panel
    assert colors(sheet)[TUMOR] >= 2 * (panel // 4) * 4  # in both halves, outlined


def test_words_say_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    write = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, *rest, **how: said.append(text) or write(self, xy, text, *rest, **how),
    )
    input_sheet("mini: what the networks see", "fold 0", [band(arms=["baseline", "init=scratch"])])
    for text in ("mini: what the networks see", "fold 0", "baseline · init=scratch", "encoding hu", "case 1, z 5"):
        assert text in said
    assert said.count("-45 to 105 HU") == said.count("all as RGB, with mask") == 2
    assert "not augmented, as in validation and test" in said and "in training: flips" in said
    said.clear()
    input_sheet("", "", [band(arms=[f"train_fraction={n}" for n in range(200)])])
    (names,) = (text for text in said if text.startswith("train_fraction=0"))
    assert "more arms that see the same" in names
    assert ImageFont.load_default(size=17).getlength(names) < 1400


def test_equal_bands_give_equal_pixels_and_none_is_an_error() -> None:
    assert input_sheet("t", "n", [band()]).tobytes() == input_sheet("t", "n", [band()]).tobytes()
    assert input_sheet("t", "n", [band()]).getpixel((0, 0)) == PAPER
    for bands in ([], [band(slices=[])]):
        with pytest.raises(ValueError, match="expected a slice in each"):
            input_sheet("t", "n", bands)
