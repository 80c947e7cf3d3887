"""One thread, and an encoder so small that a training step takes milliseconds."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from litsexp.training import models


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
    monkeypatch.setattr(models, "random_encoder", tiny_encoder)
