"""fastai: inputs, networks, losses, one training run, prediction. Knows neither Optuna nor MLflow."""

import os
import sys
from typing import Any

from torch import library as operators

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, matrix products on a GPU need not repeat


def _import_torchvision() -> None:
    """Import torchvision, also beside a torch build that cannot load its compiled operators.

    torchvision registers shapes for ``nms`` and ``qnms`` at import and fails where its own library, built for another
    torch, did not declare them. litsexp calls neither, so declaring the schemas is enough.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library: Any = operators.Library  # torch has no types here
        schemas = library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            schemas.define(schema)
        for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        import torchvision

        torchvision._litsexp_schemas = schemas  # the declarations live as long as this object does


_import_torchvision()
