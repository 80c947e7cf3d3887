"""The U-Net of segmentation_models_pytorch (MIT) around any encoder of ours: lighter and faster than fastai's."""

import torch
from segmentation_models_pytorch.base.heads import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig

WIDTH, LEAST_WIDTH = 256, 16  # channels of the first decoder block where the run does not say, and the fewest of any


def unet(encoder: nn.Sequential, labels: int, size: int, run: RunConfig) -> nn.Module:
    """The U-Net of segmentation_models_pytorch on the first ``run.encoder_depth`` resolutions of an encoder.

    ``run.decoder_width``: channels of its decoder's first block.

    Raises:
        LitsexpError: an encoder that does not halve the image so often.
    """
    taps, channels = last_of_each_resolution(encoder, size)
    depth = run.encoder_depth or len(taps)
    if depth > len(taps):
        raise LitsexpError(
            f"run.encoder_depth: found {depth} with encoder {run.encoder}, which halves an image of {size} px "
            f"{len(taps)} times; expected at most {len(taps)}"
        )
    return Unet(encoder, taps[:depth], channels[:depth], labels, run.decoder_width or WIDTH)


class Unet(nn.Module):
    """An encoder with the decoder of segmentation_models_pytorch, whose blocks halve their channels (16 at least).

    ``taps``: the encoder's stages that are skipped over from, with their ``channels``; what follows the last is left
    out.
    """

    def __init__(self, encoder: nn.Sequential, taps: list[int], channels: list[int], labels: int, width: int):
        super().__init__()
        self.encoder = nn.Sequential(*list(encoder)[: taps[-1] + 1])
        self.taps = taps
        blocks = [max(LEAST_WIDTH, width >> depth) for depth in range(len(taps))]
        self.decoder = UnetDecoder([3, *channels], blocks, n_blocks=len(blocks))
        self.head = SegmentationHead(blocks[-1], labels)
        initialize_decoder(self.decoder)
        initialize_head(self.head)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, labels, H, W)."""
        features = [image]
        for index, stage in enumerate(self.encoder):
            image = stage(image)
            if index in self.taps:
                features.append(image)
        logits: Tensor = self.head(self.decoder(features))
        return logits


def last_of_each_resolution(encoder: nn.Sequential, size: int) -> tuple[list[int], list[int]]:
    """Indices of the encoder's last stage at each resolution below the image's, and their channels."""
    image, training = torch.zeros(1, 3, size, size), encoder.training
    taps: dict[int, tuple[int, int]] = {}  # pixels a side -> (index, channels)
    encoder.eval()
    with torch.no_grad():
        for index, stage in enumerate(encoder):
            image = stage(image)
            taps[image.shape[-1]] = index, image.shape[1]
    encoder.train(training)
    below = [tap for side, tap in taps.items() if side < size]
    return [index for index, _ in below], [channels for _, channels in below]
