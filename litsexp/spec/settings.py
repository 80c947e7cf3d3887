"""The settings of data, split and run as typed data, and the error that names a wrong one.

What a study makes of them, its arms, cells and claims, is in ``config``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, field_validator, model_validator
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticKnownError

Encoder = Literal["tf_efficientnet_lite0", "resnet18", "resnet34", "resnet50"]
Window = Literal["liver", "custom", "wide", "notebook"]
Augment = Literal["paper", "none"]
Level = bool | int | float | str
# a description stands in for pydantic's own words where a value is refused
WEIGHTS = "scratch, imagenet, shuffled, or a file ending in .safetensors"
Init = Annotated[str, Field(pattern=r"^(scratch|imagenet|shuffled|.+\.safetensors)$", description=WEIGHTS)]
SLICES = "liver, all, or for example liver+20% background"
Fraction = Annotated[float, Field(gt=0, le=1)]


def _known_slices(slices: str) -> str:
    if not re.fullmatch(r"liver|all|liver\+(100|[1-9]?\d)% background", slices):
        raise ValueError(f"found {slices!r}; expected {SLICES}")
    return slices


Slices = Annotated[str, Field(description=SLICES), AfterValidator(_known_slices)]


class LitsexpError(Exception):
    """Something the user can put right. The message names what, what was found, what was expected, what to do."""


class Strict(BaseModel):
    """Immutable; a misspelt key is an error, and so is a boolean where a number belongs (pydantic would read 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _a_boolean_is_no_number(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        checked = handler(value)
        if isinstance(value, bool) and not isinstance(checked, bool):
            raise PydanticKnownError("float_type")
        return checked


class CohortConfig(Strict):
    """Which CT volumes: a folder, or a phantom that is written on demand."""

    cohort: str = Field("phantom", min_length=1, description="phantom, or a directory in LiTS layout")
    patients: int = Field(30, ge=1)  # of the phantom, as are the next three
    seed: int = Field(0, ge=0)
    site: Literal["A", "B"] = "A"  # its scanner: B differs in noise, kernel, spacing and contrast phase
    lesions: Literal["lits", "large"] = "lits"  # sizes as in LiTS, or larger ones that a small U-Net learns in minutes

    def overlaps(self, other: CohortConfig) -> bool:
        """Whether the two may share patients: a phantom of one seed and site, or a folder that lies in the other."""
        if "phantom" in (self.cohort, other.cohort):
            return (self.cohort, self.seed, self.site) == (other.cohort, other.seed, other.site)
        ours, theirs = Path(self.cohort).resolve(), Path(other.cohort).resolve()
        return ours.is_relative_to(theirs) or theirs.is_relative_to(ours)


class StoreConfig(Strict):
    """How the slices of CT volumes are stored."""

    size: int = Field(128, ge=16, le=1024)  # pixels a side, after antialiased resize
    slices: Slices = "liver"  # those that show liver; or every one; or with a share of the others


class DataConfig(StoreConfig, CohortConfig):
    """Which CT volumes, and how a study's slices are stored: at a size that a U-Net can halve five times."""

    size: int = Field(64, ge=32, le=512, multiple_of=32)


class ExternalConfig(CohortConfig):
    """A second cohort, of another scanner: every run scores it after training, and nothing learns from it."""

    patients: int = Field(12, ge=1)
    seed: int = Field(1, ge=0)
    site: Literal["A", "B"] = "B"


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
        expected = "expected folds (and valid), or all of train, valid and test"
        if self.folds is not None and any(holdout):
            raise ValueError(f"found folds together with train/test; {expected}")
        if self.folds is None and not all(holdout):
            raise ValueError(f"found neither folds nor both train and test; {expected}")
        if self.train is not None and self.test is not None:
            total = self.train + self.valid + self.test
            if abs(total - 1) > 1e-6:
                raise ValueError(f"found train + valid + test = {total:g}; expected 1")
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
            raise ValueError(
                f"frozen_epochs: found {self.frozen_epochs} with epochs = {self.epochs}; expected at most epochs"
            )
        return self

    def changed(self, levels: Mapping[str, Level]) -> RunConfig:
        """These settings with some of them changed, and checked like any other; ValidationError names the setting."""
        return RunConfig.model_validate({**self.model_dump(), **levels})


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
