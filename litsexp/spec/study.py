"""A study file as typed data: a question, its claims, and the design that answers it. Reads no CT, trains nothing."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from litsexp.spec.base import Level, Strict
from litsexp.spec.catalog import LOSSES, SCHEDULES, Recipe
from litsexp.spec.claim import ARM, LESION_SIZE, Claim, contrast_of
from litsexp.spec.cohort import DataConfig, ExternalConfig, SplitConfig
from litsexp.spec.design import arms, contexts
from litsexp.spec.keys import added, digest
from litsexp.spec.named_arms import check_alike, compared, typed_arms
from litsexp.spec.pretraining import check_pretraining
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import Table, one_of


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
    arms: dict[str, dict[str, Level]] = added({})  # of an ablation: name -> the settings that it changes
    search: SearchConfig | None = None
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _hand_over_unit(cls, content: Any) -> Any:
        """``split.unit`` is how the baseline's ``run.split_unit`` may be written: who is tested stays as it is."""
        split = content.get("split") if isinstance(content, Mapping) else None
        if not isinstance(split, Mapping) or "unit" not in split:
            return content
        unit, units = split["unit"], get_args(RunConfig.model_fields["split_unit"].annotation)
        if unit not in units:
            raise ValueError(f"split.unit: found {unit!r}; expected {' or '.join(map(repr, units))}")
        run = content.get("run")
        if run is not None and not isinstance(run, Mapping):
            return content
        if (own := (run or {}).get("split_unit", unit)) != unit:
            raise ValueError(f"split.unit: found {unit!r} beside run.split_unit = {own!r}; expected one of the two")
        rest = {name: value for name, value in split.items() if name != "unit"}
        of_patients = {"split": rest} if rest else {}  # nothing else said of the split: its default
        others = {name: value for name, value in content.items() if name != "split"}
        return {**others, **of_patients, "run": {**(run or {}), "split_unit": unit}}

    @field_validator("factors")
    @classmethod
    def _type_levels(cls, factors: dict[str, tuple[Level, ...]], info: ValidationInfo) -> dict[str, tuple[Level, ...]]:
        run: RunConfig | None = info.data.get("run")  # none: its own mistake is reported
        if run is None:
            return factors
        return {f: tuple(getattr(run.changed({f: level}), f) for level in levels) for f, levels in factors.items()}

    @field_validator("arms")
    @classmethod
    def _type_arms(cls, named: dict[str, dict[str, Level]], info: ValidationInfo) -> dict[str, dict[str, Level]]:
        run: RunConfig | None = info.data.get("run")
        return named if run is None else typed_arms(named, run)

    @field_validator("claims")
    @classmethod
    def _type_claims(cls, claims: tuple[Claim, ...], info: ValidationInfo) -> tuple[Claim, ...]:
        run: RunConfig | None = info.data.get("run")
        if run is None:
            return claims
        typed = tuple(claim.typed(run) for claim in claims)
        if info.data.get("design") != "ablation" or not {"factors", "arms"} <= info.data.keys():
            return typed
        known = arms(cls.model_construct(**info.data)) if any(claim.factor == ARM for claim in typed) else []
        return tuple(compared(claim, known) if claim.factor == ARM else claim for claim in typed)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}; expected each seed once")
        for factor, levels in self.factors.items():
            self._check_factor(factor, levels)
        if self.arms and self.design != "ablation":
            raise ValueError(f"arms: found with design: {self.design}; expected design: ablation, or no arms")
        every = arms(self)  # every combination has to be a valid run
        check_alike(every, self.arms)
        runs = [arm.run for arm in every]
        if self.design == "search":  # any of them may be sampled
            sampled = itertools.product(*self.factors.values())
            runs = [self.run.changed(dict(zip(self.factors, levels, strict=True))) for levels in sampled]
        check_pretraining(self.run, runs)
        if self.design == "search" and self.search is None:
            raise ValueError("search: missing; expected with design: search, for example search: {trials: 20}")
        if self.design != "search" and self.search is not None:
            raise ValueError(f"search: found with design: {self.design}; expected design: search, or no search")
        if self.claims and self.design == "search":
            raise ValueError(
                "claims: found with design: search, which cannot test claims (its arms are chosen by their results); "
                "expected design: ablation or factorial"
            )
        if self.design == "search" and (self.run.split_unit == "slice" or "split_unit" in self.factors):
            raise ValueError(
                "split_unit: found with design: search, which would choose arms by a leaking validation score; "
                "expected design: ablation or factorial, or split_unit: patient"
            )
        ids = [claim.id for claim in self.claims]
        if len(set(ids)) < len(ids):
            raise ValueError(f"claims: found ids {ids}; expected each id once")
        for claim in self.claims:
            self._check_claim(claim)
        for concept, table in (("loss", LOSSES), ("schedule", SCHEDULES)):
            self._check_settings(concept, table)
        self._check_external()
        return self

    @property
    def claims_digest(self) -> str:
        """Of all claims: another one where any of them is changed, added or taken away."""
        return digest({claim.id: claim.digest for claim in self.claims})

    @property
    def needs(self) -> set[str]:
        """Tables that claims are about beside the test cases: ``train``, ``epochs``."""
        return {row.needs for claim in self.claims if (row := contrast_of(claim.metric)) is not None}

    @property
    def leaks(self) -> bool:
        """Whether some arm learns from neighbours of tested slices: all are then scored on the same held-out ones."""
        varied = self.levels("split_unit") if "split_unit" in self.factors else [self.run.split_unit]
        return "slice" in [*varied, *(settings.get("split_unit") for settings in self.arms.values())]

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
        if claim.better == claim.than:
            raise ValueError(f"{at}: found better and than both {claim.better!r}; expected two levels")
        if claim.factor in (ARM, LESION_SIZE) and self.design == "ablation":
            return  # arms were looked up when it was read; of sizes any study has a baseline
        varied = f"expected one of {', '.join(self.factors)}" if self.factors else "this design has no factors"
        grown = [(factor, level) for factor, levels in claim.grows.items() for level in levels]
        for factor, level in [(claim.factor, claim.better), (claim.factor, claim.than), *claim.where.items(), *grown]:
            if factor not in self.factors:
                raise ValueError(f"{at}: found factor {factor!r}, which is not varied; {varied}")
            if level not in self.levels(factor):
                raise ValueError(f"{at}: found {factor} = {level!r}; expected one of {self.levels(factor)}")
        if claim.factor in claim.where:
            raise ValueError(f"{at}: found {claim.factor!r} in where, the factor under test; expected other factors")
        for factor, (first, then) in claim.grows.items():
            if factor in (claim.factor, *claim.where) or first == then:
                raise ValueError(f"{at}: found grows = {claim.grows}; expected another factor, and two of its levels")
        if not contexts(self, claim) and claim.grows:
            raise ValueError(
                f"{at}: found grows = {claim.grows}, for which no four arms differ in {claim.factor} and this alone; "
                "expected design: factorial, or named arms that complete the four"
            )
        if not contexts(self, claim):
            raise ValueError(
                f"{at}: found where = {claim.where}, under which no two arms differ only in {claim.factor}; "
                "expected no where, or design: factorial"
            )

    def _check_settings(self, concept: str, table: Table[Recipe]) -> None:
        """ValueError where a setting that only some rows use is set and no arm has such a row, or varied without it.

        An arm may hold a value that it does not use: ``focal_gamma`` is there for the arms with ``loss: focal``, and
        those without differ from them in ``loss`` alone.
        """
        own = getattr(self.run, concept)
        taken = self.levels(concept) if concept in self.factors else [own]
        for name, field in RunConfig.model_fields.items():
            users = [row_name for row_name, row in table.items() if name in row.settings]
            varied, found = name in self.factors, getattr(self.run, name)
            rows = [own] if varied and self.design == "ablation" else taken
            idle = [row for row in rows if users and name not in table.of(str(row)).settings]
            if idle and (varied or (len(idle) == len(rows) and found != field.default)):
                at, found = (f"factors.{name}", list(self.factors[name])) if varied else (f"run.{name}", found)
                use = f"found {found} with {concept} = {idle[0]}, which does not use it"
                raise ValueError(f"{at}: {use}; expected {concept}: {one_of(users)}")

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
