"""The benchmark times what it says: the same work on the same files. No test looks at seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litsexp.data.store import prepare
from litsexp.spec.cohort import DataConfig

from . import bench_prepare as bench


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SLICES", 4)
    monkeypatch.setattr(bench, "ENDINGS", (".nii.gz",))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return bench._write_case(tmp_path / "one", *bench.make_volume(), ".nii.gz")


def test_the_floor_and_litsexp_agree_on_the_means(pair: tuple[Path, Path], tmp_path: Path) -> None:
    store = prepare(tmp_path / "one", tmp_path / "stores", DataConfig(size=128, slices="all"), 1)
    for means in (bench.block_means, bench.tuned_means):
        found: list[np.ndarray] = []
        bench.floor_way(*pair, lambda plane, means=means, found=found: found.append(means(plane)))
        assert len(found) == 8  # planes of both files
        # the case is stored LPS, so that a plane lies as the picture does
        np.testing.assert_array_equal(np.rint(found[:4]), store.hu)


def test_the_notebooks_way_writes_every_slice(pair: tuple[Path, Path], tmp_path: Path) -> None:
    bench.notebook_way(*pair, tmp_path / "jpeg")
    assert len(list((tmp_path / "jpeg").iterdir())) == 8
    image = Image.open(tmp_path / "jpeg" / "slice_2.jpg")
    assert (image.size, image.mode) == ((512, 512), "RGB")
    assert set(np.unique(Image.open(tmp_path / "jpeg" / "slice_2_mask.png"))) == {0, 1, 2}


def test_the_script_prints_a_table_or_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--json"], []):
        monkeypatch.setattr("sys.argv", ["bench_prepare.py", "--rounds", "1", "--seconds", "0.01", *words])
        bench.main()
        out = capsys.readouterr().out
        if words:
            (speed,) = json.loads(out)
            assert speed["ending"] == ".nii.gz" and speed["cases"] >= 2
            assert speed["over_notebook"] == pytest.approx(speed["notebook_s"] / speed["litsexp_s"])
            assert speed["over_floor"] == pytest.approx(speed["floor_s"] / speed["litsexp_s"])
        else:
            assert ".nii.gz" in out and "share of the floor" in out
