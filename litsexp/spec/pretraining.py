"""What decides a pretraining: settings of its own, and those of the run that change the input or the network.

Arms that agree in these share one pretraining per fold and seed, whatever they do afterwards.
"""

from collections.abc import Iterable
from typing import Any

from litsexp.spec.catalog import INITIALISATIONS, LOSSES
from litsexp.spec.keys import content
from litsexp.spec.run import IN_TABLES, RunConfig

OWN = ("ssl_steps", "ssl_batch_size", "ssl_lr")  # they mean nothing where nothing is pretrained
AFTERWARDS = {  # of the supervised training; a setting that is not named here counts, so that no wrong file is shared
    "augment",
    "loss",
    *(name for recipe in LOSSES.values() for name in recipe.settings),
    "dice_weight",
    "train_fraction",
    "split_unit",
    "epochs",
    "frozen_epochs",
    "encoder_frozen",
    "patience",
    "steps_per_epoch",
    "batch_size",
    "lr",
    "schedule",
    "warmup",
    "clip_norm",
    "ema",
    "weight_decay",
}


def learns(run: RunConfig) -> bool:
    """Whether the run's first weights come from a pretraining on its fold's training slices."""
    return INITIALISATIONS.of(run.init).learns


def pretraining(run: RunConfig) -> dict[str, Any]:
    """The settings that decide it, and the sources of rows that were registered for it; for a digest."""
    settings: dict[str, Any] = content(run, without=AFTERWARDS)
    sources = {name: IN_TABLES[name].source(getattr(run, name)) for name in IN_TABLES if name not in AFTERWARDS}
    return settings | {f"{name} source": sha for name, sha in sources.items() if sha}


def check_pretraining(baseline: RunConfig, runs: Iterable[RunConfig]) -> None:
    """ValueError where a setting of pretraining has no effect: no arm learns, or one that does not varies it."""
    arms = [baseline, *runs]
    for name in OWN:
        default = RunConfig.model_fields[name].default
        expected = f"expected init: ssl:restoration or ssl:masked, or no {name}"
        if (found := getattr(baseline, name)) != default and not any(map(learns, arms)):
            raise ValueError(f"{name}: found {found}, but no arm pretrains; {expected}")
        for run in arms:
            if (found := getattr(run, name)) != getattr(baseline, name) and not learns(run):
                raise ValueError(
                    f"{name}: found {found} in an arm with init = {run.init}, which ignores it; {expected}"
                )
