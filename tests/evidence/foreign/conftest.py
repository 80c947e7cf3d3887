"""nnU-Net's folders as nnU-Net writes them, and a table of simulated results."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

LABELS = {"background": 0, "liver": 1, "tumor": 2}


def scores(tp, fp, fn, tn=10_000):
    """As nnunetv2/evaluation/evaluate_predictions.py computes them: NaN where reference and prediction are empty."""
    found = tp + fp + fn
    dice, iou = (2 * tp / (2 * tp + fp + fn), tp / found) if found else (math.nan, math.nan)
    counts = {"FN": fn, "FP": fp, "IoU": iou, "TN": tn, "TP": tp, "n_pred": fp + tp, "n_ref": fn + tp}
    return {"Dice": dice, **counts}


def write_summary(trainer: Path, fold: int | str, cases: dict[str, dict[str, dict]]) -> Path:
    """``cases``: name -> label -> scores. Keys sorted, NaN as Python writes it, absolute paths of another machine."""
    home = f"/cluster/nnUNet_results/{trainer.name}/fold_{fold}/validation"
    content = {
        "foreground_mean": {"Dice": 0.5},
        "mean": {"1": {"Dice": 0.9}, "2": {"Dice": 0.4}},
        "metric_per_case": [
            {
                "metrics": metrics,
                "prediction_file": f"{home}/{name}.nii.gz",
                "reference_file": f"/cluster/nnUNet_preprocessed/Dataset003_Liver/gt_segmentations/{name}.nii.gz",
            }
            for name, metrics in cases.items()
        ],
    }
    file = trainer / f"fold_{fold}" / "validation" / "summary.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content, indent=4, sort_keys=True))
    return file


def write_trainer(root: Path, name: str, gain: int = 0, folds: int = 5, seed: int = 0) -> Path:
    """Six validation cases a fold, the first without tumor; ``gain`` more tumor voxels found of 100."""
    trainer, rng = root / f"{name}__nnUNetPlans__3d_fullres", np.random.default_rng(seed)
    for fold in range(folds):
        luck = int(rng.integers(-3, 4))
        cases = {}
        for index in range(6):
            hit = 40 + 5 * index + luck + gain + int(rng.integers(-4, 5))
            tumor = scores(0, 0, 0) if index == 0 else scores(hit, 20, 100 - hit)
            cases[f"liver_{6 * fold + index}"] = {"1": scores(900 + luck, 10, 20), "2": tumor}
        write_summary(trainer, fold, cases)
    (trainer / "dataset.json").write_text(json.dumps({"labels": LABELS, "numTraining": 30, "file_ending": ".nii.gz"}))
    return trainer


@pytest.fixture
def trainers(tmp_path):
    """Two trainers of one data set, five folds each; the second finds more tumor."""
    root = tmp_path / "Dataset003_Liver"
    write_trainer(root, "nnUNetTrainer")
    write_trainer(root, "nnUNetTrainerDA5", gain=12, seed=1)
    return root


def simulated(rng, effect=0.1, folds=5, seeds=1, patients=6, run_sd=0.02, gaps=0):
    """Two arms; patients nested in folds. ``gaps`` rows of each arm are missing, which leaves an irregular table."""
    rows = []
    for fold in range(folds):
        truth = rng.uniform(0.2, 0.7, patients)
        for seed in range(seeds):
            for arm in ("new", "old"):
                values = truth + effect * (arm == "new") + rng.normal(0, run_sd) + rng.normal(0, 0.03, patients)
                rows += [(arm, fold, seed, f"p{fold}_{i}", value) for i, value in enumerate(values)]
    table = pd.DataFrame(rows, columns=["arm", "fold", "seed", "case", "kappa"])
    lost = [i for arm in ("new", "old") for i in rng.choice(table.index[table["arm"] == arm], gaps, replace=False)]
    return table.drop(index=lost)


def claim(**changes):
    return {
        "id": "new",
        "says": "New helps.",
        "metric": "kappa",
        "better": "new",
        "than": "old",
        "margin": 0.02,
    } | changes


@pytest.fixture(scope="session")
def nnunet_writer():
    """``trainer(root, name, gain, folds, seed)``, ``summary(trainer, fold, cases)``, ``scores(tp, fp, fn)``."""
    return {"trainer": write_trainer, "summary": write_summary, "scores": scores}


@pytest.fixture(scope="session")
def make_table():
    return simulated


@pytest.fixture(scope="session")
def make_claim():
    return claim
