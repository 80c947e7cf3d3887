"""Jobs and outcomes go to other machines as JSON, and come back as they were."""

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from litsexp.data.splits import Split
from litsexp.spec.design import Arm, Cell
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.study.jobs import Job, Outcome, job_from_json, job_to_json, outcome_from_json, outcome_to_json
from litsexp.study.scorings import Scoring

ARMS = [
    RunConfig(),
    RunConfig(lr="find", steps_per_epoch=3, clip_norm=0.1, train_fraction=1 / 3, channels_last=False),
    RunConfig(init="scratch", augment="none", window="wide", encoding="jpeg:90", epochs=4, frozen_epochs=1),
]


@pytest.mark.parametrize("run", ARMS)
def test_a_job_comes_back_as_it_was_with_absolute_paths(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    truths = {3: Path("ct/3.nii.gz"), 12: tmp_path / "12.nii"}
    scorings = (
        Scoring("test", Path("stores/a"), "f1", "ours", "k1", held_out=True),
        Scoring("native", Path("stores/b"), "f2", "ours", "k2", "native/k2", truths=truths),
    )
    cell = Cell(Arm("lr=0.1, window=wide", run), 1, 7)
    job = Job(
        *(cell, "key", "run", "http://head:5000", Split((1, 2), (3,), (4,)), Path("stores/a"), scorings, Path("cache")),
        trained=True,
        modules=("json",),
        fingerprint="abc",
        keep_weights=False,
    )
    found = job_from_json(job_to_json(job))
    assert found.cell == job.cell
    assert found.cell.random_seed == job.cell.random_seed
    assert found.store == tmp_path / "stores/a" and found.cache == tmp_path / "cache"
    assert found.scorings[0] == Scoring("test", tmp_path / "stores/a", "f1", "ours", "k1", held_out=True)
    assert dict(found.scorings[1].truths) == {3: tmp_path / "ct/3.nii.gz", 12: tmp_path / "12.nii"}
    others = {field.name for field in fields(Job)} - {"store", "cache", "scorings"}
    assert {name: getattr(found, name) for name in others} == {name: getattr(job, name) for name in others}
    assert job_from_json(job_to_json(found)) == found


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    cell = Cell(Arm("baseline", RunConfig()), 0, 0)
    job = Job(cell, "k", "r", "u", Split((1,), (2,), (3,)), tmp_path, (), tmp_path, modules=("no_such_arms",))
    with pytest.raises(LitsexpError, match="--plugin no_such_arms: cannot be imported"):
        job_from_json(job_to_json(job))


def test_a_job_whose_settings_nobody_knows_is_none(tmp_path: Path) -> None:
    cell = Cell(Arm("baseline", RunConfig()), 0, 0)
    text = json.loads(job_to_json(Job(cell, "k", "r", "u", Split((1,), (2,), (3,)), tmp_path, (), tmp_path)))
    text["cell"]["arm"]["run"]["encoder"] = "nonsense"
    with pytest.raises(ValueError, match="nonsense"):
        job_from_json(json.dumps(text))


def test_an_outcome_comes_back_as_it_was_undefined_values_too() -> None:
    outcome = Outcome("failed", 1 / 3, "why [so]", "Traceback\n  ü", 1e-17, died=True)
    assert outcome_from_json(outcome_to_json(outcome)) == outcome
    undefined = outcome_from_json(outcome_to_json(Outcome("scored")))
    assert math.isnan(undefined.value) and undefined.status == "scored"
    with pytest.raises(ValueError, match="status"):
        outcome_from_json('{"status": "great"}')
