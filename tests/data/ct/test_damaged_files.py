"""200 damaged files give 200 clear errors: no crash, no memory blow-up, nothing accepted in silence."""

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from litsexp.data.check.folder import CaseReport, FolderReport, check_case, check_folder
from litsexp.data.ct.layout import Case

EACH = 25
SHAPE = (24, 20, 12)
DIM, DATATYPE, BITPIX, VOX_OFFSET, SLOPE, SROW_X, MAGIC = 40, 70, 72, 108, 112, 280, 344  # bytes of a NIfTI-1 header
VOXELS = 352
Damage = Callable[[bytes, bool, int, np.random.Generator], bytes]  # of a plain file; whether zipped, which of 25


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    """A good case, as plain NIfTI: noise around tissue, so that gzip has something to store."""
    hu = np.random.default_rng(0).normal(-1000, 10, SHAPE).clip(-1015).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    hu[2:22, 2:18] += 1040
    hu[12:20, 6:14, 2:10] += 70
    labels[12:20, 6:14, 2:10] = 1
    hu[14:16, 8:10, 4:6] -= 50
    labels[14:16, 8:10, 4:6] = 2
    return {"volume": plain(hu), "segmentation": plain(labels)}


def plain(voxels: np.ndarray) -> bytes:
    image = nib.Nifti1Image(voxels, np.diag([8.0, 8, 10, 1]))
    image.set_qform(image.affine, code=1)
    return image.to_bytes()


def with_bytes(data: bytes, offset: int, form: str, *values: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, *values)
    return bytes(changed)


def flipped(data: bytes, byte: int, bit: int) -> bytes:
    return with_bytes(data, byte, "B", data[byte] ^ 1 << bit)


def packed(data: bytes, zipped: bool) -> bytes:
    return gzip.compress(data, 6, mtime=0) if zipped else data


def truncated(data: bytes, zipped: bool, n: int, rng: np.random.Generator) -> bytes:
    content = packed(data, zipped)
    return content[: len(content) - 1 if n < 2 else int(rng.integers(1, len(content)))]


def bit_flipped(data: bytes, zipped: bool, n: int, rng: np.random.Generator) -> bytes:
    """Anywhere in a gzip stream behind its 10 bytes of time and system; else where it changes what is read."""
    if zipped:
        content = packed(data, zipped)
        return flipped(content, int(rng.integers(10, len(content))), int(rng.integers(8)))
    is_volume = data[DATATYPE] == 4
    fields: list[tuple[range, range]] = [  # bytes, bits
        (range(DIM, DIM + 1), range(3, 8)),  # bit 2 makes 7 axes of 3, the others 1 long
        (range(DIM + 2, DIM + 8), range(8)),
        (range(DATATYPE, DATATYPE + 2), range(8)),
        (range(VOX_OFFSET + 2, VOX_OFFSET + 3), range(5)),
        (range(VOX_OFFSET + 3, VOX_OFFSET + 4), range(1, 2)),
        (range(MAGIC, MAGIC + 4), range(8)),
        (range(SROW_X + 3, SROW_X + 4), range(5, 7)) if is_volume else (range(VOXELS, len(data)), range(2, 8)),
    ]
    bytes_, bits = fields[n % len(fields)]
    return flipped(data, int(rng.choice(bytes_)), int(rng.choice(bits)))


def wrong_dims(data: bytes, zipped: bool, n: int, rng: np.random.Generator) -> bytes:
    shape, axis = list(SHAPE), int(rng.integers(3))
    if n % 3 == 0:
        shape[axis] += int(rng.integers(1, 9))
    elif n % 3 == 1:
        shape[axis] -= int(rng.integers(1, 9))
    else:  # the same number of voxels
        shape = shape[1:] + shape[:1]
    return packed(with_bytes(data, DIM + 2, "<3h", *shape), zipped)


