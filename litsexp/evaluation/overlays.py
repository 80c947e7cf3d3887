"""Pictures of one slice: the image, the truth, the prediction, and where they differ. Pillow draws, numpy colors."""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from litsexp.evaluation.cases import CaseMasks
from litsexp.evaluation.metrics import dice_liver, dice_tumor

Pixels = NDArray[np.uint8]  # gray, RGB or labels
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PANELS = ("image", "truth", "prediction", "error")
PANEL_PX, GAP_PX, LINE_PX, FONT_PX = 256, 6, 22, 14
SIDE_PX, ROOM, WEBP_QUALITY = (
    240,
    0.1,
    82,
)  # of pictures that stand side by side on a page; room around what is labelled

# Okabe and Ito's palette: this trio stays apart in deutan, protan and tritan vision when blended over gray
MISSED: Color = (213, 94, 0)  # false negative, vermilion
FALSE: Color = (86, 180, 233)  # false positive, sky blue
TUMOR: Color = (240, 228, 66)  # tumor, and in the error panel the tumor that was found, yellow
LIVER: Color = (0, 158, 115)  # outline, bluish green: white would vanish where the liver saturates the window
INK: Color = (235, 235, 235)
PAPER: Color = (24, 24, 24)
STRONG, PALE = 0.65, 0.4  # opacity of tumor, and of liver errors


