import base64
import dataclasses
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from litsexp.config import StudyConfig, cells
from litsexp.evidence import report
from litsexp.evidence.claims import judge
from litsexp.evidence.report import Evidence, Picture

SECTIONS = ["question", "answer", "verdicts", "arms", "curves", "patients", "pictures"]
SECTIONS += ["false-positives", "believe", "split", "runs", "settings", "versions"]
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
VOID = {"meta", "br", "img"}
CURVES = {"train/loss": 0.4, "valid/loss": 0.5, "valid/dice_liver": 0.9, "valid/dice_tumor": 0.4}


class Page(HTMLParser):
    """Collects ids, links and text; every tag has to be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.sources, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def claim(**changes):
    return {
        "id": "transfer",
        "says": "Pretraining <script>alert(1)</script> helps.",
        "factor": "init",
        "better": "imagenet",
        "than": "scratch",
    } | changes


def study(**changes):
    content = {
        "question": "Does A & B <script>help</script>?",
        "factors": {"init": ["scratch"], "augment": ["none"]},
        "claims": [claim(), claim(id="pixels", metric="pixel_acc")],
    }
    return StudyConfig.model_validate(content | changes)


def case_rows(asked, failed=("augment=none", 2)):
    rng = np.random.default_rng(0)
    rows = []
    for cell in cells(asked):
        for case in range(cell.fold * 4, cell.fold * 4 + 4):
            score, free = rng.uniform(0.3, 0.6) + 0.2 * (cell.arm.name == "baseline"), case in (1, 6)
            counts = {"tp_tumor": 0 if free else 50, "fp_tumor": 3 * (case == 1), "fn_tumor": 0 if free else 10}
            row = {"arm": cell.arm.name, "fold": cell.fold, "seed": cell.seed, "case": case}
            row |= {"dice_tumor": math.nan if free else score, "dice_liver": 0.9, "pixel_acc": 0.9 + score / 100}
            rows.append(row | counts)
    table = pd.DataFrame(rows)
    return table[(table["arm"] != failed[0]) | (table["fold"] != failed[1])]


def evidence(asked=None, **changes):
    asked = asked or study()
    cases = case_rows(asked)
    ran = [{"arm": c.arm.name, "fold": c.fold, "seed": c.seed} for c in cells(asked)]
    runs = [
        r | {"status": "FINISHED", "reason": "", "minutes": 1.5, "best_epoch": 2, "epochs": 3, "lr": 1e-3} for r in ran
    ]
    runs[-1] |= {"status": "FAILED", "reason": "loss was not <finite>"}
    curves = [
        r | {"epoch": e, "metric": m, "value": v + e / 99} for r in ran for e in (1, 2) for m, v in CURVES.items()
    ]
    trivial = [
        {"predictor": name, "case": case, "dice_tumor": 0.0, "dice_liver": liver, "pixel_acc": pixels}
        for name, liver, pixels in (("all background", 0.0, 0.93), ("liver everywhere", 0.14, 0.07))
        for case in range(12)
    ]
    split = [
        {
            "case": c,
            "test_fold": c // 4,
            "liver_pixels": 5000,
            "tumor_pixels": 60,
            "slices": 9,
            "spacing": (0.7, 0.7, 5.0),
        }
        for c in range(12)
    ]
    made = Evidence(
        name="transfer",
        study=asked,
        cohort="phantom, 12 patients, seed 0",
        verdicts=judge(asked, cases, {"transfer": asked.claims[0].digest}, draws=200) if asked.claims else [],
        cases=cases,
        curves=pd.DataFrame(curves),
        runs=pd.DataFrame(runs),
        trivial=pd.DataFrame(trivial),
        split=pd.DataFrame(split),
        pictures=[Picture("Best: case 3", "tumor Dice 0.8", PIXEL)],
        facts={"torch": "2.9", "command": "python run_study.py <file>"},
        notes=["1 of 9 runs failed."],
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def shown():
    return evidence()


@pytest.fixture(scope="module")
def html(shown):
    return report.render(shown)


def test_every_section_stands_in_well_formed_html(html):
    page = Page(html)
    assert page.ids == SECTIONS
    assert {source for source in page.sources if source.startswith("#")} == {f"#{name}" for name in SECTIONS[1:]}


def test_nothing_is_fetched(html):
    assert "://" not in html
    assert all(source.startswith(("#", "data:image/")) for source in Page(html).sources)
    assert not re.search(r"url\(|@import|<link|<iframe", html)


def test_peoples_text_is_escaped(html):
    assert "<script" not in html
    assert "Does A &amp; B &lt;script&gt;help&lt;/script&gt;?" in html
    assert "loss was not &lt;finite&gt;" in html


def test_says_what_a_reader_must_know(shown, html):
    text = " ".join("".join(Page(html).text).replace("\N{NO-BREAK SPACE}", " ").split())
    for verdict in shown.verdicts:
        assert verdict.sentence.replace("-0", "−0") in text
    for words in (
        "phantom Does A & B",  # in the heading
        "8 of 9 runs finished",
        "1 of 9 runs failed.",
        "all background",
        "liver everywhere",
        "Post hoc, added or changed after the first run: pixels.",
        "Neither arm beats “all background”, which scores 0.93 in pixel accuracy",
        "Left out: 2 patients whose tumor Dice is undefined (no tumor to find).",
        "Every run used the same learning rate, 0.001.",
        "add init: shuffled to tell",
        "0.7 × 0.7 × 5",
    ):
        assert words in text, words


def test_a_real_cohort_is_not_called_phantom():
    asked = study(data={"cohort": "/data/lits"})
    html = report.render(evidence(asked, cohort="lits, 12 patients"))
    assert 'class="badge phantom"' not in html
    assert "synthetic" not in html


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


def test_pictures_over_the_limit_are_left_in_mlflow(monkeypatch):
    monkeypatch.setattr(report, "PICTURE_BYTES", len(PIXEL) + 1)
    html = report.render(evidence(pictures=[Picture(f"case {i}", "", PIXEL) for i in range(3)]))
    assert html.count("data:image/png") == 1
    assert "2 more would make this file too large" in html


def test_a_holdout_tests_some_patients_only(shown):
    cases = shown.cases[shown.cases["case"] < 4]
    split = shown.split.assign(test_fold=[0] * 4 + [-1] * 8)
    trivial = shown.trivial.assign(pixel_acc=[0.5 if case < 4 else 0.9 for case in shown.trivial["case"]])
    html = report.render(dataclasses.replace(shown, cases=cases, split=split, trivial=trivial))
    assert html.count('<td class="n">–</td>') >= 8
    assert '<td class="n">0.500<small>' in html  # read against the patients that the arms were tested on


def test_a_search_is_exploratory():
    asked = study(design="search", search={"trials": 5}, claims=[])
    trials = pd.DataFrame(
        {"lr": [1e-3, 1e-2], "init": ["scratch", "imagenet"], "value": [0.4, 0.6], "state": "COMPLETE"}
    )
    html = report.render(evidence(asked, search=trials))
    assert "Exploratory: a search tests no claim" in html
    assert html.index("<td>imagenet</td>") < html.index("<td>scratch</td>")
    assert Page(html).ids == SECTIONS


def test_when_every_run_failed(tmp_path):
    empty = pd.DataFrame()
    made = evidence(cases=empty, curves=empty, trivial=empty, verdicts=judge(study(), empty, None), pictures=[])
    assert all(path.exists() for path in report.write_tables(made, tmp_path))
    page = Page(report.render(made))
    assert page.ids == SECTIONS
    assert "no finished run of baseline and init=scratch" in "".join(page.text)


def test_arm_scores_count_a_patient_once():
    cases = pd.DataFrame({"arm": "a", "fold": 0, "seed": [0, 1, 0, 1], "case": [1, 1, 2, 2]})
    cases["dice_tumor"] = [0.2, 0.4, 0.9, math.nan]
    row = report.arm_scores(cases, ["dice_tumor"]).iloc[0]
    assert row["patients"] == 2
    assert row["mean"] == pytest.approx((0.3 + 0.9) / 2)


def test_verdict_table_keeps_the_numbers(shown):
    table = report.verdict_table(shown.verdicts)
    assert list(table["claim"]) == ["transfer", "pixels"]
    assert table["effect"][0] == shown.verdicts[0].effect
    assert list(table["post_hoc"]) == [False, True]
    assert report.verdict_table([]).empty


def test_tables_for_papers(shown, tmp_path):
    paths = report.write_tables(shown, tmp_path)
    assert [path.name for path in paths] == ["verdicts.csv", "verdicts.tex", "arms.csv", "arms.tex"]
    tex = paths[1].read_text()
    assert r"\toprule" in tex
    assert r"95 \% CI" in tex
    assert set(pd.read_csv(paths[2])["arm"]) == {"baseline", "init=scratch", "augment=none"}
    assert "0.900 [0.900, 0.900]" in paths[3].read_text()
    assert report.write_tables(evidence(study(claims=[])), tmp_path / "none")[0].exists()
