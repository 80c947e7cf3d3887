"""``litsexp plan`` from the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from litsexp import plan as room
from litsexp.cli import plan as command
from litsexp.evidence.planning import Noise
from litsexp.spec.design import cells
from litsexp.spec.reading import load_study
from litsexp.study.forecast import Forecast, Pretrained
from litsexp.study.results import Results

from .conftest import CLAIM, STUDY, study_file

pytestmark = pytest.mark.usefixtures("elsewhere")
Command = Callable[..., tuple[int, str, str]]
CLAIMED = STUDY + f"claims: [{CLAIM}]\n"


def test_noise_gives_power_and_needs_and_leaves_nothing(
    litsexp: Command, phantom_store: object, places: list[object], files: Callable[[Path], list[str]]
) -> None:
    study, before = study_file(CLAIMED), files(Path())
    words = ["plan", study, *places, "--no-hours", "--set", "seeds=[0,1,2]", "--noise", "0.05,0.01,0.01"]
    code, out, _ = litsexp(*words, "--json", "plan.json")
    assert code == 0, out
    assert "12 runs" in out
    assert "run SD 0.050, patient SD 0.010, residual SD 0.010 (--noise)" in out
    assert "no number of patients settles 0.02 while runs differ by 0.05" in out
    assert set(files(Path())) - {"plan.json"} == set(before)
    (claim,) = json.loads(Path("plan.json").read_text())["claims"]
    assert claim["design"] == {"patients": 6, "folds": 2, "seeds": 3, "contexts": 1, "crossed": False}
    assert claim["needed"]["patients"]["number"] is None
    assert claim["needed"]["seeds"]["number"] > 3
    assert claim["needed"]["runs_for_seeds"] == (claim["needed"]["seeds"]["number"] - 3) * 2


def test_without_noise_or_pilot_it_says_how_to_get_it(litsexp: Command, places: list[object]) -> None:
    _, out, _ = litsexp("plan", study_file(CLAIMED), *places, "--no-hours")
    assert "wide: how runs and patients vary is not known; give --noise, or run two seeds of it as a pilot" in out


def test_hours_are_told_and_nothing_is_left(
    litsexp: Command, places: list[object], files: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litsexp.study.rehearsal.STEPS_S", 0.0)
    study, before = study_file(), files(Path())
    code, out, _ = litsexp("plan", study, *places, "--workers", 1, "--set", "factors={}", "--json", "plan.json")
    assert code == 0
    assert "time:   " in out
    assert " for 2 runs of " in out
    assert "1 at a time" in out
    assert "This study makes no claims." in out
    assert set(files(Path())) - {"plan.json"} == set(before)
    told = json.loads(Path("plan.json").read_text())["forecast"]
    assert told["wall_s"] >= sum(told["run_s"]) > 0
    assert told["disk_bytes"] > 30e6 and told["keep_weights"] == 2
    assert re.search(r"^disk:   0\.\d\d GB of weights, pictures and tables$", out, re.MULTILINE)
    words = ("plan", study, *places, "--workers", 1, "--set", "factors={}", "--keep-weights", "none")
    _, out, _ = litsexp(*words, "--json", "none.json")
    assert re.search(r"^disk:   0\.00 GB of pictures and tables; no runs keep their weights$", out, re.MULTILINE)
    assert json.loads(Path("none.json").read_text())["forecast"]["disk_bytes"] < told["disk_bytes"] / 10


@pytest.mark.parametrize("noise", ["0.1", "0.1,0.2", "0.1,0.2,x", "0.1,-0.2,0.1", "nan,0.1,0.1", "0.1,inf,0.1"])
def test_a_bad_noise_is_refused(refused: Callable[..., str], noise: str) -> None:
    error = refused("plan", study_file(CLAIMED), "--noise", noise)
    assert f"--noise: found {noise!r}; expected three numbers from 0 on" in error


def test_one_noise_for_two_units_is_refused(refused: Callable[..., str]) -> None:
    other = CLAIM.replace("id: wide", "id: silent, metric: lesions_false")
    error = refused("plan", study_file(STUDY + f"claims: [{CLAIM}, {other}]"), "--noise", "0.1,0.1,0.1")
    assert "--noise: found claims in several units" in error


def pilot(seeds: tuple[int, ...]) -> Results:
    """Both arms' scores of six patients in two folds, the wide arm's runs noisy."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in seeds:
        for fold in (0, 1):
            luck = rng.normal(0, 0.1)
            for case in range(fold, 12, 2):
                for arm, extra in (("baseline", 0.0), ("window=wide", luck + rng.normal(0, 0.02))):
                    score = np.nan if case == 3 else 0.5 + extra
                    rows.append({"arm": arm, "fold": fold, "seed": seed, "case": case, "dice_tumor": score})
    empty = pd.DataFrame()
    return Results(pd.DataFrame(rows), empty, empty, empty)


def test_a_pilot_gives_ranges_for_the_design_that_is_asked() -> None:
    asked = load_study(study_file(CLAIMED), ["seeds=[0,1,2,3]"])
    done = cells(asked)[:12]
    found = room.plan_claim(asked, asked.claims[0], 12, None, done, pilot((0, 1, 2)))
    assert found.source == "11 patients, 2 folds, 3 seeds"
    assert (found.design.patients, found.design.seeds) == (11, 4)
    assert found.powers
    assert found.powers[2].power <= found.powers[0].power <= found.powers[1].power
    assert found.noises
    assert found.noises[1].run_sd < found.noises[0].run_sd < found.noises[2].run_sd
    assert found.powers[0].from_runs > 0.8
    assert "no number of patients settles 0.02" in command.words(found)


def test_a_pilot_of_one_seed_is_asked_for_a_second() -> None:
    asked = load_study(study_file(CLAIMED))
    found = room.plan_claim(asked, asked.claims[0], 12, None, cells(asked), pilot((0,)))
    assert command.words(found) == "wide: its finished runs have one seed; run a second one, or give --noise"
    given = room.plan_claim(asked, asked.claims[0], 12, Noise(0.1, 0.1, 0.1), cells(asked), pilot((0,)))
    assert given.source == "--noise"


@pytest.mark.parametrize(("seconds", "said"), [(40, "40 s"), (720, "12 min"), (12240, "3.4 h")])
def test_durations(seconds: float, said: str) -> None:
    assert command.duration(seconds) == said


def test_pretraining_is_told_by_method_with_the_supervised_steps_it_is_worth() -> None:
    ones = [Pretrained("ssl:masked", 500, seconds, worth) for seconds, worth in ((110.0, 800), (130.0, 1000))]
    told = command.pretraining_words(Forecast(9, 1, (1.0,), 1.0, 0, 9, False, (*ones, Pretrained("a", 5, 9.0, 7))))
    assert told == [
        "a: 1 x 5 steps of 9 s, in the time above; each takes as long as 7 supervised steps of its arm",
        "ssl:masked: 2 x 500 steps of 2 min, in the time above; each takes as long as 900 supervised steps of its arm",
    ]
    assert command.pretraining_words(Forecast(9, 1, (1.0,), 1.0, 0, 9, False)) == []
