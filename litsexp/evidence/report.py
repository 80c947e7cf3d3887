"""A study's evidence as one self-contained HTML file.

No external resources and no dates: the same evidence gives the same bytes. One script, which a page's policy names by
its digest, sorts tables and marks the section in sight; without it everything is there, too.
"""

import base64
import math
import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from litsexp.evidence import figures, inline
from litsexp.evidence.controls import controls
from litsexp.evidence.curves_figure import CURVE_ARMS, curves, thinned
from litsexp.evidence.failed import RULE, reasons
from litsexp.evidence.glance import glance
from litsexp.evidence.judge import MIN_PATIENTS, MIN_RUN_PAIRS, Verdict
from litsexp.evidence.lesions_figure import RECALL_ARMS, recalls
from litsexp.evidence.material import PICTURE_ARMS, Evidence, SideBySide
from litsexp.evidence.measures import main_metrics, measure_of
from litsexp.evidence.native import COMPARED, FINDINGS, beside_stored, by_kind, lesion_findings
from litsexp.evidence.tables import SHOWN_ROWS, arm_scores, best_trials, gap_table, run_table, tumor_free_table
from litsexp.evidence.words import COVERED, MODELS, cautions, digits_for, noise, plain, uncertainty
from litsexp.files import whole_file
from litsexp.spec.design import cells, format_level, leaking_arms

TEMPLATES = Path(__file__).parent / "templates"
PICTURE_BYTES = 700_000  # of the pictures of one cohort; what is over is left out
WHERE_PRETRAINED = ("pretraining_steps", "pretraining_minutes")  # columns that are there where some run has them
RUN_COLUMNS = (
    *("arm", "fold", "seed", "status", "reason", "failed_to_learn", "minutes"),
    *(*WHERE_PRETRAINED, "best_epoch", "epochs", "lr"),
)
BEST_TRIALS = 10
NOTES = 20  # of what went wrong, above the answer
EXTERNAL_METRICS = 2  # of the main ones: compared between cohorts, beside the claims' own


def write_report(evidence: Evidence, path: Path) -> Path:
    """Write the HTML file, whole or not at all."""
    with whole_file(path, replace=True) as temporary:
        temporary.write_text(render(evidence), encoding="utf-8", newline="\n")
    return path


def render(evidence: Evidence) -> str:
    """The report as HTML text."""
    return environment().get_template("report.html").render(**_content(evidence))


def environment() -> Environment:
    """Where templates are found, and the filters that they use."""
    loader = FileSystemLoader(TEMPLATES)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"number": _number, "minus": _minus, "uri": _uri, "figure": inline.figure, "themed": inline.themed}
    made.filters |= {"measure": measure_of, "digits": digits_for, "uncertainty": uncertainty, "noise": noise}
    return made


def script() -> dict[str, str]:
    """The pages' one script, and its digest for their policy."""
    text = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return {"script": Markup(text), "script_digest": inline.script_digest(text)}  # noqa: S704  # our own


def _content(evidence: Evidence) -> dict[str, Any]:
    """What the template shows, section by section."""
    study, names, metrics = evidence.study, evidence.arm_names, evidence.metrics
    colours = figures.arm_colours(names)
    scores = arm_scores(evidence.cases, metrics, order=names)
    trivial = arm_scores(evidence.tested_trivial, metrics, by="predictor")
    free = tumor_free_table(evidence.cases, names)
    unlearned = reasons(evidence.failed)
    return {
        "evidence": evidence,
        "study": study,
        **script(),
        **_origins(evidence),
        "glance": glance(evidence),
        "verdicts": [(v, cautions(v, evidence.trivial, evidence.failed)) for v in evidence.verdicts],
        "elsewhere": {pair.here.claim.id: pair for pair in evidence.replications},
        "external": _external(evidence),
        "native": _native(evidence),
        "forest": figures.forest(evidence.verdicts, evidence.noise) if evidence.verdicts else "",
        "metrics": metrics,
        "colours": colours,
        "listed": names[:SHOWN_ROWS],
        "more_arms": _more(len(names), "arms.csv"),
        "most_listed": {"rows": SHOWN_ROWS, "notes": NOTES},
        "scores": scores.set_index(["arm", "metric"]).to_dict("index"),
        "trivial": trivial.set_index(["predictor", "metric"]).to_dict("index"),
        "most": scores.groupby("metric")["patients"].max().to_dict(),
        "predictors": list(trivial["predictor"].unique()),
        "curves": curves(evidence.curves, colours) if len(evidence.curves) else "",
        "curve_arms": CURVE_ARMS,
        "thinned": thinned(evidence.curves),
        "recalls": _recalls(evidence, colours),
        "recall_arms": RECALL_ARMS,
        "picture_arms": PICTURE_ARMS,
        "pairs": [(v, _pairs_figure(v, colours, evidence.trivial)) for v in evidence.verdicts if len(v.differences)],
        "pictures": _affordable(evidence.pictures),
        "tumor_free": free.head(SHOWN_ROWS).to_dict("records"),
        "more_tumor_free": _more(len(free), "tumor_free.csv"),
        "controls": controls(study),
        "rules": list(dict.fromkeys(verdict.asked.rule for verdict in evidence.verdicts if verdict.asked.rule)),
        "named": {arm: ", ".join(f"{f}={format_level(x)}" for f, x in of.items()) for arm, of in study.arms.items()},
        "own_rates": any("lr" in settings for settings in study.arms.values()),
        "leaking": leaking_arms(study),
        "unlearned": [(f"{arm}, fold {fold}, seed {seed}", why) for (arm, fold, seed), why in unlearned.items()],
        "rule": RULE,
        "covered": COVERED,
        "models": MODELS,
        "least": {"patients": MIN_PATIENTS, "run_pairs": MIN_RUN_PAIRS},
        "settings": yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100),
    }


