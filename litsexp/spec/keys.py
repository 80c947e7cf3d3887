"""Identity by content: digests of what is asked, which stay what they are while settings are added.

A setting that is added later is declared with ``added``: while it holds the value that means "as before it existed" it
stays out of every digest, so finished runs stay found and claims stay those that were written down.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from litsexp.spec.errors import LitsexpError


@dataclass(frozen=True)
class AsBefore:
    """Metadata of a field: the value that means "as before this field existed"."""

    value: object


def added(default: Any, **as_field: Any) -> Any:
    """A field that was added after studies had run: ``default`` is what all of them did."""
    field = Field(default, **as_field)
    field.metadata.append(AsBefore(default))
    return field


def content(value: Any, without: Collection[str] = ()) -> Any:
    """Settings as plain data for a digest: fields that hold their value as before they existed are left out."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        return {
            name: content(getattr(value, name))
            for name, field in fields
            if name not in without and AsBefore(getattr(value, name)) not in field.metadata
        }
    if isinstance(value, Mapping):
        return {name: content(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [content(one) for one in value]
    return value


def digest(content: object) -> str:
    """16 hex digits of the SHA-256 of canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; LitsexpError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LitsexpError(f"{path}: cannot be read ({error.strerror}); expected a file that exists") from None
