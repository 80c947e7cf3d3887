"""The rooms' one direction, and imports that must stay light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_rooms_import_in_one_direction() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


ARITHMETIC = ["litsexp.evaluation.metrics"]
ARITHMETIC += [f"litsexp.evidence.{name}" for name in ("stats", "measures", "judge", "words", "external", "material")]


@pytest.mark.parametrize("module", ARITHMETIC)
def test_arithmetic_loads_nothing_heavy(module: str) -> None:
    heavy = "{'torch', 'fastai', 'mlflow', 'optuna', 'pandas', 'scipy', 'matplotlib'}"
    code = f"import sys, {module}; sys.exit(' '.join({heavy} & sys.modules.keys()) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
