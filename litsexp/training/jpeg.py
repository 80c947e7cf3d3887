"""Slices through a real JPEG, as the notebook stores them: windowed channels as gray values, encoded and decoded."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from litsexp.spec.catalog import WINDOWS
from litsexp.training.inputs import channels

SUBSAMPLING = "4:2:0"  # of color, the notebook's: its three channels share what JPEG takes for color, and mix


def through_jpeg(hu: Tensor, window: str, quality: str) -> Tensor:
    """The encoding ``jpeg:Q``: int16 HU (B, H, W) -> what the JPEG files hold, uint8 (B, 1 or 3, H, W)."""
    shown = pictures(hu.cpu().numpy(), window)
    decoded = np.stack([from_jpeg(to_jpeg(picture, int(quality), SUBSAMPLING)) for picture in shown])
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous().to(hu.device)


def pictures(hu: NDArray[np.int16], window: str) -> NDArray[np.uint8]:
    """Gray values round(255 * channel) of slices (n, row, column) in HU: (n, row, column, a channel a view)."""
    shares = channels(torch.from_numpy(hu).float()[:, None], window)[:, : len(WINDOWS[window].views)]
    grays: NDArray[np.uint8] = np.rint(shares.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    return grays


def image_of(picture: NDArray[np.uint8]) -> Image.Image:
    """A picture (row, column, 1 or 3 channels) as Pillow's image: gray for one channel."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def to_jpeg(picture: NDArray[np.uint8], quality: int, subsampling: str) -> bytes:
    """A picture (row, column, 1 or 3 channels) as a JPEG file; a gray one has no color to subsample."""
    buffer, image = io.BytesIO(), image_of(picture)  # the caller writes it: a full disk is then an ordinary OSError
    color = {"subsampling": subsampling} if image.mode == "RGB" else {}
    image.save(buffer, "JPEG", quality=quality, **color)
    return buffer.getvalue()


def from_jpeg(file: bytes) -> NDArray[np.uint8]:
    """The picture (row, column, 1 or 3 channels) in a JPEG file."""
    with Image.open(io.BytesIO(file)) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
