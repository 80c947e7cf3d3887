"""The study file as typed data: what is asked, which arms answer it, and which cells have to run.

A *study* asks a question and fixes its claims; an *arm* is one setting of every factor; a *cell* is an
arm x fold x seed, that is one training run. Everything here is plain data: nothing reads a CT volume, nothing trains.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Encoder = Literal["tf_efficientnet_lite0", "resnet18", "resnet34", "resnet50"]
Window = Literal["liver", "custom", "wide", "notebook"]
Augment = Literal["paper", "none"]
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

Level = bool | int | float | str
Init = Annotated[str, Field(pattern=r"^(scratch|imagenet|shuffled|.+\.safetensors)$")]
Fraction = Annotated[float, Field(gt=0, le=1)]

RUN_KEY_FORMAT = 1  # raise it when the same settings would no longer train the same model


class LitsexpError(Exception):
    """Something the user can put right. The message names what, what was found, what was expected, what to do."""


class Strict(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Strict):
    """Which CT volumes, and how their slices are stored."""

    cohort: str = "phantom"  # phantom, or a directory in LiTS layout
    patients: int = Field(30, ge=1)  # of the phantom
    seed: int = Field(0, ge=0)  # of the phantom
    size: int = Field(64, ge=32, le=512, multiple_of=32)  # pixels a side, after antialiased resize
    slices: Literal["liver", "all"] = "liver"  # slices that show liver, or every slice


class SplitConfig(Strict):
    """Patient-level folds (``folds`` + ``valid``) or one holdout (``train`` + ``valid`` + ``test`` = 1)."""

    folds: int | None = Field(None, ge=2)
    valid: float = Field(0.2, gt=0, lt=1)  # folds: share of the patients that are not tested; holdout: share of all
    train: float | None = Field(None, gt=0, lt=1)
    test: float | None = Field(None, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        holdout = (self.train is not None, self.test is not None)
        if self.folds is not None and any(holdout):
            raise ValueError("found folds together with train/test; give folds and valid, or train, valid and test")
        if self.folds is None and not all(holdout):
            raise ValueError("expected folds (and valid), or all of train, valid and test")
        if self.train is not None and self.test is not None:
            total = self.train + self.valid + self.test
            if abs(total - 1) > 1e-6:
                raise ValueError(f"train + valid + test = {total:g}; expected 1")
        return self

    @property
    def n_folds(self) -> int:
        """How many test sets there are: the folds, or 1 for a holdout."""
        return self.folds or 1


class RunConfig(Strict):
    """One arm's settings: everything that decides what a training run computes, fold and seed apart."""

    encoder: Encoder = "tf_efficientnet_lite0"
    init: Init = "imagenet"  # scratch | imagenet | shuffled (its statistics, not its features) | encoder.safetensors
    window: Window = "notebook"
    dice_weight: float = Field(0.5, ge=0, le=1)  # loss = (1 - w) * CE + w * Dice
    augment: Augment = "paper"
    train_fraction: Fraction = 1.0  # of the training patients; the number of optimiser steps stays the same
    epochs: int = Field(6, ge=1)
    frozen_epochs: int = Field(0, ge=0)  # the first of the epochs, with the encoder's weights frozen
    patience: int = Field(0, ge=0)  # early stopping: epochs without a better validation score; 0 = never
    steps_per_epoch: int | None = Field(None, ge=1)  # default: as many batches as the whole training set gives
    batch_size: int = Field(16, ge=2)
    lr: Annotated[float, Field(gt=0)] | Literal["find"] = 1e-3  # peak of the one-cycle schedule
    weight_decay: float = Field(0.1, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 autocast where the processor has it
    channels_last: bool = True

    @model_validator(mode="after")
    def _phases(self) -> Self:
        if self.frozen_epochs > self.epochs:
            raise ValueError(f"frozen_epochs = {self.frozen_epochs} is more than epochs = {self.epochs}")
        return self


class Claim(Strict):
    """One sentence that the runs can support or contradict: ``better`` scores higher than ``than`` in ``metric``."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    says: str = Field(min_length=1)
    metric: Metric = "dice_tumor"
    factor: str
    better: Level
    than: Level
    margin: float = Field(0.02, ge=0)  # smallest difference that matters, in units of the metric
    where: dict[str, Level] = {}  # only in these contexts, e.g. {train_fraction: 0.25}

    @property
    def digest(self) -> str:
        """Changes when anything in the claim changes."""
        return digest(self.model_dump(mode="json"))


class SearchConfig(Strict):
    """Only for ``design: search``: how many samples TPE draws, and the range of the learning rate."""

    trials: int = Field(20, ge=1)
    lr: tuple[float, float] = (1e-4, 1e-2)

    @model_validator(mode="after")
    def _range(self) -> Self:
        if not 0 < self.lr[0] < self.lr[1]:
            raise ValueError(f"lr = {list(self.lr)}; expected [low, high] with 0 < low < high")
        return self


class StudyConfig(Strict):
    """A study file. See the shipped ``experiments/*.yaml`` for examples."""

    question: str = Field(min_length=1)
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig(folds=3)
    design: Literal["ablation", "factorial", "search"] = "ablation"
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    run: RunConfig = RunConfig()
    factors: dict[str, Annotated[tuple[Level, ...], Field(min_length=1)]] = {}
    search: SearchConfig | None = None
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}: each seed once")
        for factor, levels in self.factors.items():
            self._check_factor(factor, levels)
        if (self.search is not None) != (self.design == "search"):
            raise ValueError("'search:' belongs to 'design: search', and 'design: search' needs it")
        if self.claims and self.design == "search":
            raise ValueError(
                "a search cannot test claims: its arms are chosen by their results; use ablation or factorial"
            )
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) < len(ids):
            raise ValueError(f"claims: ids {ids} are not unique")
        for claim in self.claims:
            self._check_claim(claim)
        return self

    def _check_factor(self, factor: str, levels: Sequence[Level]) -> None:
        if factor not in RunConfig.model_fields:
            raise ValueError(f"factors.{factor}: unknown factor; {_nearest(factor, RunConfig.model_fields)}")
        for level in levels:
            changed = self.with_levels({factor: level})
            if self.design == "ablation" and changed == self.run:
                raise ValueError(f"factors.{factor}: {level!r} is the baseline's own level; list only the changes")
        if len(set(levels)) < len(levels):
            raise ValueError(f"factors.{factor}: {list(levels)} names a level twice")

    def _check_claim(self, claim: Claim) -> None:
        at = f"claims.{claim.id}"
        for factor, level in [(claim.factor, claim.better), (claim.factor, claim.than), *claim.where.items()]:
            if factor not in self.factors:
                raise ValueError(
                    f"{at}: factor {factor!r} is not varied by this design; factors: {sorted(self.factors)}"
                )
            if level not in self.levels(factor):
                raise ValueError(f"{at}: {factor} = {level!r} is not a level; expected one of {self.levels(factor)}")
        if claim.better == claim.than:
            raise ValueError(f"{at}: better and than are both {claim.better!r}")
        if claim.factor in claim.where:
            raise ValueError(f"{at}: where fixes {claim.factor!r}, the factor under test")
        if not contexts(self, claim):
            raise ValueError(f"{at}: no two arms differ only in {claim.factor} under where = {claim.where}")

    def levels(self, factor: str) -> list[Level]:
        """The levels that arms of this design take; an ablation's baseline level comes first."""
        listed = list(self.factors[factor])
        return [getattr(self.run, factor), *listed] if self.design == "ablation" else listed

    def with_levels(self, levels: Mapping[str, Level]) -> RunConfig:
        """The baseline with these levels, checked like the baseline itself; ValueError names the factor."""
        try:
            return RunConfig.model_validate({**self.run.model_dump(), **levels})
        except ValidationError as error:
            names = ".".join(levels)
            raise ValueError(f"factors.{names}: {_first_problem(error, RunConfig)}") from None


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

    def run_key(self, split: SplitConfig, fingerprint: str) -> str:
        """Identity by content: 16 hex digits over every setting that decides the result.

        ``fingerprint`` is the store's: the stored pixels, labels and index. A weights file counts by its bytes.
        """
        run = self.arm.run.model_dump(mode="json")
        if self.arm.run.init.endswith(".safetensors"):
            run["init"] = file_sha256(Path(self.arm.run.init))
        content = {"format": RUN_KEY_FORMAT, "run": run, "fold": self.fold, "seed": self.seed}
        return digest({**content, "split": split.model_dump(mode="json"), "data": fingerprint})

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
    name = ", ".join(f"{factor}={format_level(level)}" for factor, level in levels.items()) or "baseline"
    return Arm(name, study.with_levels(levels))


def cells(study: StudyConfig) -> list[Cell]:
    """Every cell of a fixed design, folds outermost so that a study cut short still compares all arms."""
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


def digest(content: object) -> str:
    """16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; LitsexpError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LitsexpError(f"{path}: cannot be read ({error.strerror}); expected a file that exists") from None


def load_study(path: Path, overrides: Sequence[str] = (), data: Path | None = None) -> StudyConfig:
    """Read a study file, apply ``key.key=value`` overrides, point it at ``data``; LitsexpError in one line."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise LitsexpError(f"{path}: cannot be read ({error.strerror}); expected a study file (YAML)") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LitsexpError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        found = type(content).__name__
        raise LitsexpError(f"{path}: found {found} at the top level; expected keys such as question, run, factors")
    for override in overrides:
        _apply(content, override)
    if data is not None:
        section = content.setdefault("data", {})
        if isinstance(section, dict):
            section["cohort"] = str(data)
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        raise LitsexpError(f"{path}: {_first_problem(error, StudyConfig)}") from None


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one dotted key of the raw study: ``run.epochs=3``, ``seeds=[0,1]``."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise LitsexpError(f"--set {override}: expected KEY=VALUE, for example --set run.epochs=3")
    *parents, last = key.strip().split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise LitsexpError(f"--set {override}: {parent!r} is not a section with keys of its own")
    try:
        content[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LitsexpError(f"--set {override}: the value is not valid YAML: {' '.join(str(error).split())}") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence; a study file should not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of pydantic's complaints as one line: field, what was found, what was expected."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if part not in ("function-after", "constrained-str"))
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; {_nearest(str(problem['loc'][-1]), _fields_at(model, problem['loc'][:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where and not message.startswith(("claims.", "factors.")) else message
    if problem["type"] == "missing":
        return f"{where}: missing; a value is required"
    if where.startswith("init"):
        message = "expected scratch, imagenet, shuffled, or a file ending in .safetensors"
    return f"{where}: found {problem['input']!r}; {message[0].lower()}{message[1:]}"


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> Iterator[str]:
    """Names of the fields that a section of the study file may have."""
    for part in loc:
        field = model.model_fields.get(str(part))
        for candidate in (field.annotation, *get_args(field.annotation)) if field else ():
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return iter(model.model_fields)


def _nearest(word: str, known: Iterator[str] | Mapping[str, object]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(names)}"
