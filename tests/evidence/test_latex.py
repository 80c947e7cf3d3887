"""The tables for papers compile: each as it is written, in a document that has booktabs and nothing else."""

import dataclasses
import shutil
import subprocess

import pytest

from litsexp.evidence.tables import write_tables

PDFLATEX = shutil.which("pdflatex")
pytestmark = pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex; apt-get install texlive-latex-recommended")


def compiled(folder, names):
    """The log of a run over these tables; it fails where LaTeX does."""
    text = "\n\n".join(f"\\resizebox{{\\linewidth}}{{!}}{{\\input{{{name}}}}}" for name in names)
    head = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (folder / "paper.tex").write_text(f"{head}{text}\n\\end{{document}}\n", encoding="utf-8")
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout[-1500:]
    assert (folder / "paper.pdf").stat().st_size > 1000
    return done.stdout


def test_every_table_of_a_study_compiles(shown_elsewhere, tmp_path):
    names = [path.stem for path in write_tables(shown_elsewhere, tmp_path) if path.suffix == ".tex"]
    assert {"verdicts", "arms", "noise", "external_verdicts", "external_arms", "external_noise"} <= set(names)
    log = compiled(tmp_path, names)
    assert "Missing character" not in log


def test_what_latex_means_something_by_is_escaped(make_evidence, make_study, tmp_path):
    """Names with underscores, percent signs and the like come from people's files."""
    odd = make_evidence(cohort="my_folder 100 % & more #1, 12 patients")
    odd.cases["arm"] = odd.cases["arm"].replace({"init=scratch": "init=file:weights_100%~a^b.pth"})
    names = [path.stem for path in write_tables(odd, tmp_path) if path.suffix == ".tex"]
    arms = (tmp_path / "arms.tex").read_text(encoding="utf-8")
    assert r"init=file:weights\_100\%\textasciitilde a\textasciicircum b.pth" in arms
    assert "Missing character" not in compiled(tmp_path, names)


def test_a_small_p_and_a_loss_are_printed_as_what_they_are(shown, tmp_path):
    """In LaTeX' older fonts ``<`` is an inverted exclamation mark, and a hyphen is no minus."""
    small = dataclasses.replace(shown.verdicts[0], p_adjusted=1e-7, effect=-0.25, low=-0.3, high=-0.2)
    write_tables(dataclasses.replace(shown, verdicts=[small]), tmp_path)
    written = (tmp_path / "verdicts.tex").read_text(encoding="utf-8")
    assert "$<$0.0001" in written and "$-$0.25 [$-$0.30, $-$0.20]" in written
    compiled(tmp_path, ["verdicts"])
    if shutil.which("pdftotext") is None:
        return
    text = subprocess.run(
        ["pdftotext", "-layout", "paper.pdf", "-"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert "<0.0001" in text
    assert "−0.25 [−0.30, −0.20]" in text
