"""Results read back: from one file a run and table, as from MLflow's metrics before; and how often MLflow is asked."""

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from litsexp import pipeline
from litsexp.spec.design import cells
from litsexp.spec.errors import LitsexpError
from litsexp.study import reading
from litsexp.study.cells import run_cell
from litsexp.study.epochs import CURVES
from litsexp.study.jobs import CURVES_TAG, Job
from litsexp.study.tracking import Tracking

from .conftest import Instant, Quiet, finish, go_on

EVERY_RUN = ("", "attributes.status = 'FINISHED'")  # filters without a bound: they fetch a study whole


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """What MLflow is asked for, by call; a search by its filter."""
    seen: list[str] = []

    def watch(name: str, word: Callable[..., str]) -> None:
        real = getattr(MlflowClient, name)

        def watched(self: MlflowClient, *args: Any, **options: Any) -> Any:
            seen.append(word(*args, **options))
            return real(self, *args, **options)

        monkeypatch.setattr(MlflowClient, name, watched)

    watch("search_runs", lambda experiments, asked="", **_: f"search {asked}")
    watch("get_metric_history", lambda *_: "history")
    watch("download_artifacts", lambda *_: "download")

    @contextmanager
    def watching() -> Iterator[Counter[str]]:
        seen.clear()
        found: Counter[str] = Counter()
        yield found
        found.update(seen)

    return watching


def test_a_run_writes_its_curves_as_mlflow_has_them(job: Callable[..., Job], tracking: Tracking) -> None:
    one = job(epochs=3)
    assert run_cell(one, go_on).status == "finished"
    run = tracking.client.get_run(one.run_id)
    assert run.data.tags[CURVES_TAG] == CURVES
    known = {"key": one.cell}
    read = reading.read(tracking.client, [run], known, {"key": ()}).curves
    older = without(run, CURVES_TAG)
    pd.testing.assert_frame_equal(read, reading.read(tracking.client, [older], known, {"key": ()}).curves)
    assert list(read["epoch"].unique()) == [0, 1, 2] and {"train/loss", "valid/dice_liver"} <= set(read["metric"])
    assert (read["images"] == (read["epoch"] + 1) * 4).all()


def test_a_file_and_older_metrics_give_one_table(job: Callable[..., Job], tracking: Tracking) -> None:
    one = job()
    run_cell(one, go_on)
    run = tracking.client.get_run(one.run_id)
    known = {"a": one.cell, "b": one.cell, "c": one.cell}
    runs = [tagged(run, run_key="a"), without(tagged(run, run_key="b"), CURVES_TAG), tagged(run, run_key="c")]
    both = reading.read(tracking.client, runs, known, dict.fromkeys(known, ())).curves
    alone = reading.read(tracking.client, runs[:1], {"a": one.cell}, {"a": ()}).curves
    pd.testing.assert_frame_equal(both, pd.concat([alone] * 3, ignore_index=True))


def test_tables_of_several_versions_stand_below_each_other_in_the_cells_order(bench: Any, study: Any) -> None:
    """A column that came later is undefined in the older runs."""
    newer = iter((False, True, True, False))

    def behave(job: Job, _: Any) -> Any:
        outcome = finish(job, MlflowClient(job.tracking_uri), bench.places.root / "tmp")
        if next(newer):
            path = folder_of(bench.tracking().client.get_run(job.run_id)) / "cases.parquet"
            pd.read_parquet(path).assign(dice_new=0.7).to_parquet(path, index=False)
        return outcome

    bench.executor.behave = behave
    session, _ = bench.run(study())
    cases = session.results().cases
    order = [(cell.arm.name, cell.fold, cell.seed) for cell in session.cells.values()]
    assert list(dict.fromkeys(zip(cases["arm"], cases["fold"], cases["seed"], strict=True))) == order
    assert list(cases.groupby(["arm", "fold"], sort=False)["dice_new"].count() > 0) == [False, True, True, False]
    assert list(cases.columns[:4]) == ["arm", "fold", "seed", "case"] and cases["case"].dtype.kind == "i"


def test_what_is_not_on_the_disk_is_asked_of_mlflow_several_at_a_time(bench: Any, study: Any, asked: Any) -> None:
    session, _ = bench.run(study())
    here = session.results()
    runs = [elsewhere(run) for run in session.tracking.runs()]
    with asked() as found:
        there = session.results(runs)
    pd.testing.assert_frame_equal(here.cases, there.cases)
    pd.testing.assert_frame_equal(here.curves, there.curves)
    assert found["download"] == len(session.cells)


