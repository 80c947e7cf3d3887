"""A tiny study file, and an encoder for it that needs no network."""

from pathlib import Path
from typing import Any

import pytest

STUDY = """\
question: Is a wide window [better]?
split: {folds: 2, valid: 0.25, seed: 0}
run: {init: scratch, window: liver, augment: none, epochs: 1, steps_per_epoch: 1, batch_size: 4}
factors: {window: [wide]}
"""
CLAIM = "{id: wide, says: Wider is better., factor: window, better: wide, than: liver}"


def study_file(text: str = STUDY) -> Path:
    path = Path("tiny.yaml")
    path.write_text(text)
    return path


@pytest.fixture
def no_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cached weights, no network; and a U-Net in place of resnet18's that trains in no time."""
    import torch

    from litsexp.training import architectures

    def small_encoder(_: str) -> torch.nn.Sequential:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 2, 1))

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(architectures, "random_encoder", small_encoder)
