"""litsexp: does this choice really help a 2D U-Net segment liver and tumor, and by how much?

The public API, loaded when it is used: ``load_study``, ``run_study``, ``run_aa``, ``predict``, ``score``,
``judge_table``, ``register``; ``Places``, ``Conclusion``, ``AAResult``, ``Predicted``, ``Scored``, ``LitsexpError``.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litsexp.aa import AAResult, run_aa
    from litsexp.evaluation.folders import Scored, score
    from litsexp.evidence.foreign.judged import judge_table
    from litsexp.pipeline import Conclusion, run_study
    from litsexp.prediction import Predicted, predict
    from litsexp.spec.errors import LitsexpError
    from litsexp.spec.reading import load_study
    from litsexp.spec.tables import register
    from litsexp.study.places import Places

__version__ = "0.1.0"
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported, as is the next
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
__all__ = [
    "AAResult",
    "Conclusion",
    "LitsexpError",
    "Places",
    "Predicted",
    "Scored",
    "judge_table",
    "load_study",
    "predict",
    "register",
    "run_aa",
    "run_study",
    "score",
]

_HOMES = {
    "AAResult": "aa",
    "Conclusion": "pipeline",
    "LitsexpError": "spec.errors",
    "Places": "study.places",
    "Predicted": "prediction",
    "Scored": "evaluation.folders",
    "judge_table": "evidence.foreign.judged",
    "load_study": "spec.reading",
    "predict": "prediction",
    "register": "spec.tables",
    "run_aa": "aa",
    "run_study": "pipeline",
    "score": "evaluation.folders",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its room when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'litsexp' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"litsexp.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
