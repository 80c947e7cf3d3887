"""A claim: one sentence, fixed before the first run, that the runs can support or contradict."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from litsexp.spec.base import Level, Strict
from litsexp.spec.catalog import MEASURES, METRICS
from litsexp.spec.keys import content, digest
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import nearest, one_of

ARM = "arm"  # the factor of a claim that names two arms and no setting in which they differ


def _measured(name: str) -> str:
    """A claim can be about any metric, and about any measure made of them."""
    if name not in METRICS and name not in MEASURES:
        names = list(dict.fromkeys([*METRICS, *MEASURES]))
        raise ValueError(f"found {name!r}; expected {one_of(names)}{nearest(name, names)}")
    return name


class Claim(Strict):
    """``better`` does better than ``than`` in ``metric``: scores higher, or lower where less is better."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="a short name of a-z, 0-9, - and _")
    says: str = Field(min_length=1)
    metric: Annotated[str, AfterValidator(_measured)] = "dice_tumor"
    factor: str
    better: Level
    than: Level
    margin: float = Field(0.02, ge=0)  # smallest difference that matters, in units of the metric
    where: dict[str, Level] = Field({})  # only in these contexts, e.g. {train_fraction: 0.25}

    @property
    def digest(self) -> str:
        """Changes when anything in the claim changes."""
        return digest(content(self))

    def typed(self, run: RunConfig) -> Claim:
        """The same claim with its levels as the settings they become; a level that cannot be one stays."""
        where = {factor: _typed(run, factor, level) for factor, level in self.where.items()}
        better, than = (_typed(run, self.factor, level) for level in (self.better, self.than))
        return self.model_copy(update={"better": better, "than": than, "where": where})


def _typed(run: RunConfig, factor: str, level: Level) -> Level:
    """The level as the setting it becomes: YAML reads 1e-4 as text, a learning rate is a number."""
    try:
        typed: Level = getattr(run.changed({factor: level}), factor)
    except ValidationError:
        return level
    return typed
