"""A study as typed data: what is asked, which arms answer it, and which cells have to run.

A *study* asks a question and fixes its claims; an *arm* is one setting of every factor; a *cell* is an
arm x fold x seed, that is one training run. Everything here is plain data: nothing reads a CT volume, nothing trains.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from litsexp.spec.base import Level, Strict
from litsexp.spec.cohort import DataConfig, ExternalConfig, SplitConfig
from litsexp.spec.keys import digest, file_sha256
from litsexp.spec.run import RunConfig

Metric = Literal[
    "dice_liver",
    "dice_tumor",
    "sensitivity_liver",
    "sensitivity_tumor",
    "specificity_liver",
    "specificity_tumor",
    "precision_liver",
    "precision_tumor",
    "foreground_acc",
    "pixel_acc",
]
METRICS: tuple[str, ...] = get_args(Metric)


RUN_KEY_FORMAT = 1  # raise it when the same settings would no longer train the same model


class Claim(Strict):
    """One sentence that the runs can support or contradict: ``better`` scores higher than ``than`` in ``metric``."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="a short name of a-z, 0-9, - and _")
    says: str = Field(min_length=1)
    metric: Metric = "dice_tumor"
    factor: str
    better: Level
    than: Level
    margin: float = Field(0.02, ge=0)  # smallest difference that matters, in units of the metric
    where: dict[str, Level] = Field({})  # only in these contexts, e.g. {train_fraction: 0.25}

    @property
    def digest(self) -> str:
        """Changes when anything in the claim changes."""
        return digest(self.model_dump(mode="json"))

    def typed(self, run: RunConfig) -> Claim:
        """The same claim with its levels as the settings they become; a level that cannot be one stays."""
        where = {factor: _typed(run, factor, level) for factor, level in self.where.items()}
        better, than = (_typed(run, self.factor, level) for level in (self.better, self.than))
        return self.model_copy(update={"better": better, "than": than, "where": where})


class SearchConfig(Strict):
    """Only for ``design: search``: how many samples TPE draws, and the range of the learning rate."""

    trials: int = Field(20, ge=1)
    lr: tuple[float, float] = Field((1e-4, 1e-2), description="[low, high] with 0 < low < high")

    @field_validator("lr")
    @classmethod
    def _range(cls, lr: tuple[float, float]) -> tuple[float, float]:
        if not 0 < lr[0] < lr[1]:
            raise ValueError(f"found {list(lr)}; expected [low, high] with 0 < low < high")
        return lr


class StudyConfig(Strict):
    """A study file. See the shipped ``experiments/*.yaml`` for examples."""

    question: str = Field(min_length=1)
    data: DataConfig = DataConfig()
    external: ExternalConfig | None = None
    split: SplitConfig = SplitConfig(folds=3)
    design: Literal["ablation", "factorial", "search"] = "ablation"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1)] = (0,)
    run: RunConfig = Field(RunConfig(), description="keys such as epochs, lr")
    factors: dict[str, Annotated[tuple[Level, ...], Field(min_length=1)]] = Field({})
    search: SearchConfig | None = None
    claims: tuple[Claim, ...] = ()

    @field_validator("factors")
    @classmethod
    def _type_levels(cls, factors: dict[str, tuple[Level, ...]], info: ValidationInfo) -> dict[str, tuple[Level, ...]]:
        run: RunConfig | None = info.data.get("run")  # none: its own mistake is reported
        if run is None:
            return factors
        return {f: tuple(getattr(run.changed({f: level}), f) for level in levels) for f, levels in factors.items()}

    @field_validator("claims")
    @classmethod
    def _type_claims(cls, claims: tuple[Claim, ...], info: ValidationInfo) -> tuple[Claim, ...]:
        run: RunConfig | None = info.data.get("run")
        return claims if run is None else tuple(claim.typed(run) for claim in claims)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}; expected each seed once")
        for factor, levels in self.factors.items():
            self._check_factor(factor, levels)
        arms(self)  # every combination has to be a valid run
        if self.design == "search" and self.search is None:
            raise ValueError("search: missing; expected with design: search, for example search: {trials: 20}")
        if self.design != "search" and self.search is not None:
            raise ValueError(f"search: found with design: {self.design}; expected design: search, or no search")
        if self.claims and self.design == "search":
            raise ValueError(
                "claims: found with design: search, which cannot test claims (its arms are chosen by their results); "
                "expected design: ablation or factorial"
            )
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) < len(ids):
            raise ValueError(f"claims: found ids {ids}; expected each id once")
        for claim in self.claims:
            self._check_claim(claim)
        self._check_external()
        return self

    @property
    def external_data(self) -> DataConfig | None:
        """The external cohort as it is stored: in the size and with the choice of slices that ``data`` has."""
        if self.external is None:
            return None
        return DataConfig(**self.external.model_dump(), size=self.data.size, slices=self.data.slices)

    def _check_factor(self, factor: str, levels: Sequence[Level]) -> None:
        if len(set(levels)) < len(levels):
            raise ValueError(f"factors.{factor}: found {list(levels)}; expected each level once")
        own = getattr(self.run, factor)
        if self.design == "ablation" and own in levels:
            raise ValueError(f"factors.{factor}: found {own!r}, the baseline's own level; expected only the changes")

    def _check_claim(self, claim: Claim) -> None:
        at = f"claims.{claim.id}"
        varied = f"expected one of {', '.join(self.factors)}" if self.factors else "this design has no factors"
        for factor, level in [(claim.factor, claim.better), (claim.factor, claim.than), *claim.where.items()]:
            if factor not in self.factors:
                raise ValueError(f"{at}: found factor {factor!r}, which is not varied; {varied}")
            if level not in self.levels(factor):
                raise ValueError(f"{at}: found {factor} = {level!r}; expected one of {self.levels(factor)}")
        if claim.better == claim.than:
            raise ValueError(f"{at}: found better and than both {claim.better!r}; expected two levels")
        if claim.factor in claim.where:
            raise ValueError(f"{at}: found {claim.factor!r} in where, the factor under test; expected other factors")
        if not contexts(self, claim):
            raise ValueError(
                f"{at}: found where = {claim.where}, under which no two arms differ only in {claim.factor}; "
                "expected no where, or design: factorial"
            )

    def _check_external(self) -> None:
        external = self.external
        if external is None or not external.overlaps(self.data):
            return
        if external.cohort == "phantom":
            found, other = f"a phantom of seed {external.seed}, site {external.site}", "another seed or site"
        else:
            found, other = repr(external.cohort), "a folder that shares no case with it"
        raise ValueError(f"external: found {found}, the cohort of data itself; expected another cohort: {other}")

    def levels(self, factor: str) -> list[Level]:
        """The levels that arms of this design take; an ablation's baseline level comes first."""
        listed = list(self.factors[factor])
        return [getattr(self.run, factor), *listed] if self.design == "ablation" else listed

    def with_levels(self, levels: Mapping[str, Level]) -> RunConfig:
        """The baseline with these levels, checked like the baseline itself; ValidationError names the factor."""
        return self.run.changed(levels)


