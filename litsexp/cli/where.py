"""Where a person sees a study's runs: the command that opens the MLflow UI, and the addresses in it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litsexp.study.places import Places


def opener(places: Places, mlruns: Path) -> str:
    """How to see the runs: the server's address, or the command that opens the database."""
    from litsexp.study.addresses import is_http, linked, masked

    if is_http(places.tracking_uri):
        return linked(places.tracking_uri)
    if places.tracking_uri != type(places).below(mlruns).tracking_uri:
        return shlex.join(["litsexp", "ui", "--tracking-uri", masked(places.tracking_uri)])
    return "litsexp ui" if mlruns == Path("mlruns") else shlex.join(["litsexp", "ui", "--mlruns", str(mlruns)])


def pages(places: Places, experiment_id: str) -> list[str]:
    """Addresses of what is prepared in the MLflow UI, the one to begin with first."""
    from litsexp.study.addresses import is_http, linked
    from litsexp.study.views import LOCAL, SLICES, address

    server = linked(places.tracking_uri) if is_http(places.tracking_uri) else LOCAL
    return [
        f"arms:   {address(server, experiment_id)}",
        f"table:  {address(server, experiment_id, table=True)}",
        f"slices: {address(server, experiment_id, SLICES)}",
    ]