def lying_header(data: bytes, zipped: bool, n: int, rng: np.random.Generator) -> bytes:
    """Another number type, another beginning of the voxels, another number of axes, or bytes that no voxel needs."""
    lies = [
        with_bytes(data, DATATYPE, "<2h", 16, 32),  # float32
        with_bytes(data, DATATYPE, "<2h", 64, 64),  # float64
        with_bytes(data, VOX_OFFSET, "<f", VOXELS + 16 * float(rng.integers(1, 40))),
        with_bytes(data, VOX_OFFSET, "<f", float(rng.choice([1e9, np.nan, 3e38]))),
        with_bytes(data, DIM, "<h", int(rng.choice([0, 1, 2, 8, -3]))),
        data + bytes(int(rng.integers(1, 5000))),
    ]
    return packed(lies[n % len(lies)], zipped)


def not_numbers(data: bytes, zipped: bool, n: int, rng: np.random.Generator) -> bytes:
    kind = np.int16 if data[DATATYPE] == 4 else np.uint8
    values = np.frombuffer(data[VOXELS:], kind).astype("<f4")
    values[rng.integers(values.size, size=int(rng.integers(1, 9)))] = (np.nan, np.inf, -np.inf)[n % 3]
    return packed(with_bytes(data[:VOXELS], DATATYPE, "<2h", 16, 32) + values.tobytes(), zipped)


def empty(data: bytes, zipped: bool, n: int, rng: np.random.Generator) -> bytes:
    return packed(b"", True) if zipped and n % 2 else b""


def text(data: bytes, zipped: bool, n: int, rng: np.random.Generator) -> bytes:
    words = (b"<html>please log in</html>\n", "Überlauf\n".encode(), b"case,dice\n17,0.95\n", b"n+1\0 is not enough\n")
    return packed(words[n % len(words)] * int(rng.integers(1, 200)), zipped and n % 3 == 0)


def gigantic(data: bytes, zipped: bool, n: int, rng: np.random.Generator) -> bytes:
    """Shapes up to the header's own limit; the largest that pass the limits of CT do not fit the file."""
    shapes = [
        (32767,) * 3,
        (4096, 4096, 128),
        (4096, 4096, 4096),
        (512, 512, 32767),
        (1024, 1024, 2047),
        (512, 512, 999),
    ]
    shape = shapes[n % len(shapes)]
    return packed(with_bytes(data, DIM + 2, "<3h", *shape), zipped)


KINDS: dict[str, Damage] = {
    "truncated": truncated,
    "bit-flipped": bit_flipped,
    "wrong dims": wrong_dims,
    "lying header": lying_header,
    "NaN": not_numbers,
    "empty": empty,
    "text": text,
    "gigantic": gigantic,
}


