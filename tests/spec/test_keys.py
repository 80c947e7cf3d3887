"""Keys that survive growth: pinned digests, and settings that are added without a trace.

No change of the package may change ``golden_keys.json``: finished runs would be trained again, and claims would no
longer be those that were written down. It was written anew when runs took their randomness from seed and fold
(format 2), and a study's line is when its file changes; those of runs that are patient in two frozen epochs or more
when patience came to count over all phases.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from litsexp.spec.base import Strict
from litsexp.spec.claim import Claim
from litsexp.spec.cohort import SplitConfig
from litsexp.spec.design import Arm, Cell, cells, design_digest
from litsexp.spec.errors import LitsexpError
from litsexp.spec.keys import added, content, digest, file_sha256
from litsexp.spec.reading import load_study
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text())
FINGERPRINT = "0123456789abcdef"
ODD = [
    *("run.lr=find", "run.precision=bf16", "run.channels_last=false", "run.steps_per_epoch=null"),
    *("run.frozen_epochs=3", "seeds=[0,7]", "factors.init=[shuffled]", "claims=[]"),
]


def study_of(name: str) -> StudyConfig:
    file = ROOT / "experiments" / f"{'mini' if name == 'odd' else name}.yaml"
    return load_study(file, ODD if name == "odd" else ())


def keys_of(study: StudyConfig) -> dict[str, Any]:
    keys = [cell.run_key(study.split, FINGERPRINT) for cell in cells(study)]
    return {
        "design": design_digest(study, FINGERPRINT),
        "claims": {claim.id: claim.digest for claim in study.claims},
        "cells": len(keys),
        "first run key": keys[0],
        "all run keys": hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16],
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_are_what_they_were(name: str) -> None:
    assert keys_of(study_of(name)) == GOLDEN[name]


def test_an_external_cohort_is_no_part_of_any_key() -> None:
    study = study_of("mini")
    assert study.external
    assert keys_of(study.model_copy(update={"external": None})) == keys_of(study)


class GrownRun(RunConfig):
    """Run settings of a later version."""

    later: bool = added(False)
    warmup_epochs: int = added(0, ge=0)


class GrownClaim(Claim):
    """A claim of a later version."""

    region: str = added("case")


def grown(name: str, **settings: Any) -> StudyConfig:
    """A shipped study whose run and claims have fields that did not exist when its keys were pinned."""
    study = study_of(name)
    run = GrownRun.model_validate({**study.run.model_dump(), **settings})
    claims = tuple(GrownClaim.model_validate(claim.model_dump()) for claim in study.claims)
    return study.model_copy(update={"run": run, "claims": claims})


@pytest.mark.parametrize("name", GOLDEN)
def test_fields_added_later_change_no_key(name: str) -> None:
    assert keys_of(grown(name)) == GOLDEN[name]


@pytest.mark.parametrize("settings", [{"later": True}, {"warmup_epochs": 2}])
def test_an_added_field_counts_once_it_is_used(settings: dict[str, Any]) -> None:
    used = keys_of(grown("mini", **settings))
    assert used["design"] != GOLDEN["mini"]["design"]
    assert used["first run key"] != GOLDEN["mini"]["first run key"]
    claim = GrownClaim.model_validate({**study_of("mini").claims[0].model_dump(), "region": "lesion"})
    assert claim.digest != study_of("mini").claims[0].digest


def test_an_added_field_is_checked_like_any_other() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        GrownRun(warmup_epochs=-1)


def test_content_leaves_fields_out_at_any_depth() -> None:
    class Inner(Strict):
        old: int = 1
        new: float = added(0.5)

    class Outer(Strict):
        inner: Inner = Inner()
        many: tuple[Inner, ...] = (Inner(), Inner(new=0.7))
        named: dict[str, Inner] = Field({"a": Inner(old=2)})

    expected = {"inner": {"old": 1}, "many": [{"old": 1}, {"old": 1, "new": 0.7}], "named": {"a": {"old": 2}}}
    assert content(Outer()) == expected
    assert content(Outer(), without={"many", "named"}) == {"inner": {"old": 1}}


def test_digest_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1}) != digest({"a": 1, "b": [2, 1]})
    assert len(digest({})) == 16
    with pytest.raises(ValueError, match="Out of range"):
        digest({"a": float("nan")})


def test_a_weights_file_counts_by_its_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for file, bytes_ in zip(files, (b"one", b"one", b"two"), strict=True):
        file.write_bytes(bytes_)
    runs = [RunConfig(init=f"file:{file}") for file in files]
    keys = [Cell(Arm("any", run), 0, 0).run_key(SplitConfig(folds=3), FINGERPRINT) for run in runs]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(LitsexpError, match=r"gone\.safetensors: cannot be read"):
        file_sha256(tmp_path / "gone.safetensors")
