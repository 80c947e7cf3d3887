"""A report that mail carries: sixty runs with all their figures, and pictures up to their limit."""

import dataclasses

import numpy as np
import pandas as pd

from litsexp.evidence import report
from litsexp.evidence.judge import judge
from litsexp.evidence.material import Panel, SideBySide
from litsexp.spec.design import cells

WINDOWS = ["liver", "custom", "wide"]
CLAIMS = [
    {"id": f"claim-{factor}-{level}", "says": "It helps.", "factor": factor, "better": best, "than": level}
    for factor, best, levels in (
        ("window", "notebook", WINDOWS),
        ("dice_weight", 0.5, [0.0, 0.25, 0.75]),
        ("init", "imagenet", ["scratch", "shuffled"]),
        ("augment", "paper", ["none"]),
    )
    for level in levels
]


def test_sixty_runs_of_a_hundred_patients_stay_under_3_mb(make_evidence, make_study):
    claims = [claim | {"id": claim["id"].replace(".", "")} for claim in CLAIMS]
    factors = {
        "window": WINDOWS,
        "dice_weight": [0.0, 0.25, 0.75],
        "init": ["scratch", "shuffled"],
        "augment": ["none"],
    }
    asked = make_study(factors=factors, claims=claims, seeds=[0, 1])
    assert len(cells(asked)) == 60
    rng = np.random.default_rng(0)
    rows = [
        {"arm": cell.arm.name, "fold": cell.fold, "seed": cell.seed, "case": case}
        | {name: rng.uniform(0.2, 0.9) for name in ("dice_tumor", "dice_liver", "pixel_acc")}
        for cell in cells(asked)
        for case in range(cell.fold, 118, 3)
    ]
    cases = pd.DataFrame(rows)
    panels = [Panel("truth" if i == 0 else f"arm {i}", "tumor Dice 0.50", rng.bytes(12_000)) for i in range(11)]
    shown = [SideBySide(f"case {i}, z 9", "best", panels) for i in range(9)]
    made = make_evidence(asked, verdicts=judge(asked, cases, None))
    made = dataclasses.replace(made, cases=cases, pictures=shown, verdicts=judge(asked, cases, None))
    html = report.render(made)
    assert "more would make this file too large" in html
    assert html.count('role="img"') >= 11
    assert len(html.encode()) < 3_000_000, len(html.encode())
