"""Number formats and layouts: what a network computes in, and how that is chosen."""

import pytest
import torch
from torch import Tensor, nn

from litsexp.spec.run import RunConfig
from litsexp.training import machine
from litsexp.training.architectures import build_network
from litsexp.training.machine import MixedPrecision, has_fast_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet18"])
def test_a_unet_answers_in_the_inputs_size(encoder: str) -> None:
    run = RunConfig(encoder=encoder, init="scratch", precision="fp32")
    net = MixedPrecision(build_network(run, 64, 0)[0], run, CPU).train()
    logits = net(torch.randn(2, 3, 64, 64))
    assert (logits.shape, logits.dtype) == ((2, 3, 64, 64), torch.float32)
    assert type(logits) is Tensor
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_logits_are_float32_and_the_same_in_every_layout(precision: str, channels_last: bool) -> None:
    image = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))

    def logits(precision: str, channels_last: bool) -> Tensor:
        run = RunConfig(precision=precision, channels_last=channels_last)
        with torch.inference_mode():
            net = MixedPrecision(build_network(run, 64, 0)[0], run, CPU).eval()
            assert net.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
            return net(image)

    result, reference = logits(precision, channels_last), logits("fp32", False)
    assert result.dtype == torch.float32 and result.isfinite().all()
    scale = reference.abs().max()
    difference = (result - reference).abs().max() / scale
    assert difference < 1e-4 if precision == "fp32" else 1e-5 < difference < 0.1


def test_in_bf16_only_depthwise_convolutions_stay_in_float32() -> None:
    run = RunConfig(init="scratch", precision="bf16")
    net = MixedPrecision(build_network(run, 64, 0)[0], run, CPU).eval()
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups > 1
            module.register_forward_hook(lambda _m, _in, out, depthwise=depthwise: seen[depthwise].add(out.dtype))
    with torch.inference_mode():
        net(torch.zeros(1, 3, 64, 64))
    assert seen == {True: {torch.float32}, False: {torch.bfloat16}}


def test_layout_of_the_weights_follows_the_arm() -> None:
    for channels_last in (True, False):
        run = RunConfig(init="scratch", channels_last=channels_last)
        net = MixedPrecision(build_network(run, 64, 0)[0], run, CPU)
        weight = net.net.layers[0][1][0].conv_pw.weight  # 16 x 32 x 1 x 1: any layout
        stem = net.net.layers[0][0][0].weight  # 32 x 3 x 3 x 3
        assert stem.is_contiguous(memory_format=torch.channels_last) == channels_last
        assert weight.dtype == torch.float32


def test_auto_precision_asks_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    run, net = RunConfig(precision="auto"), nn.Conv2d(3, 3, 1)
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(machine, "has_fast_bf16", lambda _device, fast=fast: fast)
        assert MixedPrecision(net, run, CPU).dtype == dtype
    monkeypatch.undo()
    assert isinstance(has_fast_bf16(CPU), bool)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_fast_bf16(CPU) is False  # an older torch


@pytest.mark.parametrize(
    ("processor", "fast"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True}, False),  # 0.285 s a step in bf16 against 0.214 s
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),  # 1.7 times as fast
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, False),
        ({"architecture": "aarch64", "sve_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": False}, False),
        ({}, False),
    ],
    ids=str,
)
def test_bf16_is_chosen_where_it_was_measured_to_be_faster(
    processor: dict[str, object], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    assert has_fast_bf16(CPU) is fast
