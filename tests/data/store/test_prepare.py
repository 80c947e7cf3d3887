"""Building a slice store: once, what is done never again, and nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from litsexp.data.ct.volume import open_case
from litsexp.data.store import Store, convert, prepare
from litsexp.data.store import build as store_module
from litsexp.spec.cohort import DataConfig
from litsexp.spec.errors import LitsexpError

WriteCase = Callable[..., None]
LeftOver = Callable[[Path], list[str]]
Refusal = Callable[..., str]
Building = Callable[[Path], AbstractContextManager[subprocess.Popen[str]]]


@pytest.fixture
def refusal(data: DataConfig, left_over: LeftOver) -> Refusal:
    """``refusal(root, stores)``: why there is no store, in one line; and nothing is left."""

    def refuse(root: Path, stores: Path, processes: int = 1) -> str:
        with pytest.raises(LitsexpError) as error:
            prepare(root, stores, data, processes)
        assert "\n" not in str(error.value)
        assert left_over(stores) == []
        return str(error.value)

    return refuse


def test_a_store_is_built_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: DataConfig) -> None:
    first = prepare(root, tmp_path / "stores", data, 1)
    built = (first.directory / "hu.npy").stat().st_mtime_ns
    monkeypatch.setattr(convert, "open_case", None)
    again = prepare(root, tmp_path / "stores", data.model_copy(update={"cohort": str(root), "seed": 9}), 1)
    assert again.directory == first.directory and again.fingerprint == first.fingerprint
    assert (first.directory / "hu.npy").stat().st_mtime_ns == built


def test_changed_input_builds_another_store_and_says_so(
    root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    data: DataConfig,
    shape: tuple[int, int, int],
    write_case: WriteCase,
) -> None:
    first = prepare(root, tmp_path / "stores", data, 1)
    assert not caplog.records
    write_case(root, 2, np.random.default_rng(3).integers(-100, 200, shape).astype(np.int16))
    second = prepare(root, tmp_path / "stores", data, 1)
    assert second.directory != first.directory and second.fingerprint != first.fingerprint
    assert "2 files changed since" in caplog.text and str(first.directory) in caplog.text
    assert "segmentation-2.nii.gz first" in caplog.text


def test_a_change_that_keeps_size_and_time_is_seen(
    root: Path, tmp_path: Path, data: DataConfig, left_over: LeftOver
) -> None:
    first = prepare(root, tmp_path / "stores", data, 1)
    path = root / "volume-2.nii.gz"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-8] ^= 1  # gzip's checksum
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(LitsexpError, match=r"volume-2\.nii\.gz: truncated or corrupt"):
        prepare(root, tmp_path / "stores", data, 1)
    assert left_over(tmp_path / "stores") == [first.directory.name]


def test_an_interrupted_store_goes_on_with_what_is_done(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: DataConfig, left_over: LeftOver
) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    whole = prepare(root, tmp_path / "whole", data, 1)
    opened: list[int] = []
    monkeypatch.setattr(convert, "open_case", lambda case: opened.append(case.number) or open_case(case))
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "stores", data, 1, interrupt)
    (folder,) = left_over(tmp_path / "stores")
    assert folder.endswith(".parts") and opened == [2]
    calls: list[tuple[int, int]] = []
    store = prepare(root, tmp_path / "stores", data, 1, lambda *call: calls.append(call))
    assert opened == [2, 11] and calls == [(1, 2), (2, 2)]
    assert left_over(tmp_path / "stores") == [store.directory.name] and store.fingerprint == whole.fingerprint


def test_a_part_whose_file_changed_is_made_again(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: DataConfig,
    shape: tuple[int, int, int],
    write_case: WriteCase,
    left_over: LeftOver,
) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "stores", data, 1, interrupt)
    write_case(root, 2, np.random.default_rng(3).integers(-100, 200, shape).astype(np.int16))
    store = prepare(root, tmp_path / "stores", data, 1)
    assert store.fingerprint == prepare(root, tmp_path / "other", data, 1).fingerprint
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


def test_a_case_without_liver_has_its_share_of_background(
    root: Path, tmp_path: Path, shape: tuple[int, int, int], write_case: WriteCase
) -> None:
    write_case(root, 4, labels=np.zeros(shape, np.uint8))
    store = prepare(root, tmp_path / "stores", DataConfig(size=32, slices="liver+34% background"), 1)
    assert store.index.loc[store.index["case"] == 4, "z"].tolist() == [1]


def test_two_at_once_end_well(root: Path, tmp_path: Path, data: DataConfig, left_over: LeftOver) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(prepare(root, tmp_path / "stores", data, 1).fingerprint))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(set(found)) == 1
    assert len(left_over(tmp_path / "stores")) == 1


def test_what_a_killed_process_left_is_replaced(
    root: Path, tmp_path: Path, data: DataConfig, left_over: LeftOver
) -> None:
    key = prepare(root, tmp_path / "one", data, 1).directory.name
    (tmp_path / "two" / f".{key}-old").mkdir(parents=True)
    (tmp_path / "two" / f".{key}-old" / "hu.npy").write_bytes(b"half")
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "two", data, 1, lambda *_: signal.raise_signal(signal.SIGINT))
    (parts,) = (tmp_path / "two").glob("*.parts")
    for path in parts.glob("*.json"):
        path.write_text("{")  # no part is whole
    (parts / "0123456789abcdef-hu.npy").write_bytes(b"of another file")
    store = prepare(root, tmp_path / "two", data, 1)
    assert left_over(tmp_path / "two") == [key]
    assert store.fingerprint == Store.open(tmp_path / "one" / key).fingerprint


@pytest.mark.parametrize("processes", [1, 2])
def test_bad_cases_are_named_and_nothing_is_left(
    root: Path, tmp_path: Path, processes: int, data: DataConfig, write_case: WriteCase, refusal: Refusal
) -> None:
    (root / "volume-11.nii.gz").write_bytes(b"no")
    (root / "segmentation-2.nii.gz").write_bytes((root / "segmentation-2.nii.gz").read_bytes()[:-12])
    write_case(root, 3)
    message = refusal(root, tmp_path / "stores", processes)
    assert "segmentation-2.nii.gz: truncated" in message and message.endswith("(1 more refused: 11)")


def test_a_case_without_liver(
    root: Path,
    tmp_path: Path,
    all_slices: DataConfig,
    shape: tuple[int, int, int],
    write_case: WriteCase,
    refusal: Refusal,
) -> None:
    write_case(root, 4, labels=np.zeros(shape, np.uint8))
    assert "case 4 has no liver" in refusal(root, tmp_path / "stores")
    assert prepare(root, tmp_path / "stores", all_slices, 1).has_tumor == {2: True, 4: False, 11: True}


def test_a_full_disk_is_foreseen(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, 1000))
    assert "0 MB free" in refusal(root, tmp_path / "stores")


def test_an_error_while_writing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: DataConfig, refusal: Refusal
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "_join", full)
    assert "No space left on device" in refusal(root, tmp_path / "stores")
    (tmp_path / "file").touch()
    with pytest.raises(LitsexpError, match="cannot write the slice store"):
        prepare(root, tmp_path / "file", data, 1)


@pytest.fixture
def building(write_case: WriteCase) -> Building:
    """A process in a group of its own that builds a store of 40 cases with a worker, when the first case is done."""

    @contextmanager
    def build(folder: Path) -> Iterator[subprocess.Popen[str]]:
        for number in range(40):
            write_case(folder / "ct", number)
        script = folder / "build.py"
        script.write_text(
            "from pathlib import Path\n"
            "from litsexp.data.store import prepare\n"
            "from litsexp.spec.cohort import DataConfig\n"
            "if __name__ == '__main__':\n"
            "    prepare(Path('ct'), Path('stores'), DataConfig(size=512), 2, lambda *call: print(*call, flush=True))\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(store_module.__file__).parents[3])}
        with subprocess.Popen(
            [sys.executable, str(script)], cwd=folder, env=environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "1 40\n"
            yield process

    return build


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal to a process group")
def test_ctrl_c_ends_the_workers_too(tmp_path: Path, building: Building, left_over: LeftOver) -> None:
    with building(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(timeout=30) != 0
    assert errors.endswith("KeyboardInterrupt\n") and "spawn_main" not in errors  # the workers keep silent
    assert "BrokenProcessPool" not in errors
    assert [Path(name).suffix for name in left_over(tmp_path / "stores")] == [".parts"]  # goes on from there


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal to a process")
def test_a_killed_process_takes_its_workers_along_and_the_next_goes_on(tmp_path: Path, building: Building) -> None:
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
