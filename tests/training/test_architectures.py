"""The U-Nets: their shapes, what they share, and what they cannot have."""

import sys

import pytest
import torch
from torch import nn

from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.training.architectures import build_network
from litsexp.training.loop import encoder_and_rest
from litsexp.training.unet import Unet, last_of_each_resolution

from .conftest import tiny_encoder

UNET = RunConfig(architecture="unet", init="scratch", decoder_width=32)


def test_a_unet_taps_the_last_stage_of_each_resolution() -> None:
    encoder = nn.Sequential(*tiny_encoder(), nn.Conv2d(8, 12, 3, padding=1))
    assert last_of_each_resolution(encoder, 64) == ([0, 1, 3], [8, 8, 12])
    assert encoder.training


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize("size", [64, 96])
def test_it_answers_in_the_inputs_size(encoder: str, size: int) -> None:
    network, inside = build_network(UNET.changed({"encoder": encoder}), size, seed=0)
    assert isinstance(network, Unet)
    assert [*network.encoder] == [*inside]
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 3, size, size)


def test_every_skip_reaches_the_logits() -> None:
    network = Unet(tiny_encoder(), [0, 1, 2], [8, 8, 8], 3, 32).eval()
    image = torch.rand(1, 3, 64, 64)
    before, seen = network(image), set()
    for stage in network.taps:
        hook = network.encoder[stage].register_forward_hook(lambda _m, _i, out: out + 1)
        seen.add(stage) if not torch.equal(network(image), before) else None
        hook.remove()
    assert seen == {0, 1, 2}


def test_the_decoders_width_is_a_setting_that_halves_down_to_sixteen() -> None:
    def widths(run: RunConfig) -> list[int]:
        network, _ = build_network(run, 64, seed=0)
        return [block.conv2[0].out_channels for block in network.decoder.blocks]

    assert widths(UNET.changed({"decoder_width": 128})) == [128, 64, 32, 16, 16]
    assert widths(RunConfig(architecture="unet", init="scratch")) == [256, 128, 64, 32, 16]


def test_a_shallower_unet_leaves_the_encoders_last_stages_out() -> None:
    whole, _ = build_network(UNET, 64, seed=0)
    network, encoder = build_network(UNET.changed({"encoder_depth": 4}), 64, seed=0)
    left = {name for name in whole.state_dict() if name not in network.state_dict()}
    assert {name.split(".")[1] for name in left if name.startswith("encoder.")} == {"6", "7"}
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3, 64, 64)
    first, rest = encoder_and_rest(encoder, network)
    assert len(first) + len(rest) == len(list(network.parameters()))
    assert sum(one.numel() for one in first) == sum(one.numel() for one in network.encoder.parameters())


def test_a_depth_that_an_encoder_does_not_have_is_refused() -> None:
    with pytest.raises(LitsexpError, match=r"run\.encoder_depth: found 6 .* expected at most 5"):
        build_network(UNET.changed({"encoder_depth": 6}), 64, seed=0)


def test_arms_that_differ_in_init_share_the_units_decoder_bit_for_bit() -> None:
    scratch, imagenet = (
        build_network(UNET.changed({"init": init}), 64, seed=3)[0].state_dict() for init in ("scratch", "imagenet")
    )
    same = {name for name in scratch if torch.equal(scratch[name], imagenet[name])}
    assert {name for name in scratch if not name.startswith("encoder.")} <= same
    assert any(name not in same for name in scratch)


ATTENTION = UNET.changed({"architecture": "attention_unet"})


@pytest.mark.parametrize("init", ["scratch", "imagenet"])
def test_gates_are_all_that_attention_adds(init: str) -> None:
    plain, gated = (build_network(run.changed({"init": init}), 64, seed=3)[0] for run in (UNET, ATTENTION))
    ours, theirs = plain.state_dict(), gated.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    added = {name.split(".attention1.gate.")[0] for name in theirs.keys() - ours.keys()}
    assert added == {f"decoder.blocks.{index}" for index in range(4)}  # five halvings have four skips


def test_open_gates_are_no_gates_and_closed_ones_no_skips() -> None:
    plain, gated = (build_network(run, 64, seed=3)[0].eval() for run in (UNET, ATTENTION))
    image = torch.rand(2, 3, 64, 64)

    def with_gates(logit: float) -> torch.Tensor:
        for block in gated.decoder.blocks[:-1]:
            norm = block.attention1.gate.psi[1]
            nn.init.zeros_(norm.weight)
            nn.init.constant_(norm.bias, logit)
        return gated(image)

    assert not torch.allclose(gated(image), plain(image))
    assert torch.equal(with_gates(100.0), plain(image))
    for block, (features, _) in zip(plain.decoder.blocks, plain.joints, strict=False):
        block.attention1.register_forward_hook(
            lambda _m, _i, both, features=features: torch.cat([both[:, :features], 0 * both[:, features:]], 1)
        )
    assert torch.equal(with_gates(-200.0), plain(image))


def test_a_unet_without_a_skip_has_nothing_to_gate() -> None:
    with pytest.raises(LitsexpError, match="attention_unet: found one halving, so no skip"):
        build_network(ATTENTION.changed({"encoder_depth": 1}), 64, seed=0)


@pytest.mark.parametrize("missing", ["monai.networks.nets", "einops"])
@pytest.mark.parametrize("architecture", ["dynunet", "swin_unetr", "vnet", "attention_unet"])
def test_without_monai_it_says_what_to_install(
    architecture: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (missing, "monai.networks.nets.attentionunet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        LitsexpError, match=rf"{architecture}: needs MONAI \(.*\); pip install 'litsexp\[monai\]'"
    ) as error:
        build_network(RunConfig(architecture=architecture, init="scratch"), 64, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", ["encoder_depth", "decoder_width"])
def test_what_only_a_unet_has_is_refused_elsewhere(setting: str) -> None:
    with pytest.raises(ValueError, match=rf"{setting}: found 8 with architecture = dynamic_unet"):
        RunConfig.model_validate({setting: 8})
