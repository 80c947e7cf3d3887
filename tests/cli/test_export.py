"""`litsexp export`: what it says, what it writes, and bad words refused in one line."""

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test in a folder of its own that holds three patients in ``ct``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("ct").mkdir()
    labels = np.zeros((32, 32, 4), np.uint8)
    labels[8:20, 8:20, 1:3] = 1
    labels[10:14, 10:14, 2] = 2
    for number in (5, 6, 7):
        hu = np.random.default_rng(number).integers(-100, 200, labels.shape).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, np.diag([0.5, 0.5, 2, 1])), Path("ct") / f"volume-{number}.nii.gz")
        nib.save(nib.Nifti1Image(labels, np.diag([0.5, 0.5, 2, 1])), Path("ct") / f"segmentation-{number}.nii.gz")


def test_the_papers_files_by_default(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    code, out, error = litsexp("export", "ct", "--out", "jpegs", "--processes", "1")
    assert (code, error) == (0, "")
    assert out.splitlines()[-1] == "3 patients, 6 images (train 1, valid 1, test 1 patients): jpegs"
    image = Image.open("jpegs/images/volume-7_slice_2.jpg")
    assert (image.mode, image.size) == ("RGB", (128, 128))
    assert np.unique(np.asarray(Image.open("jpegs/masks/volume-7_slice_2_mask.png"))).tolist() == [0, 1, 2]
    assert sorted(pd.read_csv("jpegs/split.csv")["split"]) == ["test", "train", "valid"]


def test_the_store_is_that_of_prepare_and_is_built_once(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    assert litsexp("export", "ct", "--out", "a", "--size", "48", "--stores", "kept", "--processes", "1")[0] == 0
    (built,) = (path.parent for path in Path("kept/stores").glob("*/store.json"))
    before = (built / "hu.npy").stat().st_mtime_ns
    assert litsexp("export", "ct", "--out", "b", "--size", "48", "--stores", "kept", "--processes", "1")[0] == 0
    assert (built / "hu.npy").stat().st_mtime_ns == before
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b", "ct", "kept"]
    code, out, _ = litsexp("prepare", "ct", "--size", "32", "--stores", "kept", "--processes", "1")
    assert code == 0 and "3 cases, 6 slices of 32 px: kept/stores/" in out


def test_every_option_reaches_the_files(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    words = "--format jpeg --quality 90 --window notebook --size 32 --slices all --subsampling 4:2:0 --seed 3"
    assert litsexp("export", "ct", "--out", "a", "--processes", "1", *words.split())[0] == 0
    assert litsexp("export", "ct", "--out", "b", "--processes", "1", "--size", "32", "--slices", "all")[0] == 0
    a, b = (Path(folder, "images", "volume-5_slice_0.jpg") for folder in "ab")
    assert a.stat().st_size < b.stat().st_size / 2
    assert len(list(Path("a/images").iterdir())) == 12
    code, out, _ = litsexp(
        *("export", "ct", "--out", "c", "--processes", "1", "--format", "png", "--window", "wide", "--no-split")
    )
    assert code == 0 and "3 patients, 6 images: c" in out
    assert Image.open("c/images/volume-5_slice_1.png").mode == "L"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: found nothing; expected a folder"),
        (["ct", "--quality", "101"], "--quality: found 101; expected at most 100"),
        (["ct", "--size", "4"], "--size: found 4; expected at least 16"),
        (["ct", "--format", "gif"], "--format: found 'gif'; expected 'jpeg' or 'png'"),
        (["ct", "--format", "png", "--quality", "90"], "--format: found png, which loses nothing, with quality 90"),
        (["ct", "--window", "bone"], "--window: found 'bone'; expected one of liver, custom, wide, notebook"),
        (["ct", "--slices", "some"], "--slices: found 'some'; expected liver, all, or"),
        (["ct", "--subsampling", "4:1:1"], "--subsampling: found '4:1:1'"),
        (["ct", "--seed", "-1"], "--seed: found -1; expected at least 0"),
    ],
)
def test_bad_words_are_refused_in_one_line_and_leave_nothing(
    litsexp: Callable[..., tuple[int, str, str]], words: list[str], said: str
) -> None:
    code, _, error = litsexp("export", *words, "--out", "out")
    assert code == 2 and error.startswith(f"error: {said}") and error.count("\n") == 1, error
    assert [path.name for path in Path().iterdir()] == ["ct"]


def test_a_folder_in_use_is_refused(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    code, _, error = litsexp("export", "ct", "--out", "ct")
    assert code == 2 and "expected a new or empty folder" in error
    assert not Path("data").exists()  # refused before the store is built


def test_an_interruption_is_one_line_and_leaves_the_store_alone(
    litsexp: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("litsexp.export._write_case", interrupted)
    code, _, error = litsexp("export", "ct", "--out", "out", "--size", "32", "--processes", "1")
    assert code == 130 and error == "interrupted; the cases that are stored are kept, and the same command goes on\n"
    assert sorted(path.name for path in Path().iterdir()) == ["ct", "data"]
    assert len(list(Path("data/stores").glob("*/store.json"))) == 1


def test_help_shows_an_example(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = litsexp("export", "--help")
    assert code == 0
    assert re.search(r"Example:\s+litsexp export\b", out)