def _origins(evidence: Evidence) -> dict[str, Any]:
    """Where the results come from: the split, the runs, a search's trials."""
    runs, split = _runs(evidence), evidence.split
    failures = runs[runs["status"] != "FINISHED"] if len(runs) else runs
    tested = split.assign(test_fold=split["test_fold"].where(split["test_fold"] >= 0))  # -1: in no fold
    return {
        "split": grid(tested, "split.csv"),
        "folds": grid(_folds(split)),
        "runs": grid(runs, "runs.csv"),
        "failures": grid(failures, "runs.csv"),
        "rates": sorted({float(f"{lr:.3g}") for lr in runs["lr"].dropna()}) if "lr" in runs else [],
        "planned": len(runs) if evidence.study.design == "search" else len(cells(evidence.study)),
        "finished": len(runs) - len(failures),
        "minutes": float(runs["minutes"].sum()) if "minutes" in runs else 0.0,
        "trials": grid(best_trials(evidence.search, BEST_TRIALS)) if evidence.search is not None else None,
    }


def _external(evidence: Evidence) -> dict[str, Any] | None:
    """What the section on the external cohort shows; None without one."""
    external = evidence.external
    if external is None:
        return None
    metrics = evidence.scored(external.cases, main_metrics()[:EXTERNAL_METRICS])
    gaps = gap_table(evidence.cases, external.cases, metrics, order=evidence.arm_names)
    trivial = gap_table(evidence.tested_trivial, external.trivial, metrics, by="predictor")
    return {
        "metrics": metrics,
        "gaps": gaps.set_index(["arm", "metric"]).to_dict("index"),
        "trivial": trivial.set_index(["predictor", "metric"]).to_dict("index"),
        "predictors": list(trivial["predictor"].unique()),
        "pairs": [(pair, cautions(pair.there, external.trivial, evidence.failed)) for pair in evidence.replications],
        "forest": figures.forest(external.verdicts, evidence.external_noise) if external.verdicts else "",
        "more_arms": _more(len(evidence.arm_names), "external_arms.csv"),
        "patients": external.trivial["case"].nunique() if len(external.trivial) else 0,
        "pictures": _affordable(external.pictures),
    }


def _native(evidence: Evidence) -> dict[str, Any] | None:
    """What the section on whole volumes shows; None where no run has scored them."""
    if evidence.native is None or not len(evidence.native):
        return None
    names = evidence.arm_names
    gaps, lesions = (
        beside_stored(evidence.cases, evidence.native, names),
        lesion_findings(evidence.native, names),
    )
    arms = [name for name in names if (lesions["arm"] == name).any()]
    return {
        "metrics": COMPARED,
        "gaps": gaps.set_index(["arm", "metric"]).to_dict("index"),
        "findings": FINDINGS,
        "lesions": lesions.set_index(["arm", "finding"]).to_dict("index"),
        "there": lesions.groupby("finding")["lesions"].max().to_dict(),
        "arms": arms[:SHOWN_ROWS],
        "more_arms": _more(len(arms), "native.csv and lesions.csv"),
        "runs": len(evidence.native[["arm", "fold", "seed"]].drop_duplicates()),
        "slices": int(evidence.native.drop_duplicates("case")["slices"].sum()),
    }


