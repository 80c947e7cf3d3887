"""`litsexp check` as a person uses it: the table, what is said, files that it writes, and exit codes."""

import gzip
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from litsexp.cli import findings
from litsexp.data.check import folder as check
from litsexp.data.check.folder import CaseReport, FolderReport
from litsexp.data.check.oddities import Anatomy
from litsexp.data.ct.layout import PHANTOM_FILE
from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.spec.errors import LitsexpError

Run = Callable[..., tuple[int, str, str]]
SHEET = "ct-contact-sheet.png"
pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def run(litsexp: Run) -> Run:
    """``litsexp check`` in this process: exit code, stdout, stderr."""
    return partial(litsexp, "check")


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small patients."""
    root = tmp_path_factory.mktemp("check")
    return write_cohort(root / "ct", PhantomConfig(3, seed=0, size=32, slices=8), processes=1)


@pytest.fixture
def cohort(cohort: Path) -> Path:
    """A copy to spoil, without what makes it a phantom."""
    (cohort / PHANTOM_FILE).unlink()
    return cohort


def spoil(path: Path, content: bytes) -> None:
    """Never through the hard link."""
    path.unlink()
    path.write_bytes(content)


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir() if path.name != "ct")


def test_a_folder_that_a_study_may_use(run: Run, cohort: Path) -> None:
    code, out, error = run(cohort)
    assert (code, error) == (0, "")
    lines = out.splitlines()
    heads = ["liver", "tumor", "case", "voxels", "mm", "axes", "HU", "ml", "ml", "lesions"]
    assert " ".join(lines[:2]).split() == heads
    assert [line.split()[:2] for line in lines[2:5]] == [[str(case), "32×32×8"] for case in range(3)]
    assert max(map(len, lines[:5])) <= 80
    assert any(line.startswith("! 0-2: only 8 slices; expected at least 20") for line in lines)
    assert lines[-2].startswith("3 cases: ")
    assert lines[-2].endswith(" 0 errors, 3 with warnings; a study may use it")
    assert lines[-1] == f"contact sheet: {SHEET}"
    assert left() == [SHEET]
    assert Image.open(SHEET).format == "PNG"


def test_a_folder_that_a_study_may_not_use(run: Run, cohort: Path) -> None:
    spoil(cohort / "volume-1.nii.gz", (cohort / "volume-1.nii.gz").read_bytes()[:900])
    (cohort / "segmentation-2.nii.gz").unlink()
    for name in ("test-volume-0.nii", "test-volume-1.nii", "scout.nii"):
        (cohort / name).touch()
    code, out, error = run(cohort)
    assert (code, error) == (1, "")
    assert [line.split() for line in out.splitlines() if line.rstrip().endswith("✗")] == [["1", "✗"], ["2", "✗"]]
    assert "✗ 1: volume-1.nii.gz: truncated" in out
    assert "✗ 2: volume-2.nii.gz: found no segmentation with number 2" in out
    assert (
        "; 2 unlabeled test volumes and 1 other .nii file left out; a study may not use it, 2 cases refused: 1-2" in out
    )
    assert left() == [SHEET]


def test_a_phantom_is_called_one(run: Run, few: Path) -> None:
    code, out, _ = run(few, "--no-sheet")
    assert code == 0
    assert "a phantom of 3 cases: " in out
    assert left() == []


def test_an_empty_folder_and_none_at_all(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    code, out, error = run("ct")
    assert (code, error) == (1, "")
    assert "found no labeled CT case" in out and out.rstrip().endswith("; a study may not use it")
    code, out, error = run("nowhere")
    assert (code, out) == (2, "")
    assert error.startswith("error: nowhere: found nothing") and error.count("\n") == 1
    assert left() == []


def test_json_to_stdout_is_alone_there(run: Run, cohort: Path) -> None:
    spoil(cohort / "volume-1.nii.gz", b"")
    code, out, error = run(cohort, "--json", "-")
    assert code == 1
    content = json.loads(out)
    assert "✗ 1: volume-1.nii.gz" in error and "contact sheet: " in error
    assert (content["folder"], content["usable"], content["phantom"]) == (str(cohort), False, False)
    assert content["summary"] in error
    first, second, _ = content["cases"]
    assert (first["case"], first["volume"], first["error"]) == (0, "volume-0.nii.gz", "")
    assert first["shape"] == [32, 32, 8] and first["liver_ml"] > 0 and len(first["image_sha256"]) == 64
    assert second["error"] and "shape" not in second
    assert "thumbnail" not in first and "liver_box" not in first


def test_json_to_a_file_writes_null_for_what_is_unknown(run: Run, cohort: Path) -> None:
    for kind in ("volume", "segmentation"):
        path = cohort / f"{kind}-0.nii.gz"
        image = nib.Nifti1Image(np.asanyarray(nib.load(path).dataobj), np.eye(4))
        spoil(path, gzip.compress(image.to_bytes()))
    code, out, _ = run(cohort, "--json", "found.json", "--no-sheet", "--processes", 2)
    assert code == 0
    first, second, _ = json.loads(Path("found.json").read_text(encoding="utf-8"))["cases"]
    assert first["spacing_mm"] == [None] * 3 and first["liver_ml"] is None
    assert second["liver_ml"] is not None
    assert out.splitlines()[2].split()[2] == "?"
    assert left() == ["found.json"]


def test_nothing_is_overwritten(run: Run, cohort: Path) -> None:
    for name in (SHEET, "found.json", "mine.png"):
        Path(name).write_text("mine")
    for option, name in (("--json", "found.json"), ("--sheet", "mine.png"), ("--json", "no/folder.json")):
        code, out, error = run(cohort, option, name)
        assert (code, out) == (2, "")  # before anything is read
        assert error.startswith(f"error: {name}: ") and error.count("\n") == 1
    for _ in range(2):
        assert run(cohort)[0] == 0
    assert left() == ["ct-contact-sheet-2.png", "ct-contact-sheet-3.png", SHEET, "found.json", "mine.png"]
    assert {Path(name).read_text() for name in (SHEET, "found.json", "mine.png")} == {"mine"}
    assert Path("ct-contact-sheet-2.png").read_bytes() == Path("ct-contact-sheet-3.png").read_bytes()


def test_a_named_sheet(run: Run, cohort: Path) -> None:
    code, out, _ = run(cohort, "--sheet", "mine.png")
    assert (code, left()) == (0, ["mine.png"])
    assert out.endswith("contact sheet: mine.png\n")


def test_an_interruption_leaves_nothing(run: Run, cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check_case", interrupted)
    code, _, _ = run(cohort, "--json", "found.json", "--processes", 1)
    assert code == 130
    assert left() == []


def test_a_disk_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LitsexpError, match=r"found.json: cannot be written \(No space left"):
        findings.write_new(Path("found.json"), b"{}")
    assert left() == []


def test_131_cases_stay_readable() -> None:
    unit = "the header says 1 x 1 x 1 mm"
    pair = "the same image as case {}"
    found = [(case, unit) for case in range(28, 48)] + [
        (case, f"a liver of {case} ml; expected 400") for case in range(9)
    ]
    found += [(50, pair.format(90)), (90, pair.format(50)), (130, unit)]
    assert list(findings.grouped(found)) == [
        f"28-47, 130: {unit}",
        "0-8: a liver of 0 ml; expected 400 (case 0; the others alike)",
        "50: the same image as case 90",
        "90: the same image as case 50",
    ]
    assert findings.ranges([5, 3, 4, 9, 4]) == "3-5, 9"


def test_a_large_case_fits_into_a_terminals_width() -> None:
    anatomy = Anatomy(
        shape=(512, 512, 987),
        spacing_mm=(0.703, 0.703, 12.5),
        orientation="LPS",
        dtype="int16",
        hu_range=(-3024.0, 27572.0),
        clipped=0,
        padding=0,
        remarks=(),
        liver_slices=300,
        liver_voxels=9,
        tumor_voxels=9,
        liver_ml=3512.4,
        tumor_ml=1234.5,
        liver_hu=107.0,
        tumor_hu=60.0,
        lesions=130,
        largest_lesion_mm=140.0,
        liver_box=(slice(0), slice(0), slice(0)),
    )
    report = FolderReport(Path("ct"), [CaseReport(1171, anatomy=anatomy, warnings=("odd",) * 12)])
    printed = Console(file=io.StringIO(), width=80)
    printed.print(findings.table(report))
    words = "1171 512×512×987 0.70×0.70×12.50 LPS -3024..27572 3512 1234.5 130 ! 12"
    assert printed.file.getvalue().splitlines()[-1].split() == words.split()


def test_summary_counts() -> None:
    report = FolderReport(Path("ct"), [CaseReport(1), CaseReport(2, warnings=("odd",))], unlabeled=70)
    said = "2 cases: 0 with tumor, 0 errors, 1 with warnings; 70 unlabeled test volumes left out; a study may use it"
    assert findings.summary(report) == said
