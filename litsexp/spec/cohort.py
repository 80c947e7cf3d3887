"""Cohorts and splits: which CT volumes a study uses, how their slices are stored, who trains and who is tested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from litsexp.spec.base import Strict

SLICES = "liver, all, or for example liver+20% background"


def _known_slices(slices: str) -> str:
    if not re.fullmatch(r"liver|all|liver\+(100|[1-9]?\d)% background", slices):
        raise ValueError(f"found {slices!r}; expected {SLICES}")
    return slices


Slices = Annotated[str, Field(description=SLICES), AfterValidator(_known_slices)]


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
