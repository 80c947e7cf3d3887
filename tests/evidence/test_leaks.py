"""Where an arm learned from other slices of the tested patients, everything that shows its score says so."""

import pandas as pd
import pytest

from litsexp.evidence.judge import judge
from litsexp.evidence.leaks import marked, warning
from litsexp.evidence.report import render
from litsexp.evidence.tables import paper_verdicts, verdict_table
from litsexp.evidence.words import cautions

NO_ESTIMATE = "such a score is no estimate for unseen patients."
UNIT = {"id": "leak", "says": "It flatters.", "factor": "split_unit", "better": "slice", "than": "patient"}
ONE_LEAKS = {"factors": {"split_unit": ["slice"]}, "claims": [UNIT]}
ALL_LEAK = {"split": {"folds": 3, "unit": "slice"}}  # of the study of conftest: baseline, scratch, no augmentation


@pytest.fixture
def verdict_of(make_study):
    """The first verdict of a study in which each of its arms has eight patients and two seeds."""

    def judged(**changes):
        asked = make_study(**changes)
        claim = asked.claims[0]
        names = ("baseline", "split_unit=slice" if claim.factor == "split_unit" else "init=scratch")
        rows = [
            {"arm": name, "fold": case % 3, "seed": seed, "case": case, "dice_tumor": 0.5 + 0.1 * place + case / 100}
            for place, name in enumerate(names)
            for case in range(8)
            for seed in (0, 1)
        ]
        (verdict, *_) = marked(judge(asked, pd.DataFrame(rows), None, kind="phantom"), asked)
        return verdict

    return judged


def test_a_warning_names_the_arms_that_leak(make_study):
    assert warning(make_study()) == ""
    said = "LEAKING: split_unit=slice learned from other slices of the patients that test it; what it scores is no"
    assert warning(make_study(**ONE_LEAKS)).startswith(said)
    assert "no score or verdict here is an estimate for unseen patients" in warning(make_study(**ALL_LEAK))


def test_a_verdict_on_a_leaking_and_an_honest_arm_is_cautioned(verdict_of):
    verdict = verdict_of(**ONE_LEAKS)
    assert verdict.leaking == ("split_unit=slice",)
    assert " on 8 phantom patients and " in verdict.sentence
    expected = f"split_unit=slice learned from other slices of the tested patients: {NO_ESTIMATE}"
    assert cautions(verdict, pd.DataFrame()) == [expected]


def test_where_every_arm_leaks_the_sentence_says_so(verdict_of):
    verdict = verdict_of(**ALL_LEAK)
    assert verdict.leaking == ("baseline", "init=scratch")
    assert " on 8 already seen phantom patients and " in verdict.sentence
    assert cautions(verdict) == [f"Both sides learned from other slices of the tested patients: {NO_ESTIMATE}"]


def test_an_honest_verdict_is_not_marked(verdict_of):
    verdict = verdict_of()
    assert (verdict.leaking, verdict.all_leak, cautions(verdict)) == ((), False, [])
    assert "leaking" not in verdict_table([verdict])
    assert "leaking" not in paper_verdicts([verdict])["Verdict"][0]


def test_tables_say_which_arms_leak(verdict_of):
    verdict = verdict_of(**ALL_LEAK)
    assert verdict_table([verdict])["leaking"].tolist() == ["baseline; init=scratch"]
    assert paper_verdicts([verdict])["Verdict"][0].endswith(" (leaking) (post hoc)")


def test_the_report_says_it_above_the_answer_and_beside_each_verdict(make_study, make_evidence):
    honest = render(make_evidence())
    assert "leaking" not in honest.partition("</style>")[2]
    assert "the split is by patient, so no neighbouring slice is on both sides." in honest
    asked = make_study(**ALL_LEAK)
    found = make_evidence(asked)
    page = render(make_evidence(asked, verdicts=marked(found.verdicts, asked)))
    assert page.index("LEAKING: every arm") < page.index('<section id="answer">')
    assert page.count('<span class="badge leaks">leaking</span>') >= 1 + len(asked.claims)
    assert page.count(NO_ESTIMATE) == len(asked.claims)
    assert "no neighbouring slice is on both sides" not in page
