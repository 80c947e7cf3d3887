"""The slice store: the same bytes everywhere, built once, nothing left behind."""

import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from litsexp.data import convert
from litsexp.data import store as store_module
from litsexp.data.ct import open_case
from litsexp.data.store import Store, prepare
from litsexp.settings import DataConfig, LitsexpError

DATA = DataConfig(size=32)
ALL = DataConfig(size=32, slices="all")
SHAPE = (64, 64, 3)


def write_case(root: Path, number: int, hu: np.ndarray | None = None, labels: np.ndarray | None = None) -> None:
    """One RAS case of 0.5 x 0.5 x 2 mm: liver in slices 1 and 2, an 8 x 8 tumor in slice 2."""
    root.mkdir(parents=True, exist_ok=True)
    if hu is None:
        hu = np.random.default_rng(number).integers(-100, 200, SHAPE).astype(np.int16)
    if labels is None:
        labels = np.zeros(SHAPE, np.uint8)
        labels[8:40, 8:40, 1:] = 1
        labels[16:24, 16:24, 2] = 2
    affine = np.diag([0.5, 0.5, 2, 1])
    nib.save(nib.Nifti1Image(hu, affine), root / f"volume-{number}.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), root / f"segmentation-{number}.nii.gz")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in (11, 2):
        write_case(tmp_path / "ct", number)
    return tmp_path / "ct"


def left_over(stores: Path) -> list[str]:
    return [path.name for path in stores.iterdir() if path.suffix != ".lock"] if stores.exists() else []


def refusal(root: Path, stores: Path, data: DataConfig = DATA, processes: int = 1) -> str:
    with pytest.raises(LitsexpError) as error:
        prepare(root, stores, data, processes)
    assert "\n" not in str(error.value)
    assert left_over(stores) == []
    return str(error.value)


def test_orientation_spacing_and_index(root: Path, tmp_path: Path) -> None:
    hu = np.full((64, 32, 3), -50, np.int16)  # x, y, z in RAS: 64 wide and 32 deep
    hu[60:, 28:, 0] = 400  # at the patient's right and front
    labels = np.zeros((64, 32, 3), np.uint8)
    labels[0:4, 0:4, 2] = 2  # at the patient's left and back, in the topmost slice
    write_case(root, 5, hu, labels)
    store = prepare(root, tmp_path / "stores", ALL, 1)
    first, _, last = store.rows_of([5])
    assert store.hu[first, :8].max() == -1024 and store.hu[first, 24:].max() == -1024  # padded to 64 x 64, centred
    assert np.argwhere(store.hu[first] == 400).tolist() == [[8, 0], [8, 1], [9, 0], [9, 1]]  # top left of the picture
    assert np.argwhere(store.labels[last]).tolist() == [[22, 30], [22, 31], [23, 30], [23, 31]]
    assert store.index.iloc[last].to_dict() == {
        "case": 5, "z": 2, "liver_pixels": 4, "tumor_pixels": 4,
        "spacing_x_mm": 1.0, "spacing_y_mm": 1.0, "spacing_z_mm": 2.0,
    }  # fmt: skip


def test_liver_slices_and_properties(root: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    store = prepare(root, tmp_path / "stores", DATA, 1, lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]
    assert list(store.index.columns) == list(convert.COLUMNS)
    assert store.index["case"].tolist() == [2, 2, 11, 11] and store.index["z"].tolist() == [1, 2, 1, 2]
    assert store.index["liver_pixels"].tolist() == [256] * 4 and store.index["tumor_pixels"].tolist() == [0, 16] * 2
    assert (store.cases, store.size, store.has_tumor) == ([2, 11], 32, {2: True, 11: True})
    assert store.rows_of([11]).tolist() == [2, 3] and store.rows_of({11, 2}).tolist() == [0, 1, 2, 3]
    assert store.rows_of([]).tolist() == []
    assert (store.hu.dtype, store.labels.dtype, store.hu.shape) == (np.int16, np.uint8, (4, 32, 32))
    assert isinstance(store.hu, np.memmap) and not store.hu.flags.writeable
    with pytest.raises(LitsexpError, match="case 7 is not stored"):
        store.rows_of([2, 7])


def test_the_fingerprint_is_that_of_the_data(root: Path, tmp_path: Path) -> None:
    one = prepare(root, tmp_path / "one", DATA, 1)
    two = prepare(root, tmp_path / "two", DATA, 2)
    (tmp_path / "moved").mkdir()
    for path in root.iterdir():
        shutil.copyfile(path, tmp_path / "moved" / path.name)  # new times
        os.utime(tmp_path / "moved" / path.name, (1, 1))
    moved = prepare(tmp_path / "moved", tmp_path / "one", DATA, 1)
    assert one.fingerprint == two.fingerprint == moved.fingerprint
    assert one.directory.name == two.directory.name != moved.directory.name
    assert prepare(root, tmp_path / "one", ALL, 1).fingerprint != one.fingerprint
    assert prepare(root, tmp_path / "one", DataConfig(size=64), 1).fingerprint != one.fingerprint
    for name in ("hu.npy", "labels.npy", "slices.parquet"):
        assert (one.directory / name).read_bytes() == (two.directory / name).read_bytes()


@pytest.mark.parametrize("what", ["hu", "label", "spacing"])
def test_one_difference_gives_another_fingerprint(tmp_path: Path, what: str) -> None:
    write_case(tmp_path / "a", 1)
    image, labels = (nib.load(tmp_path / "a" / f"{name}-1.nii.gz") for name in ("volume", "segmentation"))
    hu, mask = np.asarray(image.dataobj).copy(), np.asarray(labels.dataobj).copy()
    hu[20, 20, 1] += 100 * (what == "hu")
    mask[8:10, 8:10, 1] *= what != "label"
    write_case(tmp_path / "b", 1, hu, mask)
    if what == "spacing":
        nib.save(nib.Nifti1Image(hu, np.diag([0.5, 0.5, 3, 1])), tmp_path / "b" / "volume-1.nii.gz")
    a, b = (prepare(tmp_path / name, tmp_path / "stores", DATA, 1).fingerprint for name in "ab")
    assert a != b


def test_a_store_is_built_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(root, tmp_path / "stores", DATA, 1)
    built = (first.directory / "hu.npy").stat().st_mtime_ns
    monkeypatch.setattr(convert, "open_case", None)
    again = prepare(root, tmp_path / "stores", DATA.model_copy(update={"cohort": str(root), "seed": 9}), 1)
    assert again.directory == first.directory and again.fingerprint == first.fingerprint
    assert (first.directory / "hu.npy").stat().st_mtime_ns == built


def test_changed_input_builds_another_store_and_says_so(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = prepare(root, tmp_path / "stores", DATA, 1)
    assert not caplog.records
    write_case(root, 2, np.random.default_rng(3).integers(-100, 200, SHAPE).astype(np.int16))
    second = prepare(root, tmp_path / "stores", DATA, 1)
    assert second.directory != first.directory and second.fingerprint != first.fingerprint
    assert "2 files changed since" in caplog.text and str(first.directory) in caplog.text
    assert "segmentation-2.nii.gz first" in caplog.text


def test_a_change_that_keeps_size_and_time_is_seen(root: Path, tmp_path: Path) -> None:
    first = prepare(root, tmp_path / "stores", DATA, 1)
    path = root / "volume-2.nii.gz"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-8] ^= 1  # gzip's checksum
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(LitsexpError, match=r"volume-2\.nii\.gz: truncated or corrupt"):
        prepare(root, tmp_path / "stores", DATA, 1)
    assert left_over(tmp_path / "stores") == [first.directory.name]


def test_an_interrupted_store_goes_on_with_what_is_done(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    whole = prepare(root, tmp_path / "whole", DATA, 1)
    opened: list[int] = []
    monkeypatch.setattr(convert, "open_case", lambda case: opened.append(case.number) or open_case(case))
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "stores", DATA, 1, interrupt)
    (folder,) = left_over(tmp_path / "stores")
    assert folder.endswith(".parts") and opened == [2]
    calls: list[tuple[int, int]] = []
    store = prepare(root, tmp_path / "stores", DATA, 1, lambda *call: calls.append(call))
    assert opened == [2, 11] and calls == [(1, 2), (2, 2)]
    assert left_over(tmp_path / "stores") == [store.directory.name] and store.fingerprint == whole.fingerprint


def test_a_part_whose_file_changed_is_made_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "stores", DATA, 1, interrupt)
    write_case(root, 2, np.random.default_rng(3).integers(-100, 200, SHAPE).astype(np.int16))
    store = prepare(root, tmp_path / "stores", DATA, 1)
    assert store.fingerprint == prepare(root, tmp_path / "other", DATA, 1).fingerprint
    assert left_over(tmp_path / "stores") == [store.directory.name]


@pytest.mark.parametrize(
    ("slices", "kept"),
    [
        ("liver", [3, 4]),
        ("all", list(range(10))),
        ("liver+0% background", [3, 4]),
        ("liver+25% background", [2, 3, 4, 8]),
        ("liver+100% background", list(range(10))),
    ],
)
def test_which_slices_are_kept(slices: str, kept: list[int]) -> None:
    has_liver = np.isin(np.arange(10), [3, 4])
    assert convert.chosen_slices(has_liver, slices).tolist() == kept


def test_a_case_without_liver_has_its_share_of_background(root: Path, tmp_path: Path) -> None:
    write_case(root, 4, labels=np.zeros(SHAPE, np.uint8))
    store = prepare(root, tmp_path / "stores", DataConfig(size=32, slices="liver+34% background"), 1)
    assert store.index.loc[store.index["case"] == 4, "z"].tolist() == [1]


def test_all_48_ways_to_store_a_volume_give_one_store(tmp_path: Path) -> None:
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
        fingerprints.add(prepare(folder, folder / "stores", ALL, 1).fingerprint)
    assert number == 47 and len(fingerprints) == 1


def test_unknown_millimetres_stay_unknown(root: Path, tmp_path: Path) -> None:
    for kind in ("volume", "segmentation"):
        image = nib.load(root / f"{kind}-2.nii.gz")
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.eye(4)), root / f"{kind}-2.nii.gz")
    store = prepare(root, tmp_path / "stores", DATA, 1)
    spacing_mm = store.index[["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]]
    assert spacing_mm[store.index["case"] == 2].isna().all(axis=None)
    assert spacing_mm[store.index["case"] == 11].notna().all(axis=None)
    assert prepare(root, tmp_path / "other", DATA, 1).fingerprint == store.fingerprint
    about = json.loads((store.directory / "store.json").read_text())
    assert "millimetres are unknown" in about["cases"][0]["remarks"][0]


@pytest.mark.parametrize("flips", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_an_odd_margin_lies_on_the_same_side_however_it_is_stored(tmp_path: Path, flips: tuple[int, int]) -> None:
    hu = np.random.default_rng(0).integers(-100, 200, (64, 47, 2)).astype(np.int16)
    labels = np.ones((64, 47, 2), np.uint8)
    for name, steps in (("ras", (1, 1)), ("stored", flips)):
        (tmp_path / name).mkdir()
        affine = np.diag([0.5 * steps[0], 0.5 * steps[1], 2, 1])
        for kind, array in (("volume", hu), ("segmentation", labels)):
            image = nib.Nifti1Image(array[:: steps[0], :: steps[1]], affine)
            nib.save(image, tmp_path / name / f"{kind}-1.nii.gz")
    one, two = (prepare(tmp_path / name, tmp_path / "stores", DATA, 1) for name in ("ras", "stored"))
    assert one.fingerprint == two.fingerprint


def test_two_at_once_end_well(root: Path, tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(prepare(root, tmp_path / "stores", DATA, 1).fingerprint))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(set(found)) == 1
    assert len(left_over(tmp_path / "stores")) == 1


def test_what_a_killed_process_left_is_replaced(root: Path, tmp_path: Path) -> None:
    key = prepare(root, tmp_path / "one", DATA, 1).directory.name
    (tmp_path / "two" / f"{key}.tmp").mkdir(parents=True)
    (tmp_path / "two" / f"{key}.tmp" / "hu.npy").write_bytes(b"half")
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "two", DATA, 1, lambda *_: signal.raise_signal(signal.SIGINT))
    (parts,) = (tmp_path / "two").glob("*.parts")
    for path in parts.glob("*.json"):
        path.write_text("{")  # no part is whole
    (parts / "0123456789abcdef-hu.npy").write_bytes(b"of another file")
    store = prepare(root, tmp_path / "two", DATA, 1)
    assert left_over(tmp_path / "two") == [key]
    assert store.fingerprint == Store.open(tmp_path / "one" / key).fingerprint


@pytest.mark.parametrize("processes", [1, 2])
def test_bad_cases_are_named_and_nothing_is_left(root: Path, tmp_path: Path, processes: int) -> None:
    (root / "volume-11.nii.gz").write_bytes(b"no")
    (root / "segmentation-2.nii.gz").write_bytes((root / "segmentation-2.nii.gz").read_bytes()[:-12])
    write_case(root, 3)
    message = refusal(root, tmp_path / "stores", DATA, processes)
    assert "segmentation-2.nii.gz: truncated" in message and message.endswith("(1 more refused: 11)")


def test_a_case_without_liver(root: Path, tmp_path: Path) -> None:
    write_case(root, 4, labels=np.zeros(SHAPE, np.uint8))
    assert "case 4 has no liver" in refusal(root, tmp_path / "stores")
    assert prepare(root, tmp_path / "stores", ALL, 1).has_tumor == {2: True, 4: False, 11: True}


def test_a_full_disk_is_foreseen(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, 1000))
    assert "0 MB free" in refusal(root, tmp_path / "stores")


def test_an_error_while_writing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "_join", full)
    assert "No space left on device" in refusal(root, tmp_path / "stores")
    (tmp_path / "file").touch()
    with pytest.raises(LitsexpError, match="cannot write the slice store"):
        prepare(root, tmp_path / "file", DATA, 1)


