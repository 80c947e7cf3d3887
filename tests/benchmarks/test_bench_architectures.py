"""The benchmark of architectures: its arithmetic, and that each entry is an arm that can be."""

import argparse

import pytest
import torch

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.catalog import ARCHITECTURES

from . import bench_architectures as bench

ASKED = argparse.Namespace(workers=1, threads=1, epochs=1, batch_size=2, kept=None)


def test_entries_are_every_architecture_with_what_it_can_start_from() -> None:
    names = bench.entries()
    assert {name for name, _ in names} == set(ARCHITECTURES)
    assert ("unet", "imagenet") in names and ("dynunet", "imagenet") not in names
    for name in names:
        run = bench.run_of(*name, 396, 0.001, argparse.Namespace(epochs=6, batch_size=8))
        assert (run.architecture, run.init, run.epochs * run.steps_per_epoch) == (*name, 396)


def test_steps_in_equal_time_by_hand() -> None:
    """396 steps of unet are 198 of a network that takes twice the time, in six whole epochs; one step each at least."""
    assert bench.steps_in_equal_time(396, 1.0, 6) == 396
    assert bench.steps_in_equal_time(396, 2.0, 6) == 198
    assert bench.steps_in_equal_time(12, 0.9, 6) == 12
    assert bench.steps_in_equal_time(6, 5.0, 6) == 6


def test_each_entry_has_its_own_best_rate_and_edges_are_looked_beyond() -> None:
    tried: list[tuple[int, float]] = []

    def score(tries: list[tuple[int, float]]) -> list[float]:
        tried.extend(tries)
        wanted = {0: 2.0, 1: 100.0, 2: 0.5}  # the nearer, the better
        return [-abs(rate - wanted[entry]) for entry, rate in tries]

    assert bench.best_rates(3, (1.0, 2.0, 4.0), score) == [2.0, 16.0, 0.5]
    assert sorted(tried[9:]) == [(1, 8.0), (1, 16.0), (2, 0.25), (2, 0.5)]
    assert bench.best_rates(1, (0.1, 0.2, 0.3), lambda tries: [0.5] * len(tries)) == [0.1]


@pytest.mark.parametrize("on_test", [False, True])
def test_a_training_is_scored_on_the_patients_that_it_names(
    on_test: bool, phantom_store: Store, phantom_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bench.run_of("dynunet", "scratch", 1, 0.001, ASKED)
    cases: list[int] = []
    of = bench.masks_of
    monkeypatch.setattr(bench, "masks_of", lambda index, *masks: cases.extend(index["case"]) or of(index, *masks))
    training = bench.Training(run, phantom_store.directory, phantom_split, on_test)
    said: list[str] = []
    first, second = bench.scores_of([training, training], ASKED, said.append)
    assert first == second and 0 <= first <= 1
    assert len(said) == 1  # one run for both
    assert set(cases) == (set(phantom_split.test) if on_test else set())


def test_a_step_costs_time(phantom_store: Store, phantom_split: Split) -> None:
    take = bench.stepper(bench.run_of("dynunet", "scratch", 1, 0.001, ASKED), phantom_store, phantom_split, 1)
    assert take() > 0
    assert not torch.are_deterministic_algorithms_enabled()
