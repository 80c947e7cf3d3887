"""The encoding jpeg:Q: Pillow's own pixels, kept beside the store, the same in training and prediction."""

import io
import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from litsexp.data.ct.windows import windowed
from litsexp.data.store import Store
from litsexp.spec.catalog import ENCODINGS, WINDOWS, Encoding, Window
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.training import kept
from litsexp.training.inputs import Inputs, equalised
from litsexp.training.jpeg import pictures, to_jpeg
from litsexp.training.kept import kept_images, kept_path
from litsexp.training.loaders import EvalLoader, Slices, TrainLoader
from litsexp.training.predict import predict

from .conftest import Train, arm

CPU = torch.device("cpu")
QUALITIES, NOTEBOOK = ("jpeg:90", "jpeg:100", "jpeg:7"), RunConfig(encoding="jpeg:90", batch_size=8)


@pytest.fixture
def store(phantom_store: Store, tmp_path: Path) -> Store:
    """A copy of the phantom's store, in which nothing is kept yet."""
    keep = shutil.ignore_patterns("encoded")
    return Store.open(shutil.copytree(phantom_store.directory, tmp_path / "store", ignore=keep))


def by_pillow(hu: NDArray[np.int16], run: RunConfig) -> NDArray[np.uint8]:
    """(row, column, 3): one slice's views as numpy windows them, saved by Pillow with 4:2:0, opened, made RGB."""
    views = []
    for view in WINDOWS[run.window].views:
        if isinstance(view, str):
            share = equalised(torch.from_numpy(hu.copy()).float()[None, None])[0, 0].numpy()
        else:
            share = windowed(hu.astype(np.float32), *view)
        views.append(np.rint(255 * share).astype(np.uint8))
    file = io.BytesIO()
    quality = int(run.encoding.removeprefix("jpeg:"))
    gray = len(views) == 1
    picture = Image.fromarray(views[0] if gray else np.stack(views, -1))
    picture.save(file, "JPEG", quality=quality, **({} if gray else {"subsampling": 2}))
    opened = Image.open(file)
    assert opened.mode == ("L" if gray else "RGB")
    return np.asarray(opened.convert("RGB"))


@pytest.mark.parametrize("encoding", QUALITIES)
@pytest.mark.parametrize("window", ["notebook", "liver"])
def test_every_pixel_is_pillows_bit_for_bit(store: Store, encoding: str, window: str) -> None:
    run = RunConfig(encoding=encoding, window=window)
    rows = np.arange(len(store.index))
    ((image, labels),) = EvalLoader(Slices(store, CPU), rows, run.changed({"batch_size": len(rows)}))
    expected = np.stack([by_pillow(hu, run) for hu in store.hu]).transpose(0, 3, 1, 2)
    assert np.array_equal(kept_images(store, run), expected[:, : len(WINDOWS[window].views)])
    assert torch.equal(image, (torch.from_numpy(expected).float() / 255 - 0.5) / 0.5)
    np.testing.assert_array_equal(labels.numpy(), store.labels[rows])


def test_the_file_is_the_notebooks() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = Image.open(io.BytesIO(to_jpeg(picture, 90, "4:2:0")))
    assert get_sampling(file) == 2  # Pillow's number for 4:2:0
    assert file.size == (32, 32)


def test_it_is_the_same_for_training_validation_and_prediction(store: Store) -> None:
    """Without augmentation a training batch holds the very pixels of the evaluation, kept or encoded on the way."""
    run = NOTEBOOK.changed({"augment": "none"})
    slices, rows = Slices(store, CPU), store.rows_of(store.cases[:2])
    train = TrainLoader(slices, rows, run, 1, seed=0)
    order = train.order(0)[0]
    ((trained, _),) = train
    ((evaluated, _),) = EvalLoader(Slices(store, CPU), order, run)
    on_the_way, _ = Inputs(run)(*slices.read(order))
    assert torch.equal(trained, evaluated)
    assert torch.equal(trained, on_the_way)
    hu = EvalLoader(slices, order, run.changed({"encoding": "hu"}))
    assert 0.001 < (trained - next(iter(hu))[0]).abs().mean() < 0.2  # a JPEG of the same picture


def test_a_run_trains_on_it_and_answers_on_another_cohort(
    run_arm: Train, external_store: Store, phantom_store: Store
) -> None:
    run = arm(encoding="jpeg:90", augment="paper")
    first, again, plain = run_arm(run), run_arm(run), run_arm(arm(augment="paper"))
    assert first.history[-1]["train/loss"] == again.history[-1]["train/loss"] != plain.history[-1]["train/loss"]
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    rows = np.arange(4)
    labels = predict(run, first.weights, external_store, rows)
    assert labels.shape == (4, 64, 64)
    assert kept_path(external_store, run).is_file() and kept_path(phantom_store, run).is_file()


def test_geometry_moves_channels_and_continues_their_border(store: Store) -> None:
    """Augmented after the windows: nothing leaves [0, 1], and a bright border is not framed in black."""
    white = torch.full((16, 3, 64, 64), 255, dtype=torch.uint8)
    labels = torch.ones((16, 64, 64), dtype=torch.uint8)
    run = NOTEBOOK.changed({"augment": "geometric"})
    image, moved = Inputs(run)(white, labels, torch.Generator().manual_seed(0))
    torch.testing.assert_close(image, torch.ones_like(image))
    assert (moved == 0).any() and (moved == 1).any()
    for image, _ in TrainLoader(Slices(store, CPU), np.arange(16), NOTEBOOK, 2, seed=0):
        assert image.shape == (8, 3, 64, 64) and image.min() >= -1 and image.max() <= 1


