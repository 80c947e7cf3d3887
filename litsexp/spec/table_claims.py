"""A claims file: what somebody's table of results is asked. Its arms are names in the table, not settings of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from litsexp.spec.base import Level, Strict
from litsexp.spec.claim import Claim
from litsexp.spec.keys import added

TWO_ARMS = "a table's claims name two arms"
Name = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True, description="a name, as text")]


class TableClaim(Claim):
    """The arm ``better`` does better than the arm ``than`` in ``metric``, a column of the table."""

    metric: Name
    factor: Literal["arm"] = Field("arm", description=f"no factor: {TWO_ARMS}")
    better: Name
    than: Name
    margin: float = Field(ge=0)  # smallest difference that matters, in units of the metric: nobody else knows it
    where: dict[str, Level] = Field({}, max_length=0, description=f"nothing: {TWO_ARMS}")
    grows: dict[str, tuple[Level, Level]] = added({}, max_length=0, description=f"nothing: {TWO_ARMS}")
    differs: tuple[str, ...] = added((), max_length=0, description="nothing: a table's arms have no settings")
    compares: dict[str, dict[str, Level | None]] = added({}, max_length=0, description="nothing")

    @model_validator(mode="after")
    def _in_its_place(self) -> Self:
        """A column of a table may have any name, and is a score a case."""
        if "share" in self.model_fields_set:
            raise ValueError("share: found in a claim about a table; expected none")
        return self


class Column(Strict):
    """What a column of scores means."""

    words: str = ""  # what sentences call it; empty: the column's name
    higher_is_better: bool = True
    unit: str = ""  # "mm"; empty for a share
    undefined: str = "empty in the table"  # why it is NaN where it is


def _scored() -> dict[str, Column]:
    undefined = "neither in the truth nor predicted, or millimetres are unknown"
    distances = {"assd": "ASSD", "rmsd": "RMSD", "msd": "maximum surface distance", "hd95": "HD95"}
    columns = {"lesions_false_any": Column(words="lesions that touch none", higher_is_better=False, unit="a case")}
    for structure in ("liver", "tumor"):
        for name, words in distances.items():
            said = f"{structure} {words}"
            columns[f"{name}_{structure}"] = Column(words=said, higher_is_better=False, unit="mm", undefined=undefined)
        columns[f"nsd_{structure}"] = Column(words=f"{structure} NSD", undefined=undefined)
    return columns


SCORED: dict[str, Column] = _scored()  # columns of ``litsexp score`` that are no metric or measure of a study


class TableClaims(Strict):
    """A claims file.

    ``arms`` makes several names of the table's one arm: each is one seed of it, numbered in this order.
    """

    claims: Annotated[tuple[TableClaim, ...], Field(min_length=1)]
    metrics: dict[str, Column] = Field({})
    arms: dict[str, Annotated[tuple[Name, ...], Field(min_length=1)]] = Field({})
    kind: str = ""  # what sentences call the patients: phantom, external

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if twice := _twice(claim.id for claim in self.claims):
            raise ValueError(f"claims: found the id {twice!r} twice; expected one of its own for each")
        for index, claim in enumerate(self.claims):
            if claim.better == claim.than:
                raise ValueError(f"claims.{index}.than: found {claim.than!r}, as in better; expected another arm")
        if twice := _twice(name for names in self.arms.values() for name in names):
            raise ValueError(f"arms: found {twice!r} twice; expected it in one arm, once")
        return self


def _twice(names: Iterable[str]) -> str | None:
    """The first name that is there more than once."""
    return next((name for name, number in Counter(names).items() if number > 1), None)
