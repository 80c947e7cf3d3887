"""Every shipped experiment: what its file says of itself, and that each kind of its arms trains."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from litsexp.data.splits import Split, make_splits
from litsexp.data.store import Store
from litsexp.spec.claim import ARM, LESION_SIZE
from litsexp.spec.design import Arm, arms, cells, contexts, differing_fields
from litsexp.spec.reading import load_study
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import executor_of
from litsexp.study.places import Places
from litsexp.study.session import open_study
from litsexp.training import architectures, encoders
from litsexp.training.course import Epoch
from litsexp.training.loop import train
from litsexp.training.predict import predict

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "experiments").glob("*.yaml"))
SHIPPED = [
    *("architectures", "augmentation", "claims_of_the_paper", "claims_small", "jpeg", "leak", "loss", "mini", "paper"),
    *("search", "ssl", "transfer", "windows"),
]
SHORT = {"epochs": 1, "frozen_epochs": 0, "steps_per_epoch": 2, "batch_size": 8, "lr": 1e-3, "ssl_steps": 2}


def short(arm: Arm) -> Arm:
    """The arm for two steps."""
    return Arm(arm.name, arm.run.changed(SHORT))


def every_kind() -> dict[str, Arm]:
    """Of each file as few arms as show every level; those that different files share once."""
    kinds: dict[str, Arm] = {}
    for file in FILES:
        seen: set[tuple[str, object]] = set()
        for arm in arms(load_study(file)):
            settings = set(short(arm).run.model_dump().items())
            if not settings <= seen and (arm.run.encoder != "resnet50" or not seen):
                seen |= settings
                kinds.setdefault(json.dumps(short(arm).run.model_dump()), Arm(f"{file.stem}: {arm.name}", arm.run))
    return {arm.name: arm for arm in kinds.values()}


KINDS = every_kind()


def test_these_experiments_are_shipped() -> None:
    assert [file.stem for file in FILES] == SHIPPED


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_opens_with_its_question_and_its_command(file: Path) -> None:
    first, *rest = file.read_text().splitlines()
    assert re.match(r"# Question: .+", first)
    comment = "\n".join(line for line in rest[: rest.index(next(x for x in rest if not x.startswith("#")))])
    command = re.search(r"^# Run: +(python run_study\.py.*)$", comment, re.MULTILINE)
    assert command
    assert "run_study.py        (" in command[1] or f"experiments/{file.name}" in command[1]
    for name in re.findall(r"experiments/\S+\.yaml", comment):
        assert (ROOT / name).is_file()
    for override in re.findall(r"--set (\S+?)[\s)]", comment + "\n"):
        assert load_study(file, [override])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_parsed_and_expanded_and_every_claim_compares_fair_arms(file: Path) -> None:
    study = load_study(file)
    names = [arm.name for arm in arms(study)]
    assert len(set(names)) == len(names)
    assert len(cells(study)) == len(names) * study.split.n_folds * len(study.seeds)
    for claim in study.claims:
        pairs = contexts(study, claim)
        assert pairs
        for better, than, *first in pairs if claim.factor not in (ARM, LESION_SIZE) else ():
            assert differing_fields(better.run, than.run) == {claim.factor}
            assert not first or differing_fields(better.run, first[0].run) == set(claim.grows)
    assert StudyConfig.model_validate(study.model_dump(mode="json")) == study


def test_the_mini_study_is_as_the_readme_says() -> None:
    study = load_study(ROOT / "experiments" / "mini.yaml")
    assert 24 <= study.data.patients <= 36
    assert (study.data.cohort, study.data.size, study.split.folds) == ("phantom", 64, 3)
    assert study.external_data
    assert (study.external_data.cohort, study.external_data.site, study.external_data.size) == ("phantom", "B", 64)
    assert study.data.lesions == study.external_data.lesions == "large"
    assert set(study.factors) == {"init", "window", "dice_weight", "augment"}
    assert all(len(levels) == 1 for levels in study.factors.values())


def test_the_leak_is_measured_against_an_honest_run_of_the_same_settings() -> None:
    study = load_study(ROOT / "experiments" / "leak.yaml")
    honest, leaking = arms(study)
    assert differing_fields(honest.run, leaking.run) == {"split_unit"}
    assert (honest.run.split_unit, leaking.run.split_unit) == ("patient", "slice")
    assert {claim.metric for claim in study.claims} == {"dice_tumor", "dice_liver"}
    assert study.split.n_folds * len(study.seeds) >= 6  # pairs of runs: fewer than 5 settle nothing


def test_real_ct_takes_the_phantoms_place_everywhere(tmp_path: Path) -> None:
    study = load_study(ROOT / "experiments" / "mini.yaml", data=tmp_path)
    assert study.data.cohort == str(tmp_path)
    assert study.external is None


def test_the_papers_protocol() -> None:
    study = load_study(ROOT / "experiments" / "paper.yaml")
    run = study.run
    assert (run.encoder, run.window, run.augment, run.lr) == ("resnet50", "notebook", "paper", "find")
    assert (study.data.size, study.split.train, study.split.valid, study.split.test) == (128, 0.70, 0.15, 0.15)
    assert (run.batch_size, run.weight_decay) == (16, 0.1)
    assert run.patience > 0
    assert 0 < run.frozen_epochs < run.epochs


def test_every_level_of_every_file_is_among_the_kinds() -> None:
    trained = {tuple(sorted(short(arm).run.model_dump().items())) for arm in KINDS.values()}
    levels = {item for arm in trained for item in arm}
    for file in FILES:
        study = load_study(file)
        if study.design == "search":  # runs below, through the driver
            continue
        assert {(factor, level) for factor in study.factors for level in study.levels(factor)} <= levels
        assert ("encoder", study.run.encoder) in levels


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []

    def epoch(self, epoch: Epoch) -> bool:
        self.epochs.append(epoch)
        return True


@pytest.fixture
def split(phantom_split: Split) -> Split:
    """As little to validate and to test as there can be: two steps are what counts here."""
    return Split(phantom_split.train, phantom_split.valid, phantom_split.test[:1])


@pytest.fixture
def resnet_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's weights cannot be fetched here: random ones of the same shapes stand in."""

    def stand_in(name: str) -> Mapping[str, Tensor]:
        torch.manual_seed(99)
        return encoders.random_encoder(name).state_dict()

    monkeypatch.setattr(encoders, "resnet_imagenet", stand_in)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_arm_trains(
    name: str, phantom_store: Store, split: Split, resnet_weights: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, ear, store = short(KINDS[name]).run, Ear(), phantom_store
    if run.encoder == "resnet50":  # its U-Net has 339 million weights: it answers below, and its small sister trains
        monkeypatch.setattr(encoders, "resnet", lambda _, resnet=encoders.resnet: resnet("resnet18"))
    result = train(run, store, split, seed=0, listener=ear, cache=tmp_path)
    assert result.facts["steps"] == "2"
    assert len(ear.epochs) == len(result.history) == 1
    assert np.isfinite(result.history[0]["train/loss"])
    assert not result.pruned
    rows = store.rows_of(split.test)[: 20 if "baseline" in name else 1]
    assert predict(run, result.weights, store, rows).shape == (len(rows), store.size, store.size)


def test_the_papers_own_unet_answers() -> None:
    run = RunConfig(encoder="resnet50", init="scratch", precision="fp32")
    network, _ = architectures.build_network(run, 32, seed=0)
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_the_papers_phases_and_its_learning_rate_finder_run(
    phantom_store: Store, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a small encoder: frozen epochs, then all of it, with a rate that is found."""
    paper = load_study(ROOT / "experiments" / "paper.yaml").run
    monkeypatch.setattr(architectures, "random_encoder", small_encoder)
    changes = {"init": "scratch", "epochs": 4, "patience": 3, "steps_per_epoch": 1, "batch_size": 8}
    result = train(paper.changed(changes), phantom_store, split, seed=0, listener=Ear())
    assert 2 < len(result.history) <= 4
    assert 1e-7 < float(result.facts["lr_max"]) < 1


def small_encoder(_: str) -> torch.nn.Sequential:
    def halve(channels_in: int) -> torch.nn.Sequential:
        return torch.nn.Sequential(torch.nn.Conv2d(channels_in, 8, 3, 2, 1), torch.nn.ReLU())

    return torch.nn.Sequential(halve(3), halve(8), halve(8))


class Quiet:
    def planned(self, done: Any, left: int, to_score: int) -> None: ...

    def started(self, cell: Any) -> None: ...

    def epoch(self, cell: Any, epoch: int, metrics: Any) -> None: ...

    def ended(self, cell: Any, outcome: Any) -> None: ...


def test_the_search_samples_and_trains_through_the_driver(
    new_places: Callable[[Path], Places], tmp_path: Path, phantom_store: Store
) -> None:
    short_search = ["search.trials=2", "run.epochs=1", "run.steps_per_epoch=2", "run.batch_size=4"]
    study = load_study(ROOT / "experiments" / "search.yaml", short_search)
    splits = make_splits(phantom_store.has_tumor, study.split)
    with open_study("search", study, phantom_store, splits, new_places(tmp_path)) as session:
        session.run(executor_of(None, 1, 1), Quiet())
        table = session.trials()
        results = session.results()
    assert session.failures == {}
    assert list(table["state"]) == ["COMPLETE"] * 2
    assert table["valid/score"].is_monotonic_decreasing
    assert {*study.factors, "lr"} <= set(table.columns)
    assert set(results.runs["status"]) == {"FINISHED"}
    assert results.cases.groupby("arm").ngroups == 2
    low, high = study.search.lr if study.search else (0, 0)
    assert table["lr"].between(low, high).all()
