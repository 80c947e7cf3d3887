"""The verdicts in the terminal: both intervals in 100 columns, training's noise, and runs that failed to learn."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from litsexp import display
from litsexp.cli import answer
from litsexp.evidence.judge import judge
from litsexp.evidence.material import Evidence
from litsexp.spec.study import StudyConfig

CLAIM = {"id": "augmentation", "says": "It helps.", "factor": "augment", "better": "paper", "than": "none"}
Show = Callable[[Evidence], list[str]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """What the terminal shows, 100 columns wide, line by line."""

    def show(evidence: Evidence) -> list[str]:
        for module in (answer, display):
            monkeypatch.setattr(module, "console", Console(width=100))
        answer.show(evidence)
        return capsys.readouterr().out.splitlines()

    return show


def evidence(seeds: int = 2, failed: float = 0.3, **changes: Any) -> Evidence:
    """Three folds of four patients; augmentation gains 0.2, and one run without it scores ``failed``."""
    asked = StudyConfig.model_validate(
        {"question": "Does it help?", "factors": {"augment": ["none"]}, "seeds": list(range(seeds)), "claims": [CLAIM]}
        | changes
    )
    cases = pd.DataFrame(
        {"arm": arm, "fold": fold, "seed": seed, "case": 4 * fold + case}
        | {"dice_tumor": failed if (arm, fold, seed) == ("augment=none", 1, 0) else score + 0.01 * (case + seed * fold)}
        for arm, score in (("baseline", 0.5), ("augment=none", 0.3))
        for fold in range(3)
        for seed in range(seeds)
        for case in range(4)
    )
    empty, verdicts = pd.DataFrame(), judge(asked, cases, None)
    return Evidence("toy", asked, "toy", False, verdicts, cases, empty, empty, empty, empty)


def test_a_row_a_claim_with_both_intervals_fits_100_columns(shown: Show) -> None:
    made = evidence()
    (verdict,) = made.verdicts
    lines = shown(made)
    (row,) = (line for line in lines if line.startswith("augmentation ") and "[" in line)
    assert max(map(len, lines[: lines.index(row) + 1])) <= 100
    intervals = ((verdict.low, verdict.high), (verdict.models_low, verdict.models_high))
    for low, high in intervals:
        assert f"[{low:.3f}, {high:.3f}]" in row
    assert f"{100 * verdict.runs_share:.0f} %" in row
    assert row.split("%")[1].split()[:4] == [f"{verdict.p_adjusted:.3g}", "12", "6", "supported,"]
    head = " ".join(lines[: lines.index(row)])
    assert "these models" in head and "pairs" in head
    text = " ".join(lines)
    assert "95 % interval: new patients and new runs, on these training sets; these models: these trained" in text


def test_the_noise_of_training_and_runs_that_failed_to_learn_have_a_line(shown: Show) -> None:
    text = " ".join(shown(evidence(failed=0.04)))
    assert "noise: two halves of baseline differ by 0.01 in tumor Dice on average, by 0.01 at most" in text
    assert "failed to learn: 1 run: augment=none, fold 1, seed 0 (tumor Dice 0.04, below 0.1)" in text
    assert "failed to learn" not in " ".join(shown(evidence()))


def test_with_one_seed_a_second_one_is_asked_for(shown: Show) -> None:
    text = " ".join(shown(evidence(seeds=1)))
    assert "noise: not known" in text and "run a second seed" in text
    assert "3 pairs of runs cannot settle a claim about training" in text


def test_a_study_without_claims_shows_its_noise_all_the_same(shown: Show) -> None:
    text = " ".join(shown(evidence(claims=[])))
    assert "This study file makes no claims." in text
    assert "noise: two halves of baseline differ by 0.01 in tumor Dice" in text


def test_what_cannot_be_told_is_a_dash(shown: Show) -> None:
    made = evidence(seeds=1)
    made = Evidence(**{**made.__dict__, "cases": made.cases, "verdicts": judge(made.study, pd.DataFrame(), None)})
    (row,) = (line for line in shown(made) if line.startswith("augmentation ") and "–" in line)
    assert row.split()[1:5] == ["–"] * 4
