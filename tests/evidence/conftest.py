"""A small study that ran, one run of eighteen failed: what report and tables show."""

import base64
import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence.judge import judge
from litsexp.evidence.material import Evidence, External, Panel, SideBySide
from litsexp.spec.design import cells
from litsexp.spec.study import StudyConfig

PIXEL = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")  # WebP
CURVES = {"train/loss": 0.4, "valid/loss": 0.5, "valid/dice_liver": 0.9, "valid/dice_tumor": 0.4}


def claim(**changes):
    return {
        "id": "transfer",
        "says": "Pretraining <script>alert(1)</script> helps.",
        "factor": "init",
        "better": "imagenet",
        "than": "scratch",
    } | changes


def study(**changes):
    content = {
        "question": "Does A & B <script>help</script>?",
        "factors": {"init": ["scratch"], "augment": ["none"]},
        "seeds": [0, 1],
        "claims": [claim(), claim(id="pixels", metric="pixel_acc")],
    }
    return StudyConfig.model_validate(content | changes)


def side_by_side(title, why):
    panels = [Panel("truth", "CT", PIXEL), Panel("baseline", "tumor Dice 0.80", PIXEL)]
    return SideBySide(title, why, panels)


def case_rows(asked, failed=("augment=none", 2, 1)):
    rng = np.random.default_rng(0)
    rows = []
    for cell in cells(asked):
        for case in range(cell.fold * 4, cell.fold * 4 + 4):
            score, free = rng.uniform(0.3, 0.6) + 0.2 * (cell.arm.name == "baseline"), case in (1, 6)
            counts = {"tp_tumor": 0 if free else 50, "fp_tumor": 3 * (case == 1), "fn_tumor": 0 if free else 10}
            row = {"arm": cell.arm.name, "fold": cell.fold, "seed": cell.seed, "case": case}
            row |= {"dice_tumor": math.nan if free else score, "dice_liver": 0.9, "pixel_acc": 0.9 + score / 100}
            rows.append(row | counts)
    table = pd.DataFrame(rows)
    arm, fold, seed = failed
    return table[table["arm"].ne(arm) | table["fold"].ne(fold) | table["seed"].ne(seed)]


def evidence(asked=None, **changes):
    asked = asked or study()
    cases = case_rows(asked)
    ran = [{"arm": c.arm.name, "fold": c.fold, "seed": c.seed} for c in cells(asked)]
    runs = [
        r | {"status": "FINISHED", "reason": "", "minutes": 1.5, "best_epoch": 2, "epochs": 3, "lr": 1e-3} for r in ran
    ]
    runs[-1] |= {"status": "FAILED", "reason": "loss was not <finite>"}
    curves = [
        r | {"epoch": e, "metric": m, "value": v + e / 99} for r in ran for e in (1, 2) for m, v in CURVES.items()
    ]
    trivial = [
        {"predictor": name, "case": case, "dice_tumor": 0.0, "dice_liver": liver, "pixel_acc": pixels}
        for name, liver, pixels in (("all background", 0.0, 0.93), ("liver everywhere", 0.14, 0.07))
        for case in range(12)
    ]
    split = [
        {
            "case": c,
            "test_fold": c // 4,
            "liver_pixels": 5000,
            "tumor_pixels": 60,
            "slices": 9,
            "spacing": "0.70 × 0.70 × 5.00",
        }
        for c in range(12)
    ]
    made = Evidence(
        name="transfer",
        study=asked,
        cohort="phantom, 12 patients, seed 0",
        phantom=True,
        verdicts=judge(asked, cases, {"transfer": asked.claims[0].digest}, kind="phantom") if asked.claims else [],
        cases=cases,
        curves=pd.DataFrame(curves),
        runs=pd.DataFrame(runs),
        trivial=pd.DataFrame(trivial),
        split=pd.DataFrame(split),
        pictures=[side_by_side("case 3, z 7", "best")],
        facts={"torch": "2.9", "command": "python run_study.py <file>"},
        notes=["1 of 18 runs failed."],
    )
    return dataclasses.replace(made, **changes)


def external(asked, better=0.2, phantom=True, patients=8, **changes):
    """What the same runs score elsewhere: every run every patient, the baseline better by so much; one has no tumor."""
    rng = np.random.default_rng(1)
    rows = []
    for cell in cells(asked):
        for case in range(patients):
            free = case == 7
            score = rng.uniform(0.2, 0.3) + better * (cell.arm.name == "baseline")
            row = {"arm": cell.arm.name, "fold": cell.fold, "seed": cell.seed, "case": case, "dice_liver": 0.8}
            row |= {"dice_tumor": math.nan if free else score, "pixel_acc": 0.9}
            rows.append(row | {"tp_tumor": 0 if free else 50, "fp_tumor": 0, "fn_tumor": 0 if free else 10})
    cases = pd.DataFrame(rows)
    kind = "external phantom" if phantom else "external"
    trivial = pd.DataFrame([{"predictor": "all background", "case": c, "dice_liver": 0.1} for c in range(patients)])
    made = External(
        cohort="phantom, 8 patients, seed 1, site B" if phantom else "elsewhere, 8 patients",
        phantom=phantom,
        verdicts=judge(asked, cases, None, kind=kind),
        cases=cases,
        trivial=trivial,
        pictures=[side_by_side("external phantom case 5, z 2", "worst")],
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="session")
def make_external():
    return external


@pytest.fixture(scope="session")
def shown_elsewhere(shown):
    """The small study with an external cohort."""
    return dataclasses.replace(shown, external=external(shown.study))


@pytest.fixture(scope="session")
def make_study():
    return study


@pytest.fixture(scope="session")
def make_evidence():
    return evidence


@pytest.fixture(scope="session")
def shown():
    return evidence()
