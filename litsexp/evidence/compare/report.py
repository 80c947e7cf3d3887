"""A comparison of two studies as one self-contained HTML file, and as tables."""

from pathlib import Path

from litsexp.evidence.compare.comparison import Comparison
from litsexp.evidence.compare.figure import changes_figure
from litsexp.evidence.compare.tables import number, p_value, write_tables
from litsexp.evidence.judge import ALPHA, MIN_PATIENTS, MIN_RUN_PAIRS
from litsexp.evidence.report import environment
from litsexp.evidence.words import COVERED
from litsexp.files import whole_file


def write_all(found: Comparison, directory: Path) -> Path:
    """``report.html`` and the tables, in a folder that is there; what stands there is replaced. Returns the report."""
    write_tables(found, directory)
    report = directory / "report.html"
    with whole_file(report, replace=True) as temporary:
        temporary.write_text(render(found), encoding="utf-8", newline="\n")
    return report


def render(found: Comparison) -> str:
    """The report as HTML text: no scripts, no external resources, no dates."""
    templates = environment()
    templates.filters |= {"places": number, "p_value": p_value}
    least = {"patients": MIN_PATIENTS, "runs": MIN_RUN_PAIRS}
    groups = {
        about: list(rows.itertuples(index=False)) for about, rows in found.differences.groupby("about", sort=False)
    }
    content = {"found": found, "figure": changes_figure(found.arms), "differing": groups}
    return templates.get_template("compare.html").render(**content, alpha=ALPHA, least=least, covered=COVERED)
