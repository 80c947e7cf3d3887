"""What is prepared in MLflow for its UI: runs that its search finds, what a user changed left alone, nothing twice."""

import base64
import json
import zlib
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from litsexp.spec.design import Cell, cells
from litsexp.study import views
from litsexp.study.names import short_name
from litsexp.study.views import ARMS, ARMS_TAG, PAIRED, SLICES, TAG, address, prepare, prepare_missing


def own_runs(tracking: Any) -> list[Any]:
    return [run for run in tracking.runs() if "run_key" in run.data.tags]


def prepared(tracking: Any) -> dict[str, str]:
    tags: dict[str, str] = tracking.client.get_experiment(tracking.experiment_id).tags
    return {tag: value for tag, value in tags.items() if tag.startswith(TAG)}


def state_of(tracking: Any, view: str) -> dict[str, Any]:
    """Read as the UI reads it: an envelope of JSON with a deflated state."""
    envelope = json.loads(prepared(tracking)[TAG + view])
    assert isinstance(envelope["name"], str) and isinstance(envelope["createdAt"], int)
    header, _, packed = envelope["state"].partition(";")
    assert header == "deflate"
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


@pytest.fixture
def concluded(bench: Any, study: Any) -> Any:
    """A study of two arms and two folds; fold 0's runs have two watched slices, fold 1's another."""
    bench.run(study())
    tracking = bench.tracking()
    for run in own_runs(tracking):
        for key, step in [("valid case 7", 0), ("valid case 7", 1), ("valid case 3", 0)]:
            name = key if run.data.params["fold"] == "0" else "valid case 99"
            tracking.client.log_image(run.info.run_id, np.zeros((4, 4, 3), np.uint8), key=name, step=step)
        score = 0.1 + int(run.data.params["fold"]) / 10
        tracking.client.log_metric(run.info.run_id, "test/dice_tumor", score)
        tracking.client.log_metric(run.info.run_id, "test/dice_liver", 0.9)
    prepare(tracking.client, tracking.experiment_id, own_runs(tracking))
    return tracking


def test_its_search_finds_the_studys_cells_and_neither_parent_nor_another_study(
    concluded: Any, bench: Any, study: Any
) -> None:
    mine = {run.info.run_id for run in own_runs(concluded)}
    bench.run(study(run={"init": "scratch", "window": "liver", "augment": "none", "epochs": 1, "steps_per_epoch": 2}))
    assert len(concluded.runs()) == 2 * 5
    state = state_of(concluded, ARMS)
    found = concluded.client.search_runs([concluded.experiment_id], state["searchFilter"])
    assert {run.info.run_id for run in found} == mine
    first = concluded.client.search_runs([concluded.experiment_id], state_of(concluded, SLICES)["searchFilter"])
    assert [(run.data.params["arm"], run.data.params["fold"]) for run in first].count(("window=wide", "0")) == 1
    assert len(first) == 2


def test_arms_are_groups_and_what_there_is_of_scores_is_a_column(concluded: Any) -> None:
    state = state_of(concluded, ARMS)
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "arm"}]
    scores = ["metrics.`test/dice_tumor`", "metrics.`test/dice_liver`", "metrics.`time/fit_s`"]
    assert state["selectedColumns"] == ["params.`arm`", "params.`fold`", "params.`seed`", *scores]
    assert set(state["columnWidths"]) == set(state["columnOrder"])
    section, *folded = state["compareRunSections"]
    assert section["name"] == "phantom · arms"  # where no run's name is in sight
    assert {card["metricSectionId"] for card in state["compareRunCharts"]} == {section["uuid"]}
    assert not any(each["display"] for each in folded)


def test_an_arms_runs_are_the_points_of_one_line(concluded: Any) -> None:
    found = {}
    for run in own_runs(concluded):
        (point,) = concluded.client.get_metric_history(run.info.run_id, PAIRED)
        found[run.data.params["arm"], point.step] = point.value
    wanted = {(arm, 10 * fold): 0.1 + fold / 10 for arm in ("baseline", "window=wide") for fold in (0, 1)}
    assert found == pytest.approx(wanted)
    assert state_of(concluded, ARMS)["compareRunCharts"][0]["metricKey"] == PAIRED


def test_slices_are_those_of_the_first_fold_at_their_last_step(concluded: Any) -> None:
    cards = state_of(concluded, SLICES)["compareRunCharts"]
    assert [(card["imageKeys"], card["step"]) for card in cards] == [(["valid case 3"], 0), (["valid case 7"], 1)]


