"""A pretraining of a few steps on the phantom, with the tiny encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.training.init import Corpus
from litsexp.training.loaders import Slices

from ..conftest import arm

METHODS = ["ssl:restoration", "ssl:masked"]


@pytest.fixture
def corpus(tiny: None, phantom_store: Store, phantom_split: Split, tmp_path: Path) -> Callable[..., Corpus]:
    """``corpus(...)``: with an empty cache, unless the test names another one; of another store or split."""
    made: list[Path] = []

    def make(cache: Path | None = None, store: Store = phantom_store, split: Split = phantom_split) -> Corpus:
        made.append(tmp_path / f"cache{len(made)}")
        return Corpus(Slices(store, torch.device("cpu")), split, cache or made[-1])

    return make


def short(init: str = METHODS[0], **changes: Any) -> Any:
    """An arm whose pretraining takes four steps of four slices."""
    return arm(init=init, **{"ssl_steps": 4, "ssl_batch_size": 4, "augment": "none", "window": "liver", **changes})
