"""Every architecture, with every initialisation that it can have: it trains, and a seed repeats bit for bit."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.catalog import ARCHITECTURES, INITIALISATIONS
from litsexp.spec.run import RunConfig
from litsexp.training.architectures import build_network
from litsexp.training.encoders import random_encoder
from litsexp.training.init import parts_sha256, weights_sha256
from litsexp.training.loop import encoder_and_rest, train
from litsexp.training.machine import MixedPrecision
from litsexp.training.monai_nets import halvings_of
from litsexp.training.predict import predict

from .conftest import Ears

SHORT = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "precision": "fp32"}
INITS = [name for name, row in INITIALISATIONS.items() if not row.learns]
ARMS = [(name, init) for name, row in ARCHITECTURES.items() for init in (INITS if row.encoder else ["scratch"])]
WHOLE = [name for name, row in ARCHITECTURES.items() if not row.encoder]


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of somebody's."""
    torch.manual_seed(77)
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save({"state_dict": random_encoder("tf_efficientnet_lite0").state_dict()}, path)
    return path


@pytest.mark.parametrize(("architecture", "init"), ARMS)
def test_it_trains_and_repeats_bit_for_bit(
    architecture: str, init: str, phantom_store: Store, phantom_split: Split, weights_file: Path
) -> None:
    run = RunConfig(architecture=architecture, init=init.replace("PATH", str(weights_file)), **SHORT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of a kernel that does not repeat
        first, second = (train(run, phantom_store, phantom_split, 3, Ears()) for _ in range(2))
    rows = phantom_store.rows_of(phantom_split.test)[:2]
    assert predict(run, first.weights, phantom_store, rows).shape == (2, 64, 64)
    assert first.facts["steps"] == "2"
    assert first.history[0]["train/loss"] == second.history[0]["train/loss"] > 0
    assert first.facts["initial_weights_sha256"] == second.facts["initial_weights_sha256"]
    assert first.facts["initial_weights_sha256"] != weights_sha256(first.weights) == weights_sha256(second.weights)


@pytest.mark.parametrize("architecture", ["attention_unet", *WHOLE])
def test_it_steps_in_bfloat16(architecture: str) -> None:
    run = RunConfig(architecture=architecture, init="scratch", precision="bf16")
    model = MixedPrecision(build_network(run, 32, seed=0)[0], run, torch.device("cpu")).train()
    logits = model(torch.rand(2, 3, 32, 32))
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [32, 96])
def test_it_takes_every_size(architecture: str, size: int) -> None:
    network, _ = build_network(RunConfig(architecture=architecture, init="scratch"), size, seed=0)
    logits = network.train()(torch.rand(2, 3, size, size))
    assert logits.shape == (2, 3, size, size)
    assert logits.isfinite().all()
    logits.mean().backward()
    assert all(value.grad is not None for value in network.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_sees_every_channel_and_drops_nothing_out(architecture: str) -> None:
    network, _ = build_network(RunConfig(architecture=architecture, init="scratch"), 64, seed=0)
    image = torch.rand(2, 3, 64, 64)
    before = network.train()(image)
    assert torch.equal(network(image), before)
    for channel in range(3):
        changed = image.clone()
        changed[:, channel] = changed[:, channel].flip(-1)
        assert not torch.equal(network(changed), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_weight_is_kept_twice(architecture: str) -> None:
    network, _ = build_network(RunConfig(architecture=architecture, init="scratch"), 64, seed=0)
    state = network.state_dict(keep_vars=True)
    assert len({id(value) for value in state.values()}) == len(state)


def test_the_depth_of_nnunets_network_by_hand() -> None:
    """While an even half of 4 px or more is left: 32 -> 16, 8, 4; 96 -> 48, 24, 12, 6; 288 -> 144, 72, 36, 18, 9."""
    sizes = {32: 3, 64: 4, 96: 4, 128: 5, 256: 6, 288: 5, 512: 7}
    assert {size: halvings_of(size) for size in sizes} == sizes
    network, _ = build_network(RunConfig(architecture="dynunet", init="scratch"), 128, seed=0)
    widths = [layer.out_channels for layer in network.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert sorted(widths) == [16, 32, 64, 128, 256]


@pytest.mark.parametrize("architecture", WHOLE)
def test_a_network_without_an_encoder_is_one_group_of_weights(architecture: str) -> None:
    network, encoder = build_network(RunConfig(architecture=architecture, init="scratch"), 64, seed=0)
    assert encoder is None
    (group,) = encoder_and_rest(encoder, network)
    assert [id(one) for one in group] == [id(one) for one in network.parameters()]
    assert parts_sha256(network, encoder) == (None, weights_sha256(network.state_dict()))


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in WHOLE])
def test_arms_that_differ_in_init_share_the_decoder(architecture: str, weights_file: Path) -> None:
    seen = {}
    for init in INITS:
        run = RunConfig(architecture=architecture, init=init.replace("PATH", str(weights_file)))
        seen[init] = parts_sha256(*build_network(run, 32, seed=4))
    encoders, decoders = zip(*seen.values(), strict=True)
    assert len(set(decoders)) == 1
    assert len(set(encoders)) == len(INITS)
    other = parts_sha256(*build_network(RunConfig(architecture=architecture, init="scratch"), 32, seed=5))
    assert other[0] not in encoders and other[1] not in decoders