def _runs(evidence: Evidence) -> pd.DataFrame:
    """A row a run: how it ended, and whether it failed to learn."""
    runs = run_table(evidence)
    empty = {column for column in WHERE_PRETRAINED if column in runs and runs[column].isna().all()}
    return runs[[column for column in RUN_COLUMNS if column in runs and column not in empty]]


def _recalls(evidence: Evidence, colours: dict[str, str]) -> str:
    """Of whole volumes where they are scored, else of the stored slices; empty where no size of a lesion is known."""
    native = evidence.native
    cases = evidence.cases if native is None or not len(native) else native
    groups = by_kind(cases) if len(cases) else {}
    findings = [finding for group in groups.values() for finding in group]
    return recalls(lesion_findings(cases, list(colours), findings), groups, colours) if groups else ""


def _pairs_figure(verdict: Verdict, colours: dict[str, str], trivial: pd.DataFrame) -> str:
    """In the arms' colours where the claim compares two arms, else in the verdict's."""
    better, than = (colours.get(name, figures.MUTED) for name in verdict.arms[0][:2])  # a trivial predictor has none
    if len(verdict.arms) > 1 or len(verdict.arms[0]) > 2 or better == than:
        better, than = figures.VERDICT_COLOURS["supported"], figures.VERDICT_COLOURS["contradicted"]
    return figures.pairs(verdict, (better, than), _unlearned_score(verdict, trivial))


def _unlearned_score(verdict: Verdict, trivial: pd.DataFrame) -> float | None:
    """What the better of the predictors that learn nothing scores on a verdict's patients; None where it has none."""
    measure = verdict.measure
    if not (verdict.asked.scores and len(trivial) and measure.scored(trivial)):
        return None
    same = trivial[trivial["case"].isin(verdict.differences.index)]
    means = same.assign(value=measure.values(same)).groupby("predictor")["value"].mean().dropna()
    return float(means.max() if measure.higher_is_better else means.min()) if len(means) else None


def _affordable(pictures: Sequence[SideBySide]) -> list[SideBySide]:
    """The first pictures, as many as keep the file a size that mail carries."""
    totals = accumulate(picture.size for picture in pictures)
    return [picture for picture, total in zip(pictures, totals, strict=True) if total <= PICTURE_BYTES]


def _folds(split: pd.DataFrame) -> pd.DataFrame:
    """A row a test fold: patients, tumor-free ones, slices, pixels."""
    tested = split[split["test_fold"] >= 0].assign(patients=1, tumor_free=split["tumor_pixels"] == 0)
    columns = ["patients", "tumor_free", "slices", "liver_pixels", "tumor_pixels"]
    return tested.groupby("test_fold", as_index=False)[columns].sum()


def grid(frame: pd.DataFrame, csv: str = "") -> dict[str, Any]:
    """A data frame as text: ``head`` with (title, is a number), ``rows`` of cells, of ``count`` that there are.

    Of one that has a ``csv`` beside the page the first rows alone, and then ``more`` says so.
    """
    numeric = frame.select_dtypes("number").columns
    head = [(str(name).replace("_", " "), name in numeric) for name in frame]
    shown, more = (frame.head(SHOWN_ROWS), _more(len(frame), csv)) if csv else (frame, "")
    rows = [[_text(value) for value in row] for row in shown.itertuples(index=False)]
    return {"head": head, "rows": rows, "count": len(frame), "more": more}


def _more(count: int, csv: str) -> str:
    """What a page says of a table that it does not show whole; empty where it does."""
    return f"The first {SHOWN_ROWS} of {count:,}; all are in {csv}, beside this file." if count > SHOWN_ROWS else ""


def _text(value: Any) -> str:
    if pd.isna(value):
        return "–"
    if isinstance(value, float):
        return _minus(f"{value:,.0f}" if value == round(value) else f"{value:.4g}")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else _minus(plain(value, digits))


def _minus(text: str) -> str:
    """A true minus sign before numbers, and no line break inside ``p = 0.01``."""
    return re.sub(r"\bp ([<=]) ", "p\u00a0\\1\u00a0", re.sub(r"(?<![\w.])-(?=\d)", "−", text))


def _uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
