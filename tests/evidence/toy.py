"""Toy tables of cases whose verdicts can be worked out by hand."""

import numpy as np
import pandas as pd

from litsexp.evidence.judge import judge
from litsexp.spec.study import StudyConfig

CLAIM = {"id": "transfer", "says": "Pretraining helps.", "factor": "init", "better": "imagenet", "than": "scratch"}
ALTERNATING = np.tile([-1.0, 1.0], 12)  # neighbours share a fold: all runs are alike, and only patients vary


def study(claims=(CLAIM,), **changes):
    content = {"question": "Does it help?", "factors": {"init": ["scratch"]}, "claims": list(claims)}
    return StudyConfig.model_validate(content | changes)


def table(scores, seeds=(0,), folds=6, **columns):
    """``scores``: arm -> one tumor Dice a case, the same for every seed; two neighbours are tested by one run."""
    rows = [
        {"arm": arm, "fold": case // 2 % folds, "seed": seed, "case": case, "dice_tumor": value} | columns
        for arm, values in scores.items()
        for seed in seeds
        for case, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def one(differences, margin=0.02, **how):
    """The verdict on patients with these differences."""
    cases = table({"baseline": 0.5 + np.asarray(differences), "init=scratch": [0.5] * len(differences)}, **how)
    return judge(study([CLAIM | {"margin": margin}]), cases, None)[0]
