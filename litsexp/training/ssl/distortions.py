"""What a network is to undo: distortions of whole batches on their device.

All draws are a slice's own and the same for its channels: a channel must not tell what is hidden in another one.
Random numbers come from one CPU generator, so a GPU draws the same ones.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

Distortion = Callable[[Tensor, Generator], tuple[Tensor, Tensor]]
"""(image (B, C, H, W) in [-1, 1], CPU generator) -> the distorted image, and where the loss counts, (B, 1, H, W)."""

CURVED, SWAPPED, PAINTED = 0.9, 0.5, 0.9  # probabilities of a slice, as Models Genesis has them
CURVE_POINTS = 256
CELLS, SWAPS = 16, 12  # patches a side of the grid that swaps its patches, and pairs of them
BOXES, INNER, OUTER = 5, (1 / 6, 1 / 3), (3 / 7, 4 / 7)  # painted or kept boxes, and their sides as parts of the image
PATCHES, HIDDEN = 8, 0.6  # patches a side of the grid whose patches are hidden, and the share of them


def distorted(image: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Intensity curve, patch swaps, in- or out-painting, each in some slices; the loss counts everywhere."""
    batch = len(image)

    def chosen(probability: float) -> Tensor:
        return (torch.rand(batch, generator=generator) < probability).view(-1, 1, 1, 1).to(image.device)

    changed = torch.where(chosen(CURVED), with_curve(image, generator), image)
    changed = torch.where(chosen(SWAPPED), with_swaps(changed, generator), changed)
    changed = torch.where(chosen(PAINTED), with_paint(changed, generator), changed)
    return changed, torch.ones_like(image[:, :1])


def with_hidden_patches(image: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Of ``PATCHES`` x ``PATCHES`` patches the share ``HIDDEN`` becomes mid grey; the loss counts there alone."""
    order = torch.rand((len(image), PATCHES**2), generator=generator).argsort(1)
    hidden = (order < round(HIDDEN * PATCHES**2)).float().view(-1, 1, PATCHES, PATCHES).to(image.device)
    side = image.shape[-1] // PATCHES
    hidden = hidden.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return image * (1 - hidden), hidden


def with_curve(image: Tensor, generator: Generator) -> Tensor:
    """Each slice's grey values through a Bezier curve of its own from (-1, -1) to (1, 1); half of them falling."""
    ends = torch.tensor([0.0, 1.0]).expand(len(image), 2, 2)  # (slice, x or y, start or end)
    inner = torch.rand((len(image), 2, 2), generator=generator)
    t = torch.linspace(0, 1, CURVE_POINTS)
    weights = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    x, y = (torch.cat([ends[..., :1], inner, ends[..., 1:]], 2) @ weights).unbind(1)  # x rises: its points are in 0..1
    falling = torch.rand(len(image), generator=generator) < 0.5
    y = torch.where(falling[:, None], 1 - y, y)
    at = t.expand(len(image), -1).contiguous()
    above = torch.searchsorted(x.contiguous(), at).clamp(1, CURVE_POINTS - 1)
    x0, x1, y0, y1 = (v.gather(1, i) for v in (x, y) for i in (above - 1, above))
    table = (y0 + (y1 - y0) * ((at - x0) / (x1 - x0).clamp(min=1e-6)).clamp(0, 1)).to(image.device)
    position = (image.flatten(1) + 1) / 2 * (CURVE_POINTS - 1)
    below = position.long().clamp(0, CURVE_POINTS - 2)
    low, high = table.gather(1, below), table.gather(1, below + 1)
    return (2 * (low + (high - low) * (position - below)) - 1).view_as(image)


def with_swaps(image: Tensor, generator: Generator) -> Tensor:
    """``SWAPS`` pairs of patches of a ``CELLS`` x ``CELLS`` grid change places."""
    batch, channels, height, _ = image.shape
    side = height // CELLS
    drawn = torch.rand((batch, CELLS**2), generator=generator).argsort(1)
    a, b = drawn[:, :SWAPS], drawn[:, SWAPS : 2 * SWAPS]
    source = torch.arange(CELLS**2).repeat(batch, 1).scatter(1, a, b).scatter(1, b, a).to(image.device)
    patches = image.reshape(batch, channels, CELLS, side, CELLS, side).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(batch, CELLS**2, -1)
    moved = patches.gather(1, source[..., None].expand_as(patches))
    moved = moved.view(batch, CELLS, CELLS, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return moved.reshape(image.shape)


def with_paint(image: Tensor, generator: Generator) -> Tensor:
    """Noise in a few boxes (in-painting: half of the slices), or everywhere but in a few larger ones (out-painting)."""
    batch, _, height, width = image.shape
    outer = torch.rand(batch, generator=generator) < 0.5
    least, most = (torch.where(outer, out, within)[:, None, None] for out, within in zip(OUTER, INNER, strict=True))
    sides = least + (most - least) * torch.rand((batch, BOXES, 2), generator=generator)  # of (slice, box, axis)
    starts = torch.rand((batch, BOXES, 2), generator=generator) * (1 - sides)
    at = [(torch.arange(pixels) + 0.5) / pixels for pixels in (height, width)]
    rows, columns = (
        (at[axis] >= starts[..., axis, None]) & (at[axis] < (starts + sides)[..., axis, None]) for axis in (0, 1)
    )
    boxed = (rows[..., :, None] & columns[..., None, :]).any(1)
    painted = (boxed ^ outer[:, None, None])[:, None].to(image.device)
    noise = torch.rand((batch, 1, height, width), generator=generator).to(image.device) * 2 - 1
    return torch.where(painted, noise, image)
