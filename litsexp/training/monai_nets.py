"""Networks of MONAI (Apache-2.0, an extra) that have no encoder of ours: trained as a whole, from random weights.

Sizes are what a small machine trains; each takes every ``data.size``. None drops out, as no other network here does.
"""

import importlib
import pkgutil
from typing import Any

from torch import nn

from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig

FEATURES, MOST_FEATURES = 16, 512  # DynUNet's first stage (nnU-Net's has 32), doubled with each halving up to nnU-Net's
LEAST_PX = 4  # a side of nnU-Net's smallest feature maps
SWIN_FEATURES, WINDOW_PX = 12, 8


def of_monai(reference: str, run: RunConfig) -> Any:
    """``package:class`` below ``monai.networks``, imported when it is needed; LitsexpError where MONAI is missing."""
    try:
        importlib.import_module("einops")  # SwinUNETR asks for it only when it is called
        return pkgutil.resolve_name(f"monai.networks.{reference}")
    except ImportError as error:
        raise LitsexpError(
            f"run.architecture = {run.architecture}: needs MONAI ({error}); pip install 'litsexp[monai]'"
        ) from None


def dynunet(encoder: None, labels: int, size: int, run: RunConfig) -> nn.Module:
    """The network of nnU-Net (Isensee 2021), whose depth follows from the size: not its planning, nor its training.

    Two 3 x 3 convolutions a stage, instance norm, leaky ReLU; the image is halved while 4 px a side are left. It has
    16 features where nnU-Net starts with 32, and no deep supervision, for which arms would differ in the loss.
    """
    halvings = halvings_of(size)
    strides = [1] + [2] * halvings
    network: nn.Module = of_monai("nets:DynUNet", run)(
        spatial_dims=2,
        in_channels=3,
        out_channels=labels,
        kernel_size=[3] * len(strides),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=[min(FEATURES << stage, MOST_FEATURES) for stage in range(len(strides))],
    )
    for name in ("input_block", "downsamples", "bottleneck", "upsamples"):
        delattr(network, name)  # its forward pass has them in skip_layers: weights would be kept twice
    return network


def halvings_of(size: int) -> int:
    """How often an image of ``size`` px can be halved to an even split of no less than 4 px a side."""
    halvings = 0
    while size % 2 == 0 and size // 2 >= LEAST_PX:
        size, halvings = size // 2, halvings + 1
    return halvings


def swin_unetr(encoder: None, labels: int, size: int, run: RunConfig) -> nn.Module:
    """Swin UNETR (Hatamizadeh 2022) in two dimensions: a Swin transformer with a convolutional decoder.

    It is not the Swin-Unet of Cao 2021, whose decoder is a transformer, too. At 32 px its deepest features are one
    pixel, of which instance norm cannot tell a spread: it has batch norm there.
    """
    network: nn.Module = of_monai("nets:SwinUNETR", run)(
        spatial_dims=2,
        in_channels=3,
        out_channels=labels,
        feature_size=SWIN_FEATURES,
        window_size=WINDOW_PX,
        norm_name="instance" if size > 32 else "batch",
    )
    return network


def vnet(encoder: None, labels: int, size: int, run: RunConfig) -> nn.Module:
    """V-Net (Milletari 2016) in two dimensions, without its dropout.

    It repeats its input's channels up to 16, which three do not divide: a fourth, of zeros, is put beside them.
    """
    network = of_monai("nets:VNet", run)(
        spatial_dims=2,
        in_channels=4,
        out_channels=labels,
        dropout_prob_down=None,
        dropout_prob_up=(None, 0.0),  # (None, None) crashes
        dropout_dim=2,
    )
    return nn.Sequential(nn.ConstantPad3d((0, 0, 0, 0, 0, 1), 0.0), network)
