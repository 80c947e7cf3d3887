"""Weights files of others: which are read, what is found in them, and what is said of those that do not fit."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.training.checkpoints import fitted, read
from litsexp.training.encoders import random_encoder
from litsexp.training.init import check_initialisation, from_file

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def resnet() -> State:
    """torchvision's, with its classifier."""
    torch.manual_seed(1)
    return dict(torchvision.models.resnet18(weights=None).state_dict())


@pytest.fixture(scope="module")
def body() -> State:
    """The same weights by our names."""
    torch.manual_seed(1)
    return dict(random_encoder("resnet18").state_dict())


def saved(content: Any, path: Path) -> RunConfig:
    """An arm that starts from a file with this content."""
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return RunConfig(encoder="resnet18", init=f"file:{path}")


def behind(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def without_counters(state: State) -> State:
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def radimagenet(resnet: State, body: State) -> State:
    """``Sequential(*children)`` behind ``backbone.``, beside a classifier of its own; old files have no counters."""
    return without_counters(behind("backbone.", body)) | {"classifier.linear.weight": torch.zeros(2, 512)}


FORMS: dict[str, tuple[str, Callable[[State, State], Any]]] = {
    "ours": ("x.safetensors", lambda resnet, body: body),
    "ours as torch": ("x.pt", lambda resnet, body: body),
    "torchvision": ("x.safetensors", lambda resnet, body: resnet),
    "torchvision as torch": ("x.pth", lambda resnet, body: resnet),
    "wrapped": ("x.pth", lambda resnet, body: {"epoch": 3, "state_dict": resnet, "optimizer": {"lr": 0.1}}),
    "wrapped twice": ("x.bin", lambda resnet, body: {"model": {"state_dict": body}}),
    "module": ("x.pth", lambda resnet, body: behind("module.", resnet)),
    "deep": ("x.pth", lambda resnet, body: behind("module.encoder_q.", resnet)),
    "in a U-Net": ("x.pth", lambda resnet, body: behind("encoder.", resnet) | {"decoder.0.weight": torch.ones(2)}),
    "RadImageNet": ("x.pt", radimagenet),
    "half": ("x.pt", lambda resnet, body: {name: value.half() for name, value in resnet.items()}),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_is_found_whatever_it_is_called(form: str, resnet: State, body: State, tmp_path: Path) -> None:
    name, content = FORMS[form]
    run = saved(content(resnet, body), tmp_path / name)
    check_initialisation(run)
    state = from_file(run, 0)
    assert list(state) == list(body)
    error = 1e-3 if form == "half" else 0
    for weight, value in without_counters(body).items():
        torch.testing.assert_close(state[weight].float(), value, rtol=error, atol=error)


def test_timms_own_names_are_found(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    torch.save(behind("backbone.", model.state_dict()), tmp_path / "x.pth")
    state = from_file(RunConfig(init=f"file:{tmp_path / 'x.pth'}"), 0)
    assert torch.equal(state["0.0.weight"], model.conv_stem.weight)
    assert torch.equal(state["7.0.conv_pwl.weight"], model.blocks[6][0].conv_pwl.weight)
    assert state.keys() == random_encoder("tf_efficientnet_lite0").state_dict().keys()


def refusal(run: RunConfig) -> str:
    with pytest.raises(LitsexpError) as error:
        check_initialisation(run)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_names_and_shapes_that_do_not_fit_are_listed(resnet: State, tmp_path: Path) -> None:
    changed = {name: value for name, value in resnet.items() if not name.startswith("layer1.")}
    changed |= {"conv1.weight": torch.zeros(64, 1, 7, 7), "layer5.weight": torch.zeros(3)}
    message = refusal(saved(behind("net.", changed), tmp_path / "x.pth"))
    assert f"run.init = file:{tmp_path / 'x.pth'}: the weights do not fit encoder resnet18: " in message
    assert "20 missing (net.layer1.0.conv1.weight, net.layer1.0.bn1.weight, net.layer1.0.bn1.bias, ...)" in message
    assert "1 too many (net.layer5.weight)" in message
    assert "1 of another shape (net.conv1.weight (64, 1, 7, 7) for (64, 3, 7, 7))" in message


def test_a_deeper_network_is_not_cut_short(tmp_path: Path) -> None:
    message = refusal(saved(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "x.pth"))
    assert "96 too many (layer1.2.conv1.weight, " in message


def test_two_encoders_in_a_file_are_refused(resnet: State, tmp_path: Path) -> None:
    message = refusal(saved(behind("student.", resnet) | behind("teacher.", resnet), tmp_path / "x.pth"))
    assert "as many names fit behind 'student.' as behind 'teacher.'; keep one encoder in the file" in message


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    message = refusal(saved({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "x.safetensors"))
    assert "2 names (a, b), and none of them is the encoder's; expected this encoder's weights" in message


class Runs:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("it_ran"),))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"not a checkpoint", "cannot be read: damaged, or it holds objects that run code"),
        (pickle.dumps(Runs()), "objects that run code; expected tensors only"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_damaged_files_and_code_are_refused(
    content: bytes, said: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    message = refusal(RunConfig(init=f"file:{path}"))
    assert message.startswith(f"{path}: ") and said in message
    assert not Path("it_ran").exists()


def test_code_in_todays_format_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(saved({"state_dict": Runs()}, tmp_path / "x.pth"))
    assert "objects that run code" in message
    assert not Path("it_ran").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, torch.zeros(1), {"state_dict": {}}], ids=str)
def test_a_file_without_tensors_by_name_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(LitsexpError, match="no tensors by name; expected a network's state dict"):
        read(tmp_path / "x.pth")


def test_an_encoder_whose_publishers_names_are_ours_is_no_riddle() -> None:
    state = {"0.weight": torch.ones(2), "0.bias": torch.zeros(2)}
    found = fitted(behind("net.", state), state, {name: name for name in state})
    assert found.keys() == state.keys()
