"""The exported data set: names, gray values, masks and split as they are described, and all of it or nothing."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from litsexp.data.ct.layout import PHANTOM_FILE
from litsexp.data.splits import make_splits
from litsexp.export import ExportConfig, encode, export
from litsexp.spec.cohort import StoreConfig
from litsexp.training.inputs import channels
from litsexp.training.jpeg import pictures

from .conftest import ALL, JPEG, SPLIT, files, pixels, run, stored, write_case


def test_names_sizes_and_modes_are_the_papers(few: Path, tmp_path: Path) -> None:
    done = run(few, tmp_path / "out", data=StoreConfig(size=128))
    assert done == make_splits({0: True, 1: False, 2: True}, SPLIT)[0]
    stems = [f"volume-{case}_slice_{z}" for case in (0, 1, 2) for z in (1, 2, 3)]
    assert set(files(tmp_path / "out")) == {
        *(f"images/{stem}.jpg" for stem in stems),
        *(f"masks/{stem}_mask.png" for stem in stems),
        *("split.csv", "slices.csv", "export.json", "README.txt"),
    }
    image = Image.open(tmp_path / "out" / "images" / "volume-2_slice_3.jpg")
    mask = Image.open(tmp_path / "out" / "masks" / "volume-2_slice_3_mask.png")
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 128))
    assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (128, 128))


@pytest.mark.parametrize("window", ["liver", "custom", "wide", "notebook"])
def test_images_and_masks_are_what_a_study_trains_on(cohort: Path, tmp_path: Path, window: str) -> None:
    store = stored(cohort, ALL)
    export(store, tmp_path / "out", ExportConfig(format="png", window=window), processes=1)
    slices = pd.read_csv(tmp_path / "out" / "slices.csv")
    shared = ["case", "z", "liver_pixels", "tumor_pixels", "spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]
    pd.testing.assert_frame_equal(slices[shared], store.index[shared])
    hu = torch.from_numpy(np.array(store.hu)).float()[:, None]
    expected = np.rint(255 * channels(hu, window).numpy())
    for row, (file, mask) in enumerate(zip(slices["file"], slices["mask"], strict=True)):
        found = pixels(tmp_path / "out" / file)
        assert found.ndim == (3 if window == "notebook" else 2)
        for channel in range(3):  # a gray image has what training shows thrice
            np.testing.assert_array_equal(found[..., channel] if found.ndim == 3 else found, expected[row, channel])
        np.testing.assert_array_equal(pixels(tmp_path / "out" / mask), store.labels[row])


@pytest.mark.parametrize(
    ("window", "hu", "gray_values"),
    [
        ("liver", [-1000, -45, -15, 30, 75, 105, 900], [0, 0, 51, 128, 204, 255, 255]),  # W150 L30: -45 .. 105 HU
        ("custom", [-1000, -40, 0, 60, 110, 160, 900], [0, 0, 51, 128, 191, 255, 255]),  # W200 L60: -40 .. 160 HU
        ("wide", [-1000, -160, -80, 40, 160, 240, 900], [0, 0, 51, 128, 204, 255, 255]),  # W400 L40: -160 .. 240 HU
    ],
)
def test_gray_values_by_hand(few: Path, tmp_path: Path, window: str, hu: list[int], gray_values: list[int]) -> None:
    volume = np.full((32, 32, 6), 40, np.int16)
    volume[:7, 31, 2] = hu  # the front row, from the patient's left: the picture's first row, from its right
    labels = np.zeros((32, 32, 6), np.uint8)
    labels[10:20, 10:20, 2] = 1
    labels[31, 31, 2] = 2  # the patient's right and front
    write_case(few, 2, volume, labels)
    run(few, tmp_path / "out", ExportConfig(format="png", window=window))
    assert pixels(tmp_path / "out" / "images" / "volume-2_slice_2.png")[0, ::-1][:7].tolist() == gray_values
    mask = pixels(tmp_path / "out" / "masks" / "volume-2_slice_2_mask.png")
    assert np.unique(mask).tolist() == [0, 1, 2]
    assert np.argwhere(mask == 2).tolist() == [[0, 0]]


def test_quality_100_keeps_the_channels_and_subsampling_mixes_them() -> None:
    y, x = np.mgrid[:64, :64]
    hu = (40 + 60 * np.sin(x / 4) * np.cos(y / 6) + np.random.default_rng(0).normal(0, 10, (64, 64))).astype(np.int16)
    picture = pictures(hu[None], "notebook")[0]

    def worst(**settings: object) -> float:
        decoded = np.asarray(Image.open(io.BytesIO(encode(picture, ExportConfig(**settings)))), np.float32)
        return float(np.abs(decoded - picture).max())

    assert worst() <= 4
    assert worst(format="png") == 0
    assert worst(quality=90) > worst()
    assert worst(subsampling="4:2:0") > 5 * worst()
    gray = ExportConfig(window="liver", subsampling="4:2:0")
    liver = pictures(hu[None], "liver")[0]
    assert encode(liver, gray) == encode(liver, ExportConfig(window="liver"))  # gray has no color to subsample


def test_quality_and_subsampling_reach_the_files(few: Path, tmp_path: Path) -> None:
    run(few, tmp_path / "paper")
    run(few, tmp_path / "notebook", ExportConfig(quality=90, subsampling="4:2:0"))
    paper, notebook = (Image.open(tmp_path / name / "images/volume-1_slice_2.jpg") for name in ("paper", "notebook"))
    assert (get_sampling(paper), get_sampling(notebook)) == (0, 2)  # Pillow's numbers for 4:4:4 and 4:2:0
    assert set(paper.quantization[0]) == {1}  # nothing is quantised away but the rounding
    assert max(notebook.quantization[0]) > 1


def test_the_split_has_every_patient_once(cohort: Path, tmp_path: Path) -> None:
    done = run(cohort, tmp_path / "out")
    patients = pd.read_csv(tmp_path / "out" / "split.csv")
    assert list(patients.columns) == ["case", "split", "slices", "liver_slices", "tumor_slices", "has_tumor"]
    assert patients["case"].tolist() == [0, 1, 2, 3, 4, 11, 12]
    assert patients["slices"].tolist() == patients["liver_slices"].tolist() == [3] * 7
    assert patients["tumor_slices"].tolist() == [1, 0, 1, 0, 1, 0, 1]
    (expected,) = make_splits(dict(zip(patients["case"], patients["has_tumor"], strict=True)), SPLIT)
    assert done == expected
    for name in ("train", "valid", "test"):
        assert tuple(patients["case"][patients["split"] == name]) == getattr(expected, name)
    slices = pd.read_csv(tmp_path / "out" / "slices.csv")
    assert slices["split"].tolist() == np.repeat(patients["split"], 3).tolist()


def test_another_seed_splits_otherwise_and_no_split_writes_none(few: Path, cohort: Path, tmp_path: Path) -> None:
    done = [
        run(cohort, tmp_path / str(seed), ExportConfig(split=SPLIT.model_copy(update={"seed": seed})))
        for seed in (0, 1)
    ]
    assert done[0] != done[1]
    for path in few.glob("*-[12].nii.gz"):
        path.unlink()
    alone = run(few, tmp_path / "none", ExportConfig(split=None))
    assert alone is None and len(list((tmp_path / "none" / "images").iterdir())) == 3
    assert not (tmp_path / "none" / "split.csv").exists()
    assert "split" not in pd.read_csv(tmp_path / "none" / "slices.csv").columns
    assert "split.csv" not in (tmp_path / "none" / "README.txt").read_text()


def test_the_same_bytes_again_and_in_two_processes(few: Path, tmp_path: Path) -> None:
    for name, processes in (("a", 1), ("b", 2)):
        run(few, tmp_path / name, processes=processes)
    shutil.copytree(few, tmp_path / "moved", copy_function=shutil.copyfile)  # new times
    run(tmp_path / "moved", tmp_path / "c")
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


@pytest.mark.parametrize(
    ("slices", "z"), [("liver", [1, 2, 3]), ("all", [0, 1, 2, 3, 4, 5]), ("liver+33% background", [1, 2, 3, 4])]
)
def test_which_slices(few: Path, tmp_path: Path, slices: str, z: list[int]) -> None:
    run(few, tmp_path / "out", data=StoreConfig(size=32, slices=slices))
    index = pd.read_csv(tmp_path / "out" / "slices.csv")
    assert index["z"].tolist() == z * 3
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == sorted(
        Path(file).name for file in index["file"]
    )


def test_what_the_folder_says_of_itself(few: Path, tmp_path: Path) -> None:
    run(few, tmp_path / "real")
    about = json.loads((tmp_path / "real" / "export.json").read_text())
    assert about["phantom"] is False
    assert about["settings"] == {"size": 32, "slices": "liver", **JPEG.model_dump(mode="json")}
    assert [case["images"] for case in about["cases"]] == [3, 3, 3]
    assert about["cases"][1]["source_bytes"]["volume-1.nii.gz"] == (few / "volume-1.nii.gz").stat().st_size
    readme = (tmp_path / "real" / "README.txt").read_text()
    assert "0 background, 1 liver, 2 tumor" in readme and "CC BY-NC-SA" in readme and "SYNTHETIC" not in readme
    (few / PHANTOM_FILE).write_text("{}")
    run(few, tmp_path / "phantom")
    assert json.loads((tmp_path / "phantom" / "export.json").read_text())["phantom"] is True
    readme = (tmp_path / "phantom" / "README.txt").read_text()
    assert "SYNTHETIC" in readme and "3 synthetic patients" in readme and "CC BY" not in readme
