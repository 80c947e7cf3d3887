"""One cell: which slices are watched, what is scored, and what reaches MLflow."""

import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from PIL import Image
from safetensors.torch import load

from litsexp.data.rows import scored_rows
from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.keys import digest
from litsexp.spec.run import RunConfig
from litsexp.study import pictures, reading
from litsexp.study.cells import points, run_cell, table1
from litsexp.study.jobs import Job
from litsexp.study.scorings import Scoring, scoring_of
from litsexp.study.tracking import Tracking
from litsexp.training import architectures
from litsexp.training.loaders import Slices
from litsexp.training.ssl import cached

from .conftest import go_on


def drawings(tracking: Tracking, run_id: str, folder: str) -> list[str]:
    return sorted(file.path for file in tracking.client.list_artifacts(run_id, folder) if file.path.endswith(".png"))


def test_a_cell_logs_curves_scores_weights_and_pictures(job: Callable[..., Job], tracking: Tracking) -> None:
    one, heard = job(), []
    outcome = run_cell(one, lambda epoch, metrics: heard.append((epoch, metrics["valid/score"])) is None)
    assert outcome.status == "finished", outcome.reason
    run = tracking.client.get_run(one.run_id)
    assert run.info.status == "FINISHED"
    assert [epoch for epoch, _ in heard] == [0, 1]
    assert outcome.value == run.data.metrics["best/score"] == max(score for _, score in heard)
    history = tracking.client.get_metric_history(one.run_id, "valid/loss")
    assert [point.step for point in history] == [0, 1]
    assert {
        "train/loss",
        "lr",
        "images_per_s",
        "best/epoch",
        "test/dice_liver",
        "time/fit_s",
    } <= run.data.metrics.keys()
    assert {"initial_encoder_sha256", "initial_decoder_sha256"} <= run.data.tags.keys()
    assert {"initial_weights_sha256", "device", "precision_used", "pruned"} <= run.data.tags.keys()
    assert Store.open(one.store).fingerprint in [source.dataset.digest for source in run.inputs.dataset_inputs]

    written = tracking.artifact(one.run_id, "table1.csv").decode().splitlines()
    assert written[0] == "epoch,train loss,valid loss,foreground_acc,cust_foreground_acc"
    logged = ("train/loss", "valid/loss", "valid/foreground_acc", "valid/pixel_acc")
    curves = [[point.value for point in tracking.client.get_metric_history(one.run_id, name)] for name in logged]
    assert [[float(cell) for cell in line.split(",")] for line in written[1:]] == [
        [epoch + 1, *(curve[epoch] for curve in curves)] for epoch in (0, 1)
    ]

    cases = cases_of(tracking, run, one.scorings[0])
    assert tuple(cases["case"]) == one.split.test
    assert {"tp_tumor", "dice_tumor", "dice_liver"} <= set(cases.columns)
    about = json.loads(tracking.artifact(one.run_id, "run.json"))
    assert RunConfig.model_validate(about["run"]) == one.cell.arm.run
    assert tuple(about["split"]["test"]) == one.split.test
    unet = architectures.build_network(one.cell.arm.run, about["size"], 0)[0]
    unet.load_state_dict(load(tracking.artifact(one.run_id, "weights.safetensors")))
    store = Store.open(one.store)
    kept = pictures.read_tallest(tracking.beside_cases(one.run_id, ".", pictures.TALLEST) or b"")
    assert list(kept) == pictures.tallest(store, store.rows_of(one.split.test)).tolist()
    assert all(labels.shape == (store.size, store.size) for labels in kept.values())
    drawn = drawings(tracking, one.run_id, "test")
    assert [Path(name).name.partition("_case_")[0] for name in drawn] == ["best", "worst"]
    assert Image.open(io.BytesIO(tracking.artifact(one.run_id, drawn[0]))).size[0] > 64
    assert len(drawings(tracking, one.run_id, "images")) >= 2


