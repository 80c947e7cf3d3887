"""The U-Net of segmentation_models_pytorch (MIT) around any encoder of ours: lighter and faster than fastai's."""

import torch
from segmentation_models_pytorch.base.heads import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from litsexp.spec.run import RunConfig

WIDTH, LEAST_WIDTH = 256, 16  # channels of the first decoder block where the run does not say, and the fewest of any


def unet(encoder: nn.Sequential, labels: int, size: int, run: RunConfig) -> nn.Module:
    """The U-Net of segmentation_models_pytorch; ``run.decoder_width`` channels in its decoder's first block."""
    return Unet(encoder, labels, size, run.decoder_width or WIDTH)


class Unet(nn.Module):
    """An encoder with the decoder of segmentation_models_pytorch, whose blocks halve their channels (16 at least)."""

    def __init__(self, encoder: nn.Sequential, labels: int, size: int, width: int):
        super().__init__()
        self.encoder = encoder
        self.taps, channels = last_of_each_resolution(encoder, size)
        blocks = [max(LEAST_WIDTH, width >> depth) for depth in range(len(self.taps))]
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