def overlay(image: NDArray[np.float32], truth: Pixels, prediction: Pixels, title: str) -> Image.Image:
    """Image, truth, prediction and error of one slice side by side, with title, slice Dice and legend.

    ``image`` is one channel in [0, 1]; truth and prediction have its (height, width) and labels 0, 1, 2; the title says
    what slice this is: ``case 17 · z 240``. RGB; each panel's longer side is ``PANEL_PX``, whatever the slice's size.
    Masks keep their pixels' edges. ValueError: shapes that differ, or a label above 2.
    """
    if image.ndim != 2 or not image.shape == truth.shape == prediction.shape:
        found = f"image {image.shape}, truth {truth.shape} and prediction {prediction.shape}"
        raise ValueError(f"{found}; expected one (height, width)")
    alone = CaseMasks(0, truth[None], prediction[None], (math.nan,) * 3, np.zeros(1, np.int64))
    liver, tumor = (f"{score:.2f}".replace("nan", "undefined") for score in (dice_liver(alone), dice_tumor(alone)))
    gray = _enlarged(grays(image), Image.Resampling.BICUBIC, PANEL_PX)
    truth, prediction = (_enlarged(mask, Image.Resampling.NEAREST, PANEL_PX) for mask in (truth, prediction))
    base = np.repeat(gray[..., None], 3, axis=-1)
    panels = (base, labelled(base, truth), labelled(base, prediction), errors(base, truth, prediction))
    height, width = gray.shape
    picture = Image.new("RGB", (4 * width + 3 * GAP_PX, height + 3 * LINE_PX), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=FONT_PX)
    _headline(draw, font, title, f"slice Dice: liver {liver}, tumor {tumor}", picture.width)
    for index, (name, panel) in enumerate(zip(PANELS, panels, strict=True)):
        left = index * (width + GAP_PX)
        draw.text((left + width // 2, LINE_PX * 3 // 2), name, INK, font, anchor="mm")
        picture.paste(Image.fromarray(panel), (left, 2 * LINE_PX))
    _legend(draw, font, 2.5 * LINE_PX + height)
    return picture


def side_by_side(
    image: NDArray[np.float32], truth: Pixels, predictions: Sequence[Pixels], side_px: int = SIDE_PX
) -> list[Image.Image]:
    """The image with the truth outlined, then each prediction's errors, all cut to what any of them labels.

    The square that is cut has some room around it; shapes as in ``overlay``; pictures of ``side_px`` a side.
    """
    labelled_px = np.logical_or.reduce([truth > 0, *(prediction > 0 for prediction in predictions)])
    cut = _square(labelled_px)
    gray = _enlarged(grays(image)[cut], Image.Resampling.BICUBIC, side_px)
    large = [_enlarged(labels[cut], Image.Resampling.NEAREST, side_px) for labels in (truth, *predictions)]
    base = np.repeat(gray[..., None], 3, axis=-1)
    panels = [outlined(base, large[0]), *(errors(base, large[0], prediction) for prediction in large[1:])]
    return [Image.fromarray(panel) for panel in panels]


def to_webp(image: Image.Image) -> bytes:
    """The picture as WebP, small enough for a page of many; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY, method=6)
    return buffer.getvalue()


def to_png(image: Image.Image) -> bytes:
    """The picture as PNG; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def labelled(base: Pixels, labels: Pixels) -> Pixels:
    """The (height, width, 3) image with the tumor filled and the liver outlined."""
    return _painted(_painted(base, labels == 2, TUMOR, STRONG), _outline(labels >= 1), LIVER, 1.0)


def outlined(base: Pixels, labels: Pixels) -> Pixels:
    """The (height, width, 3) image with liver and tumor outlined, and nothing of what lies in them hidden."""
    return _painted(_painted(base, _outline(labels >= 1), LIVER, 1.0), _outline(labels == 2), TUMOR, 1.0)


def errors(base: Pixels, truth: Pixels, prediction: Pixels) -> Pixels:
    """The (height, width, 3) image with missed, false and found tumor; liver errors in the same colors, pale."""
    tumor, tumor_found = truth == 2, prediction == 2
    # a pixel has one color: where either says tumor, the tumor's error goes before the liver's
    image = _painted(base, (truth == 1) & (prediction == 0), MISSED, PALE)
    image = _painted(image, (truth == 0) & (prediction == 1), FALSE, PALE)
    image = _painted(image, tumor & ~tumor_found, MISSED, STRONG)
    image = _painted(image, tumor_found & ~tumor, FALSE, STRONG)
    return _painted(image, tumor & tumor_found, TUMOR, STRONG)


def grays(image: NDArray[np.float32]) -> Pixels:
    """A channel in [0, 1] as gray values 0 .. 255."""
    return np.rint(255 * image).astype(np.uint8)


def _square(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest square around the mask with some room, as far as the picture reaches; all of it without a mask."""
    if not mask.any():
        return slice(None), slice(None)
    spans = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    side = max(math.ceil((1 + 2 * ROOM) * (last - first + 1)) for first, last in spans)
    cuts = []
    for (first, last), length in zip(spans, mask.shape, strict=True):
        start = min(max(0, (first + last + 1 - side) // 2), max(0, length - side))
        cuts.append(slice(int(start), int(min(start + side, length))))
    return cuts[0], cuts[1]


def _enlarged(image: Pixels, resample: Image.Resampling, side_px: int) -> Pixels:
    """The longer side at ``side_px``, the shape kept."""
    scale = side_px / max(image.shape)
    height, width = (max(1, round(side * scale)) for side in image.shape)
    resized: Pixels = np.asarray(Image.fromarray(image).resize((width, height), resample))
    return resized


def _painted(image: Pixels, mask: NDArray[np.bool_], color: Color, opacity: float) -> Pixels:
    """A copy of the (height, width, 3) image with the masked pixels blended towards ``color``."""
    result = image.copy()
    result[mask] = np.rint((1 - opacity) * image[mask] + opacity * np.array(color))
    return result


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rim, two pixels wide, that lies inside the mask; beyond the picture's edge counts as inside."""
    padded = np.pad(mask, 2, mode="edge")
    inside = padded[:-4, 2:-2] & padded[4:, 2:-2] & padded[2:-2, :-4] & padded[2:-2, 4:]
    return mask & ~inside


def _headline(draw: ImageDraw.ImageDraw, font: Font, title: str, dice: str, width: int) -> None:
    """The title from the left, the Dice at the right; a title too long for the line is cut, never the Dice."""
    right = width - GAP_PX
    draw.text((GAP_PX, LINE_PX // 2), title, INK, font, anchor="lm")
    draw.rectangle((right - draw.textlength(dice, font) - 2 * GAP_PX, 0, width, LINE_PX), fill=PAPER)
    draw.text((right, LINE_PX // 2), dice, INK, font, anchor="rm")


def _legend(draw: ImageDraw.ImageDraw, font: Font, middle: float) -> None:
    """One line under the panels: a swatch for each color, and what the error panel shows."""
    left: float = GAP_PX
    entries = ((LIVER, "liver outline"), (TUMOR, "tumor; in error: tumor found"), (MISSED, "missed"), (FALSE, "false"))
    for color, text in entries:
        draw.rectangle((left, middle - 6, left + 12, middle + 6), fill=color)
        draw.text((left + 18, middle), text, INK, font, anchor="lm")
        left += 18 + draw.textlength(text, font) + 18
    draw.text((left, middle), "in error: strong = tumor, pale = liver", INK, font, anchor="lm")
