"""The U-Net of segmentation_models_pytorch (MIT) around any encoder of ours: lighter and faster than fastai's."""

from typing import Any

import torch
from segmentation_models_pytorch.base.heads import SegmentationHead
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.training.monai_nets import of_monai

WIDTH, LEAST_WIDTH = 256, 16  # channels of the first decoder block where the run does not say, and the fewest of any


def unet(encoder: nn.Sequential, labels: int, size: int, run: RunConfig) -> "Unet":
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


def attention_unet(encoder: nn.Sequential, labels: int, size: int, run: RunConfig) -> nn.Module:
    """``unet`` with attention gates on its skips (Oktay 2018), and nothing else: all other first weights are the same.

    Raises:
        LitsexpError: what ``unet`` refuses, a depth without a skip, MONAI that is not installed.
    """
    gate = of_monai("nets.attentionunet:AttentionBlock", run)
    network = unet(encoder, labels, size, run)
    if not network.joints:
        raise LitsexpError("run.architecture = attention_unet: found one halving, so no skip; expected two at least")
    for block, (features, skip) in zip(network.decoder.blocks, network.joints, strict=False):
        block.attention1 = Gated(gate, features, skip)  # drawn after all that unet draws
    return network


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
        self.joints = list(zip([channels[-1], *blocks], channels[-2::-1], strict=False))  # (features, skip) of a block
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


class Gated(nn.Module):
    """An attention gate in the place where smp's decoder blocks have theirs: after a skip was put beside the features.

    ``gate(features, skip)`` weighs the skip's pixels by what both say; the features pass.
    """

    def __init__(self, gate: Any, features: int, skip: int):
        super().__init__()
        self.features = features
        self.gate = gate(spatial_dims=2, f_int=max(1, skip // 2), f_g=features, f_l=skip)

    def forward(self, both: Tensor) -> Tensor:
        """(B, features + skip, H, W), and the same of it."""
        features, skip = both[:, : self.features], both[:, self.features :]
        return torch.cat([features, self.gate(features, skip)], dim=1)


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
