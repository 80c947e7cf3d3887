"""A trained run as a function of a volume: what MLflow calls when a registered model is asked to predict.

It knows no MLflow: ``logged_model.py`` joins the two. It reads safetensors and JSON, and unpickles nothing.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.torch import load_file

from litsexp.data.ct.volume import open_image
from litsexp.data.store.convert import all_slices, slices_of
from litsexp.evaluation.native import WayBack
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import load_plugins
from litsexp.study.executors.inline import torch_threads
from litsexp.training.predict import Member, Predictor

VOLUME, HU = "volume", "hu"  # what a model may be asked for, as its signature names it
WEIGHTS, RUN = "weights", "run"  # its artifacts
EXPECTED = (
    "the path of a NIfTI volume, a list or a pandas column of them, "
    "or a numeric array of Hounsfield units (z, row, column)"
)

Labels = NDArray[np.uint8]  # 0 background, 1 liver, 2 tumor


class Served:
    """The methods of ``mlflow.pyfunc.PythonModel``."""

    predictor: Predictor
    threads: int

    def load_context(self, context: Any) -> None:
        """Build the network from the model's artifacts; ``context.model_config``: ``threads``, ``plugins``.

        Raises:
            LitsexpError: a plugin that the run needs cannot be imported.
        """
        config = context.model_config or {}
        load_plugins(config.get("plugins", ()))
        about = json.loads(Path(context.artifacts[RUN]).read_text(encoding="utf-8"))
        weights, self.threads = load_file(context.artifacts[WEIGHTS]), int(config.get("threads", 1))
        with torch_threads(self.threads):
            self.predictor = Predictor([Member(RunConfig.model_validate(about["run"]), weights, about["size"])])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # or MLflow infers from it
        """Labels as uint8: 0 background, 1 liver, 2 tumor.

        Args:
            context: MLflow's; not used.
            model_input: a NIfTI volume's path: the labels are those that ``litsexp predict`` writes, in the file's own
                shape and direction. A list, a pandas column or ``{"volume": ...}`` of paths: a list of them. Or an
                array of HU (z, row, column), z from inferior to superior, row 0 anterior, column 0 the patient's right,
                or ``{"hu": ...}`` of it: labels of the same shape.
            params: MLflow's; not used.

        Raises:
            LitsexpError: something else, or a volume that cannot be CT, in one line.
        """
        asked = _asked(model_input)
        with torch_threads(self.threads):
            if isinstance(asked, np.ndarray):
                return self._of_array(asked)
            return self._of_file(asked) if isinstance(asked, Path) else [self._of_file(path) for path in asked]

    def _of_file(self, path: Path) -> Labels:
        opened = open_image(path)
        hu = all_slices(opened, self.predictor.size)
        labels = self.predictor.label(hu, WayBack(opened.shape[1:], opened.flips, self.predictor.size))
        return np.ascontiguousarray(opened.as_stored(labels))

    def _of_array(self, hu: NDArray[Any]) -> Labels:
        rows, columns = hu.shape[1:]
        back = WayBack((rows, columns), (False, False), self.predictor.size)
        return self.predictor.label(slices_of(hu, self.predictor.size), back)


def _asked(data: Any) -> Path | list[Path] | NDArray[Any]:
    """One path, several, or an array of HU; LitsexpError for anything else."""
    if isinstance(data, Mapping):
        if len(data) != 1 or not data.keys() <= {VOLUME, HU}:
            raise _refused(f"a mapping of {', '.join(map(str, data)) or 'nothing'}", f"{VOLUME!r} or {HU!r} alone: ")
        return _array(np.asarray(data[HU])) if HU in data else _asked(data[VOLUME])
    if isinstance(data, pd.DataFrame):
        if VOLUME not in data and len(data.columns) != 1:
            raise _refused(f"a table of {', '.join(map(str, data))}", f"a column {VOLUME!r}: ")
        data = data[VOLUME] if VOLUME in data else data.iloc[:, 0]
    if isinstance(data, str | os.PathLike):
        return Path(data)
    if isinstance(data, np.ndarray) and not (data.ndim == 1 and data.dtype.kind in "OUT"):
        return _array(data)
    if isinstance(data, Sequence | pd.Series | np.ndarray) and not isinstance(data, bytes):
        wrong = [one for one in data if not isinstance(one, str | os.PathLike)]
        if len(data) and not wrong:
            return [Path(one) for one in data]
        raise _refused(f"a {type(data).__name__} with {type(wrong[0]).__name__}" if wrong else "nothing")
    raise _refused(f"a {type(data).__name__}")


def _array(hu: NDArray[Any]) -> NDArray[Any]:
    if hu.ndim != 3 or not hu.size or hu.dtype.kind not in "if":
        unsigned = "; unsigned numbers hold no air (-1000)" if hu.dtype.kind == "u" else ""
        raise _refused(f"an array {hu.shape} of {hu.dtype}{unsigned}")
    return hu


def _refused(found: str, more: str = "") -> LitsexpError:
    return LitsexpError(f"predict: found {found}; expected {more}{EXPECTED}")