def test_a_servers_file_is_one_request(bench: Any, study: Any, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = bench.run(study())
    here, runs = session.results(), session.tracking.runs()
    folders = {f"mlflow-artifacts:/{run.info.run_id}": run.info.artifact_uri for run in runs}
    real = reading.get_artifact_repository
    monkeypatch.setattr(reading, "get_artifact_repository", lambda uri, *_: real(folders[uri]))
    with asked() as found:
        there = session.results([elsewhere(run) for run in runs])
    pd.testing.assert_frame_equal(here.cases, there.cases)
    assert found["download"] == 0


def test_a_tag_that_leaves_the_runs_folder_is_not_followed(bench: Any, study: Any) -> None:
    session, _ = bench.run(study())
    run = next(run for run in session.tracking.runs() if "run_key" in run.data.tags)
    (folder_of(run).parent / "cases.parquet").write_bytes(b"of another run")
    for path in ("../cases.parquet", str(folder_of(run).parent / "cases.parquet")):
        with pytest.raises(LitsexpError, match="is not below the run's own"):
            reading.artifact(session.tracking.client, run, path)


def test_an_artifact_that_is_gone_is_named(bench: Any, study: Any) -> None:
    session, _ = bench.run(study())
    run = next(run for run in session.tracking.runs() if "run_key" in run.data.tags)
    (folder_of(run) / "cases.parquet").unlink()
    with pytest.raises(LitsexpError, match=f"run {run.info.run_id}: its artifact cases.parquet cannot be read"):
        session.results()


def test_a_table_that_was_cut_is_named(bench: Any, study: Any) -> None:
    """By a full disk, or by a copy of mlruns that was stopped."""
    session, _ = bench.run(study())
    run = next(run for run in session.tracking.runs() if "run_key" in run.data.tags)
    table = folder_of(run) / "cases.parquet"
    table.write_bytes(table.read_bytes()[:-10])
    with pytest.raises(LitsexpError, match=f"run {run.info.run_id}: its artifact cases.parquet is no table") as caught:
        session.results()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seeds", [[0], list(range(6))])
def test_how_often_mlflow_is_asked_does_not_grow_with_the_cells(
    bench: Any, study: Any, asked: Any, monkeypatch: pytest.MonkeyPatch, seeds: list[int]
) -> None:
    monkeypatch.setattr(pipeline, "shown_side_by_side", lambda *_: [])  # of a few runs, whichever kept their pictures
    monkeypatch.setattr(pipeline, "register_best", lambda *_: None)
    bench.executor = Instant(bench.places, with_curves(bench))
    bench.run(study(seeds=seeds))
    with contextlib.ExitStack() as left:
        with asked() as opening:
            session = left.enter_context(bench.open(study(seeds=seeds)))
            session.run(bench.executor, Quiet())
        with asked() as concluding:
            pipeline.conclude(session)
    assert len(session.cells) == len(cells(study(seeds=seeds))) == len(bench.executor.ran)
    assert sum(opening[f"search {every}"] for every in EVERY_RUN) == 1, opening
    assert sum(opening.values()) <= 6, opening
    assert concluding == {"search ": 1}


def test_what_ends_after_a_study_was_opened_is_found_without_asking_for_all(bench: Any, study: Any, asked: Any) -> None:
    with bench.open(study()) as session:
        (key, cell), *_ = session.cells.items()
        run_id = session.tracking.start_cell(cell, key, session.parent, {})
        assert session.tracking.finished() == {}
        session.tracking.client.log_metric(run_id, "best/score", 0.5)
        session.tracking.end(run_id, "FINISHED")
        assert list(session.tracking.finished()) == [key]
        with asked() as found:
            assert list(session.tracking.finished()) == [key]
    assert not any(found[f"search {every}"] for every in EVERY_RUN)


def test_after_a_study_ran_its_runs_are_asked_anew(bench: Any, study: Any, external_store: Any) -> None:
    """Scorings of older runs are tags that no search by their ends would find."""
    bench.run(study())
    bench.external = external_store
    with bench.open(study(external={"seed": 9})) as session:
        session.run(bench.executor, Quiet(), train=False)
        assert len(bench.executor.scored) == 4
        session.run(bench.executor, Quiet(), train=False)
        assert len(bench.executor.scored) == 4


def with_curves(bench: Any) -> Callable[..., Any]:
    """As ``finish``, and with a file of curves."""

    def behave(job: Job, _: Any) -> Any:
        client = MlflowClient(job.tracking_uri)
        outcome = finish(job, client, bench.places.root / "tmp")
        curve = reading.curves(client, client.get_run(job.run_id))
        curve.to_parquet(folder_of(client.get_run(job.run_id)) / CURVES, index=False)
        client.set_tag(job.run_id, CURVES_TAG, CURVES)
        return outcome

    return behave


def folder_of(run: Run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def tagged(run: Run, **tags: str) -> Run:
    """The same run with other tags."""
    other = copy.deepcopy(run)
    other.data.tags.update(tags)
    return other


def without(run: Run, tag: str) -> Run:
    other = copy.deepcopy(run)
    del other.data.tags[tag]
    return other


def elsewhere(run: Run) -> Run:
    """The same run, as if a server kept its artifacts."""
    other = copy.deepcopy(run)
    other.info._artifact_uri = f"mlflow-artifacts:/{run.info.run_id}"
    return other
