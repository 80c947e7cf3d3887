"""What a study runs: its arms, and their cells (arm x fold x seed), each known by a key of what it computes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from litsexp.spec.base import Level
from litsexp.spec.catalog import WEIGHTS_FILE
from litsexp.spec.claim import ARM, LESION_SIZE, TRIVIAL, Claim
from litsexp.spec.cohort import SplitConfig
from litsexp.spec.keys import content, digest, file_sha256
from litsexp.spec.pretraining import OWN, learns
from litsexp.spec.run import IN_TABLES, RunConfig
from litsexp.spec.tables import argument_of

if TYPE_CHECKING:
    from litsexp.spec.study import StudyConfig

BASELINE = "baseline"
RUN_KEY_FORMAT = 2  # raise it when the same settings would no longer train the same model (2: seeds differ by fold)


@dataclass(frozen=True)
class Arm:
    """One setting of all factors. ``name`` reads as what distinguishes it: ``baseline``, ``init=scratch``."""

    name: str
    run: RunConfig


@dataclass(frozen=True)
class Cell:
    """One training run: an arm on one fold with one seed."""

    arm: Arm
    fold: int
    seed: int

    def run_key(self, split: SplitConfig, data_fingerprint: str) -> str:
        """Identity by content: 16 hex digits over every setting that decides what is trained.

        A weights file counts by its bytes, and a registered row by those of the module that registered it.
        """
        run = content(self.arm.run, without=() if learns(self.arm.run) else OWN)
        if IN_TABLES["init"].row_name(self.arm.run.init) == WEIGHTS_FILE:
            run["init"] = file_sha256(Path(argument_of(self.arm.run.init)))
        sources = {name: table.source(getattr(self.arm.run, name)) for name, table in IN_TABLES.items()}
        asked = {"run": run, "fold": self.fold, "seed": self.seed, "split": content(split), "data": data_fingerprint}
        registered = {"registered": used} if (used := {name: sha for name, sha in sources.items() if sha}) else {}
        changed = {"patience": "over all phases"} if self.arm.run.patience and self.arm.run.frozen_epochs > 1 else {}
        return digest({"format": RUN_KEY_FORMAT, **asked, **registered, **changed})

    @property
    def random_seed(self) -> int:
        """Of all that is random in this run: from fold and seed, so that folds are runs of their own; below 2**32.

        The same for every arm: the two runs of a pair share decoder weights, batch order and augmentation.
        """
        return int(np.random.SeedSequence([self.seed, self.fold]).generate_state(1)[0])

    @property
    def name(self) -> str:
        """For people: ``init=scratch · fold 1 · seed 0``."""
        return f"{self.arm.name} · fold {self.fold} · seed {self.seed}"


def arms(study: StudyConfig) -> list[Arm]:
    """The arms of a fixed design, baseline first, named ones last. A search has its baseline until Optuna samples."""
    if study.design == "factorial":
        names = list(study.factors)
        combinations = itertools.product(*study.factors.values())
        return [arm_of(study, dict(zip(names, levels, strict=True))) for levels in combinations]
    changes = [] if study.design == "search" else [(f, level) for f, ls in study.factors.items() for level in ls]
    named = [Arm(name, study.run.changed(settings)) for name, settings in study.arms.items()]
    return [Arm(BASELINE, study.run), *(arm_of(study, {factor: level}) for factor, level in changes), *named]


def leaking_arms(study: StudyConfig) -> list[str]:
    """Names of the arms that learn from slices beside those that test them: see data/rows.py."""
    return [arm.name for arm in arms(study) if arm.run.split_unit == "slice"]


def arm_of(study: StudyConfig, levels: Mapping[str, Level]) -> Arm:
    """The arm with these levels, named after them (``baseline`` where there are none)."""
    name = ", ".join(f"{factor}={_label(study, factor, level)}" for factor, level in levels.items()) or BASELINE
    return Arm(name, study.run.changed(levels))


def cells(study: StudyConfig) -> list[Cell]:
    """Every cell of a fixed design, by seed, then fold, then arm: a study cut short still compares all arms."""
    order = itertools.product(study.seeds, range(study.split.n_folds), arms(study))
    return [Cell(arm, fold, seed) for seed, fold, arm in order]


def contexts(study: StudyConfig, claim: Claim) -> list[tuple[Arm, ...]]:
    """The arms that answer a claim: every pair (better, than) that differs in the claim's factor and in nothing else.

    Of a claim about two arms: these, whatever they differ in. Of one that ``grows``: every four arms (better, than at
    the second level; better, than at the first). Named arms are compared by name alone, but make such fours complete.
    A trivial predictor stands for an arm of its own, and of a claim about lesions' sizes both sides are the baseline.
    """
    known = {arm.name: arm for arm in arms(study)}
    if claim.factor == LESION_SIZE:
        return [(known[BASELINE], known[BASELINE])]
    if claim.factor == ARM and claim.than in TRIVIAL:
        known[str(claim.than)] = Arm(str(claim.than), study.run)
    if claim.factor == ARM:
        return [(known[name], known[other]) for name, other in [(str(claim.better), str(claim.than))] if name in known]
    among = [arm for arm in known.values() if claim.grows or arm.name not in study.arms]
    where = [arm for arm in among if all(getattr(arm.run, f) == level for f, level in claim.where.items())]
    pairs = _pairs(where, claim.factor, claim.better, claim.than)
    for other, (first, then) in claim.grows.items():
        at_first = [pair for pair in pairs if getattr(pair[0].run, other) == first]
        at_then = [pair for pair in pairs if getattr(pair[0].run, other) == then]
        return [(*b, *a) for b in at_then for a in at_first if differing_fields(a[0].run, b[0].run) == {other}]
    return [*pairs]


def _pairs(among: Sequence[Arm], factor: str, better: Level, than: Level) -> list[tuple[Arm, Arm]]:
    ours = [arm for arm in among if getattr(arm.run, factor) == better]
    theirs = [arm for arm in among if getattr(arm.run, factor) == than]
    return [(a, b) for a in ours for b in theirs if differing_fields(a.run, b.run) == {factor}]


def differing_fields(a: RunConfig, b: RunConfig) -> set[str]:
    """Names of the settings in which two arms differ."""
    return {name for name in RunConfig.model_fields if getattr(a, name) != getattr(b, name)}


def format_level(level: Level | None) -> str:
    """A level as people write it: ``0.5``, ``scratch``; ``file:x.safetensors``: a file without its folders."""
    if level is None:
        return "default"
    if isinstance(level, str):
        return f"file:{Path(argument_of(level)).name}" if level.startswith("file:") else level
    return f"{level:g}" if isinstance(level, float) else str(level)


def _label(study: StudyConfig, factor: str, level: Level) -> str:
    """A level as an arm's name shows it: in full where another level of the factor looks the same."""
    short = format_level(level)
    alike = [other for other in study.levels(factor) if format_level(other) == short] if factor in study.factors else []
    return short if len(alike) < 2 else str(level)


def design_digest(study: StudyConfig, data_fingerprint: str) -> str:
    """Identity of a study by what it runs: question and claims may be reworded without running anything again."""
    asked = content(study, without={"question", "claims", "data", "external"})
    return digest({"format": RUN_KEY_FORMAT, "data": data_fingerprint, **asked})
