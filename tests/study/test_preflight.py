"""What a design needs is asked before its first run."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litsexp.data.store import Store
from litsexp.spec.design import Arm, Cell
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.study import preflight
from litsexp.study.places import Places
from litsexp.study.preflight import check_needs


def always(_: Cell) -> bool:
    return True


def cells_of(*settings: dict[str, Any]) -> list[Cell]:
    return [Cell(Arm(str(one), RunConfig.model_validate(one)), 0, 0) for one in settings]


def test_what_is_there_is_enough(phantom_store: Store, tmp_path: Path) -> None:
    check_needs(
        cells_of({"init": "scratch"}, {"init": "imagenet"}), phantom_store, Places.below(tmp_path / "none"), always
    )


def test_an_arm_without_its_weights_is_refused_though_others_come_first(phantom_store: Store, tmp_path: Path) -> None:
    planned = cells_of({"init": "scratch"}, {"init": f"file:{tmp_path / 'gone.safetensors'}"})
    with pytest.raises(LitsexpError, match=r"gone\.safetensors: cannot be read"):
        check_needs(planned, phantom_store, Places.below(tmp_path), always)


def test_nothing_to_train_needs_nothing(phantom_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    check_needs([], phantom_store, Places.below(Path("nowhere")), always)


def test_a_disk_that_is_too_small_is_named(
    phantom_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50e6))
    two = cells_of({"init": "scratch"}, {"init": "scratch", "lr": 0.1})
    check_needs(cells_of({"init": "scratch"}), phantom_store, Places.below(tmp_path), always)  # 37 MB of weights
    with pytest.raises(LitsexpError, match=r"0\.1 GB free; expected about 0\.1 GB for the weights of 2 runs"):
        check_needs(two, phantom_store, Places.below(tmp_path), always)
    check_needs(two, phantom_store, Places.below(tmp_path), lambda cell: cell is two[0])  # one keeps them
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    check_needs(two, phantom_store, Places.below(tmp_path), lambda _: False)
    check_needs(two, phantom_store, Places.below(tmp_path, "http://127.0.0.1:9"), always)  # artifacts lie elsewhere


def test_memory_that_is_too_small_is_named(
    phantom_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.os, "sysconf", lambda name: 1 if name == "SC_PAGE_SIZE" else 10**8)
    with pytest.raises(LitsexpError, match=r"this machine: 0\.1 GB of memory; expected about 0\.3 GB for one run"):
        check_needs(cells_of({"init": "scratch"}), phantom_store, Places.below(tmp_path), always)
