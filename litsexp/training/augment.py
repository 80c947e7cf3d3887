"""Batched augmentations on the device that move image and mask together.

``paper`` is what the paper names: rotation, flip, brightness/contrast and elastic deformation; the other rows are parts
of it, under the same limits. The geometry acts on Hounsfield units before windowing (on channels in [0, 1] where an
encoding has windowed them), the intensity on the windowed channels. Random numbers come from one CPU generator, so a
GPU draws the same ones.

Flips are left-right only. The paper says no more than "flips"; fastai's default, which it evidently follows, is the
horizontal one, and an axial slice upside down is nothing that a scanner gives: the store has put every patient upright.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

MAX_ROTATION_DEG = 15.0
MAX_SCALE = 0.10  # zoom by 1 +/- this
ELASTIC_NODES = 5  # control points a side
ELASTIC_SD = 0.02  # SD of a control point's displacement, as a part of the half image
MAX_BRIGHTNESS = 0.10  # added to channels in [0, 1]
MAX_CONTRAST = 0.20  # factor 1 +/- this around mid grey


def move(image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rotate, zoom, flip left-right (half of the slices) and deform elastically, image and mask alike.

    Args:
        image: (B, C, H, W) float; interpolated bilinearly, the border's value continues outside.
        labels: (B, H, W) integer; nearest neighbour, background outside.
        generator: CPU generator.

    Returns:
        Both, in the shapes and types they came in.
    """
    batch, shape = image.shape[0], (image.shape[2], image.shape[3])
    grid = _affine(batch, shape, generator)
    return _sampled(image, labels, grid + _displacement(batch, shape, generator))


def rotate_zoom_flip(image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rotate, zoom and flip left-right (half of the slices), as ``move`` does."""
    return _sampled(image, labels, _affine(image.shape[0], (image.shape[2], image.shape[3]), generator))


def deform(image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Deform elastically, as ``move`` does."""
    batch, shape = image.shape[0], (image.shape[2], image.shape[3])
    still = affine_grid(torch.eye(2, 3).expand(batch, -1, -1), [batch, 1, *shape], align_corners=False)
    return _sampled(image, labels, still + _displacement(batch, shape, generator))


def flip(image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Flip half of the slices left-right: their pixels in another order, no value is new."""
    mirrored = torch.randint(0, 2, (image.shape[0],), generator=generator).bool().to(image.device)
    flipped = torch.where(mirrored.view(-1, 1, 1, 1), image.flip(-1), image)
    return flipped, torch.where(mirrored.view(-1, 1, 1), labels.flip(-1), labels)


def jitter(image: Tensor, generator: Generator) -> Tensor:
    """Brightness and contrast of channels in [0, 1], (B, C, H, W): one draw a slice, all channels alike."""
    brightness = _uniform(image.shape[0], MAX_BRIGHTNESS, generator).to(image.device).view(-1, 1, 1, 1)
    contrast = 1 + _uniform(image.shape[0], MAX_CONTRAST, generator).to(image.device).view(-1, 1, 1, 1)
    return ((image - 0.5) * contrast + 0.5 + brightness).clamp_(0, 1)


def _sampled(image: Tensor, labels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Image and mask at these positions, (B, H, W, 2) in [-1, 1]."""
    grid = grid.to(image.device, image.dtype)
    moved = grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    mask = grid_sample(labels[:, None].to(image.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved, mask[:, 0].to(labels.dtype)


def _affine(batch: int, shape: tuple[int, int], generator: Generator) -> Tensor:
    """Sampling positions, (B, H, W, 2) in [-1, 1], of slices that are turned, zoomed and half of them mirrored."""
    angle = _uniform(batch, math.radians(MAX_ROTATION_DEG), generator)
    scale = 1 + _uniform(batch, MAX_SCALE, generator)
    flip = torch.randint(0, 2, (batch,), generator=generator) * 2.0 - 1
    zero = torch.zeros(batch)
    rows = [
        torch.stack([flip * scale * angle.cos(), -scale * angle.sin(), zero], 1),
        torch.stack([flip * scale * angle.sin(), scale * angle.cos(), zero], 1),
    ]
    return affine_grid(torch.stack(rows, 1), [batch, 1, *shape], align_corners=False)


def _displacement(batch: int, shape: tuple[int, int], generator: Generator) -> Tensor:
    """What an elastic deformation adds to sampling positions, (B, H, W, 2): smooth, zero on average."""
    nodes = torch.randn((batch, 2, ELASTIC_NODES, ELASTIC_NODES), generator=generator) * ELASTIC_SD
    return interpolate(nodes, shape, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def _uniform(count: int, limit: float, generator: Generator) -> Tensor:
    """``count`` draws from [-limit, limit)."""
    return (torch.rand(count, generator=generator) * 2 - 1) * limit
