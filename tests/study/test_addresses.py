"""No address shows a password, and PostgreSQL is psycopg 3 however it is written."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.study import addresses
from litsexp.study.addresses import artifacts_are_shared, database_url, hidden, linked, masked
from litsexp.study.places import Places

SECRETS = ("PGPASSWORD", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in SECRETS:
        monkeypatch.setenv(name, "")  # what a test sets is gone after it
        del os.environ[name]
    yield


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:geheim@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:ge@heim/x@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?password=geheim&sslmode=require", "postgresql://host/db?password=***&sslmode=require"),
        ("http://me:geheim@host:5000", "http://me:***@host:5000"),
        ("postgresql://:geheim@host/db", "postgresql://:***@host/db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("sqlite:////a/b:c@d.db", "sqlite:////a/b:c@d.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_a_message_about_an_address_hides_its_password_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from-outside")
    said = hidden("a%40b99 is not a@b99, nor from-outside", "postgresql://me:a%40b99@host/db")
    assert said == "*** is not ***, nor ***"


def test_a_link_has_neither_name_nor_password() -> None:
    assert linked("https://me:geheim@host:5000/mlflow") == "https://host:5000/mlflow"


@pytest.mark.parametrize("name", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_psycopg_3(name: str) -> None:
    assert database_url(f"{name}://me@host/db") == "postgresql+psycopg://me@host/db"


def test_other_databases_stay_as_they_are() -> None:
    assert database_url("mysql://host/db") == "mysql://host/db"
    assert database_url("sqlite:///a.db") == "sqlite:///a.db"


def test_another_driver_is_refused_and_a_missing_one_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LitsexpError, match=r"^--storage postgresql\+psycopg2://me:\*\*\*@host/db: found postgresql"):
        database_url("postgresql+psycopg2://me:geheim@host/db")
    monkeypatch.setattr(addresses, "find_spec", lambda name: None)
    with pytest.raises(
        LitsexpError, match=r'psycopg is not installed; install it with pip install "litsexp\[postgres\]"'
    ):
        database_url("postgres://host/db")


def test_a_password_in_an_address_goes_to_the_environment_and_nowhere_else(tmp_path: Path) -> None:
    places = Places.below(
        tmp_path, "http://me:p%40ss@host:5000", "postgres://me:ge%2Fheim@db.host:5433/litsexp?sslmode=require"
    )
    assert places.tracking_uri == "http://host:5000"
    assert places.storage_url == "postgresql+psycopg://me@db.host:5433/litsexp?sslmode=require"
    assert [os.environ[name] for name in SECRETS] == ["ge/heim", "me", "p@ss"]
    assert Places.below(tmp_path, None, "postgresql://me@host/db?password=ge/heim").storage_url.endswith("me@host/db")


def test_two_passwords_for_one_place_in_the_environment_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "another")
    with pytest.raises(LitsexpError, match=r"^--storage: PGPASSWORD is set, .* in ~/.pgpass$"):
        Places.below(tmp_path, None, "postgresql://me:geheim@host/db")


def test_an_address_that_cannot_be_read_is_masked_too(tmp_path: Path) -> None:
    with pytest.raises(LitsexpError) as caught:
        Places.below(tmp_path, None, "postgresql://me:geheim@host:port/db")
    assert "cannot be read as an address" in str(caught.value) and "geheim" not in str(caught.value)


def test_only_a_server_hands_artifacts_to_other_machines() -> None:
    assert artifacts_are_shared("http://host:5000")
    assert not artifacts_are_shared("postgresql+psycopg://host/db")
    assert not artifacts_are_shared("sqlite:////a/mlflow.db")
