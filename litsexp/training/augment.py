"""Batched augmentations on the device that move image and mask together.

``paper`` is what the paper names: rotation, flip, brightness/contrast and elastic deformation. The geometry acts on
Hounsfield units before windowing, the intensity on the windowed channels. Random numbers come from one CPU generator,
so a GPU draws the same ones.
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


def move(hu: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rotate, zoom, flip left-right (half of the slices) and deform elastically, image and mask alike.

    Args:
        hu: (B, 1, H, W) float; interpolated bilinearly, the border's value continues outside.
        labels: (B, H, W) integer; nearest neighbour, background outside.
        generator: CPU generator.

    Returns:
        Both, in the shapes and types they came in.
    """
    grid = _grid(hu.shape[0], (hu.shape[2], hu.shape[3]), generator).to(hu.device, hu.dtype)
    moved = grid_sample(hu, grid, mode="bilinear", padding_mode="border", align_corners=False)
    mask = grid_sample(labels[:, None].to(hu.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved, mask[:, 0].to(labels.dtype)


def jitter(image: Tensor, generator: Generator) -> Tensor:
    """Brightness and contrast of channels in [0, 1], (B, C, H, W): one draw a slice, all channels alike."""
    brightness = _uniform(image.shape[0], MAX_BRIGHTNESS, generator).to(image.device).view(-1, 1, 1, 1)
    contrast = 1 + _uniform(image.shape[0], MAX_CONTRAST, generator).to(image.device).view(-1, 1, 1, 1)
    return ((image - 0.5) * contrast + 0.5 + brightness).clamp_(0, 1)


def _grid(batch: int, shape: tuple[int, int], generator: Generator) -> Tensor:
    """Sampling positions, (B, H, W, 2) in [-1, 1]."""
    angle = _uniform(batch, math.radians(MAX_ROTATION_DEG), generator)
    scale = 1 + _uniform(batch, MAX_SCALE, generator)
    flip = torch.randint(0, 2, (batch,), generator=generator) * 2.0 - 1
    zero = torch.zeros(batch)
    rows = [
        torch.stack([flip * scale * angle.cos(), -scale * angle.sin(), zero], 1),
        torch.stack([flip * scale * angle.sin(), scale * angle.cos(), zero], 1),
    ]
    grid = affine_grid(torch.stack(rows, 1), [batch, 1, *shape], align_corners=False)
    nodes = torch.randn((batch, 2, ELASTIC_NODES, ELASTIC_NODES), generator=generator) * ELASTIC_SD
    return grid + interpolate(nodes, shape, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def _uniform(count: int, limit: float, generator: Generator) -> Tensor:
    """``count`` draws from [-limit, limit)."""
    return (torch.rand(count, generator=generator) * 2 - 1) * limit
