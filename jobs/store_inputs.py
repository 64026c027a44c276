"""What an address on a store stands for: one object, a folder, or a pattern; found with one request, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.stores import StorePath

_MAGIC = re.compile(r"[*?[]")
QUERIES = ("http://", "https://")  # where a question mark is none of a pattern


@dataclass(frozen=True)
class Expanded:
    """Names of objects below `root`, which results are mirrored from; `named`: it is one, and was given by its name."""

    root: StorePath
    names: tuple[str, ...]
    named: bool = False


def expand(url: str, certain: bool) -> Expanded:
    """Find the objects; `certain`: the name says that it is a file. Raises InputError where there are none."""
    where = StorePath(url)
    if _MAGIC.search(url) and not url.startswith(QUERIES):
        return _matching(url)
    if certain and not url.endswith("/"):
        return Expanded(where.parent, (where.name,), named=True)
    try:
        folder = url.endswith("/") or where.info()["type"] == "directory"
    except FileNotFoundError as e:
        raise InputError("no such file or folder") from e
    if not folder:
        return Expanded(where.parent, (where.name,), named=True)
    names = _shown(where)
    if not names and not where.exists():
        raise InputError("no such file or folder")
    return Expanded(where, names)


def _matching(pattern: str) -> Expanded:
    """The objects that match, and those in folders that do."""
    from fsspec.utils import glob_translate

    fixed, rest = [], pattern.rstrip("/").split("/")
    while not _MAGIC.search(rest[0]):
        fixed.append(rest.pop(0))
    root = StorePath("/".join(fixed))
    matches = re.compile(glob_translate("/".join(rest))).match
    names = tuple(name for name in _shown(root) if any(map(matches, _ancestry(name))))
    if not names:
        raise InputError("no file or folder matches")
    return Expanded(root, names)


def _shown(root: StorePath) -> tuple[str, ...]:
    """Names in order; hidden ones left out."""
    return tuple(sorted(n for n in root.files() if not n.startswith(".") and "/." not in n))


def _ancestry(name: str) -> list[str]:
    """The name and the folders that it lies in."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