@dataclass(frozen=True)
class Fingerprints:
    """Of the stored slices that a run's results come from: pixels, labels and index, 16 hex digits a store."""

    data: str
    external: str | None = None  # of the external cohort, where the study has one

    @property
    def content(self) -> dict[str, str]:
        """What goes into a digest; without an external cohort as if there were no such thing."""
        return {"data": self.data} | ({"external": self.external} if self.external else {})


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

    def run_key(self, split: SplitConfig, fingerprints: Fingerprints) -> str:
        """Identity by content: 16 hex digits over every setting that decides the result.

        A weights file counts by its bytes.
        """
        run = self.arm.run.model_dump(mode="json")
        if self.arm.run.init.endswith(".safetensors"):
            run["init"] = file_sha256(Path(self.arm.run.init))
        content = {"format": RUN_KEY_FORMAT, "run": run, "fold": self.fold, "seed": self.seed}
        return digest({**content, "split": split.model_dump(mode="json"), **fingerprints.content})

    @property
    def name(self) -> str:
        """For people: ``init=scratch · fold 1 · seed 0``."""
        return f"{self.arm.name} · fold {self.fold} · seed {self.seed}"


def arms(study: StudyConfig) -> list[Arm]:
    """The arms of a fixed design, baseline first. A search has only its baseline until Optuna samples."""
    if study.design == "factorial":
        names = list(study.factors)
        combinations = itertools.product(*study.factors.values())
        return [arm_of(study, dict(zip(names, levels, strict=True))) for levels in combinations]
    changes = [] if study.design == "search" else [(f, level) for f, ls in study.factors.items() for level in ls]
    return [Arm("baseline", study.run), *(arm_of(study, {factor: level}) for factor, level in changes)]


def arm_of(study: StudyConfig, levels: Mapping[str, Level]) -> Arm:
    """The arm with these levels, named after them (``baseline`` where there are none)."""
    name = ", ".join(f"{factor}={_label(study, factor, level)}" for factor, level in levels.items()) or "baseline"
    return Arm(name, study.with_levels(levels))


def cells(study: StudyConfig) -> list[Cell]:
    """Every cell of a fixed design, by seed, then fold, then arm: a study cut short still compares all arms."""
    order = itertools.product(study.seeds, range(study.split.n_folds), arms(study))
    return [Cell(arm, fold, seed) for seed, fold, arm in order]


def contexts(study: StudyConfig, claim: Claim) -> list[tuple[Arm, Arm]]:
    """Every pair (better, than) of arms that differ in the claim's factor and in nothing else."""
    where = [arm for arm in arms(study) if all(getattr(arm.run, f) == level for f, level in claim.where.items())]
    ours = [arm for arm in where if getattr(arm.run, claim.factor) == claim.better]
    theirs = [arm for arm in where if getattr(arm.run, claim.factor) == claim.than]
    return [(a, b) for a in ours for b in theirs if differing_fields(a.run, b.run) == {claim.factor}]


def differing_fields(a: RunConfig, b: RunConfig) -> set[str]:
    """Names of the settings in which two arms differ."""
    return {name for name in RunConfig.model_fields if getattr(a, name) != getattr(b, name)}


def format_level(level: Level) -> str:
    """A level as people write it: ``0.5``, ``scratch``, the name of a weights file without its folders."""
    return Path(level).name if isinstance(level, str) else f"{level:g}" if isinstance(level, float) else str(level)


def _label(study: StudyConfig, factor: str, level: Level) -> str:
    """A level as an arm's name shows it: in full where another level of the factor looks the same."""
    short = format_level(level)
    alike = [other for other in study.levels(factor) if format_level(other) == short] if factor in study.factors else []
    return short if len(alike) < 2 else str(level)


def _typed(run: RunConfig, factor: str, level: Level) -> Level:
    """The level as the setting it becomes: YAML reads 1e-4 as text, a learning rate is a number."""
    try:
        typed: Level = getattr(run.changed({factor: level}), factor)
    except ValidationError:
        return level
    return typed
