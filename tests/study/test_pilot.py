"""What of a study is there already, found without leaving a trace."""

from collections.abc import Callable
from pathlib import Path

import pytest

from litsexp.spec.study import StudyConfig
from litsexp.study.pilot import finished_cells
from litsexp.study.places import Places

from .conftest import Bench


def test_runs_of_fewer_seeds_are_a_pilot(bench: Bench, study: Callable[..., StudyConfig]) -> None:
    bench.run(study())
    done, results = finished_cells("tiny", study(seeds=(0, 1)), bench.store, bench.places)
    assert {(cell.arm.name, cell.fold, cell.seed) for cell in done} == {
        (arm, fold, 0) for arm in ("baseline", "window=wide") for fold in (0, 1)
    }
    assert results
    assert len(results.cases) == 2 * len(bench.store.cases)
    assert set(results.cases["seed"]) == {0}


def test_other_settings_and_other_names_are_none(bench: Bench, study: Callable[..., StudyConfig]) -> None:
    bench.run(study())
    before = len(bench.tracking().client.search_experiments())
    longer = study(run={**study().run.model_dump(), "epochs": 3})
    assert finished_cells("tiny", longer, bench.store, bench.places) == ([], None)
    assert finished_cells("other", study(), bench.store, bench.places) == ([], None)
    assert len(bench.tracking().client.search_experiments()) == before


def test_without_a_database_none_is_made(bench: Bench, study: Callable[..., StudyConfig], tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert finished_cells("tiny", study(), bench.store, Places.below(nowhere)) == ([], None)
    assert not nowhere.exists()


@pytest.mark.parametrize("uri", ["nonsense"])
def test_a_database_that_cannot_be_opened_is_named(
    bench: Bench, study: Callable[..., StudyConfig], tmp_path: Path, uri: str
) -> None:
    from litsexp.spec.errors import LitsexpError

    with pytest.raises(LitsexpError, match="--tracking-uri nonsense: MLflow does not answer"):
        finished_cells("tiny", study(), bench.store, Places.below(tmp_path, uri))