@contextmanager
def building(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own that builds a store of 40 cases with a worker, when the first case is done."""
    for number in range(40):
        write_case(folder / "ct", number)
    script = folder / "build.py"
    script.write_text(
        "from pathlib import Path\n"
        "from litsexp.data.store import prepare\n"
        "from litsexp.settings import DataConfig\n"
        "if __name__ == '__main__':\n"
        "    prepare(Path('ct'), Path('stores'), DataConfig(size=512), 2, lambda *call: print(*call, flush=True))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(store_module.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, str(script)], cwd=folder, env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "1 40\n"
        yield process


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal to a process group")
def test_ctrl_c_ends_the_workers_too(tmp_path: Path) -> None:
    with building(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(timeout=30) != 0
    assert errors.endswith("KeyboardInterrupt\n") and "spawn_main" not in errors  # the workers keep silent
    assert "BrokenProcessPool" not in errors
    assert [Path(name).suffix for name in left_over(tmp_path / "stores")] == [".parts"]  # goes on from there


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal to a process")
def test_a_killed_process_takes_its_workers_along_and_the_next_goes_on(tmp_path: Path) -> None:
    with building(tmp_path) as process:
        process.kill()
        process.stderr.read()  # ends when nobody is left to write to it, workers included
    (parts,) = (tmp_path / "stores").glob("*.parts")
    done = len(list(parts.glob("*.json")))
    assert 1 <= done < 40
    calls: list[int] = []
    store = prepare(tmp_path / "ct", tmp_path / "stores", DataConfig(size=512), 1, lambda n, _: calls.append(n))
    assert calls == list(range(done, 41))
    assert store.fingerprint == prepare(tmp_path / "ct", tmp_path / "other", DataConfig(size=512), 1).fingerprint


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
    [damage_half, damage_missing, damage_size, damage_index, damage_columns, damage_parquet, damage_json, damage_keys,
     damage_format],
)  # fmt: skip
def test_a_damaged_store_is_refused(root: Path, tmp_path: Path, damage) -> None:
    store = prepare(root, tmp_path / "stores", DATA, 1)
    damage(store.directory)
    for attempt in (lambda: Store.open(store.directory), lambda: prepare(root, tmp_path / "stores", DATA, 1)):
        with pytest.raises(LitsexpError, match="not a whole slice store") as error:
            attempt()
        assert "\n" not in str(error.value) and "remove this folder" in str(error.value)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LitsexpError, match="not a whole slice store"):
        Store.open(tmp_path / "no")


def test_a_pickled_store_is_small_and_maps_the_same_files(root: Path, tmp_path: Path) -> None:
    store = prepare(root, tmp_path / "stores", DATA, 1)
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 1000
    assert isinstance(copy.hu, np.memmap) and copy.fingerprint == store.fingerprint
