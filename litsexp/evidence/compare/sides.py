"""The two studies that are compared: what is known of each, and what differs before any result is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from litsexp.evidence import leaks
from litsexp.evidence.kinds import Tables
from litsexp.spec.claim import Claim
from litsexp.spec.design import arms
from litsexp.spec.study import StudyConfig

LATER = ("train", "epochs", "native")  # tables that only some claims ask for
NONE = "–"  # what is said where a study does not have the thing at all


@dataclass(frozen=True)
class Side:
    """One of the two studies, as its runs tell it."""

    name: str  # "mini-70c9bea9"
    run_id: str  # of its parent run in MLflow
    study: StudyConfig
    tables: Tables  # of its finished runs
    planned: int  # runs
    finished: int
    cohort: str  # "phantom, 36 patients, seed 7"
    phantom: bool
    fingerprint: str  # of the slices; the same one: the same patients, prepared alike
    preregistered: Mapping[str, str]  # claim id -> digest, as fixed before the first run
    rulings: Mapping[str, str]  # claim id -> ruling, as it was recorded when the study ended
    effects: Mapping[str, float]  # and its effect
    facts: Mapping[str, str]  # version.torch, git_commit, device, ...: all values that its runs have

    @property
    def arm_names(self) -> list[str]:
        """The design's order."""
        return [arm.name for arm in arms(self.study)]

    @property
    def kind(self) -> str:
        """Of its patients, in sentences."""
        return "phantom" * self.phantom


@dataclass(frozen=True)
class Pairing:
    """How runs and patients of two studies are brought together."""

    paired: bool
    words: str  # for people: what is paired with what, and why not more


def paired_sides(a: Side, b: Side) -> tuple[Pairing, Side]:
    """How the two are paired, and B with its seeds renamed where its runs are paired by their order.

    Where the patients and their folds are the same, runs are paired by arm, fold and seed. Without any seed in common
    they are paired by arm, fold and the order of their seeds: such a pair has nothing in common but its fold, and the
    interval is as wide as independent runs make it. Other patients, or other folds: nothing is paired.
    """
    apart = "what differs is judged as between two groups of patients and runs."
    if a.fingerprint != b.fingerprint:
        why = "the data fingerprints differ, so the patients may, too"
        return Pairing(False, f"Not paired: {why}; {apart}"), b
    if a.study.split != b.study.split:
        why = "the splits differ, so the same patient is tested by a model that learned from others"
        return Pairing(False, f"Not paired: {why}; {apart}"), b
    seeds_a, seeds_b = seeds_of(a.tables), seeds_of(b.tables)
    common = [seed for seed in seeds_a if seed in seeds_b]
    if common:
        left = {mark: [x for x in seeds if x not in common] for mark, seeds in (("A", seeds_a), ("B", seeds_b))}
        alone = " and ".join(f"{_seeds(seeds)} of {mark}" for mark, seeds in left.items() if seeds)
        rest = f" Left out, without a partner: {alone}." if alone else ""
        return Pairing(True, f"The same patients; runs are paired by arm, fold and seed.{rest}"), b
    matched = dict(zip(seeds_b, seeds_a, strict=False))
    extra = {seed: max([*seeds_a, *seeds_b], default=0) + 1 + i for i, seed in enumerate(seeds_b[len(matched) :])}
    words = (
        "The same patients, but no seed in common: runs are paired by arm, fold and the order of their seeds. "
        "The two of a pair share nothing but their fold, and the interval allows for their luck."
    )
    if lone := abs(len(seeds_a) - len(seeds_b)):
        words += f" Left out, without a partner: {lone} seed{'s' * (lone != 1)}."
    return Pairing(True, words), replace(b, tables=_each(b.tables, partial(_renamed, seeds=matched | extra)))


def seeds_of(tables: Tables) -> list[int]:
    """Of the finished runs, ascending."""
    return sorted({int(seed) for seed in tables.cases["seed"]}) if len(tables.cases) else []


def both(a: Side, b: Side) -> Tables:
    """The results of both in one set of tables: arms are called ``A: baseline`` and ``B: baseline`` there."""
    one, other = (_each(side.tables, partial(_marked, mark=mark)) for mark, side in (("A", a), ("B", b)))
    later = {name: _stacked(getattr(one, name), getattr(other, name)) for name in LATER}
    return Tables(pd.concat([one.cases, other.cases], ignore_index=True), **later)


