"""Which runs keep their weights: what is in MLflow, what stays the same, and what is refused without them."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from litsexp.data.store import Store
from litsexp.evaluation.truths import NativeCohort
from litsexp.pipeline import run_study
from litsexp.plan import plan_study
from litsexp.spec.cohort import DataConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study import cells as cells_room
from litsexp.study.cells import run_cell
from litsexp.study.jobs import Job
from litsexp.study.keeping import NOT_KEPT, WEIGHTS, WEIGHTS_TAG
from litsexp.study.places import Places
from litsexp.study.scorings import native_scoring_of
from litsexp.study.tracking import Tracking

from .conftest import finish, go_on
from .models.registered import STUDY
from .test_search import SEARCH
from .test_session import ALL

DO = "delete the run in MLflow and run its study again with --keep-weights all, which trains it anew"


def files_of(tracking: Tracking, run_id: str) -> set[str]:
    return {file.path for file in tracking.client.list_artifacts(run_id)}


def native_cohort(store: Store, folder: Path) -> NativeCohort:
    cohort = DataConfig(cohort=str(store.directory.parents[1] / "ct"), size=store.size)
    return NativeCohort.of(cohort, folder, lambda _: nullcontext())


def test_without_weights_a_run_scores_the_same_bytes_everywhere(
    job: Callable[..., Job], tracking: Tracking, external_store: Store, phantom_store: Store, tmp_path: Path
) -> None:
    whole = native_scoring_of("key", native_cohort(phantom_store, tmp_path / "stores"), "ours")
    made = [job(external=external_store), job(external=external_store)]
    kept, bare = (replace(one, scorings=(*one.scorings, whole)) for one in made)
    bare = replace(bare, keep_weights=False)
    assert [run_cell(one, go_on).status for one in (kept, bare)] == ["finished"] * 2
    with_weights, without = (files_of(tracking, one.run_id) for one in (kept, bare))
    assert with_weights - without == {WEIGHTS} and {"run.json", "cases.parquet", "curves.parquet"} <= without
    for scoring in kept.scorings:
        table = f"{scoring.folder or '.'}/cases.parquet".removeprefix("./")
        assert tracking.artifact(kept.run_id, table) == tracking.artifact(bare.run_id, table), scoring.kind
    tags = [tracking.client.get_run(one.run_id).data.tags.get(WEIGHTS_TAG) for one in (kept, bare)]
    assert tags == [None, NOT_KEPT]
    assert {tracking.client.get_run(one.run_id).info.status for one in (kept, bare)} == {"FINISHED"}


def test_without_weights_a_scoring_that_fails_is_the_runs_failure(
    job: Callable[..., Job], tracking: Tracking, external_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could do it later: a finished run would lack it for good."""
    score = cells_room.score

    def external_fails(client: Any, one: Job, scoring: Any, *rest: Any) -> float:
        if scoring.kind == "external":
            raise OSError("no luck")
        return score(client, one, scoring, *rest)

    monkeypatch.setattr(cells_room, "score", external_fails)
    kept, bare = job(external=external_store), replace(job(external=external_store), keep_weights=False)
    assert [run_cell(one, go_on).status for one in (kept, bare)] == ["unscored", "failed"]
    assert [tracking.client.get_run(one.run_id).info.status for one in (kept, bare)] == ["FINISHED", "RUNNING"]


def test_the_choice_reaches_each_job_and_changes_neither_keys_nor_digest(bench: Any, study: Any) -> None:
    kept: dict[str, dict[str, bool]] = {"all": {}, "baseline": {}, "none": {}}

    def remember(choice: str, job: Job, _: object) -> None:
        kept[choice][job.cell.arm.name] = job.keep_weights

    sessions = []
    for choice in kept:
        bench.name, bench.keep_weights = choice, choice
        bench.executor.behave = partial(remember, choice)
        sessions.append(bench.run(study())[0])
    assert kept["all"] == {"baseline": True, "window=wide": True}
    assert kept["baseline"] == {"baseline": True, "window=wide": False}
    assert kept["none"] == {"baseline": False, "window=wide": False}
    assert len({(one.digest, *one.cells) for one in sessions}) == 1