def test_it_is_made_once_and_read_from_its_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kept_images(store, NOTEBOOK)
    assert isinstance(first, np.memmap) and not first.flags.writeable
    monkeypatch.setattr(kept, "_encoded", lambda *_: pytest.fail("encoded again"))
    assert np.array_equal(kept_images(store, NOTEBOOK), first)
    slices = Slices(store, CPU)
    assert slices.seen_by(NOTEBOOK) is slices.seen_by(NOTEBOOK.changed({"augment": "none"}))
    assert slices.seen_by(RunConfig()) is slices


def test_its_key_covers_all_that_decides_its_pixels(
    store: Store, external_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [kept_path(store, NOTEBOOK.changed(change)).name for change in ({}, {"encoding": "jpeg:100"})]
    keys += [kept_path(store, NOTEBOOK.changed({"window": "liver"})).name, kept_path(external_store, NOTEBOOK).name]
    monkeypatch.setattr(kept.PIL, "__version__", "0.0")
    keys.append(kept_path(store, NOTEBOOK).name)
    monkeypatch.undo()
    monkeypatch.setattr(kept.features, "version", lambda _: "0.0")
    keys.append(kept_path(store, NOTEBOOK).name)
    monkeypatch.undo()
    monkeypatch.setitem(WINDOWS, "notebook", Window("changed", [[150.0, 30.0], [200.0, 60.0], [10.0, 30.0]]))
    keys.append(kept_path(store, NOTEBOOK).name)
    assert len(set(keys)) == 7
    monkeypatch.undo()
    others = NOTEBOOK.changed({"augment": "none", "init": "scratch", "batch_size": 4})
    assert kept_path(store, others) == kept_path(store, NOTEBOOK)


def test_two_that_want_it_at_once_make_it_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made, whole = [], kept._encoded

    def counted(*asked: Any) -> Any:
        made.append(threading.get_ident())
        return whole(*asked)

    monkeypatch.setattr(kept, "_encoded", counted)
    found: list[NDArray[np.uint8]] = []
    threads = [threading.Thread(target=lambda: found.append(kept_images(store, NOTEBOOK))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(found) == 4
    assert all(np.array_equal(one, found[0]) for one in found)


def test_killed_in_its_middle_it_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, path = kept._encoded, kept_path(store, NOTEBOOK)

    def broken(*asked: object) -> object:
        parts = whole(*asked)
        yield next(iter(parts))
        raise KeyboardInterrupt

    monkeypatch.setattr(kept, "_encoded", broken)
    with pytest.raises(KeyboardInterrupt):
        kept_images(store, NOTEBOOK)
    assert [file.name for file in path.parent.iterdir() if file.suffix != ".lock"] == []
    (path.parent / f".{path.stem}-left.npy").write_bytes(b"half of it")  # a SIGKILL leaves this
    monkeypatch.undo()
    assert len(kept_images(store, NOTEBOOK)) == len(store.index)
    assert [file.name for file in path.parent.iterdir() if file.suffix != ".lock"] == [path.name]


def test_a_damaged_file_is_refused_in_one_line(store: Store) -> None:
    kept_images(store, NOTEBOOK)
    path = kept_path(store, NOTEBOOK)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LitsexpError, match=r"encoded/jpeg-90-notebook-\w+\.npy: not whole .*; remove it"):
        kept_images(store, NOTEBOOK)


def test_where_it_cannot_be_written_it_is_made_in_memory(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    expected = np.array(kept_images(store, NOTEBOOK))
    shutil.rmtree(store.directory / "encoded")
    (store.directory / "encoded").write_text("in the way, as a read-only disk would be")
    with caplog.at_level(logging.WARNING):
        images = kept_images(store, NOTEBOOK)
    assert np.array_equal(images, expected) and not images.flags.writeable
    assert "cannot be written" in caplog.text and "jpeg:90 is made in memory" in caplog.text


def test_a_registered_row_that_is_kept_has_to_make_gray_values(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "half", Encoding("a toy", lambda hu, _: hu[:, None].float(), kept=True))
    with pytest.raises(LitsexpError, match=r"run.encoding = half: made torch.float32 .*; expected .* uint8"):
        kept_images(store, RunConfig(encoding="half"))
    dark = Encoding("a toy", lambda hu, _: torch.full_like(hu, 51, dtype=torch.uint8)[:, None], kept=True)
    monkeypatch.setitem(ENCODINGS, "dark", dark)
    ((image, _),) = EvalLoader(Slices(store, CPU), np.arange(2), RunConfig(encoding="dark"))
    torch.testing.assert_close(image, torch.full((2, 3, 64, 64), 51 / 255 * 2 - 1))


@pytest.mark.parametrize("encoding", ["jpeg", "jpeg:", "jpeg:0", "jpeg:101", "jpeg:090", "jpeg:9.5", "jpeg:Q"])
def test_a_quality_that_is_none_is_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of hu, jpeg:Q"):
        RunConfig(encoding=encoding)


def test_gray_values_round_to_the_nearest() -> None:
    hu = np.array([[[-45, -15, 30, 75, 105, 900]]], np.int16)  # 30 HU is 127.5, and numpy's rint takes the even one
    assert pictures(hu, "liver")[0, 0, :, 0].tolist() == [0, 51, 128, 204, 255, 255]
