"""The wheel: what is in it, and that it works where there is no checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import litsexp

ROOT = Path(__file__).parents[1]
FILES, FOLDERS = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"), ("litsexp", "tests", "docs", "experiments")
PARTS = ("believe", "external", "native")  # of report.html
TEMPLATES = (
    *("compare.html", "head.html", "parts.html", "report.css", "report.html", "report.js", "search.html", "table.html"),
    *(f"report_{part}.html" for part in PARTS),
)
BESIDES_PYTHON = {
    "litsexp/spec/catalog.toml",
    *(f"litsexp/evidence/templates/{name}" for name in TEMPLATES),
}
LARGEST_BYTES = 1_000_000
STUDY = """\
question: Does a wide window help?
data: {patients: 6, size: 32}
run: {init: scratch, window: wide, epochs: 1}
factors: {window: [liver]}
claims: [{id: wide, says: It helps., factor: window, better: wide, than: liver}]
"""
JUDGE = """\
import pandas as pd, litsexp
from litsexp.evidence.report import environment
print(litsexp.__file__)
print([name for name in environment().list_templates() if name.endswith(".html")])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by ``python -m build``, from the source archive that it makes, without asking an index for anything."""
    checkout = tmp_path_factory.mktemp("source")
    for name in FILES:
        shutil.copy(ROOT / name, checkout)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(checkout / "dist"), str(checkout)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = (checkout / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with this wheel, and the packages that it needs as the tests have them."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.EnvBuilder(with_pip=False).create(home)
    (packages,) = home.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "shared.pth").write_text("\n".join(shared))
    into = ["--no-deps", "--no-index", "--ignore-installed", "--prefix", str(home), "--no-warn-script-location"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(home / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", *into, str(wheel)], check=True, capture_output=True, text=True)
    return home


def run(installed: Path, folder: Path, *words: str) -> str:
    """What a command prints, run with this environment in a folder that is no checkout."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    path = f"{installed / 'bin'}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        words, cwd=folder, env={**environment, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(next(n for n in names if n.endswith("/METADATA"))).decode())
    about = {name for name in names if ".dist-info/" in name}
    python = {file.relative_to(ROOT).as_posix() for file in (ROOT / "litsexp").rglob("*.py")}
    assert names - about == python | BESIDES_PYTHON
    assert {name.partition("/")[2] for name in about} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")
    }
    assert wheel.stat().st_size < LARGEST_BYTES
    assert metadata["Version"] == litsexp.__version__
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_source_archive_holds_what_builds_the_wheel(wheel: Path) -> None:
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames() if opened.getmember(name).isfile()}
    package = {name for name in names if name.startswith("litsexp/")}
    about = {name for name in names if name.startswith("litsexp.egg-info/")}
    assert package == {file.relative_to(ROOT).as_posix() for file in (ROOT / "litsexp").rglob("*.py")} | BESIDES_PYTHON
    assert names - package - about == {*FILES, "PKG-INFO", "setup.cfg"}


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "litsexp.__version__"}
    assert f"## [{litsexp.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_installed_it_works_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "litsexp", "--version").strip() == litsexp.__version__
    assert "shuffled" in run(installed, tmp_path, "litsexp", "list", "init")
    where, templates = run(installed, tmp_path, str(installed / "bin" / "python"), "-c", JUDGE).splitlines()
    assert Path(where).is_relative_to(installed)
    assert templates == str(sorted(name for name in TEMPLATES if name.endswith(".html")))


def test_installed_it_plans_a_study(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(STUDY)
    plan = run(installed, tmp_path, "litsexp", "plan", "my.yaml", "--no-hours", "--noise", "0.05,0.15,0.08")
    assert "wide" in plan


def test_the_citation_says_what_the_format_asks_for() -> None:
    """Citation File Format 1.2.0: the keys that are needed, and no others than it knows."""
    known = {"abstract", "authors", "cff-version", "keywords", "license", "message", "references", "title", "type"}
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"authors", "cff-version", "message", "title"} <= set(cff) <= known
    assert (cff["cff-version"], cff["type"], cff["license"]) == ("1.2.0", "software", "Apache-2.0")
    assert all(set(author) in ({"name"}, {"family-names"}) for author in cff["authors"])
    (paper,) = cff["references"]
    assert {"type", "title", "authors"} <= set(paper) <= {"type", "title", "authors", "notes", "institution"}
    assert [author["family-names"] for author in paper["authors"]] == ["Alves", "Salem", "Barretos", "Ferrugem"]