def differences(a: Side, b: Side) -> pd.DataFrame:
    """What differs, a row each: ``about`` (settings, claims, versions, machine, data), ``what``, ``a``, ``b``."""
    settings = [dict(_flat(side.study.model_dump(mode="json", exclude={"claims"}))) for side in (a, b)]
    claims = [dict(_claims(side)) for side in (a, b)]
    versions, machine = ([_facts(side, library) for side in (a, b)] for library in (True, False))
    data = [{"cohort": side.cohort, "data fingerprint": side.fingerprint} for side in (a, b)]
    rows = [
        {"about": about, "what": what, "a": one.get(what, NONE), "b": other.get(what, NONE)}
        for about, (one, other) in (
            *(("settings", settings), ("claims", claims)),
            *(("versions", versions), ("machine", machine), ("data", data)),
        )
        for what in dict.fromkeys([*one, *other])
        if one.get(what, NONE) != other.get(what, NONE)
    ]
    return pd.DataFrame(rows, columns=["about", "what", "a", "b"])


def notes(a: Side, b: Side) -> list[str]:
    """What to know of the two before believing anything that differs."""
    said = []
    for mark, side in (("A", a), ("B", b)):
        if side.phantom:
            said.append(f"Phantom results ({mark}: {side.cohort}): the patients are synthetic.")
        if warning := leaks.warning(side.study):
            said.append(f"{mark}: {warning}")
        if side.finished < side.planned:
            lost = side.planned - side.finished
            said.append(f"{mark}: {lost} of {side.planned} runs have not finished; what they would score is missing.")
        for what, value in side.facts.items():
            if "; " in value:
                said.append(f"{mark}: its runs have several values of {what}: {value}.")
    for mark, one, other in (("A", a, b), ("B", b, a)):
        alone = [name for name in one.arm_names if name not in other.arm_names]
        if alone:
            said.append(f"Only in {mark}, and not compared: {', '.join(alone)}.")
    if a.study.leaks != b.study.leaks:
        said.append("The one study leaks and the other does not: they are scored on other slices of the patients.")
    return said


def same_question(one: Claim, other: Claim) -> bool:
    """Whether two claims ask for the same difference; their words and margins may have changed."""
    asked = ("metric", "factor", "better", "than", "where", "grows", "share")
    return all(getattr(one, name) == getattr(other, name) for name in asked)


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"


def _each(tables: Tables, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Tables:
    later = {name: getattr(tables, name) for name in LATER}
    changed = {name: None if table is None else change(table) for name, table in later.items()}
    return Tables(change(tables.cases), **changed)


def _renamed(table: pd.DataFrame, seeds: Mapping[int, int]) -> pd.DataFrame:
    return table.assign(seed=table["seed"].map(seeds)) if len(table) else table


def _marked(table: pd.DataFrame, mark: str) -> pd.DataFrame:
    return table.assign(arm=f"{mark}: " + table["arm"].astype(str)) if len(table) else table


def _stacked(one: pd.DataFrame | None, other: pd.DataFrame | None) -> pd.DataFrame | None:
    """What both have; None where either has none, as then there is nothing to compare."""
    return None if one is None or other is None else pd.concat([one, other], ignore_index=True)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """``run.epochs`` -> ``6``; a section that is not there is its own value."""
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _claims(side: Side) -> Iterator[tuple[str, str]]:
    for claim in side.study.claims:
        yield from _flat(claim.model_dump(mode="json", exclude={"id"}), claim.id)
        yield f"{claim.id}: digest", claim.digest
        fixed = side.preregistered.get(claim.id) == claim.digest
        yield f"{claim.id}: fixed before the first run", "yes" if fixed else "no"


def _facts(side: Side, library: bool) -> dict[str, str]:
    """Versions of libraries and of litsexp, or what else is known of where it ran."""
    names = [name for name in side.facts if (name.startswith("version.") or name == "git_commit") == library]
    return {name.removeprefix("version."): side.facts[name] for name in names}
