"""A pretraining: it learns, reads its fold's training slices alone, repeats, and goes on where it was killed."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.run import RunConfig
from litsexp.training.init import Corpus, initial_state, weights_sha256
from litsexp.training.loaders import Slices
from litsexp.training.ssl import course
from litsexp.training.ssl.course import Course, rate

from ..conftest import tiny_encoder
from .conftest import METHODS, short

MakeCorpus = Callable[..., Corpus]


def learned(run: RunConfig, corpus: Corpus, seed: int = 0) -> str:
    """SHA-256 of the encoder."""
    state = initial_state(run, seed, corpus)
    assert state is not None
    return weights_sha256(state)


class Killed(BaseException):
    """As a Ctrl-C or a signal: no Exception."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[int]:
    """From now on the pretraining dies before its ``step``-th step from here; the count of steps that were done."""
    done, real = [], course._step

    def dying(*given: Any) -> Any:
        if len(done) == step:
            raise Killed
        done.append(len(done))
        return real(*given)

    monkeypatch.setattr(course, "_step", dying)
    return done


@pytest.mark.parametrize("init", METHODS)
def test_the_network_learns_to_undo_it(init: str, corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Course] = []
    settle = course._settle
    monkeypatch.setattr(course, "_settle", lambda one, *rest: seen.append(one) or settle(one, *rest))
    learned(short(init, ssl_steps=40, ssl_lr=1e-2), corpus())
    losses = seen[-1].losses
    assert len(losses) == 40
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.parametrize("init", METHODS)
def test_a_seed_repeats_and_another_one_differs(init: str, corpus: MakeCorpus) -> None:
    first = learned(short(init), corpus())
    torch.rand(5)  # whatever was drawn before
    assert learned(short(init), corpus()) == first != learned(short(init), corpus(), seed=1)


def test_methods_learn_other_weights_than_a_random_encoder(corpus: MakeCorpus) -> None:
    torch.manual_seed(0)
    random = weights_sha256(tiny_encoder().state_dict())
    assert len({random, *(learned(short(init), corpus()) for init in METHODS)}) == 3


@pytest.mark.parametrize("init", METHODS)
@pytest.mark.parametrize("architecture", [{}, {"architecture": "unet", "decoder_width": 16}], ids=["dynamic", "unet"])
def test_killed_in_its_middle_it_goes_on_to_the_same_bits(
    init: str, architecture: dict[str, Any], corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short(init, **architecture, ssl_steps=5)
    whole = learned(run, corpus())
    monkeypatch.setattr(course, "CHECKPOINT_S", 0.0)
    broken = corpus()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 3)
        learned(run, broken)
    assert [path.suffix for path in sorted(broken.cache.iterdir())] == [".lock", ".part"]
    with monkeypatch.context() as patch:
        done = kill_at(patch, 99)
        assert learned(run, broken) == whole
    assert len(done) == 2  # the others were not done again
    assert broken.facts["ssl_steps"] == "5" and broken.facts["ssl_reused"] == "false"
    assert [path.suffix for path in sorted(broken.cache.iterdir())] == [".lock", ".safetensors"]


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_said_and_the_pretraining_starts_anew(
    damage: bytes | None, corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = learned(short(), corpus())
    monkeypatch.setattr(course, "CHECKPOINT_S", 0.0)
    broken = corpus()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 2)
        learned(short(), broken)
    (part,) = broken.cache.glob("*.part")
    part.write_bytes(part.read_bytes()[:-100] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert learned(short(), broken) == whole
    assert str(part) in caplog.text and "anew" in caplog.text


def test_what_is_left_half_written_goes(corpus: MakeCorpus) -> None:
    one = corpus()
    learned(short(), one)
    (kept,) = one.cache.glob("*.safetensors")
    content = kept.read_bytes()
    kept.unlink()
    (one.cache / f".{kept.stem}-abcd.safetensors").write_bytes(content[:50])
    learned(short(), one)
    assert sorted(path.name for path in one.cache.iterdir()) == [kept.with_suffix(".lock").name, kept.name]


def test_a_loss_that_is_not_finite_ends_it(corpus: MakeCorpus) -> None:
    one = corpus()
    with pytest.raises(FloatingPointError, match=r"pretraining loss is (nan|inf) in step \d; lower run\.ssl_lr"):
        learned(short(ssl_lr=1e30), one)
    assert not list(one.cache.glob("*.safetensors"))


def test_the_rate_rises_then_falls() -> None:
    run = RunConfig(init=METHODS[0], ssl_steps=20, ssl_lr=0.5)
    rates = [rate(step, run) for step in range(20)]
    assert rates[:3] == [0.25, 0.5, 0.5]
    assert rates[11] == pytest.approx(0.25)  # half way down
    assert 0 < rates[-1] < 0.01
    assert rate(0, RunConfig(init=METHODS[0], ssl_steps=1, ssl_lr=0.5)) == 0.5


def changed_at(store: Store, rows: Any, what: str) -> Store:
    """The store with other pixels, or labels, in these rows; it claims to be the same one."""
    array = np.array(getattr(store, what))
    array[rows] = np.random.default_rng(5).integers(0, 3, array[rows].shape, array.dtype) * (100 if what == "hu" else 1)
    return replace(store, **{what: array})


@pytest.mark.parametrize("init", METHODS)
def test_no_pixel_of_a_held_out_patient_and_no_label_changes_a_bit(
    init: str, corpus: MakeCorpus, phantom_store: Store, phantom_split: Split
) -> None:
    run = short(init, ssl_steps=6, ssl_batch_size=8)
    train = phantom_store.rows_of(phantom_split.train)
    held_out = phantom_store.rows_of([*phantom_split.valid, *phantom_split.test])
    assert len(train) + len(held_out) == len(phantom_store.index)
    known = learned(run, corpus())
    everything = np.arange(len(phantom_store.index))
    assert learned(run, corpus(store=changed_at(phantom_store, held_out, "hu"))) == known
    assert learned(run, corpus(store=changed_at(phantom_store, everything, "labels"))) == known
    assert learned(run, corpus(store=changed_at(phantom_store, train[-1:], "hu"))) != known  # each of its own counts


def test_it_reads_every_training_slice_and_no_other_also_where_few_patients_are_labelled(
    corpus: MakeCorpus, phantom_store: Store, phantom_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    read = Slices.read
    monkeypatch.setattr(Slices, "read", lambda self, rows: (seen.update(rows.tolist()), read(self, rows))[1])
    learned(short(ssl_steps=6, ssl_batch_size=8, train_fraction=0.1), corpus())
    assert seen == set(phantom_store.rows_of(phantom_split.train).tolist())


def test_a_checkpoint_is_read_without_unpickling_code(corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, weights_only, **k: (asked.append(weights_only), load(*a, **k))[1])
    monkeypatch.setattr(course, "CHECKPOINT_S", 0.0)
    one = corpus()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 2)
        learned(short(), one)
    learned(short(), one)
    assert asked == [True]


def test_another_encoding_is_learned_from_as_it_is_trained_on(
    corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[torch.dtype] = []
    real = Slices.read

    def seen(slices: Slices, rows: Any) -> Any:
        images, labels = real(slices, rows)
        read.append(images.dtype)
        return images, labels

    monkeypatch.setattr(Slices, "read", seen)
    assert learned(short(encoding="jpeg:5"), corpus()) != learned(short(), corpus())
    assert read == [torch.uint8] * 4 + [torch.int16] * 4  # what is kept of it, not made anew at every step
