"""The slice store: the same bytes everywhere, opened whole or not at all."""

import itertools
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from litsexp.data.store import Store, prepare
from litsexp.data.store.slices import COLUMNS
from litsexp.spec.cohort import DataConfig
from litsexp.spec.errors import LitsexpError


def test_orientation_spacing_and_index(
    root: Path, tmp_path: Path, all_slices: DataConfig, write_case: Callable[..., None]
) -> None:
    hu = np.full((64, 32, 3), -50, np.int16)  # x, y, z in RAS: 64 wide and 32 deep
    hu[60:, 28:, 0] = 400  # at the patient's right and front
    labels = np.zeros((64, 32, 3), np.uint8)
    labels[0:4, 0:4, 2] = 2  # at the patient's left and back, in the topmost slice
    write_case(root, 5, hu, labels)
    store = prepare(root, tmp_path / "stores", all_slices, 1)
    first, _, last = store.rows_of([5])
    assert store.hu[first, :8].max() == -1024 and store.hu[first, 24:].max() == -1024  # padded to 64 x 64, centred
    assert np.argwhere(store.hu[first] == 400).tolist() == [[8, 0], [8, 1], [9, 0], [9, 1]]  # top left of the picture
    assert np.argwhere(store.labels[last]).tolist() == [[22, 30], [22, 31], [23, 30], [23, 31]]
    assert store.index.iloc[last].to_dict() == {
        "case": 5, "z": 2, "liver_pixels": 4, "tumor_pixels": 4,
        "spacing_x_mm": 1.0, "spacing_y_mm": 1.0, "spacing_z_mm": 2.0,
    }  # fmt: skip


def test_liver_slices_and_properties(root: Path, tmp_path: Path, data: DataConfig) -> None:
    calls: list[tuple[int, int]] = []
    store = prepare(root, tmp_path / "stores", data, 1, lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]
    assert list(store.index.columns) == list(COLUMNS)
    assert store.index["case"].tolist() == [2, 2, 11, 11] and store.index["z"].tolist() == [1, 2, 1, 2]
    assert store.index["liver_pixels"].tolist() == [256] * 4 and store.index["tumor_pixels"].tolist() == [0, 16] * 2
    assert (store.cases, store.size, store.has_tumor) == ([2, 11], 32, {2: True, 11: True})
    assert store.rows_of([11]).tolist() == [2, 3] and store.rows_of({11, 2}).tolist() == [0, 1, 2, 3]
    assert store.rows_of([]).tolist() == []
    assert (store.hu.dtype, store.labels.dtype, store.hu.shape) == (np.int16, np.uint8, (4, 32, 32))
    assert isinstance(store.hu, np.memmap) and not store.hu.flags.writeable
    with pytest.raises(LitsexpError, match="case 7 is not stored"):
        store.rows_of([2, 7])


def test_the_masks_of_a_case_are_its_own_array(root: Path, tmp_path: Path, data: DataConfig) -> None:
    store = prepare(root, tmp_path / "stores", data, 1)
    for case in store.cases:
        masks = store.masks(case)
        np.testing.assert_array_equal(masks, store.labels[store.rows_of([case])])
        assert masks.dtype == np.uint8 and masks.flags.writeable
        assert not isinstance(masks.base, np.memmap)
    with pytest.raises(LitsexpError, match=r"case 7 is not stored; expected cases of \[2, 11\]"):
        store.masks(7)


def test_what_the_store_says_of_itself(root: Path, tmp_path: Path, data: DataConfig) -> None:
    store = prepare(root, tmp_path / "stores", data, 1)
    about = store.about()
    assert (about["settings"], about["fingerprint"]) == ({"size": 32, "slices": "liver"}, store.fingerprint)
    assert [(case["case"], case["slices"], case["remarks"]) for case in about["cases"]] == [(2, 2, []), (11, 2, [])]
    assert about["inputs"][0]["files"]["volume-2.nii.gz"][0] == (root / "volume-2.nii.gz").stat().st_size


