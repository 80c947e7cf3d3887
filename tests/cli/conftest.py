"""A tiny study file."""

from pathlib import Path

STUDY = """\
question: Is a wide window [better]?
split: {folds: 2, valid: 0.25, seed: 0}
run: {init: scratch, window: liver, augment: none, epochs: 1, steps_per_epoch: 1, batch_size: 4}
factors: {window: [wide]}
"""
CLAIM = "{id: wide, says: Wider is better., factor: window, better: wide, than: liver}"


def study_file(text: str = STUDY) -> Path:
    path = Path("tiny.yaml")
    path.write_text(text)
    return path