@pytest.fixture
def bare(bench: Any) -> Any:
    """A bench whose runs are tagged as real ones are."""

    def tagged(job: Job, _: Any) -> Any:
        if job.trained or job.keep_weights:
            return None
        client = MlflowClient(job.tracking_uri)
        client.set_tag(job.run_id, WEIGHTS_TAG, NOT_KEPT)
        return finish(job, client, bench.places.root / "tmp")

    bench.executor.behave, bench.keep_weights = tagged, "none"
    return bench


def test_a_study_goes_on_with_another_choice_and_runs_nothing_again(bare: Any, study: Any) -> None:
    bare.run(study())
    bare.keep_weights = "all"
    _, plan = bare.run(study())
    assert plan == (4, 0) and bare.executor.ran == ALL


def test_a_run_that_is_deleted_in_mlflow_is_trained_anew_as_the_message_says(bare: Any, study: Any) -> None:
    bare.run(study())
    tracking = bare.tracking()
    gone = next(run for run in tracking.runs() if run.data.params.get("arm") == "baseline")
    tracking.client.delete_run(gone.info.run_id)
    bare.keep_weights = "all"
    _, plan = bare.run(study())
    assert plan == (3, 1)
    (again,) = [run for run in bare.tracking().runs() if run.data.tags.get("run_key") == gone.data.tags["run_key"]]
    assert WEIGHTS_TAG not in again.data.tags


def test_of_a_search_it_is_not_as_the_message_says(bare: Any, study: Any) -> None:
    bare.run(study(**SEARCH))
    for run in bare.tracking().runs():
        if "run_key" in run.data.tags:
            bare.tracking().client.delete_run(run.info.run_id)
    assert bare.run(study(**SEARCH))[1][1] == 0
    bare.name = "a-copy"
    assert bare.run(study(**SEARCH))[1] == (0, 3)


def test_a_scoring_that_needs_the_weights_is_refused_before_anything_is_trained_or_written(
    bare: Any, study: Any, external_store: Store, phantom_store: Store, tmp_path: Path
) -> None:
    session, _ = bare.run(study())
    bare.tracking().client.set_terminated(session.parent.run_id, "FINISHED")
    before = [(run.info.run_id, run.info.status) for run in bare.tracking().runs()]
    bare.native, bare.external = native_cohort(phantom_store, tmp_path / "stores"), external_store
    asked = study(external={"patients": 3, "seed": 9}, seeds=[0, 1])
    for more in (asked, study(external={"patients": 3, "seed": 9})):
        with pytest.raises(LitsexpError) as error:
            bare.run(more)
        said = str(error.value)
        assert said.startswith("run ") and "its weights were not kept (tag litsexp.weights)" in said
        assert "a scoring that it lacks (external, native) needs them" in said and DO in said and "\n" not in said
    assert bare.executor.ran == ALL and bare.executor.scored == []
    assert [(run.info.run_id, run.info.status) for run in bare.tracking().runs()] == before
    bare.scoring = False  # a report of the runs that there are
    with bare.open(study(external={"patients": 3, "seed": 9})) as opened:
        assert len(opened.results().external) == 0


