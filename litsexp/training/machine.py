"""How this machine computes: on which device, in which number format, with kernels that repeat."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from litsexp.spec.run import RunConfig


def default_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
    """Whether a training step is faster in bf16 than in float32, by what was measured.

    On x86 the tiles of AMX are; AVX-512's bf16 is on AMD (1.7 times at 128 px, EPYC) and is not on Intel (0.75 times at
    64 px and 0.78 over 39 networks, Xeon without AMX). Emulated, as where no such instruction is, it never is.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch does not say
    if capabilities.get("avx512_bf16") and str(capabilities.get("cpu_name", "")).startswith("AMD"):
        return True
    return any(capabilities.get(name) for name in ("amx_bf16", "sve_bf16", "bf16"))


@contextmanager
def repeatable() -> Iterator[None]:
    """Deterministic kernels inside, the caller's random state and settings untouched after."""
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
