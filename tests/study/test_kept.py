"""A study read back from its parent run alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.jobs import Outcome
from litsexp.study.kept import KeptStudy, find_study
from litsexp.study.scorings import scoring_of, scoring_tag
from litsexp.study.session import Session

from .conftest import Bench

Study = Callable[..., StudyConfig]


def concluded(bench: Bench, asked: StudyConfig, tmp_path: Path) -> Session:
    """The study run to its end, as the pipeline leaves it."""
    session, _ = bench.run(asked)
    folder = tmp_path / "written"
    folder.mkdir(exist_ok=True)
    session.tracking.conclude(session.parent, "done", {"verdict.wider": "supported"}, {"effect/wider": 0.1}, folder)
    return session


def kept(bench: Bench, words: str = "") -> KeptStudy:
    return find_study(words or str(bench.places.root), bench.places.root, None)


def test_all_that_a_comparison_needs_is_there_without_a_store(bench: Bench, study: Study, tmp_path: Path) -> None:
    session = concluded(bench, study(), tmp_path)
    found = kept(bench)
    assert found.study == study()
    assert (found.name, found.run_id) == (f"tiny-{session.digest[:8]}", session.parent.run_id)
    assert (found.planned, found.finished) == (4, 4)
    assert (found.phantom, found.fingerprint) == (True, bench.store.fingerprint)
    assert found.preregistered == {"wider": study().claims[0].digest}
    assert (found.rulings, found.effects) == ({"wider": "supported"}, {"wider": 0.1})
    assert found.facts["version.torch"]
    ours = session.results().cases
    columns = ["arm", "fold", "seed", "case", "dice_liver", "dice_tumor"]
    order = columns[:4]
    theirs = found.tables["test"][columns].sort_values(order, ignore_index=True)
    assert theirs.equals(ours[columns].sort_values(order, ignore_index=True))


def test_cells_of_an_earlier_study_count_and_those_of_others_do_not(bench: Bench, study: Study, tmp_path: Path) -> None:
    """More seeds: the first ones' runs hang below the earlier parent. The parent that ended last is meant."""
    first = concluded(bench, study(), tmp_path)
    both = concluded(bench, study(seeds=(0, 1)), tmp_path)
    found = kept(bench)
    assert found.run_id == both.parent.run_id
    assert set(found.tables["test"]["seed"]) == {0, 1}
    assert found.finished == 8
    earlier = kept(bench, f"{bench.places.root}:{first.parent.run_id}")
    assert set(earlier.tables["test"]["seed"]) == {0}
    bench.executor.ran.clear()
    fewer = concluded(bench, study(seeds=(1,)), tmp_path)
    assert bench.executor.ran == []  # not one run of its own
    found = kept(bench)
    assert (found.run_id, found.fingerprint, found.finished) == (fewer.parent.run_id, bench.store.fingerprint, 4)


def test_runs_whose_key_another_version_made_are_found_by_their_place(
    bench: Bench, study: Study, tmp_path: Path
) -> None:
    session = concluded(bench, study(), tmp_path)
    runs = [run for run in session.tracking.runs() if "run_key" in run.data.tags]
    for number, run in enumerate(runs):
        session.tracking.client.set_tag(run.info.run_id, "run_key", f"older{number}")
    assert kept(bench).finished == 4
    assert set(kept(bench).tables["test"]["arm"]) == {"baseline", "window=wide"}
    session.tracking.client.set_tag(runs[0].info.run_id, "scored.older", "test/older")
    with pytest.raises(LitsexpError, match="found 2 scorings of test cases, none of which this version"):
        kept(bench)


def test_training_cases_are_read_where_a_claim_asks_for_them(bench: Bench, study: Study, tmp_path: Path) -> None:
    claim = study().claims[0].model_dump() | {"metric": "gap:dice_tumor"}
    session = concluded(bench, study(claims=[claim]), tmp_path)
    found = kept(bench)
    assert len(found.tables["train"]) == len(session.results().train) > 0
    assert set(found.tables) == {"test", "train"}


def test_a_failed_run_is_missing(bench: Bench, study: Study, tmp_path: Path) -> None:
    bench.executor.behave = lambda job, _: Outcome("failed", reason="no") if job.cell.fold else None
    concluded(bench, study(), tmp_path)
    found = kept(bench)
    assert (found.planned, found.finished) == (4, 2)
    assert set(found.tables["test"]["fold"]) == {0}


def test_a_study_that_has_not_ended_and_a_search_are_refused(bench: Bench, study: Study, tmp_path: Path) -> None:
    session, _ = bench.run(study())
    with pytest.raises(LitsexpError, match=r"found no finished study in .*; expected a finished study"):
        kept(bench)
    with pytest.raises(LitsexpError, match=r"found a study that is RUNNING; expected a finished one"):
        kept(bench, f"{bench.places.root}:{session.parent.run_id}")
    concluded(bench, study(design="search", search={"trials": 1}, claims=()), tmp_path)
    with pytest.raises(LitsexpError, match=r"study\.yaml: found design: search"):
        kept(bench)


def test_a_study_file_that_this_version_cannot_read_is_told_in_one_line(
    bench: Bench, study: Study, tmp_path: Path
) -> None:
    session = concluded(bench, study(), tmp_path)
    text = "question: Does it help?\nrun: {wings: 2}\n"
    session.tracking.client.log_text(session.parent.run_id, text, "study.yaml")
    with pytest.raises(LitsexpError, match=r"study\.yaml: run\.wings: unknown key.*another version of litsexp") as told:
        kept(bench)
    assert "\n" not in str(told.value)


def test_the_tag_of_a_scoring_needs_no_store(bench: Bench) -> None:
    for held_out in (False, True):
        scoring = scoring_of("test", "key", bench.store, "ours", True, held_out)
        assert scoring_tag("test", "key", bench.store.fingerprint, held_out) == scoring.tag
