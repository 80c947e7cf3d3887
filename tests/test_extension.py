"""A module outside the package adds a row to every table, and a study with all of them runs to its verdicts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from litsexp.data.store import Store

ARMS = """\
import litsexp
import torch
from torch import nn


def body(name):
    \"\"\"An encoder of two halvings.\"\"\"
    def halve(channels):
        return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(halve(3), halve(8))


def constant_weights(name):
    return {key: torch.full_like(value, 0.1) if value.is_floating_point() else value
            for key, value in body(name).state_dict().items()}


def upsampled(encoder, labels, size, run):
    \"\"\"An architecture: the encoder, one convolution, and back to full size.\"\"\"
    return nn.Sequential(encoder, nn.Conv2d(8, labels, 1), nn.Upsample(size=(size, size), mode="bilinear"))


def coarse(hu, window):
    \"\"\"An encoding: HU in steps of 20.\"\"\"
    return torch.round(hu.float() / 20)[:, None] * 20


def mirror(image, labels, generator):
    return image.flip(-1), labels.flip(-1)


def only_cross_entropy(run):
    return nn.CrossEntropyLoss()


def zeros(run, seed):
    return {key: torch.zeros_like(value) for key, value in body("").state_dict().items()}


def liver_volume_ratio(case):
    truth = (case.truth > 0).sum()
    return float((case.prediction > 0).sum() / truth) if truth else float("nan")


def liver_error(cases):
    \"\"\"A measure: how far the predicted volume is from the true one.\"\"\"
    return (cases["liver_volume_ratio"] - 1).abs()


def one_by_one(workers, threads):
    from litsexp.study.cells import run_cell
    def run(jobs, on_epoch):
        for job in jobs:
            print("one_by_one:", job.cell.name)
            yield job, run_cell(job, lambda epoch, metrics: on_epoch(job, epoch, metrics))
    return run


litsexp.register("metric", "liver_volume_ratio", words="predicted / true liver volume", value=liver_volume_ratio)
litsexp.register("measure", "liver_error", words="liver volume error", values=liver_error, higher_is_better=False)
litsexp.register("encoder", "two_halvings", words="a toy", body=body, weights=constant_weights)
litsexp.register("architecture", "upsampled", words="a toy", make=upsampled)
litsexp.register("init", "zeros", words="a toy", make=zeros)
litsexp.register("encoding", "coarse", words="HU in steps of 20", make=coarse)
litsexp.register("window", "narrow", words="a toy", views=((50.0, 100.0),))
litsexp.register("augment", "mirror", words="a toy", move=mirror)
litsexp.register("loss", "only_ce", words="a toy", make=only_cross_entropy)
litsexp.register("executor", "one_by_one", words="a toy", make=one_by_one)
"""
STUDY = """\
question: Do rows of another module work like built-in ones?
split: {train: 0.5, valid: 0.25, test: 0.25, seed: 0}
run: {encoder: two_halvings, architecture: upsampled, init: imagenet, encoding: coarse, augment: mirror, loss: only_ce,
      window: narrow, epochs: 1, steps_per_epoch: 2, batch_size: 4, lr: 0.01}
factors: {augment: [none], encoding: [hu], init: [zeros]}
claims:
  - {id: mirror, says: It helps., metric: liver_volume_ratio, factor: augment, better: mirror, than: none}
  - {id: volume, says: It errs less., metric: liver_error, factor: encoding, better: coarse, than: hu, margin: 0.1}
  - {id: start, says: Weights help., metric: dice_liver, factor: init, better: imagenet, than: zeros}
"""
CELLS = 4


@pytest.fixture
def plugin(places: list[object], monkeypatch: pytest.MonkeyPatch) -> str:
    """The module in the working folder, under a name of the test's own; its rows go when the test ends."""
    from litsexp.spec.catalog import TABLES

    for table in TABLES.values():
        monkeypatch.setattr(table, "data", dict(table.data))
        monkeypatch.setattr(table, "added", dict(table.added))
    Path("toy_arms.py").write_text(ARMS)
    Path("toy.yaml").write_text(STUDY)
    monkeypatch.delitem(__import__("sys").modules, "toy_arms", raising=False)
    return "toy_arms"


@pytest.mark.parametrize(
    "how", [["--executor", "one_by_one"], ["--executor", "processes", "--workers", "1"]], ids=" ".join
)
def test_a_study_of_registered_rows_runs_to_its_verdicts(
    how: list[str], litsexp: Callable[..., tuple[int, str, str]], places: list[object], plugin: str
) -> None:
    code, out, error = litsexp("study", "toy.yaml", "--plugin", plugin, *how, "--workers", 1, *places)
    assert code == 0, out + error
    assert out.count("one_by_one:") == (CELLS if "one_by_one" in how else 0)
    for claim in ("mirror", "volume", "start"):
        assert f"{claim}: " in out
    assert "predicted / true liver volume" in out
    assert "liver volume error" in out
    verdicts = next(Path("mlruns/reports").glob("toy-*/verdicts.csv")).read_text()
    assert "liver_volume_ratio" in verdicts and "liver_error" in verdicts
    client = MlflowClient(f"sqlite:///{Path('mlruns/mlflow.db').resolve()}")
    runs = [
        run
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
        if "run_key" in run.data.tags
    ]
    assert len(runs) == CELLS
    assert all("test/liver_volume_ratio" in run.data.metrics for run in runs)
    assert {run.data.params["architecture"] for run in runs} == {"upsampled"}

    if "one_by_one" in how:
        code, out, _ = litsexp("study", "toy.yaml", "--plugin", plugin, *how, "--workers", 1, *places)
        assert code == 0
        assert f"{CELLS} runs done before, 0 to train" in out


def test_without_the_plugin_its_names_are_unknown(refused: Callable[..., str], places: list[object]) -> None:
    Path("toy.yaml").write_text(STUDY)
    assert "run.encoder: found 'two_halvings'; expected one of tf_efficientnet_lite0" in refused(
        "study", "toy.yaml", *places
    )


def test_list_shows_every_row_of_every_table_in_one_line(
    litsexp: Callable[..., tuple[int, str, str]], plugin: str
) -> None:
    from litsexp.spec.catalog import TABLES

    code, out, _ = litsexp("list", "--plugin", plugin)
    assert code == 0
    lines = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert lines == [name for concept, table in TABLES.items() for name in (concept, *table)]
    assert "two_halvings" in lines
    code, out, _ = litsexp("list", "init")
    assert code == 0 and "shuffled" in out and "resnet18" not in out


def test_a_metric_that_comes_later_scores_finished_runs_again_and_trains_none(
    litsexp: Callable[..., tuple[int, str, str]], places: list[object], plugin: str, phantom_store: Store
) -> None:
    plain = {
        "question": "?",
        "split": {"train": 0.5, "valid": 0.25, "test": 0.25},
        "run": {"init": "scratch", "epochs": 1},
    }
    plain["run"] |= {"steps_per_epoch": 1, "batch_size": 4}
    Path("plain.yaml").write_text(json.dumps(plain))
    assert litsexp("study", "plain.yaml", "--workers", 1, *places)[0] == 0
    code, out, error = litsexp("study", "plain.yaml", "--workers", 1, "--plugin", plugin, *places)
    assert code == 0, out + error
    assert "1 runs done before, 0 to train, 1 to score" in out