def test_again_it_writes_nothing(concluded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    monkeypatch.setattr(concluded.client, "set_experiment_tag", lambda *words: written.append(words))
    monkeypatch.setattr(concluded.client, "log_metric", lambda *words, **_: written.append(words))
    prepare(concluded.client, concluded.experiment_id, own_runs(concluded))
    assert written == []


def test_what_a_user_saved_stays(concluded: Any) -> None:
    """A view of their own, and a changed one of these; one of these as an older version wrote it is renewed."""
    client, experiment = concluded.client, concluded.experiment_id
    before = prepared(concluded)
    changed = json.dumps({**json.loads(before[TAG + ARMS]), "updatedAt": 1, "state": "{}"})
    client.set_experiment_tag(experiment, TAG + "mine", "whatever")
    client.set_experiment_tag(experiment, TAG + ARMS, changed)
    client.set_experiment_tag(experiment, TAG + SLICES, "{broken")
    prepare(client, experiment, own_runs(concluded))
    assert prepared(concluded) == {TAG + "mine": "whatever", TAG + ARMS: changed, TAG + SLICES: before[TAG + SLICES]}


def test_of_older_studies_the_newest_of_a_name_gets_its_view_and_other_experiments_none(bench: Any, study: Any) -> None:
    bench.run(study())
    newest, _ = bench.run(study(factors={"augment": ["flips"]}, claims=[]))
    tracking = bench.tracking()
    other = tracking.client.create_experiment("somebody's")
    tracking.client.create_run(other)
    prepare_missing(tracking.client)
    assert set(tracking.client.get_experiment(other).tags) == set()
    assert json.loads(tracking.client.get_experiment(tracking.experiment_id).tags[ARMS_TAG]) == ["augment=flips"]
    assert newest.digest in state_of(tracking, ARMS)["searchFilter"]


def test_a_search_is_a_list_by_score(bench: Any, study: Any) -> None:
    """Every sample is an arm of one run."""
    search = {"design": "search", "factors": {"window": ["liver", "wide"]}, "search": {"trials": 3, "lr": [1e-4, 1e-2]}}
    bench.run(study(**search, claims=[]))
    tracking = bench.tracking()
    prepare(tracking.client, tracking.experiment_id, own_runs(tracking))
    state = state_of(tracking, ARMS)
    assert (state["groupBy"], state["orderByKey"], state["orderByAsc"]) == (None, "metrics.`best/score`", False)


def test_a_run_that_was_killed_before_it_said_which_it_is_is_left_out(concluded: Any) -> None:
    before = prepared(concluded)
    killed = concluded.client.create_run(concluded.experiment_id, tags={"run_key": "half", "study_digest": "d"})
    concluded.end(killed.info.run_id, "KILLED")
    runs = own_runs(concluded)
    assert len(runs) == 5 and not runs[-1].data.params
    prepare(concluded.client, concluded.experiment_id, runs)
    assert prepared(concluded) == before


def test_a_server_that_takes_no_tags_ends_no_study(
    concluded: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise MlflowException("tags are too long\nhere")

    concluded.client.delete_experiment_tag(concluded.experiment_id, TAG + ARMS)
    monkeypatch.setattr(concluded.client, "set_experiment_tag", refuse)
    prepare(concluded.client, concluded.experiment_id, own_runs(concluded))
    assert caplog.messages == ["no view is prepared in the MLflow UI: tags are too long"]


def test_the_tags_fit_a_database_of_mlflow(concluded: Any) -> None:
    assert max(map(len, prepared(concluded).values())) <= views.MAX_TAG


def test_an_address_names_experiment_view_and_whether_it_is_the_table() -> None:
    begin = "http://there:1/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=litsexp-"
    assert address("http://there:1/", "7") == begin + "arms&compareRunsMode=CHART"
    assert address("http://there:1", "7", table=True) == begin + "arms"
    assert address("http://there:1", "7", SLICES) == begin + "slices&compareRunsMode=CHART"


def test_names_sort_as_pairs_of_runs(study: Any) -> None:
    found = [Cell(cell.arm, cell.fold, seed) for seed in (10, 2) for cell in cells(study())]
    names = sorted(map(short_name, found))
    assert names[:4] == ["f0 s02 · baseline", "f0 s02 · window=wide", "f0 s10 · baseline", "f0 s10 · window=wide"]
    assert all(len(f"phantom · {name.split(' · ')[0]}") <= 20 for name in names)  # what a narrow list shows
