"""A claim: one sentence, fixed before the first run, that the runs can support or contradict."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from litsexp.spec.base import Level, Strict
from litsexp.spec.catalog import CONTRASTS, MEASURES, METRICS, Contrast
from litsexp.spec.keys import added, content, digest
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import UnknownName, argument_of, nearest, one_of

ARM = "arm"  # the factor of a claim that names two arms, which may differ in several settings
TRIVIAL = {"all background": 0, "liver everywhere": 1}  # what learns nothing, an arm to compare with -> its one label
LESION_SIZE = "lesion_size"  # the factor of a claim about the baseline's lesions of two sizes; its levels:
# LiTS's, of the diameter of the sphere of the same volume; 10 mm and 20 mm themselves belong to the middle one
SIZE_BINS = ("lt10mm", "10to20mm", "gt20mm")
# of |mean HU of the liver - mean HU of the lesion|; 20 HU and 40 HU themselves belong to the middle one
CONTRAST_BINS = ("lt20hu", "20to40hu", "gt40hu")
SHARE = 0.9


def _measured(name: str) -> str:
    """A claim can be about any metric, about any measure made of them, and about a contrast of one of these."""
    names = list(dict.fromkeys([*METRICS, *MEASURES]))
    if name in names:
        return name
    row = contrast_of(name)
    if row is None:
        known = [*names, *CONTRASTS]
        raise ValueError(f"found {name!r}; expected {one_of(known)}{nearest(name, known)}")
    if row.needs == "epochs":  # a share of the best of it has to mean something
        names = [n for n, metric in METRICS.items() if metric.curve and metric.higher_is_better and not metric.unit]
    if (metric := argument_of(name)) not in names:
        raise ValueError(f"found {name!r}; expected after the colon {one_of(names)}{nearest(metric, names)}")
    return name


def contrast_of(metric: str) -> Contrast | None:
    """The row of a metric that is no score of a test case, ``gap:dice_tumor``; None for any other name."""
    try:
        return CONTRASTS.of(metric)
    except UnknownName:
        return None


class Claim(Strict):
    """``better`` does better than ``than`` in ``metric``: scores higher, or lower where less is better.

    With ``factor: arm`` the two are names of arms: of the study file's ``arms``, or any other, or ``than`` is a trivial
    predictor. With ``factor: lesion_size`` they are sizes of lesions, whose recall by the baseline is compared. With
    ``grows`` the claim is that this gain is larger at the second level of a factor than at the first.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="a short name of a-z, 0-9, - and _")
    says: str = Field(min_length=1)
    metric: Annotated[str, AfterValidator(_measured)] = "dice_tumor"
    factor: str
    better: Level
    than: Level
    margin: float = Field(0.02, ge=0)  # smallest difference that matters, in units of the metric
    where: dict[str, Level] = Field({})  # only in these contexts, e.g. {train_fraction: 0.25}
    grows: dict[str, tuple[Level, Level]] = added({}, max_length=1, description="a factor and two of its levels")
    differs: tuple[str, ...] = added(())  # of named arms: the settings in which they are to differ, and in no other
    share: float = added(SHARE, gt=0, le=1)  # of the common best, in claims about epochs_to and images_to
    compares: dict[str, dict[str, Level | None]] = added({})  # of named arms: what differs; filled in by the study

    @model_validator(mode="after")
    def _in_its_place(self) -> Self:
        """What is said of one kind of claim is not said of another, where nobody would read it."""
        row = contrast_of(self.metric)
        if row is not None and row.unit and "margin" not in self.model_fields_set:
            raise ValueError(f"margin: missing; expected the smallest number of {row.unit} that matters")
        if self.share != SHARE and (row is None or row.needs != "epochs"):
            raise ValueError(f"share: found with metric {self.metric!r}; expected epochs_to:METRIC or images_to:METRIC")
        if self.differs and self.factor != ARM:
            raise ValueError(f"differs: found with factor {self.factor!r}; expected factor: {ARM}, or no differs")
        if self.factor == LESION_SIZE and self.metric != "lesion_recall":
            raise ValueError(f"metric: found {self.metric!r} with factor {LESION_SIZE!r}; expected lesion_recall")
        if self.factor == LESION_SIZE and (strange := {self.better, self.than} - set(SIZE_BINS)):
            raise ValueError(f"found {LESION_SIZE} = {strange.pop()!r}; expected {one_of(SIZE_BINS)}")
        if self.factor == LESION_SIZE and (self.where or self.grows):
            raise ValueError(
                f"where, grows: found with factor {LESION_SIZE!r}, which is about the baseline; expected none"
            )
        if self.grows and (self.factor == ARM or row is not None):
            raise ValueError(
                f"grows: found with factor {self.factor!r} and metric {self.metric!r}; expected a setting and a score"
            )
        return self

    @property
    def digest(self) -> str:
        """Changes when anything in the claim changes."""
        return digest(content(self))

    def typed(self, run: RunConfig) -> Claim:
        """The same claim with its levels as the settings they become; a level that cannot be one stays."""
        where = {factor: _typed(run, factor, level) for factor, level in self.where.items()}
        better, than = (_typed(run, self.factor, level) for level in (self.better, self.than))
        grows = {f: (_typed(run, f, first), _typed(run, f, then)) for f, (first, then) in self.grows.items()}
        return self.model_copy(update={"better": better, "than": than, "where": where, "grows": grows})


def _typed(run: RunConfig, factor: str, level: Level) -> Level:
    """The level as the setting it becomes: YAML reads 1e-4 as text, a learning rate is a number."""
    try:
        typed: Level = getattr(run.changed({factor: level}), factor)
    except ValidationError:
        return level
    return typed