def test_one_header_is_parsed_at_a_time(
    root: Path, tmp_path: Path, data: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both arrays are joined at once, but two headers parsed at once are now and then a SystemError of CPython 3.11."""
    load, inside, most = np.load, [], []

    def slow_load(*args, **kwargs):
        inside.append(args)
        time.sleep(0.02)
        most.append(len(inside))
        inside.pop()
        return load(*args, **kwargs)

    monkeypatch.setattr("litsexp.data.store.build.np.load", slow_load)
    prepare(root, tmp_path / "stores", data, 1)
    assert len(most) >= 4  # two cases, HU and labels
    assert max(most) == 1


def test_the_fingerprint_is_that_of_the_data(
    root: Path, tmp_path: Path, data: DataConfig, all_slices: DataConfig
) -> None:
    one = prepare(root, tmp_path / "one", data, 1)
    two = prepare(root, tmp_path / "two", data, 2)
    (tmp_path / "moved").mkdir()
    for path in root.iterdir():
        shutil.copyfile(path, tmp_path / "moved" / path.name)  # new times
        os.utime(tmp_path / "moved" / path.name, (1, 1))
    moved = prepare(tmp_path / "moved", tmp_path / "one", data, 1)
    assert one.fingerprint == two.fingerprint == moved.fingerprint
    assert one.directory.name == two.directory.name != moved.directory.name
    assert prepare(root, tmp_path / "one", all_slices, 1).fingerprint != one.fingerprint
    assert prepare(root, tmp_path / "one", DataConfig(size=64), 1).fingerprint != one.fingerprint
    for name in ("hu.npy", "labels.npy", "slices.parquet"):
        assert (one.directory / name).read_bytes() == (two.directory / name).read_bytes()


@pytest.mark.parametrize("what", ["hu", "label", "spacing"])
def test_one_difference_gives_another_fingerprint(
    tmp_path: Path, what: str, data: DataConfig, write_case: Callable[..., None]
) -> None:
    write_case(tmp_path / "a", 1)
    image, labels = (nib.load(tmp_path / "a" / f"{name}-1.nii.gz") for name in ("volume", "segmentation"))
    hu, mask = np.asarray(image.dataobj).copy(), np.asarray(labels.dataobj).copy()
    hu[20, 20, 1] += 100 * (what == "hu")
    mask[8:10, 8:10, 1] *= what != "label"
    write_case(tmp_path / "b", 1, hu, mask)
    if what == "spacing":
        nib.save(nib.Nifti1Image(hu, np.diag([0.5, 0.5, 3, 1])), tmp_path / "b" / "volume-1.nii.gz")
    a, b = (prepare(tmp_path / name, tmp_path / "stores", data, 1).fingerprint for name in "ab")
    assert a != b


def test_all_48_ways_to_store_a_volume_give_one_store(tmp_path: Path, all_slices: DataConfig) -> None:
    rng, shape = np.random.default_rng(0), (64, 47, 5)
    hu, labels = rng.integers(-1000, 1000, shape).astype(np.int16), rng.integers(0, 3, shape).astype(np.uint8)
    fingerprints = set()
    for number, (axes, signs) in enumerate(
        itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    ):
        orientation = np.array(list(zip(axes, signs, strict=True)))
        folder = tmp_path / str(number)
        folder.mkdir()
        for kind, array in (("volume", hu), ("segmentation", labels)):
            image = nib.Nifti1Image(array, np.diag([0.5, 0.5, 2, 1])).as_reoriented(orientation)
            nib.save(image, folder / f"{kind}-1.nii")
        fingerprints.add(prepare(folder, folder / "stores", all_slices, 1).fingerprint)
    assert number == 47 and len(fingerprints) == 1


def test_unknown_millimetres_stay_unknown(root: Path, tmp_path: Path, data: DataConfig) -> None:
    for kind in ("volume", "segmentation"):
        image = nib.load(root / f"{kind}-2.nii.gz")
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.eye(4)), root / f"{kind}-2.nii.gz")
    store = prepare(root, tmp_path / "stores", data, 1)
    spacing_mm = store.index[["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]]
    assert spacing_mm[store.index["case"] == 2].isna().all(axis=None)
    assert spacing_mm[store.index["case"] == 11].notna().all(axis=None)
    assert prepare(root, tmp_path / "other", data, 1).fingerprint == store.fingerprint
    about = json.loads((store.directory / "store.json").read_text())
    assert "millimetres are unknown" in about["cases"][0]["remarks"][0]


@pytest.mark.parametrize("flips", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_an_odd_margin_lies_on_the_same_side_however_it_is_stored(
    tmp_path: Path, flips: tuple[int, int], data: DataConfig
) -> None:
    hu = np.random.default_rng(0).integers(-100, 200, (64, 47, 2)).astype(np.int16)
    labels = np.ones((64, 47, 2), np.uint8)
    for name, steps in (("ras", (1, 1)), ("stored", flips)):
        (tmp_path / name).mkdir()
        affine = np.diag([0.5 * steps[0], 0.5 * steps[1], 2, 1])
        for kind, array in (("volume", hu), ("segmentation", labels)):
            image = nib.Nifti1Image(array[:: steps[0], :: steps[1]], affine)
            nib.save(image, tmp_path / name / f"{kind}-1.nii.gz")
    one, two = (prepare(tmp_path / name, tmp_path / "stores", data, 1) for name in ("ras", "stored"))
    assert one.fingerprint == two.fingerprint


def damage_half(directory: Path) -> None:
    with (directory / "hu.npy").open("r+b") as file:
        file.truncate(1000)


def damage_missing(directory: Path) -> None:
    (directory / "labels.npy").unlink()


def damage_size(directory: Path) -> None:
    np.save(directory / "labels.npy", np.zeros((4, 16, 16), np.uint8))


def damage_index(directory: Path) -> None:
    index = pd.read_parquet(directory / "slices.parquet")
    index.iloc[1:].to_parquet(directory / "slices.parquet", index=False)


def damage_order(directory: Path) -> None:
    index = pd.read_parquet(directory / "slices.parquet")
    index.iloc[[0, 2, 1, 3]].to_parquet(directory / "slices.parquet", index=False)


def damage_columns(directory: Path) -> None:
    pd.DataFrame({"case": [1]}).to_parquet(directory / "slices.parquet", index=False)


def damage_parquet(directory: Path) -> None:
    (directory / "slices.parquet").write_bytes(b"PAR1")


def damage_json(directory: Path) -> None:
    (directory / "store.json").write_text('{"format": 1')


def damage_keys(directory: Path) -> None:
    (directory / "store.json").write_text("[]")


def damage_format(directory: Path) -> None:
    about = json.loads((directory / "store.json").read_text())
    (directory / "store.json").write_text(json.dumps({**about, "format": 0}))


@pytest.mark.parametrize(
    "damage",
    [damage_half, damage_missing, damage_size, damage_index, damage_order, damage_columns, damage_parquet, damage_json,
     damage_keys, damage_format],
)  # fmt: skip
def test_a_damaged_store_is_refused(root: Path, tmp_path: Path, damage, data: DataConfig) -> None:
    store = prepare(root, tmp_path / "stores", data, 1)
    damage(store.directory)
    for attempt in (lambda: Store.open(store.directory), lambda: prepare(root, tmp_path / "stores", data, 1)):
        with pytest.raises(LitsexpError, match="not a whole slice store") as error:
            attempt()
        assert "\n" not in str(error.value) and "remove this folder" in str(error.value)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LitsexpError, match="not a whole slice store"):
        Store.open(tmp_path / "no")


def test_a_pickled_store_is_small_and_maps_the_same_files(root: Path, tmp_path: Path, data: DataConfig) -> None:
    store = prepare(root, tmp_path / "stores", data, 1)
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 1000
    assert isinstance(copy.hu, np.memmap) and copy.fingerprint == store.fingerprint
