"""Hounsfield units as gray values: the channels of an exported image, and its bytes as a file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from litsexp.data.ct.volume import WINDOWS, apply_window

EQUALISE_BINS = 100  # of the notebook's third channel
NOTEBOOK_WINDOWS = ("liver", "custom")  # its first two


def image_channels(hu: NDArray[np.int16], window: str) -> NDArray[np.float32]:
    """Channels in [0, 1] of slices (n, row, column) in HU: (n, row, column, 1), or 3 channels for ``notebook``."""
    if window != "notebook":
        return apply_window(hu, *WINDOWS[window])[..., None]
    views = [apply_window(hu, *WINDOWS[name]) for name in NOTEBOOK_WINDOWS]
    return np.stack([*views, np.stack([equalised(picture) for picture in hu])], axis=-1)


def equalised(hu: NDArray[np.int16]) -> NDArray[np.float32]:
    """One slice (row, column), histogram-equalised to (0, 1]: the same numbers as the training channel.

    Over ``EQUALISE_BINS`` bins between the slice's own extremes, a pixel takes the cumulative share at its bin,
    interpolated linearly between bin centres. A slice of one value is 1 everywhere.
    """
    values = hu.astype(np.float64)
    position = (values - values.min()) * EQUALISE_BINS / max(float(np.ptp(values)), 1.0)
    bins = np.minimum(position.astype(np.int64), EQUALISE_BINS - 1)
    share = np.bincount(bins.ravel(), minlength=EQUALISE_BINS).cumsum() / hu.size
    level: NDArray[np.float32] = np.interp(position - 0.5, np.arange(EQUALISE_BINS), share).astype(np.float32)
    return level


def encode(picture: NDArray[np.float32], form: str = "jpeg", quality: int = 100, subsampling: str = "4:4:4") -> bytes:
    """A picture (row, column, 1 or 3 channels in [0, 1]) as a JPEG or PNG file, gray for one channel.

    Gray values are round(255 * channel). ``quality`` (1 to 100) and ``subsampling`` (of color) are JPEG's.
    """
    values = np.rint(picture * 255).astype(np.uint8)
    image = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    if form == "png":
        return _file(image, "PNG")
    color = {"subsampling": subsampling} if image.mode == "RGB" else {}
    return _file(image, "JPEG", quality=quality, **color)


def encode_mask(labels: NDArray[np.uint8]) -> bytes:
    """Labels (row, column) as a PNG file whose gray values are the labels themselves."""
    return _file(Image.fromarray(labels), "PNG")


def _file(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()  # written by the caller: a full disk is then an ordinary OSError
    image.save(buffer, form, **options)
    return buffer.getvalue()
