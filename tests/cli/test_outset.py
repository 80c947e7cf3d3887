"""What a study tells before it starts, and how a search ends."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from litsexp import aa, display, pipeline, plan
from litsexp.cli import answer
from litsexp.evidence.material import Evidence
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import executor_of
from litsexp.study.gpu_room import GIB, Room
from litsexp.study.jobs import Executor

from .conftest import CLAIM, STUDY, study_file

pytestmark = pytest.mark.usefixtures("elsewhere", "no_downloads")
TEXT = STUDY.replace("init: scratch", "init: scratch, encoder: resnet18") + f"claims: [{CLAIM}]\n"
Litsexp = Callable[..., tuple[int, str, str]]


def lines(out: str) -> dict[str, str]:
    """The opening, by its first words."""
    return dict(re.findall(r"^(\w+) {2,}(.+?) *$", out, re.MULTILINE))


def test_a_study_tells_what_it_will_do_and_then_what_it_has_done(litsexp: Litsexp, places: list[object]) -> None:
    study = study_file(TEXT)
    code, out, error = litsexp("study", study, "--workers", 1, *places)
    assert code == 0, error
    assert out.startswith("Is a wide window [better]?\n")
    told = lines(out)
    assert told["arms"] == "baseline, window=wide"
    assert told["runs"] == "4 = 2 arms × 2 folds × 1 seed, each 1 epoch of 1 step of 4 slices of 64 px"
    assert told["patients"].startswith("ct, 6 phantom patients")
    assert told["claims"] == "1 (wide), written down before the first run"
    assert told["time"].startswith("soon done, 1 at a time")
    code, out, _ = litsexp("study", study_file(TEXT.replace("Wider is better.", "Wider helps.")), *places)
    told = lines(out)
    assert told["runs"].endswith("; 4 done before") and "time" not in {*told} - {"time:"}
    assert told["claims"] == "1 (wide), newer than the first run, so post hoc: wide"


def test_the_time_comes_from_a_rehearsal_and_later_from_the_finished_runs(
    litsexp: Litsexp, places: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SOON_STEPS", 1)
    monkeypatch.setattr("litsexp.study.rehearsal.STEPS_S", 0.1)
    monkeypatch.setattr("litsexp.study.rehearsal.SLICES_S", 0.1)
    code, out, error = litsexp("study", study_file(TEXT), "--workers", 1, *places)
    assert code == 0, error
    assert re.match(r"about \d+ (s|min), 1 at a time \(if every arm takes as long as the first, ", lines(out)["time"])
    more = study_file(TEXT + "seeds: [0, 1]\n")
    code, out, error = litsexp("study", more, "--workers", 1, *places)
    assert re.match(r"about \d s, 1 at a time \(as the 4 finished runs took\)", lines(out)["time"])


@pytest.mark.parametrize("command", [["study"], ["aa", "--seeds", 2]], ids=["study", "aa"])
def test_as_many_as_fit_on_the_gpu_are_told_and_used(
    litsexp: Litsexp, places: list[object], monkeypatch: pytest.MonkeyPatch, command: list[object]
) -> None:
    """The GPU is made up; the arithmetic and the measuring have tests of their own."""
    asked: list[object] = []

    def on_a_gpu(_: object, workers: object) -> tuple[None, bool]:
        asked.append(workers)
        return None, True

    def measured(_: object, threads: int, *__: object) -> Room:
        asked.append(threads)
        return Room(3 * GIB, 78 * GIB, cpus=1, left=4)

    def made(name: str | None, workers: int | None, *of: Any, **more: Any) -> Executor:
        asked.append(workers)
        return executor_of(name, 1, *of, **more)

    for room in (pipeline, aa):
        monkeypatch.setattr(room, "workers_of", on_a_gpu)
        monkeypatch.setattr(room, "executor_of", made)
    monkeypatch.setattr(pipeline, "room_on_gpu", measured)
    code, out, error = litsexp(*command, study_file(TEXT), "--workers", "auto", "--threads", 2, *places)
    assert code == 0, error
    assert asked == ["auto", None, 2, 1]  # the default until the study is open
    assert "auto: a run takes 3.0 of 78.0 GiB free on the GPU; 1 run at a time (1 core)" in out
    if command == ["study"]:
        assert lines(out)["time"].startswith("soon done, 1 at a time")


def test_where_no_gpu_is_auto_is_the_default(litsexp: Litsexp, places: list[object]) -> None:
    code, out, error = litsexp("study", study_file(TEXT), "--workers", "auto", "--executor", "inline", *places)
    assert code == 0, error
    assert lines(out)["time"].startswith("soon done, 1 at a time") and "auto:" not in out


def test_other_numbers_of_workers_are_refused_before_anything_is_written(refused: Callable[..., str]) -> None:
    study = study_file(TEXT)
    for command in ("study", "aa"):
        error = refused(command, study, "--workers", "many")
        assert error == "error: --workers: found 'many'; expected a number from 1 on, or auto"
    assert "found '0'" in refused("study", study, "--workers", 0)
    assert "slurm places runs itself" in refused("study", study, "--workers", "auto", "--executor", "slurm")
    with pytest.raises(LitsexpError, match="found a study that is only scored; expected a number"):
        pipeline.run_study(study, workers="auto", train=False, score=True)
    assert sorted(path.name for path in Path().iterdir()) == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.0, "4 s"), (99.0, "99 s"), (370.0, "6 min"), (12_600.0, "3.5 h"), (180_000.0, "2.1 days")]
)
def test_durations_in_words(seconds: float, said: str) -> None:
    assert display.duration(seconds) == said


def test_a_search_ends_in_its_best_five_finished_trials(
    make_search: Callable[[pd.DataFrame], Evidence],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in (answer, display):
        monkeypatch.setattr(module, "console", Console(width=100))
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9, math.nan]
    states = ["COMPLETE"] * 6 + ["PRUNED", "FAIL"]
    trials = pd.DataFrame({"trial": range(8), "state": states, "valid/score": scores, "lr": 1e-3, "window": "[odd]"})
    answer.show(make_search(trials))
    out = capsys.readouterr().out
    assert "8 trials: 6 finished, 1 pruned, 1 failed; a search is exploratory and tests no claim" in out
    rows = re.findall(r"^ *(\d) +(0\.\d) +0\.001 +\[odd\]", out, re.MULTILINE)
    assert rows == [("5", "0.6"), ("4", "0.5"), ("3", "0.4"), ("2", "0.3"), ("1", "0.2")]
    assert "np." not in out
    answer.show(make_search(pd.DataFrame()))
    assert "0 trials: none finished" in capsys.readouterr().out


@pytest.fixture
def make_search() -> Callable[[pd.DataFrame], Evidence]:
    content: dict[str, Any] = {"question": "What looks promising?", "design": "search", "search": {"trials": 8}}
    asked, empty = StudyConfig.model_validate(content), pd.DataFrame()
    parts = {"cases": empty, "curves": empty, "runs": empty, "trivial": empty, "split": empty, "verdicts": []}
    return lambda trials: Evidence("search", asked, "ct, 6 patients", False, **parts, search=trials)
