"""A sceptic's questions about a study, each with its answer in a line and the section that says more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from litsexp.evidence.material import Evidence
from litsexp.evidence.measures import measure_of
from litsexp.evidence.shown import deciding
from litsexp.evidence.tables import arm_scores
from litsexp.evidence.words import named, noise, patients, plain

SEEDS = 20  # that are named


class Asked(NamedTuple):
    """A question, its answer, and the id of the section to read on in."""

    question: str
    answer: str
    section: str


def glance(evidence: Evidence) -> list[Asked]:
    """The questions that this study can answer, in the order in which people ask them."""
    return [
        Asked("How many patients?", _patients(evidence), "split"),
        Asked("How many runs, which seeds?", _runs(evidence), "runs"),
        Asked("Was the test set touched?", _test_set(evidence), "believe"),
        Asked("What would no learning score?", _trivial(evidence), "arms"),
        Asked("How noisy is training?", _noise(evidence), "noise"),
        Asked("Did every run learn?", _learned(evidence), "runs"),
        Asked("Which patients fail?", _failing(evidence), "pictures"),
        *_claims(evidence),
        *_elsewhere(evidence),
    ]


def _patients(evidence: Evidence) -> str:
    split = evidence.split
    tested = split[split["test_fold"] >= 0]
    free = int((tested["tumor_pixels"] == 0).sum())
    said = patients(len(tested), "phantom" * evidence.phantom) + " tested"
    said += f", {free} of them without tumor" if free else ""
    if len(tested) < len(split):
        said += f"; {len(split) - len(tested)} more only to learn from"
    external = evidence.external
    elsewhere = external.trivial["case"].nunique() if external is not None and len(external.trivial) else 0
    return said + (f"; {elsewhere} more in an external cohort" if elsewhere else "") + "."


def _runs(evidence: Evidence) -> str:
    study, runs = evidence.study, evidence.runs
    finished = int((runs["status"] == "FINISHED").sum()) if len(runs) else 0
    if study.design == "search":
        return f"{finished} finished trials of one fold and seed {study.seeds[0]}."
    seeds = ", ".join(map(str, study.seeds[:SEEDS])) + (", …" if len(study.seeds) > SEEDS else "")
    made = f"{_number(len(evidence.arm_names), 'arm')} × {_number(study.split.n_folds, 'fold')} × "
    return f"{finished} of {len(runs)}: {made}{_number(len(study.seeds), 'seed')} ({seeds})."


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _test_set(evidence: Evidence) -> str:
    if evidence.leak_warning:
        return "Yes, on purpose: " + evidence.leak_warning
    if evidence.study.design == "search":
        return "The search saw validation patients only; its trials' test scores are shown and chose nothing."
    return "No: scored once a run, after validation patients had chosen its checkpoint; nothing was chosen by it."


def _trivial(evidence: Evidence) -> str:
    scores = arm_scores(evidence.tested_trivial, evidence.metrics[:2], by="predictor")
    told = []
    for metric in scores["metric"].unique():
        best = scores[scores["metric"] == metric].dropna(subset="mean")
        if len(best):
            row = best.loc[best["mean"].idxmax() if measure_of(metric).higher_is_better else best["mean"].idxmin()]
            told.append(f"{plain(float(row['mean']), 2)} in {measure_of(metric).words} ({row['predictor']})")
    return "; ".join(told) + "." if told else "Nothing was scored."


def _noise(evidence: Evidence) -> str:
    if not evidence.noise:
        return (
            "Not known: it takes two seeds of the first arm." if not evidence.study.search else "A search cannot tell."
        )
    first = evidence.noise[0]
    said = noise(first)
    return f"{said[0].upper()}{said[1:]}; its runs' SD is {plain(first.run_sd, 2)}."


def _learned(evidence: Evidence) -> str:
    failed, runs = evidence.failed, evidence.runs
    if not len(evidence.cases):
        return "No run has finished."
    lost = int((runs["status"] != "FINISHED").sum())
    unfinished = f" {lost} did not finish." if lost else ""
    if not len(failed):
        return "Yes, every finished one." + unfinished
    arms = named([f"{count} of {arm}" for arm, count in failed.groupby("arm", sort=False).size().items()])
    return f"No: {len(failed)} of {len(runs) - lost} failed to learn ({arms}), counted like any other.{unfinished}"


def _failing(evidence: Evidence) -> str:
    metric = deciding(evidence.cases)
    if metric is None:
        return "No patient was scored."
    means = evidence.cases.groupby("case")[metric].mean().dropna().sort_values(kind="stable")
    worst = ", ".join(f"{case} ({plain(score, 2)})" for case, score in means.head(3).items())
    return f"Lowest in {measure_of(metric).words}, mean of all runs: {'case' if len(means) == 1 else 'cases'} {worst}."


def _claims(evidence: Evidence) -> Iterator[Asked]:
    """Whether the claims are older than the runs."""
    verdicts = evidence.verdicts
    if not verdicts:
        return
    late: Sequence[str] = [verdict.claim.id for verdict in verdicts if verdict.post_hoc]
    found = evidence.study.claims_digest[:8]
    said = f"Yes, {'all ' * (len(verdicts) > 1)}{len(verdicts)}, by digest ({found})."
    answer = f"No, {named(late)}: read {'it as a suggestion' if len(late) == 1 else 'them as suggestions'}."
    yield Asked("Were claims made before?", answer if late else said, "believe")


def _elsewhere(evidence: Evidence) -> Iterator[Asked]:
    """Whether the verdicts hold on another cohort."""
    if evidence.replications:
        told = "; ".join(f"{pair.here.claim.id}: {pair.holds}" for pair in evidence.replications)
        yield Asked("Does it hold elsewhere?", f"{told[0].upper()}{told[1:]}.", "external")