def test_a_pretraining_is_logged_beside_the_run_and_sees_training_slices_alone(
    job: Callable[..., Job], tracking: Tracking, external_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[str, set[int]]] = []
    real, read = cached.pretrain, Slices.read

    def watched(*given: Any) -> Any:
        def noted(slices: Slices, rows: Any) -> Any:
            reads.append((slices.store.fingerprint, set(rows.tolist())))
            return read(slices, rows)

        with monkeypatch.context() as patch:
            patch.setattr(Slices, "read", noted)
            return real(*given)

    monkeypatch.setattr(cached, "pretrain", watched)
    one = job(external=external_store, init="ssl:restoration", ssl_steps=7, ssl_batch_size=4)
    assert run_cell(one, go_on).status == "finished"
    store = Store.open(one.store)
    assert {fingerprint for fingerprint, _ in reads} == {store.fingerprint} != {external_store.fingerprint}
    assert set.union(*(rows for _, rows in reads)) == set(store.rows_of(one.split.train).tolist())
    data = tracking.client.get_run(one.run_id).data
    assert data.tags["ssl_steps"] == "7" and data.tags["ssl_reused"] == "false"
    assert {"ssl_key", "ssl_loss"} <= data.tags.keys()
    assert data.metrics["time/ssl_s"] == float(data.tags["ssl_seconds"]) > 0
    assert run_cell(job(init="ssl:restoration", ssl_steps=7, ssl_batch_size=4, dice_weight=0), go_on).value >= 0
    assert len(reads) == 7  # the other arm has found it
    rows = reading.read(tracking.client, tracking.runs(), {"key": one.cell}, {"key": ()}).runs
    assert rows["pretraining_steps"].tolist() == [7]
    assert rows["pretraining_minutes"].iat[0] == pytest.approx(data.metrics["time/ssl_s"] / 60)


def test_an_external_cohort_is_scored_beside_the_test_cases_and_leaves_them_as_they_are(
    job: Callable[..., Job], tracking: Tracking, external_store: Store
) -> None:
    plain, one = job(), job(external=external_store)
    assert run_cell(plain, go_on).status == run_cell(one, go_on).status == "finished"
    tested = [tracking.artifact(run.run_id, "cases.parquet") for run in (plain, one)]
    assert tested[0] == tested[1]
    run = tracking.client.get_run(one.run_id)
    cases = cases_of(tracking, run, one.scorings[1])
    assert list(cases["case"]) == external_store.cases  # each once
    assert list(cases.columns) == list(cases_of(tracking, run, one.scorings[0]).columns)
    assert cases["slices"].sum() == len(external_store.index)
    assert run.data.metrics["external/dice_liver"] == pytest.approx(cases["dice_liver"].mean())
    contexts = {source.tags[0].value: source.dataset for source in run.inputs.dataset_inputs}
    assert contexts.keys() == {"cohort", "training", "validation", "testing", "external"}
    assert contexts["cohort"].digest == Store.open(one.store).fingerprint
    assert contexts["external"].digest == external_store.fingerprint
    assert all(dataset.name.startswith("phantom-") for dataset in contexts.values())
    assert run.data.tags["external_cohort"] == "theirs"
    assert run.data.tags["external_fingerprint"] == external_store.fingerprint
    drawn = drawings(tracking, one.run_id, one.scorings[1].folder)
    assert [Path(name).name.partition("_case_")[0] for name in drawn] == ["best", "worst"]

    before = tracking.client.get_run(plain.run_id)
    assert not any(name.startswith("external/") for name in before.data.metrics)
    assert "external_cohort" not in before.data.tags


def test_a_trained_cell_is_scored_from_its_weights_with_the_same_result(
    job: Callable[..., Job], tracking: Tracking, external_store: Store
) -> None:
    """Later, on its own test cases or on another cohort: the same bytes as at once."""
    whole, one = job(external=external_store), job()
    assert run_cell(whole, go_on).status == run_cell(one, go_on).status == "finished"
    later = [scoring_of("test", "key", Store.open(one.store), "ours", first=False), whole.scorings[1]]
    outcome = run_cell(replace(one, trained=True, scorings=tuple(later)), go_on)
    assert (outcome.status, outcome.reason) == ("scored", "")
    run = tracking.client.get_run(one.run_id)
    assert run.info.status == "FINISHED"
    for scoring in (*later, one.scorings[0]):
        path = f"{run.data.tags[scoring.tag]}/cases.parquet".removeprefix("./")
        twin = "cases.parquet" if scoring.kind == "test" else f"{whole.scorings[1].folder}/cases.parquet"
        assert tracking.artifact(one.run_id, path) == tracking.artifact(whole.run_id, twin)


