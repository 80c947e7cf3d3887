"""One pretraining per fold and seed: found again by its content, shared, waited for, and told with each run."""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.training.init import Corpus, initial_state, weights_sha256
from litsexp.training.loop import Trained, train
from litsexp.training.ssl import cached
from litsexp.training.ssl.cached import key_of
from litsexp.training.ssl.course import Course

from ..conftest import Ears, tiny_encoder
from ..test_fairness import assert_same
from .conftest import METHODS, short

MakeCorpus = Callable[..., Corpus]


@pytest.fixture
def learned_times(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The method of every pretraining that is really done."""
    seen: list[str] = []
    real = cached.pretrain

    def counted(run: RunConfig, *rest: Any) -> Any:
        seen.append(run.init)
        return real(run, *rest)

    monkeypatch.setattr(cached, "pretrain", counted)
    return seen


@pytest.fixture
def trained(tiny: None, phantom_store: Store, phantom_split: Split, tmp_path: Path) -> Callable[..., Trained]:
    """``train`` on the phantom, with one cache for the whole test."""

    def run(arm: RunConfig, seed: int = 0) -> Trained:
        return train(arm, phantom_store, phantom_split, seed, Ears(), tmp_path / "shared")

    return run


def test_arms_that_differ_afterwards_share_one_pretraining(
    trained: Callable[..., Trained], learned_times: list[str]
) -> None:
    first = trained(short())
    others = [short(dice_weight=0.0), short(augment="paper"), short(train_fraction=0.4, lr=1e-3), short(epochs=1)]
    for other in others:
        again = trained(other)
        assert again.facts["initial_weights_sha256"] == first.facts["initial_weights_sha256"]
        told = {name: value for name, value in again.facts.items() if name.startswith("ssl_")}
        assert told.pop("ssl_reused") == "true"
        assert told == {name: value for name, value in first.facts.items() if name in told}
    assert first.facts["ssl_reused"] == "false"
    assert learned_times == ["ssl:restoration"]


def test_a_run_with_a_found_encoder_is_the_run_that_learned_it(trained: Callable[..., Trained]) -> None:
    cold, warm = trained(short()), trained(short())
    assert (cold.facts["ssl_reused"], warm.facts["ssl_reused"]) == ("false", "true")
    assert_same(cold, warm)


def test_the_decoder_is_that_of_scratch(trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch) -> None:
    from litsexp.training.architectures import build_network

    ours = build_network(short(), 64, 3, initialise=False)[0].state_dict()
    theirs = build_network(short("scratch"), 64, 3)[0].state_dict()
    assert weights_sha256(ours) == weights_sha256(theirs)


CHANGES: list[dict[str, Any]] = [
    {"init": "ssl:masked"},
    {"window": "wide"},
    {"architecture": "unet"},
    {"encoder": "resnet18"},
    {"encoding": "jpeg:90"},
    {"ssl_steps": 5},
    {"ssl_batch_size": 8},
    {"ssl_lr": 0.1},
    {"precision": "bf16"},
    {"channels_last": False},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_what_changes_the_network_or_its_input_is_another_pretraining(
    changes: dict[str, Any], corpus: MakeCorpus
) -> None:
    one = corpus()
    assert key_of(short().changed(changes), 0, one) != key_of(short(), 0, one)


def test_seed_fold_and_data_are_others_too_and_held_out_patients_are_not(
    corpus: MakeCorpus, phantom_store: Store, phantom_split: Split
) -> None:
    key = key_of(short(), 0, corpus())
    assert key_of(short(), 1, corpus()) != key
    fewer = replace(phantom_split, train=phantom_split.train[:2], valid=(*phantom_split.valid, phantom_split.train[2]))
    assert key_of(short(), 0, corpus(split=fewer)) != key
    assert key_of(short(), 0, corpus(store=replace(phantom_store, fingerprint="another"))) != key
    moved = replace(phantom_split, valid=phantom_split.test, test=phantom_split.valid)
    assert key_of(short(), 0, corpus(split=moved)) == key


def test_the_file_says_how_it_came_to_be(corpus: MakeCorpus, phantom_split: Split) -> None:
    one = corpus()
    state = initial_state(short(), 7, one)
    assert state is not None
    path = one.cache / f"{one.facts['ssl_key']}.safetensors"
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["litsexp"])
    assert (about["init"], about["steps"], about["seed"]) == ("ssl:restoration", 4, 7)
    assert tuple(about["cases"]) == phantom_split.train
    assert len(about["curve"]) == 4 and about["loss"] == pytest.approx(sum(about["curve"]) / 4)
    assert str(about["loss"]) == one.facts["ssl_loss"] and about["seconds"] > 0
    assert about["sha256"] == weights_sha256(load_file(path)) == weights_sha256(state)
    tiny_encoder().load_state_dict(state)


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "weights"])
def test_a_damaged_file_is_said_and_learned_again(
    damage: str, corpus: MakeCorpus, learned_times: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    one = corpus()
    first = initial_state(short(), 0, one)
    assert first is not None
    (path,) = one.cache.glob("*.safetensors")
    content = path.read_bytes()
    if damage in ("cut", "empty"):
        path.write_bytes(content[:-40] if damage == "cut" else b"")
    elif damage == "header":
        save_file(first, path)
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit of one weight
    with caplog.at_level(logging.WARNING):
        again = initial_state(short(), 0, one)
    assert again is not None and weights_sha256(again) == weights_sha256(first)
    assert str(path) in caplog.text and "damaged" in caplog.text
    assert len(learned_times) == 2 and path.read_bytes()[8:50] == content[8:50]


def test_the_learning_rate_finder_learns_it_once_and_its_time_is_not_the_fits(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, calls = tiny_encoder().state_dict(), []

    def slow(*_: Any) -> Any:
        calls.append(1)
        time.sleep(0.7)
        return state, Course([0.5], 0.7), "float32"

    monkeypatch.setattr(cached, "pretrain", slow)
    monkeypatch.setattr("litsexp.training.loop.LR_FIND_STEPS", 30)
    start_s = time.perf_counter()
    found = trained(short(lr="find"))
    assert calls == [1]
    assert found.facts["ssl_reused"] == "false" and found.facts["ssl_seconds"] == "0.7"
    assert found.fit_s < time.perf_counter() - start_s - 0.7


def test_a_second_worker_waits_and_takes_what_the_first_has_learned(
    corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def slow(*_: Any) -> Any:
        calls.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(20)
        return tiny_encoder().state_dict(), Course([0.5], 1.0), "float32"

    monkeypatch.setattr(cached, "pretrain", slow)
    both, states = [corpus(tmp_path / "one"), corpus(tmp_path / "one")], {}

    def work(number: int) -> None:
        states[number] = initial_state(short(), 0, both[number])

    workers = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    with caplog.at_level(logging.INFO):
        workers[0].start()
        assert begun.wait(20)
        workers[1].start()
        deadline = time.monotonic() + 20
        while "waiting" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "another run is learning it; waiting" in caplog.text
        go_on.set()
        for worker in workers:
            worker.join(20)
    assert len(calls) == 1
    assert [one.facts["ssl_reused"] for one in both] == ["false", "true"]
    assert weights_sha256(states[0]) == weights_sha256(states[1])


def test_a_cache_that_cannot_be_written_is_one_line(corpus: MakeCorpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LitsexpError, match=r"file: cannot keep what ssl:masked learned .*; free space") as error:
        initial_state(short("ssl:masked"), 0, corpus(tmp_path / "file"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("init", METHODS)
def test_each_method_trains(init: str, trained: Callable[..., Trained]) -> None:
    assert len(trained(short(init)).history) == 2
