"""Files of the cache that say what they are of, and are used only where that is what is wanted, and whole.

A file is `reelcolor-plan/1` and a line end, the SHA-256 of all that follows (32 bytes), the length of the header
(4 bytes, little-endian), the header (JSON: everything that the content depends on), and the content. The hash finds
damage and the header what is of another machine or version; neither is proof against somebody who may write to the
cache folder, which is the user's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.cache import read_cached, write_cached

_MAGIC = b"reelcolor-plan/1\n"
_DIGEST = hashlib.sha256().digest_size
_LENGTH = 4
_SHOWN = 40  # characters of a value in a message


class UnfitError(Exception):
    """Why a file of the cache is not used."""


def keep(path: Path, header: Mapping[str, Any], payload: bytes) -> None:
    """Write a sealed file, as `write_cached` does."""
    write_cached(path, sealed(header, payload))


def sealed(header: Mapping[str, Any], payload: bytes) -> bytes:
    """What is in a sealed file."""
    text = json.dumps(header, sort_keys=True).encode()
    body = len(text).to_bytes(_LENGTH, "little") + text + payload
    return _MAGIC + hashlib.sha256(body).digest() + body


def unsealed(path: Path, header: Mapping[str, Any]) -> bytes:
    """What was sealed in a file; raises FileNotFoundError, or UnfitError where it is damaged or of another header."""
    try:
        data = read_cached(path)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise UnfitError(f"cannot be read ({e.strerror})") from e
    start = len(_MAGIC) + _DIGEST
    if data[: len(_MAGIC)] != _MAGIC:
        raise UnfitError("is no file of this version's cache")
    body = data[start:]
    if len(body) < _LENGTH or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise UnfitError("is truncated or was changed")
    end = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    if difference := _difference(json.loads(body[_LENGTH:end]), header):
        raise UnfitError(difference)
    return body[end:]


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The fields that differ, in words; empty where none does."""
    names = [name for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name)]
    return ", ".join(
        f"is of {name} {_short(found.get(name))}, not {_short(wanted.get(name))}" for name in sorted(names)
    )


def _short(value: object) -> str:
    """As much of a value as tells it from others."""
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:12]}…"
