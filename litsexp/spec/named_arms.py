"""Named arms of an ablation: the baseline with several settings changed at once, and the claims that compare them.

``ssl`` with N steps of pretraining against ``longer``, trained from scratch for as many steps more: what such arms
differ in is part of what is claimed, so it is written into the claim, counts in its digest, and is told beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from litsexp.spec.base import Level
from litsexp.spec.claim import TRIVIAL, Claim
from litsexp.spec.design import BASELINE, Arm, differing_fields
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import nearest, one_of

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def typed_arms(named: Mapping[str, Mapping[str, Level]], run: RunConfig) -> dict[str, dict[str, Level]]:
    """Each arm's settings as what they become; ValueError or ValidationError where one is no arm of its own."""
    typed = {}
    for name, settings in named.items():
        if not NAME.fullmatch(name) or name == BASELINE:
            raise ValueError(f"found the name {name!r}; expected a-z, 0-9, - and _, and not {BASELINE}")
        try:
            changed = run.changed(settings)
        except ValidationError as error:
            raise ValidationError.from_exception_data(error.title, [_below(name, e) for e in error.errors()]) from None
        if not differing_fields(run, changed):
            raise ValueError(f"{name}: found {dict(settings)}, the baseline's own settings; expected a change")
        typed[name] = {setting: getattr(changed, setting) for setting in settings}
    return typed


def check_alike(arms: Sequence[Arm], named: Mapping[str, object]) -> None:
    """ValueError where a named arm trains what another arm trains: one run would stand for both."""
    for arm in (arm for arm in arms if arm.name in named):
        twin = next((other.name for other in arms if other.run == arm.run and other.name != arm.name), None)
        if twin is not None:
            raise ValueError(f"arms.{arm.name}: found the settings of the arm {twin}; expected settings of its own")


def compared(claim: Claim, arms: Sequence[Arm]) -> Claim:
    """The claim with what its two arms differ in: arm -> setting -> level; ValueError where it is no claim about two.

    A claim that says in what its arms are to differ is refused where they differ in anything else.
    """
    runs = {arm.name: arm.run for arm in arms}
    if claim.than in TRIVIAL and claim.better in runs and not (claim.where or claim.differs):
        return claim
    for field, name in (("better", claim.better), ("than", claim.than)):
        if name not in runs:
            known = f"{one_of([*runs, *TRIVIAL])}{nearest(name, runs)}"
            raise ValueError(f"{claim.id}: {field}: found the arm {name!r}; expected {known}")
    if claim.where:
        raise ValueError(f"{claim.id}: where: found {claim.where} in a claim about two arms; expected none")
    better, than = str(claim.better), str(claim.than)
    differing = [name for name in RunConfig.model_fields if name in differing_fields(runs[better], runs[than])]
    if claim.differs and set(claim.differs) != set(differing):
        found = f"{better} and {than} differ in {', '.join(differing) or 'nothing'}"
        raise ValueError(f"{claim.id}: differs: found {list(claim.differs)}, but {found}; expected the same settings")
    compares = {name: {setting: getattr(runs[name], setting) for setting in differing} for name in (better, than)}
    if claim.compares not in ({}, compares):
        raise ValueError(f"{claim.id}: compares: found {claim.compares}; expected nothing: it is filled in")
    return claim.model_copy(update={"compares": compares})


def _below(name: str, error: Any) -> InitErrorDetails:
    return InitErrorDetails(
        type=error["type"], loc=(name, *error["loc"]), input=error["input"], ctx=error.get("ctx", {})
    )
