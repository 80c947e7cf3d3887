"""The tiny study on a real PostgreSQL and a real MLflow server."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litsexp import services
from litsexp.data.store import Store
from litsexp.study import outages
from litsexp.study import session as session_room
from litsexp.study.places import Places

from ..conftest import Bench, Instant
from .lab import start_mlflow, start_postgres


@pytest.fixture
def bench(servers: Any, tmp_path: Path, phantom_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The tiny study on the servers, under a name of the test's own."""
    monkeypatch.setattr(session_room, "check_needs", lambda *_: None)
    monkeypatch.setattr(outages, "PAUSES_S", (0.2,))
    places = Places.below(tmp_path / "mlruns", servers.tracking_uri, servers.storage_url)
    places.root.mkdir()
    yield Bench(places, phantom_store, Instant(places), name=f"tiny-{uuid.uuid4().hex[:8]}")
    for daemon, start in zip(services.daemons(servers.folder), (start_postgres, start_mlflow), strict=True):
        if not daemon.pid():  # a test that failed in between leaves the next one its servers
            start(servers)
