"""A picture of what networks get as input, arm by arm: every channel, with and without augmentation, and the mask."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from litsexp.evaluation.overlays import GAP_PX, INK, LIVER, PAPER, TUMOR, Color, Font, Pixels, grays, outlined

LEAST_PANEL_PX, MOST_PANEL_PX = 160, 256  # pixels of a slice become whole squares of a panel, or are averaged
LINE_PX, FONT_PX, HEAD_PX = 20, 13, 17
RULE: Color = (90, 90, 90)
FAINT: Color = (165, 165, 165)
MASKED, ALL_CHANNELS = "with its mask", "all as RGB, with mask"


@dataclass(frozen=True)
class View:
    """One slice as a network gets it."""

    channels: NDArray[np.float32]  # (channels, size, size) in [0, 1]
    labels: Pixels  # (size, size): 0, 1 liver, 2 tumor


@dataclass(frozen=True)
class Seen:
    """One slice in training: before and after augmentation."""

    title: str  # which slice this is: ``phantom case 3, z 12``
    plain: View
    augmented: View


@dataclass(frozen=True)
class Band:
    """Arms whose networks get the same input, and some slices of it."""

    arms: Sequence[str]
    settings: str  # that decide it: ``encoding hu · window notebook · augment paper``
    channels: Sequence[str]  # what each channel shows
    augmented: str  # what was done to the right half: ``augmented: rotation, flip``
    slices: Sequence[Seen]


def input_sheet(title: str, note: str, bands: Sequence[Band]) -> Image.Image:
    """The bands one below the other, a row a slice: not augmented at the left, augmented at the right. RGB.

    Each half shows every channel in gray, then the slice with liver and tumor outlined. Equal bands give equal pixels.
    ValueError: no band, or one without a slice.
    """
    if not bands or not all(band.slices for band in bands):
        raise ValueError("found a band without a slice, or no band; expected a slice in each")
    drawn = [_band(band) for band in bands]
    width = max(_least_width(title, note), *(image.width for image in drawn)) + 2 * GAP_PX
    height = 3 * LINE_PX + 2 * GAP_PX + sum(image.height + 3 * GAP_PX for image in drawn)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PX, GAP_PX + LINE_PX // 2), title, INK, _font(HEAD_PX), anchor="lm")
    draw.text((GAP_PX, GAP_PX + 3 * LINE_PX // 2), note, FAINT, _font(FONT_PX), anchor="lm")
    _legend(draw, GAP_PX + 5 * LINE_PX // 2)
    top = 3 * LINE_PX + 2 * GAP_PX
    for image in drawn:
        draw.line((GAP_PX, top, width - GAP_PX, top), RULE)
        sheet.paste(image, (GAP_PX, top + GAP_PX))
        top += image.height + 3 * GAP_PX
    return sheet


def _band(band: Band) -> Image.Image:
    rows = [(seen.title, _half(seen.plain), _half(seen.augmented)) for seen in band.slices]
    panel_px, count = rows[0][1][0].width, len(rows[0][1])
    font = _font(FONT_PX)
    half_px = max(count * panel_px + (count - 1) * GAP_PX, math.ceil(font.getlength(band.augmented)))
    width, row_px = 2 * half_px + 4 * GAP_PX, LINE_PX + panel_px + GAP_PX
    image = Image.new("RGB", (width, 4 * LINE_PX + len(rows) * row_px), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((0, LINE_PX // 2), _names(band.arms, width), INK, _font(HEAD_PX), anchor="lm")
    draw.text((0, 3 * LINE_PX // 2), band.settings, FAINT, font, anchor="lm")
    captions = [*band.channels, ALL_CHANNELS if len(band.channels) > 1 else MASKED]
    lefts = 0, half_px + 4 * GAP_PX
    for left, what in zip(lefts, ("not augmented, as in validation and test", band.augmented), strict=True):
        draw.text((left, 5 * LINE_PX // 2), what, INK, font, anchor="lm")
        for index, caption in enumerate(captions):
            middle = left + index * (panel_px + GAP_PX) + panel_px // 2
            draw.text((middle, 7 * LINE_PX // 2), _cut(caption, panel_px, font), FAINT, font, anchor="mm")
    top = 4 * LINE_PX
    for title, *halves in rows:
        for left, panels in zip(lefts, halves, strict=True):
            for index, panel in enumerate(panels):
                image.paste(panel, (left + index * (panel_px + GAP_PX), top))
            draw.text((left, top + panel_px + LINE_PX // 2), _cut(title, half_px, font), INK, font, anchor="lm")
        top += row_px
    return image


def _half(view: View) -> list[Image.Image]:
    """A panel a channel, and one with all of them and the mask's outlines."""
    gray = [_panel(grays(channel)) for channel in view.channels]
    color = np.stack(gray if len(gray) > 1 else gray * 3, -1)
    masked = outlined(color, _panel(view.labels, mask=True))
    return [*(Image.fromarray(np.repeat(one[..., None], 3, -1)) for one in gray), Image.fromarray(masked)]


def _panel(pixels: Pixels, mask: bool = False) -> Pixels:
    """A slice at the size of a panel: each pixel a square, so that nothing is smoothed away; a large one is reduced."""
    size = max(pixels.shape)
    if size <= MOST_PANEL_PX:
        times = math.ceil(LEAST_PANEL_PX / size)
        return pixels.repeat(times, 0).repeat(times, 1)
    step = math.ceil(size / MOST_PANEL_PX)
    if mask:
        return pixels[step // 2 :: step, step // 2 :: step]
    reduced: Pixels = np.asarray(Image.fromarray(pixels).reduce(step))
    return reduced[: len(pixels[step // 2 :: step]), : len(pixels[0, step // 2 :: step])]


def _names(arms: Sequence[str], width_px: int) -> str:
    """``baseline · init=scratch``, as many as fit, and how many there are more."""
    font = _font(HEAD_PX)
    for shown in range(len(arms), 0, -1):
        left = len(arms) - shown
        text = " · ".join(arms[:shown]) + (f" · and {left} more arms that see the same" if left else "")
        if font.getlength(text) <= width_px:
            break
    return _cut(text, width_px, font)


def _cut(text: str, width_px: float, font: Font) -> str:
    """The text, or so much of it as fits with an ellipsis."""
    if font.getlength(text) <= width_px:
        return text
    fits = next((end for end in range(len(text), 0, -1) if font.getlength(f"{text[:end]}…") <= width_px), 0)
    return f"{text[:fits].rstrip()}…"


def _legend(draw: ImageDraw.ImageDraw, middle: int) -> None:
    left: float = GAP_PX
    for color, text in ((LIVER, "liver's outline"), (TUMOR, "tumor's outline")):
        draw.rectangle((left, middle - 6, left + 12, middle + 6), outline=color, width=3)
        draw.text((left + 18, middle), text, INK, _font(FONT_PX), anchor="lm")
        left += 18 + draw.textlength(text, _font(FONT_PX)) + 18
    draw.text(
        (left, middle),
        "the patient's right is at the left, unless a slice is flipped",
        FAINT,
        _font(FONT_PX),
        anchor="lm",
    )


def _least_width(title: str, note: str) -> int:
    return math.ceil(max(_font(HEAD_PX).getlength(title), _font(FONT_PX).getlength(note)))


def _font(size_px: int) -> Font:
    return ImageFont.load_default(size=size_px)
