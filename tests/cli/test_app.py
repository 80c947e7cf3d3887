"""The command line: help, bad words in one line, and what is left on disk."""

import gzip
import hashlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from litsexp import __version__
from litsexp.cli import app as cli
from litsexp.data.store import convert
from litsexp.display import LiveDisplay
from litsexp.spec.design import cells
from litsexp.spec.study import StudyConfig
from litsexp.study.jobs import Outcome

pytestmark = pytest.mark.usefixtures("elsewhere")
COMMANDS = [
    "study",
    "report",
    "aa",
    "plan",
    "judge",
    "bench stats",
    "ui",
    "prepare",
    "phantom",
    "check",
    "export",
    "list",
]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "nowhere"], ["nowhere: found nothing; expected a folder"]),
        (["prepare", "ct", "--size", "100"], ["--size: found 100", "multiple of 32"]),
        (["prepare", "ct", "--slices", "some"], ["--slices: found 'some'", "expected liver, all, or"]),
        (["phantom", "tiny.yaml"], ["tiny.yaml: found a file; expected a phantom"]),
        (["ui"], ["mlruns/mlflow.db: not there; run a study first"]),
    ],
)
def test_bad_words_are_refused_in_one_line_and_leave_nothing(
    refused: Callable[..., str], words: list[str], said: list[str], files: Callable[[Path], list[str]]
) -> None:
    Path("tiny.yaml").touch()
    error = refused(*words)
    assert all(part in error for part in said), error
    assert files(Path()) == ["tiny.yaml"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(litsexp: Callable[..., tuple[int, str, str]], command: str) -> None:
    code, out, _ = litsexp(*command.split(), "--help")
    assert code == 0
    assert re.search(rf"Example:\s+litsexp {command}\b", out)


def test_help_names_every_command_and_the_version_is_printed(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = litsexp("--help")
    assert code == 0
    assert all(command.split()[0] in out for command in COMMANDS)
    assert litsexp("--version") == (0, f"{__version__}\n", "")


def test_as_a_process_it_helps_and_refuses_like_that(cohort: Path) -> None:
    """What the tests above see inside one process, as a person sees it."""
    script = [sys.executable, "-c", "from litsexp.cli.app import main; main()"]
    helped = subprocess.run([*script, "study", "--help"], capture_output=True, text=True, check=False)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "Example: litsexp study experiments/mini.yaml" in " ".join(helped.stdout.split())
    (cohort / "segmentation-0.nii.gz").unlink()
    bad = subprocess.run([*script, "prepare", str(cohort)], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: ")
    assert bad.stderr.count("\n") == 1
    assert "Traceback" not in bad.stderr


def test_run_study_takes_a_file_or_the_mini_study(monkeypatch: pytest.MonkeyPatch, cohort: Path) -> None:
    script = Path(cli.__file__).parents[2] / "run_study.py"
    nothing = subprocess.run(
        [sys.executable, str(script), "--data", "nowhere"], capture_output=True, text=True, check=False
    )
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)
    assert "nowhere: found nothing" in nothing.stderr  # the mini-study itself was found, from any folder


def test_the_phantom_is_the_same_bytes_from_its_seed(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    def sums(folder: str) -> dict[str, str]:
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(folder).iterdir()}

    for folder, seed in [("a", 4), ("b", 4), ("c", 5)]:
        code, out, _ = litsexp("phantom", folder, "--patients", 2, "--seed", seed, "--size", 32)
        assert code == 0
        assert f"2 phantom patients: {folder}" in out
    assert sums("a") == sums("b")
    assert not sums("a").items() & sums("c").items()
    assert gzip.decompress(Path("a/volume-0.nii.gz").read_bytes())[344:347] == b"n+1"


def test_ctrl_c_in_prepare_says_that_it_goes_on(
    litsexp: Callable[..., tuple[int, str, str]], cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert, "open_case", interrupt)
        code, out, error = litsexp("prepare", cohort, "--size", 32, "--processes", 1)
    assert (code, out) == (130, "") and "the same command goes on" in error
    assert litsexp("prepare", cohort, "--size", 32)[0] == 0


def test_prepare_builds_the_store_that_a_study_uses(
    litsexp: Callable[..., tuple[int, str, str]], cohort: Path, files: Callable[[Path], list[str]]
) -> None:
    code, out, _ = litsexp("prepare", cohort, "--size", 32)
    assert code == 0
    built = files(Path("data"))
    assert re.search(r"2 phantom cases, \d+ slices of 32 px: data/stores/[0-9a-f]{16}\n", out)
    assert litsexp("prepare", cohort, "--size", 32)[1] == out
    assert files(Path("data")) == built


def test_the_live_display_is_titled_with_the_cohort() -> None:
    """Validation scores stand in it, so a phantom's name has to."""
    shown = io.StringIO()
    console = Console(file=shown, width=100)
    with LiveDisplay(console, StudyConfig(question="?"), "ct [a], 6 phantom patients") as display:
        console.print(display.render())
    assert shown.getvalue().splitlines()[0].strip() == "ct [a], 6 phantom patients"
    assert "baseline" in shown.getvalue()


def test_the_live_display_counts_each_arms_own_epochs() -> None:
    """Where epochs are a factor, arms differ in how many they have."""
    study = StudyConfig.model_validate({"question": "?", "run": {"epochs": 6}, "factors": {"epochs": [9]}})
    short, long = cells(study)[:2]
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    display = LiveDisplay(console, study)
    for cell, done in ((short, 4), (long, 9)):
        display.started(cell)
        display.epoch(cell, done - 1, {"valid/score": 0.5})
    console.print(display.render())
    assert "4/6" in shown.getvalue() and "9/9" in shown.getvalue()


def test_a_run_whose_worker_died_and_that_runs_again_is_one_run_to_go() -> None:
    """Its second try neither lets the runs to go fall below none, nor speeds up the pace."""
    cell = cells(StudyConfig(question="?"))[0]
    display = LiveDisplay(Console(file=io.StringIO()), StudyConfig(question="?"))
    display.planned([], 1, 0)
    display.started(cell)
    display.ended(cell, Outcome("failed", reason="killed", died=True))
    assert (display.left, display.done_epochs) == (0, cell.arm.run.epochs)
    display.started(cell)
    assert (display.left, display.done_epochs) == (1, 0)
    display.ended(cell, Outcome("finished", 0.5))
    assert (display.left, display.done_epochs) == (0, cell.arm.run.epochs)


def test_a_notebook_shows_the_live_display_too() -> None:
    with LiveDisplay(Console(force_jupyter=True), StudyConfig(question="?")) as display:
        assert display.live.is_started
    with LiveDisplay(Console(file=io.StringIO()), StudyConfig(question="?")) as display:
        assert not display.live.is_started
