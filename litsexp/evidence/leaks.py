"""What has to be said where arms learned from other slices of the patients that test them: such a score flatters."""

import dataclasses
from collections.abc import Sequence

from litsexp.evidence.judge import Verdict
from litsexp.spec.design import arms, leaking_arms
from litsexp.spec.study import StudyConfig


def warning(study: StudyConfig) -> str:
    """What stands above a study's results, before it runs and after; empty where no arm leaks."""
    if not study.leaks:
        return ""
    leaking = leaking_arms(study)
    every = len(leaking) == len(arms(study))
    who = "every arm" if every else ", ".join(leaking)
    what = "no score or verdict here is an" if every else "what it scores is no"
    return (
        f"LEAKING: {who} learned from other slices of the patients that test it; {what} estimate for unseen patients. "
        "All arms are scored on the same held-out slices of each test patient; lesions are counted on these, so that "
        "one may count as several."
    )


def marked(verdicts: Sequence[Verdict], study: StudyConfig) -> list[Verdict]:
    """The verdicts on a study's own test cases, each with those of its arms that leak."""
    leaking = set(leaking_arms(study))
    compared = [[name for names in verdict.arms for name in names if name in leaking] for verdict in verdicts]
    pairs = zip(verdicts, compared, strict=True)
    return [dataclasses.replace(verdict, leaking=tuple(dict.fromkeys(names))) for verdict, names in pairs]
