"""Claims of every kind in one report: an axis a unit and kind, words and rules for readers, and tables."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import figures
from litsexp.evidence.judge import judge
from litsexp.evidence.kinds import Tables
from litsexp.evidence.material import Evidence
from litsexp.evidence.report import render
from litsexp.evidence.tables import verdict_table, write_tables
from litsexp.spec.design import cells
from litsexp.spec.study import StudyConfig

INIT = {"says": "It helps.", "factor": "init", "better": "imagenet", "than": "scratch"}
CLAIMS: list[dict[str, Any]] = [
    {**INIT, "id": "plain"},
    {"id": "named", "says": "It helps.", "factor": "arm", "better": "baseline", "than": "longer"},
    {**INIT, "id": "sooner", "metric": "epochs_to:dice_tumor", "margin": 1},
    {**INIT, "id": "images", "metric": "images_to:dice_tumor", "margin": 64},
    {**INIT, "id": "fits", "metric": "gap:dice_tumor"},
    {**INIT, "id": "grows", "grows": {"train_fraction": [1.0, 0.25]}},
]
LEVELS = {"init": ["scratch"], "train_fraction": [0.25]}
ARMS = {"longer": {"init": "scratch", "steps_per_epoch": 150, "lr": 0.01}}
ARMS["small"] = {"init": "scratch", "train_fraction": 0.25}


@pytest.fixture(scope="module")
def every_kind(make_evidence: Any, make_study: Any, make_external: Any) -> Evidence:
    asked: StudyConfig = make_study(factors=LEVELS, arms=ARMS, claims=CLAIMS)
    shown: Evidence = make_evidence(asked)
    rng, epochs, train = np.random.default_rng(0), [], []
    for cell in cells(asked):
        run = {"arm": cell.arm.name, "fold": cell.fold, "seed": cell.seed}
        for case in (case for case in range(12) if case // 4 != cell.fold):
            train.append({**run, "case": case, "dice_tumor": rng.uniform(0.7, 0.8)})
            for epoch in range(4):
                score = (epoch + 1) / (6 if cell.arm.run.init == "scratch" else 5)
                epochs.append({**run, "case": case, "epoch": epoch, "images": 32 * (epoch + 1), "dice_tumor": score})
    tables, fixed = (
        Tables(shown.cases, pd.DataFrame(train), pd.DataFrame(epochs)),
        {c.id: c.digest for c in asked.claims},
    )
    there = make_external(asked)
    external = judge(asked, there.cases, None, kind="external phantom", external=True)
    verdicts = judge(asked, tables, fixed, kind="phantom")
    return dataclasses.replace(shown, verdicts=verdicts, external=dataclasses.replace(there, verdicts=external))


def test_the_forest_has_an_axis_a_unit_and_kind(every_kind: Evidence) -> None:
    drawn = figures.forest(every_kind.verdicts, every_kind.noise)
    axes = ["mean difference over patients, 95 %", "patients, epochs, 95 %", "patients, images, 95 %"]
    axes += ["difference of two gaps, training minus test patients, 95 %", "of two differences, 95 %"]
    assert [drawn.count(axis) for axis in axes] == [1] * 5
    assert "right of 0: the gain grows" in drawn
    assert "(init imagenet − scratch): train_fraction 0.25 − 1" in drawn


def test_the_report_tells_what_arms_differ_in_and_how_each_kind_is_measured(every_kind: Evidence) -> None:
    told = render(every_kind)
    named = every_kind.verdicts[1]
    assert named.sentence.startswith("arm baseline (init=imagenet, steps_per_epoch=default, lr=0.001) ")
    assert named.sentence.partition(" (adjusted")[0] in told
    assert "longer (init=scratch, steps_per_epoch=150, lr=0.01); small (init=scratch, train_fraction=0.25)." in told
    assert "<small>init=scratch, steps_per_epoch=150, lr=0.01</small>" in told
    for verdict in every_kind.verdicts:
        assert verdict.asked.rule.split("'")[0] in told
    assert "time to 90 % of the common best tumor Dice in epochs (less is better)" in told


def test_what_cannot_be_asked_elsewhere_is_named_and_left_out(every_kind: Evidence) -> None:
    assert [pair.here.claim.id for pair in every_kind.replications] == ["plain", "named", "grows"]
    assert "from whom nothing was learned: sooner, images, fits." in render(every_kind)


def test_tables_hold_every_claim(every_kind: Evidence, tmp_path: Path) -> None:
    table = verdict_table(every_kind.verdicts).set_index("claim")
    assert table["unit"].to_dict() == dict.fromkeys(table.index, "") | {"sooner": "epochs", "images": "images"}
    assert table.loc["named", "than"] == "arm longer (init=scratch, steps_per_epoch=150, lr=0.01)"
    assert {path.name for path in write_tables(every_kind, tmp_path)} >= {"verdicts.tex", "external_verdicts.csv"}
    assert "steps\\_per\\_epoch=150" in (tmp_path / "verdicts.tex").read_text()