@pytest.fixture(scope="module")
def folder(whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Case 25 k + n is number n of kind k; its volume or its segmentation is damaged, plain or zipped."""
    root = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(200)
    for kind, data in whole.items():
        (root / kind).write_bytes(data)
    for k, damage in enumerate(KINDS.values()):
        for n in range(EACH):
            damaged = ("volume", "segmentation")[n // 2 % 2]
            for kind, data in whole.items():
                if kind != damaged:
                    os.link(root / kind, root / f"{kind}-{k * EACH + n}.nii")
                    continue
                zipped = n % 2 == 0
                content = damage(data, zipped, n, rng)
                assert content != packed(data, zipped)
                (root / f"{kind}-{k * EACH + n}{'.nii.gz' if zipped else '.nii'}").write_bytes(content)
    return root


@pytest.fixture(scope="module")
def checked(folder: Path) -> tuple[FolderReport, int]:
    """The folder's report, and how many bytes reading it took at most."""
    tracemalloc.start()
    try:
        return check_folder(folder, processes=1), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_files_are_good_before_they_are_damaged(whole: dict[str, bytes], tmp_path: Path) -> None:
    report = read_pair(whole, tmp_path)
    assert report.error == "" and report.anatomy is not None
    assert (report.anatomy.liver_voxels, report.anatomy.lesions) == (512, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_damaged_file_is_refused_in_one_line_that_names_it(
    folder: Path, checked: tuple[FolderReport, int], kind: str
) -> None:
    report, _ = checked
    first = list(KINDS).index(kind) * EACH
    cases = report.cases[first : first + EACH]
    assert [case.case for case in cases] == list(range(first, first + EACH))
    for case in cases:
        damaged = case.segmentation if (case.case - first) // 2 % 2 else case.volume
        assert case.error, f"case {case.case} ({kind}, {damaged}) is accepted: {case.warnings}"
        assert "\n" not in case.error and len(case.error) < 600
        assert damaged in case.error
        assert "please report" not in case.error  # no exception that the reader did not foresee
        assert (case.warnings, case.anatomy, case.thumbnail) == ((), None, None)


def test_200_damaged_files_are_200_errors_in_little_memory(checked: tuple[FolderReport, int]) -> None:
    report, most_bytes = checked
    assert len(report.cases) == len(report.errors) == 200
    assert not report.usable
    assert most_bytes < 40 * 2**20  # one gigantic volume alone declares up to 70 TB


def test_a_file_that_blows_up_is_read_no_further_than_its_end(whole: dict[str, bytes], tmp_path: Path) -> None:
    """600 kB that unpack to 500 MB are what deflate can do; the header declares a little more than that."""
    zeros = gzip.compress(bytes(2**20), 9, mtime=0) * 256
    head = gzip.compress(with_bytes(whole["segmentation"], DIM + 2, "<3h", 512, 512, 1030)[:VOXELS], mtime=0)
    volume = with_bytes(whole["volume"], DIM + 2, "<3h", 512, 512, 1030)[:VOXELS]
    (tmp_path / "volume-1.nii.gz").write_bytes(gzip.compress(volume, mtime=0) + zeros * 2 + bytes(2**18))
    (tmp_path / "segmentation-1.nii.gz").write_bytes(head + zeros)
    before = peak_rss_mb()
    case = Case(1, tmp_path / "volume-1.nii.gz", tmp_path / "segmentation-1.nii.gz")
    report = check_case(case, tmp_path)
    assert "segmentation-1.nii.gz: truncated" in report.error
    assert peak_rss_mb() - before < 400  # the labels that are there, one byte each, and a slab


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            lambda data: with_bytes(data, VOX_OFFSET, "<f", np.inf),
            id="vox_offset inf",
        ),
        pytest.param(
            lambda data: flipped(data, BITPIX, 5),
            id="bitpix",
        ),
        pytest.param(
            lambda data: flipped(with_bytes(data, SLOPE, "<2f", 1, 0), SLOPE + 2, 0),
            id="slope 1.008",
        ),
        pytest.param(lambda data: flipped(with_bytes(data, SLOPE, "<2f", 1, 0), SLOPE + 2, 7), id="slope 0.5"),
        pytest.param(lambda data: flipped(with_bytes(data, SLOPE, "<2f", 1, 0), SLOPE + 3, 7), id="slope -1"),
        pytest.param(lambda data: flipped(data, SROW_X + 3, 7), id="mirrored sform"),
        pytest.param(lambda data: flipped(data, SROW_X + 2, 5), id="wider pixels"),
    ],
)
def test_a_header_that_lies_in_one_bit_of_the_volume_is_told(
    whole: dict[str, bytes], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    before = read_pair(whole, tmp_path)
    report = read_pair({**whole, "volume": damage(whole["volume"])}, tmp_path)
    assert "please report" not in report.error
    assert report.error or set(report.warnings) - set(before.warnings)


def peak_rss_mb() -> float:
    resource = pytest.importorskip("resource")
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def read_pair(content: dict[str, bytes], root: Path) -> CaseReport:
    for kind, data in content.items():
        (root / f"{kind}-1.nii").write_bytes(data)
    return check_case(Case(1, root / "volume-1.nii", root / "segmentation-1.nii"), root)