def test_choices_that_cannot_be_followed_are_refused(study: Any) -> None:
    search = study(**SEARCH)
    said = (
        "--keep-weights: found baseline for a search, whose best run is known only when it ends; expected all or none"
    )
    for call in (
        lambda: run_study(search, keep_weights="baseline"),
        lambda: plan_study(search, Places.below(), "x", keep_weights="baseline"),
    ):
        with pytest.raises(LitsexpError, match=said):
            call()
    some: Any = "some"
    with pytest.raises(LitsexpError, match="--keep-weights: found some; expected one of all, baseline, none"):
        run_study(study(), keep_weights=some)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, schemas: Path, phantom_store: Store) -> tuple[Places, Places, Path]:
    """One study with all weights, and with none from worker processes; its file."""
    found = []
    root = tmp_path_factory.mktemp("keeping")
    data = {"cohort": str(phantom_store.directory.parents[1] / "ct"), "size": 32}
    study, file = StudyConfig.model_validate({**STUDY, "data": data}), root / "tiny.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "data": data}))
    for choice, executor in (("all", "inline"), ("none", "processes")):
        shutil.copytree(schemas, root / choice / "mlruns")
        places = Places.below(root / choice / "mlruns", stores=root / "data")
        workers = 1 if executor == "inline" else 2
        run_study(study, places, name="tiny", executor=executor, workers=workers, keep_weights=choice)
        found.append(places)
    return found[0], found[1], file


def runs_of(places: Places) -> dict[str, Any]:
    runs = Tracking(places.tracking_uri, "tiny", places.root / "artifacts").runs()
    return {run.data.tags["run_key"]: run for run in runs if "run_key" in run.data.tags}


def test_worker_processes_keep_none_where_none_is_asked_and_nothing_is_registered(
    ran: tuple[Places, Places, Path],
) -> None:
    kept, bare, _ = ran
    there, here = runs_of(kept), runs_of(bare)
    assert len(there) == 4 and there.keys() == here.keys()
    for key, run in there.items():
        folders = [Path(str(one.info.artifact_uri).removeprefix("file://")) for one in (run, here[key])]
        assert [(folder / WEIGHTS).is_file() for folder in folders] == [True, False]
        first, second = ((folder / "cases.parquet").read_bytes() for folder in folders)
        assert first == second
    assert len(MlflowClient(kept.tracking_uri).search_registered_models()) == 1
    assert MlflowClient(bare.tracking_uri).search_registered_models() == []


def test_what_needs_weights_says_in_one_line_that_there_are_none(
    ran: tuple[Places, Places, Path],
    litsexp: Callable[..., tuple[int, str, str]],
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    _, bare, file = ran
    some = next(iter(runs_of(bare).values())).info.run_id
    where = ("--mlruns", bare.root, "--stores", bare.stores)
    cohort = yaml.safe_load(file.read_text())["data"]["cohort"]
    labeled = (*where, "--data", cohort, "--out", tmp_path / "masks")
    for words in ((some,), (some, "--ensemble"), ("--best", file)):
        error = refused("predict", *words, *labeled)
        assert "its weights were not kept (tag litsexp.weights), and labeling volumes needs them" in error
        assert DO in error
    assert f"run {some} (" in refused("predict", some, *labeled)
    assert not (tmp_path / "masks").exists()
    for command in ("score-runs", "study"):
        error = refused(command, file, "--native", *where)
        assert "a scoring that it lacks (native) needs them" in error and DO in error
    code, _, error = litsexp("study", file, "--workers", 1, *where)  # finished, with another choice
    assert code == 0 and len(runs_of(bare)) == 4
    (line,) = [line for line in error.splitlines() if "not registered" in line]
    assert "registration needs them" in line and DO in line


def test_a_run_without_weights_is_trained_anew_with_them_once_it_is_deleted(
    ran: tuple[Places, Places, Path], litsexp: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    kept, bare, file = ran
    key, gone = next((key, run) for key, run in runs_of(bare).items() if run.data.params["arm"] == "baseline")
    MlflowClient(bare.tracking_uri).delete_run(gone.info.run_id)
    where = ("--mlruns", bare.root, "--stores", bare.stores)
    code, out, error = litsexp("study", file, "--workers", 1, "--keep-weights", "baseline", *where)
    assert code == 0 and "3 runs done before, 1 to train" in out, error
    again, same = (runs_of(places)[key].info.artifact_uri for places in (bare, kept))
    for name in (WEIGHTS, "cases.parquet"):
        first, second = (Path(str(uri).removeprefix("file://")) / name for uri in (again, same))
        assert first.read_bytes() == second.read_bytes()
