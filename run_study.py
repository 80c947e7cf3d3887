"""Run a study: ``python run_study.py`` for the mini-study, ``python run_study.py FILE.yaml --help`` for the rest."""

import sys
from pathlib import Path

from litsexp.cli.app import main

MINI = Path(__file__).parent / "experiments" / "mini.yaml"

if __name__ == "__main__":
    arguments = sys.argv[1:]
    has_file = any(argument.endswith((".yaml", ".yml")) for argument in arguments)
    main(["study", *([] if has_file else [str(MINI)]), *arguments])
