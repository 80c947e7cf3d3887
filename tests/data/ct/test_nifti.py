"""Reading NIfTI: number types, scaling and gzip as the file says, and each bad file refused in one line."""

import gzip
import re
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from litsexp.data.ct import nifti
from litsexp.data.ct.geometry import geometry
from litsexp.spec.errors import LitsexpError

SHAPE = (5, 4, 3)
RAS = np.diag([0.7, 0.8, 2.5, 1])


def ramp() -> np.ndarray:
    return (np.arange(np.prod(SHAPE), dtype=np.int16) * 7 - 200).reshape(SHAPE)


@pytest.fixture(params=[".nii", ".nii.gz"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / f"volume{request.param}"


def save(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, RAS, dtype=array.dtype), path)
    return path


def content(path: Path) -> bytearray:
    data = path.read_bytes()
    return bytearray(gzip.decompress(data) if path.suffix == ".gz" else data)


def replace(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def read(path: Path) -> np.ndarray:
    header = nifti.read_header(path)
    geometry(header)
    return np.concatenate([np.copy(nifti.values_of(header, raw)) for _, raw in nifti.slabs(header)], axis=2)


def refusal(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(LitsexpError) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600
    assert message.startswith(f"{path}: ")
    return message


def test_header_and_geometry(path: Path) -> None:
    header = nifti.read_header(save(path, ramp()))
    assert (header.shape, header.dtype, header.nbytes) == (SHAPE, np.int16, 2 * 5 * 4 * 3)
    assert (header.slope, header.intercept) == (1, 0)
    orientation, spacing_mm = geometry(header)
    assert orientation.tolist() == [[0, 1], [1, 1], [2, 1]]
    assert spacing_mm == (0.7, 0.8, 2.5)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", "<i4", "<f4", ">f8", "<i8"])
def test_any_number_type_and_byte_order(tmp_path: Path, dtype: str) -> None:
    np.testing.assert_array_equal(read(save(tmp_path / "v.nii", (ramp() + 300).astype(dtype))), ramp() + 300)


def test_nifti2_and_a_trailing_axis_of_one(path: Path) -> None:
    nib.save(nib.Nifti2Image(ramp()[..., None], RAS), path)
    np.testing.assert_array_equal(read(path), ramp())


def test_slope_and_intercept(path: Path) -> None:
    data = content(save(path, ramp()))
    struct.pack_into("<ff", data, 112, 0.5, -10.25)
    replace(path, data)
    np.testing.assert_array_equal(read(path), ramp() * 0.5 - 10.25)


def test_the_content_decides_whether_it_is_gzip(tmp_path: Path) -> None:
    plain, zipped = save(tmp_path / "a.nii", ramp()), save(tmp_path / "b.nii.gz", ramp())
    for source, target in ((plain, tmp_path / "c.nii.gz"), (zipped, tmp_path / "d.nii")):
        target.write_bytes(source.read_bytes())
        np.testing.assert_array_equal(read(target), ramp())


def test_slabs_do_not_change_the_result(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti, "_SLAB_BYTES", 1)
    header = nifti.read_header(save(path, ramp()))
    assert [planes for planes, _ in nifti.slabs(header)] == [slice(0, 1), slice(1, 2), slice(2, 3)]
    np.testing.assert_array_equal(read(path), ramp())


def test_a_truncated_file(path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = save(path, rng.integers(-999, 999, SHAPE).astype(np.int16)).read_bytes()
    for kept in (len(whole) - 9, len(whole) // 2, 20, 0):
        path.write_bytes(whole[:kept])
        assert re.search("truncated|not a NIfTI", refusal(path))


def test_a_corrupt_gzip_checksum(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", ramp())
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    assert "corrupt" in refusal(path)


def test_a_web_page_instead_of_a_volume(path: Path) -> None:
    path.write_text("<html>please log in</html>" * 50)
    assert "not a NIfTI file" in refusal(path)


def test_a_dangling_link(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "gone")
    assert "cannot be read (No such file" in refusal(path)


def test_shapes(path: Path) -> None:
    assert "found 4D, shape (5, 4, 3, 2)" in refusal(save(path, np.stack([ramp()] * 2, axis=-1)))
    assert "found 2D" in refusal(save(path, ramp()[..., 0]))
    assert "empty, shape (5, 0, 3)" in refusal(save(path, ramp()[:, :0]))


@pytest.mark.parametrize(
    ("shape", "said"),
    [((5000, 1, 1), "at most 4096"), ((4096, 4096, 4096), "in all"), ((1024, 1024, 1024), "cannot hold")],
)
def test_a_header_that_declares_too_much(path: Path, shape: tuple[int, ...], said: str) -> None:
    header = nib.Nifti1Image(ramp(), RAS).header
    header.set_data_shape(shape)
    replace(path, header.binaryblock + bytes(1000))
    assert said in refusal(path)


@pytest.mark.parametrize("row", [(0, 0, 0, 0), (0, 1, 0, 0), (np.nan, 0, 0, 0), (1e30, 0, 0, 0), (1e-30, 0, 0, 0)])
def test_an_affine_without_directions(path: Path, row: tuple[float, ...]) -> None:
    data = content(save(path, ramp()))
    struct.pack_into("<4f", data, 280, *row)  # srow_x
    replace(path, data)
    assert "affine" in refusal(path)


def test_an_impossible_quaternion(path: Path) -> None:
    data = content(save(path, ramp()))
    struct.pack_into("<hh3f", data, 252, 1, 0, 2, 2, 2)  # qform_code, sform_code, quatern_b, c, d
    replace(path, data)
    assert "bad NIfTI header" in refusal(path)


def test_colour_voxels(path: Path) -> None:
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "voxels of type" in refusal(save(path, rgb))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_labels_are_written_in_the_volumes_own_geometry(path: Path, tmp_path: Path, kind: type) -> None:
    affine = np.array([[0.7, 0.1, 0, -12], [-0.1, 0.8, 0, 5], [0, 0, 2.5, 40], [0, 0, 0, 1.0]])
    image = kind(ramp().astype(">i2")[..., None], affine)
    image.header.set_slope_inter(2, -1024)
    image.set_sform(affine, 1)
    image.set_qform(affine, 3)
    nib.save(image, path)
    header, labels = nifti.read_header(path), (ramp() % 3).astype(np.uint8)
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    for mask in (first, second):
        nifti.write_labels(mask, labels, header)
    assert first.read_bytes() == second.read_bytes()
    written = nib.load(first)
    assert type(written) is kind and written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    np.testing.assert_array_equal(written.affine, header.affine)
    assert [int(written.header[code]) for code in ("sform_code", "qform_code")] == [1, 3]
    assert np.array_equal(read(first), labels) and nifti.read_header(first).shape == SHAPE
    with pytest.raises(ValueError, match="expected one shape"):
        nifti.write_labels(first, labels[1:], header)
