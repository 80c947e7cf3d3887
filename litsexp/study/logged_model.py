"""The file that MLflow copies into a registered model and runs to load it ("models from code"): no object is pickled.

What it does stands in ``litsexp.study.served``: the environment that loads a model needs litsexp.
"""

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from litsexp.study.served import Served


class Model(Served, PythonModel):  # type: ignore[misc]  # mlflow has no types
    """A run of a study that labels CT volumes; ``predict`` is inherited, or MLflow would check inputs by type hints."""


set_model(Model())
