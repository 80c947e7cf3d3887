import base64
import dataclasses
import hashlib
import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from litsexp.evidence import report
from litsexp.evidence.judge import judge
from litsexp.evidence.kinds import Tables
from litsexp.evidence.tables import write_tables

SECTIONS = ["question", "answer", "glance", "verdicts", "arms", "pictures", "patients", "lesions", "curves", "noise"]
SECTIONS += ["false-positives", "believe", "split", "runs", "settings", "versions"]
VOID = {"meta", "br", "img"}
SEARCH = {"design": "search", "search": {"trials": 5}, "claims": []}


class Page(HTMLParser):
    """Collects ids, links and text; every tag has to be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.all_ids, self.sources, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("section", "header"):
            self.ids += [value for name, value in attributes if name == "id"]
        self.all_ids += [value for name, value in attributes if name == "id"]
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def html(shown):
    return report.render(shown)


def test_every_section_stands_in_well_formed_html(html):
    page = Page(html)
    assert page.ids == SECTIONS
    assert len(set(page.all_ids)) == len(page.all_ids)  # figures name their parts by themselves
    linked = {source.removeprefix("#") for source in page.sources if source.startswith("#")}
    assert set(SECTIONS[1:]) <= linked <= set(page.all_ids)


def test_nothing_is_fetched(html):
    assert "://" not in html
    assert all(source.startswith(("#", "data:image/")) for source in Page(html).sources)
    assert not re.search(r"url\((?!#)|@import|<link|<iframe", html)
    assert "default-src 'none'; img-src data:;" in html


def test_peoples_text_is_escaped(html):
    assert html.count("<script") == 1
    assert "Does A &amp; B &lt;script&gt;help&lt;/script&gt;?" in html
    assert "loss was not &lt;finite&gt;" in html


def test_says_what_a_reader_must_know(shown, html):
    text = " ".join("".join(Page(html).text).replace("\N{NO-BREAK SPACE}", " ").split())
    for verdict in shown.verdicts:
        assert verdict.sentence.replace("-0", "−0") in text
    for words in (
        "phantom Does A & B",  # in the heading
        "17 of 18 runs finished",
        "1 of 18 runs failed.",
        "all background",
        "liver everywhere",
        "Post hoc, added or changed after the first run: pixels.",
        "Neither arm beats “all background”, which scores 0.93 in pixel accuracy",
        "Left out: 2 patients whose tumor Dice is undefined (no tumor to find).",
        "Every run used the same learning rate, 0.001.",
        "add init: shuffled to tell",
        "0.70 × 0.70 × 5.00",
    ):
        assert words in text, words


@pytest.mark.parametrize("frozen", [{"encoder_frozen": [True]}, {"frozen_epochs": [6]}], ids=str)
def test_a_frozen_encoder_is_a_control(make_evidence, make_study, frozen):
    html = report.render(make_evidence(make_study(run={"init": "scratch", "epochs": 6}, factors=frozen, claims=[])))
    assert "the encoder stays as initialised (scratch)" in html


def test_a_real_cohort_is_not_called_phantom(make_evidence, make_study):
    asked = make_study(data={"cohort": "/data/lits"})
    html = report.render(make_evidence(asked, cohort="lits, 12 patients", phantom=False))
    assert 'class="badge phantom"' not in html
    assert "synthetic" not in html


def test_a_phantom_given_as_a_folder_is_called_phantom(make_evidence, make_study):
    """What its files say counts, not how the study came by them."""
    html = report.render(make_evidence(make_study(data={"cohort": "/data/mine"}), cohort="mine, 12 phantom patients"))
    assert '<h1><span class="badge phantom">phantom</span>' in html
    assert "The CT volumes are synthetic." in html


def test_the_external_cohort_has_a_section_of_its_own_only_where_there_is_one(html, shown_elsewhere):
    assert "xternal cohort" not in html
    page = Page(report.render(shown_elsewhere))
    at = SECTIONS.index("believe")
    assert page.ids == [*SECTIONS[:at], "external", *SECTIONS[at:]]
    assert "#external" in page.sources
    text = " ".join("".join(page.text).replace("\N{NO-BREAK SPACE}", " ").split())
    assert "phantom External cohort: phantom, 8 patients, seed 1, site B" in text
    for pair in shown_elsewhere.replications:
        assert f"{pair.here.claim.id}: {pair.words}." in text
        assert f"External cohort: {pair.words}." in text  # in the answer, too
    assert "scored all 8 patients of this cohort" in text
    assert "0.800 0.800–0.800" in " ".join(re.sub("<[^>]+>", " ", report.render(shown_elsewhere)).split())
    assert report.render(shown_elsewhere) == report.render(shown_elsewhere)


def test_an_external_cohort_of_real_patients_is_not_called_phantom(make_evidence, make_study, make_external):
    asked = make_study(data={"cohort": "/data/lits"})
    made = make_evidence(asked, cohort="lits, 12 patients", phantom=False, external=make_external(asked, phantom=False))
    verdicts = judge(asked, made.cases, None)
    html = report.render(dataclasses.replace(made, verdicts=verdicts))
    assert 'class="badge phantom"' not in html
    assert "on 7 external patients" in html


def test_same_evidence_same_bytes_and_written_whole(shown, html, tmp_path):
    path = report.write_report(shown, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == html
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_failed_write_leaves_the_old_report(shown, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(report, "render", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write_report(shown, path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_pictures_over_the_limit_are_left_in_mlflow(monkeypatch, make_evidence, shown):
    (one,) = shown.pictures
    monkeypatch.setattr(report, "PICTURE_BYTES", one.size + 1)
    html = report.render(make_evidence(pictures=[one] * 3))
    assert html.count("data:image/webp") == len(one.panels) == 2
    assert "2 more would make this file too large" in html


def test_the_one_script_is_the_one_that_the_pages_policy_names(html):
    script = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_a_holdout_tests_some_patients_only(shown):
    cases = shown.cases[shown.cases["case"] < 4]
    split = shown.split.assign(test_fold=[0] * 4 + [-1] * 8)
    trivial = shown.trivial.assign(pixel_acc=[0.5 if case < 4 else 0.9 for case in shown.trivial["case"]])
    html = report.render(dataclasses.replace(shown, cases=cases, split=split, trivial=trivial))
    assert html.count('<td class="n">–</td>') >= 8
    assert '<td class="n">0.500<small>' in html  # read against the patients that the arms were tested on


@pytest.mark.parametrize(
    ("changes", "rates", "says"),
    [
        ({}, [1e-3, 2e-3], "The runs logged different learning rates (0.001 to 0.002) though the study fixes one"),
        ({"run": {"lr": "find"}}, [1e-3, 2e-3], "The learning rate was found by the same procedure in every arm"),
        (
            {"factors": {"lr": [0.01]}, "claims": []},
            [1e-3, 1e-2],
            "The learning rate was a factor of this study (0.001 to 0.01).",
        ),
        (
            {"design": "search", "search": {"trials": 5}, "claims": []},
            [1e-3],
            "The search chose the learning rate (0.001).",
        ),
        ({}, [math.nan], "No run logged its learning rate."),
    ],
)
def test_how_the_learning_rate_came_about(shown, make_study, changes, rates, says):
    runs = shown.runs.head(len(rates)).assign(lr=rates)
    html = report.render(dataclasses.replace(shown, study=make_study(**changes), runs=runs))
    assert f"<li><b>Learning rate.</b> {says}" in html


def test_tumor_free_patients_count_as_false_positives(shown):
    cases = pd.DataFrame({"arm": ["baseline"] * 3 + ["init=scratch"] * 3, "case": [0, 1, 2] * 2, "fold": 0, "seed": 0})
    cases = cases.assign(tp_tumor=0, fn_tumor=0, fp_tumor=[0, 5, 0, 7, 7, 0])
    cases.loc[cases["case"] == 2, "fn_tumor"] = 9  # a tumor that both missed
    twice = pd.concat([cases, cases.assign(seed=1, fp_tumor=0)])  # what any run paints counts; pixels are averaged
    html = report.render(dataclasses.replace(shown, cases=twice))
    text = " ".join(re.sub("<[^>]+>", " ", html).split())
    assert "baseline 2 1 1.2 init=scratch 2 2 3.5 augment=none 0 0 –" in text


def test_a_search_is_exploratory(make_evidence, make_study):
    asked = make_study(**SEARCH)
    trials = pd.DataFrame(  # as the driver writes it
        {
            "trial": [0, 1, 2, 3],
            "state": ["COMPLETE", "COMPLETE", "PRUNED", "FAIL"],
            "valid/score": [0.4, 0.6, 0.7, math.nan],
            "lr": [1e-3, 1e-2, 1e-2, 1e-2],
            "init": ["scratch", "imagenet", "pruned", "failed"],
        }
    )
    html = report.render(make_evidence(asked, search=trials))
    assert "Exploratory: a search tests no claim" in html
    assert html.index("<td>imagenet</td>") < html.index("<td>scratch</td>")
    assert "<td>pruned</td>" not in html and "<td>failed</td>" not in html
    assert "Best finished trials of 4, highest validation score first" in html
    assert Page(html).ids == SECTIONS


def test_a_search_without_a_finished_trial(make_evidence, make_study):
    asked = make_study(**SEARCH)
    for trials in (pd.DataFrame(), pd.DataFrame({"trial": [0], "state": ["FAIL"], "valid/score": [None]})):
        assert Page(report.render(make_evidence(asked, search=trials))).ids == SECTIONS


def test_a_claim_where_less_is_better(shown, make_study, make_evidence):
    claim = shown.study.claims[0].model_dump() | {"metric": "lesions_false", "margin": 0.5}
    asked = make_study(claims=[claim])
    more = (shown.cases["arm"] != "baseline") * 2
    cases = shown.cases.assign(lesions_false=shown.cases["case"] % 3 + more)
    made = make_evidence(asked, cases=cases, verdicts=judge(asked, cases, None))
    page = Page(report.render(made))
    text = " ".join("".join(page.text).replace("\N{NO-BREAK SPACE}", " ").split())
    assert "init=imagenet lowered false lesions by 2.00 a case" in text
    assert "where less is better the axis runs from right to left" in text
    assert "false lesions a case (less is better)" in text  # a column of the table of arms
    assert "Margin: transfer 0.5 a case." in text
    assert "init=imagenet does better in 100 % of" in text
    assert "Where an arm is silent though there is something to find it counts as 0" in text


def test_a_claim_that_no_run_has_scored(shown, make_study, make_evidence):
    """Runs of before lesions were scored are read like any other."""
    asked = make_study(claims=[shown.study.claims[0].model_dump() | {"metric": "lesion_f1"}])
    text = "".join(Page(report.render(make_evidence(asked))).text)
    assert "no finished run has scored lesion F1" in text
    assert "Left out" not in text


def test_when_every_run_failed(tmp_path, make_evidence, make_study, make_external):
    empty = pd.DataFrame()
    verdicts = judge(make_study(), empty, None)
    elsewhere = make_external(make_study(), cases=empty, verdicts=verdicts, pictures=[])
    made = make_evidence(cases=empty, curves=empty, trivial=empty, verdicts=verdicts, pictures=[], external=elsewhere)
    assert all(path.exists() for path in write_tables(made, tmp_path))
    page = Page(report.render(made))
    assert [name for name in page.ids if name != "external"] == SECTIONS
    assert "no finished run of baseline and init=scratch" in "".join(page.text)


def test_a_claim_beside_a_trivial_predictor_is_shown_patient_by_patient(make_evidence, make_study):
    beside = {"id": "beside", "says": "It segments.", "factor": "arm", "better": "baseline", "than": "all background"}
    asked = make_study(claims=[beside | {"metric": "pixel_acc", "margin": 0.01}])
    made = make_evidence(asked)
    made = dataclasses.replace(made, verdicts=judge(asked, Tables(made.cases, trivial=made.trivial), None))
    shown = report.render(made)
    assert re.search(r"(over|against) all background on \d+ patients", shown)
    assert "A trivial predictor gives every pixel one label" in shown
    (pairs,) = report._content(made)["pairs"]
    assert "<svg" in pairs[1]
