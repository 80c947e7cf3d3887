"""Two studies of two arms whose scores are drawn: patients, runs and residuals vary as in the shipped mini-study."""

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence.compare.sides import Side
from litsexp.evidence.kinds import Tables
from litsexp.spec.study import StudyConfig

CLAIM = {
    "id": "transfer",
    "says": "It helps.",
    "factor": "init",
    "better": "imagenet",
    "than": "scratch",
    "margin": 0.05,
}
METRICS = {"dice_tumor": 0.0, "dice_liver": 0.2}  # and how much higher it lies


def study(**changes):
    content = {"question": "Does it help?", "factors": {"init": ["scratch"]}, "claims": [CLAIM], "seeds": [0, 1]}
    return StudyConfig.model_validate(content | changes)


def scores(asked, rng, shift=0.0, patients=24, run_sd=0.04, gain=0.1, levels=None):
    """A row a case and run: patients are the same in every call, runs and residuals are drawn anew.

    ``shift`` raises the baseline; ``gain`` is by how much it lies above the other arm.
    """
    level = np.random.default_rng(7).normal(0.45, 0.12, patients) if levels is None else levels
    rows = []
    for arm in ("baseline", "init=scratch"):
        raised = shift + gain if arm == "baseline" else 0.0
        for seed in asked.seeds:
            for fold in range(asked.split.n_folds):
                luck = rng.normal(0, run_sd, len(METRICS))
                for case in range(fold, patients, asked.split.n_folds):
                    found = {
                        name: level[case] + higher + raised + luck[i] + rng.normal(0, 0.05)
                        for i, (name, higher) in enumerate(METRICS.items())
                    }
                    rows.append({"arm": arm, "fold": fold, "seed": seed, "case": case} | found)
    return pd.DataFrame(rows)


def side(cases, asked=None, **changes):
    asked = asked or study()
    content = {
        "name": "mini-00000000",
        "run_id": "0" * 32,
        "study": asked,
        "tables": Tables(cases),
        "planned": 12,
        "finished": 12,
        "cohort": "phantom, 24 patients, seed 0",
        "phantom": True,
        "fingerprint": "same",
        "preregistered": {claim.id: claim.digest for claim in asked.claims},
        "rulings": {},
        "effects": {},
        "facts": {"version.torch": "2.9.0", "git_commit": "abc", "device": "cpu"},
    }
    return Side(**content | changes)


@pytest.fixture(scope="session")
def make_study():
    return study


@pytest.fixture(scope="session")
def make_scores():
    return scores


@pytest.fixture(scope="session")
def make_side():
    return side
