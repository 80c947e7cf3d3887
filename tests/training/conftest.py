"""One thread, an encoder so small that a training step takes milliseconds, and runs with it on the phantom."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.run import RunConfig
from litsexp.training import architectures, course, init
from litsexp.training.course import Epoch
from litsexp.training.loop import Trained, train

BASE = RunConfig(init="scratch", epochs=2, steps_per_epoch=2, batch_size=4, precision="fp32", lr=1e-2)
Train = Callable[..., Trained]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_encoder(_: str = "") -> nn.Sequential:
    """Three halvings: 64 px -> 8 px, 8 channels."""

    def halve(channels_in: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels_in, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    return nn.Sequential(halve(3), halve(8), halve(8))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every encoder is the tiny one; ``init`` is scratch or a file."""
    for module in (architectures, init):
        monkeypatch.setattr(module, "random_encoder", tiny_encoder)


class Ears:
    """Keeps every epoch; says stop after ``stop_after`` of them."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.epochs: list[Epoch] = []
        self.stop_after = stop_after

    def epoch(self, epoch: Epoch) -> bool:
        self.epochs.append(epoch)
        return len(self.epochs) < self.stop_after


def arm(**changes: Any) -> RunConfig:
    return RunConfig.model_validate({**BASE.model_dump(), **changes})


@pytest.fixture
def run_arm(tiny: None, phantom_store: Store, phantom_split: Split) -> Train:
    """``train`` on the phantom with the tiny encoder."""

    def run_arm(run: RunConfig = BASE, seed: int = 0, ears: Ears | None = None) -> Trained:
        return train(run, phantom_store, phantom_split, seed, ears or Ears())

    return run_arm


def scripted_scores(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Whatever is predicted, epoch i scores ``scores[i]``."""
    left: Iterator[float] = iter(scores)
    monkeypatch.setattr(course, "selection_score", lambda _mean: next(left))
