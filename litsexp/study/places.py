"""Where a study's results go, and where its stores lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from litsexp.study.addresses import database_url, without_password


@dataclass(frozen=True)
class Places:
    """MLflow's and Optuna's addresses, the folder for artifacts, locks and reports, and the one for stores."""

    root: Path
    tracking_uri: str
    storage_url: str
    stores: Path  # phantoms and slice stores

    @classmethod
    def below(
        cls,
        root: Path = Path("mlruns"),
        tracking_uri: str | None = None,
        storage_url: str | None = None,
        stores: Path = Path("data"),
    ) -> Self:
        """SQLite databases in ``root`` unless told otherwise; absolute paths, or MLflow would depend on the folder.

        A password in an address goes to the environment of this process, and to nowhere else. LitsexpError: an address
        of PostgreSQL that cannot be used; another password there already.
        """
        root = root.resolve()
        mlflow, optuna = (f"sqlite:///{root / name}" for name in ("mlflow.db", "optuna.db"))
        asked = (("--tracking-uri", tracking_uri or mlflow), ("--storage", storage_url or optuna))
        mlflow, optuna = (without_password(database_url(address, option), option) for option, address in asked)
        return cls(root, mlflow, optuna, stores.resolve())
