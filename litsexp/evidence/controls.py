"""Which arms of a study show whether a gain comes from what its claim names, or from something cheaper."""

from litsexp.spec.design import arms
from litsexp.spec.pretraining import learns
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig


def controls(study: StudyConfig) -> list[str]:
    """Arms that show whether an initialisation helps by its features or by something cheaper."""
    found = []
    for arm in arms(study) if study.design != "search" else ():
        if arm.run.init == "shuffled":
            found.append(f"{arm.name}: the pretrained weights' statistics without their features")
        elif arm.run.encoder_frozen or arm.run.frozen_epochs == arm.run.epochs:
            found.append(f"{arm.name}: the encoder stays as initialised ({arm.run.init})")
    needs = any(c.factor == "init" and {c.better, c.than} == {"imagenet", "scratch"} for c in study.claims)
    if needs and not any("statistics" in text for text in found):
        doubt = "a gain of imagenet over scratch may come from the scale of the weights alone (Raghu 2019)"
        found.append(f"none for initialisation: {doubt}; add init: shuffled to tell")
    return found + _pretraining_controls(study)


def _pretraining_controls(study: StudyConfig) -> list[str]:
    """What a self-supervised arm has to be read with: slices without labels, and its compute."""
    found = []
    runs = {arm.name: arm.run for arm in arms(study)} if study.design != "search" else {}
    for name, run in runs.items():
        if learns(run) and run.train_fraction < 1:
            part = f"train_fraction = {run.train_fraction:g} of them"
            found.append(f"{name}: pretrained on all training patients of its fold; {part} then trained with labels")
    longest = max((_steps(run) for run in runs.values() if run.init == "scratch"), default=(0, 0))
    compared = {str(c.better) for c in study.claims if c.factor == "init" and c.than == "scratch"}
    for run in {run.init: run for run in runs.values() if learns(run) and run.init in compared}.values():
        if longest <= _steps(run):
            doubt = f"a gain of {run.init} over scratch may come from training longer alone"
            found.append(f"none for pretraining: {doubt}; add an arm of scratch with the same compute to tell")
    return found


def _steps(run: RunConfig) -> tuple[int, int]:
    """Supervised steps in an order that knows which run trains longer, where both name steps or neither does."""
    return (run.steps_per_epoch or 0) * run.epochs, run.epochs