def test_pictures_say_phantom_and_external_in_their_titles(
    job: Callable[..., Job], external_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    draw = pictures.overlay
    monkeypatch.setattr(pictures, "overlay", lambda *args: [titles.append(args[3]), draw(*args)][1])
    assert run_cell(job(external=external_store), go_on).status == "finished"
    assert all(re.match(r"(external )?phantom case \d+, z \d+: ", title) for title in titles), titles
    assert sum(title.startswith("external ") for title in titles) == 2


def test_two_workers_that_log_the_same_data_at_once_both_go_on(
    job: Callable[..., Job], tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow looks whether a data set is known and then adds it: another worker may be faster in between."""
    one, log_inputs = job(), MlflowClient.log_inputs
    refusals = [MlflowException("UNIQUE constraint failed: datasets.name")] * 3  # a worker each

    def refuse_once(*args: Any) -> None:
        if refusals:
            raise refusals.pop()
        log_inputs(*args)

    monkeypatch.setattr(MlflowClient, "log_inputs", refuse_once)
    assert run_cell(one, go_on).status == "finished"
    assert len(tracking.client.get_run(one.run_id).inputs.dataset_inputs) == 4


def test_a_pruned_cell_has_seen_no_test_case(
    job: Callable[..., Job], tracking: Tracking, external_store: Store
) -> None:
    one = job(external=external_store)
    outcome = run_cell(one, lambda epoch, metrics: False)
    run = tracking.client.get_run(one.run_id)
    assert outcome.status == "pruned"
    assert (run.info.status, run.data.tags["pruned"]) == ("FINISHED", "true")
    assert "key" not in tracking.finished()
    assert not any(name.startswith(("test/", "external/")) for name in run.data.metrics)


def test_table_1_of_the_paper() -> None:
    """Its first two rows, as they are printed there."""
    names = ("train/loss", "valid/loss", "valid/foreground_acc", "valid/pixel_acc")
    history = [dict(zip(names, row, strict=True)) for row in [(0.07, 0.036, 0.836, 0.95), (0.017, 0.024, 0.832, 0.975)]]
    table = table1([{**epoch, "valid/score": 0.5} for epoch in history])
    assert list(table.columns) == ["epoch", "train loss", "valid loss", "foreground_acc", "cust_foreground_acc"]
    assert table.to_numpy().tolist() == [[1, 0.07, 0.036, 0.836, 0.95], [2, 0.017, 0.024, 0.832, 0.975]]


def test_points_leave_out_what_is_undefined() -> None:
    found = points({"a": 0.0, "b": math.nan, "c": math.inf, "d": -1.5}, step=3)
    assert [(point.key, point.value, point.step) for point in found] == [("a", 0.0, 3), ("d", -1.5, 3)]


def test_one_batch_of_metrics_an_epoch(
    job: Callable[..., Job], tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    log_batch = MlflowClient.log_batch
    monkeypatch.setattr(
        MlflowClient,
        "log_batch",
        lambda self, *a, **kw: (calls.append(len(kw.get("metrics", ()))), log_batch(self, *a, **kw)),
    )
    one = job(epochs=3)
    calls.clear()
    assert run_cell(one, go_on).status == "finished"
    assert calls[:3] == [calls[0]] * 3  # three epochs, each at once
    assert len(calls) == 6  # what was learned, the test scores, the end


def test_a_leaking_and_an_honest_cell_are_scored_on_the_same_held_out_slices(
    job: Callable[..., Job], tracking: Tracking, phantom_store: Store, phantom_split: Split
) -> None:
    scoring = scoring_of("test", "key", phantom_store, "ours", first=True, held_out=True)
    rows = scored_rows(phantom_store, phantom_split, held_out=True)
    slices = phantom_store.index["case"].to_numpy()[rows]
    for unit in ("patient", "slice"):
        one = replace(job(split_unit=unit), scorings=(scoring,))
        outcome = run_cell(one, go_on)
        assert outcome.status == "finished", outcome.detail
        table = cases_of(tracking, tracking.client.get_run(one.run_id), scoring)
        assert table["slices"].tolist() == [np.count_nonzero(slices == case) for case in phantom_split.test]
        assert len(drawings(tracking, one.run_id, "test")) == 2
        assert len(drawings(tracking, one.run_id, "images")) >= 2  # watched slices of its own validation


def test_what_is_scored_where_nothing_leaks_has_the_key_that_it_had(phantom_store: Store) -> None:
    asked = {"run": "key", "kind": "test", "data": phantom_store.fingerprint, "registered": {}}
    whole, held_out = (scoring_of("test", "key", phantom_store, "ours", True, held_out=part) for part in (False, True))
    assert whole.key == digest({"format": 1, **asked})
    assert held_out.key != whole.key


def cases_of(tracking: Tracking, run: Run, scoring: Scoring) -> pd.DataFrame:
    path = reading.within(run.data.tags[scoring.tag], "cases.parquet")
    return pd.read_parquet(io.BytesIO(tracking.artifact(run.info.run_id, path)))
