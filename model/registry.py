"""Names of model packages, and where each is found.

In this order: the packages shipped in `pretrained/`; those in the folder that $REELCOLOR_MODELS names, for machines
without a network; and what `registry.toml`, in either of the two, says can be fetched:

    [harbour]
    sha256 = "64 hexadecimal digits"
    urls = ["https://example.org/harbour.safetensors", "s3://mirror/harbour.safetensors"]

What is fetched is kept in the cache once its hash is right, and is hashed again whenever it is asked for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from model.cache import cache_folder
from model.locks import locked
from pipeline.errors import EngineError, ReelcolorError
from pipeline.storage import local_path, open_input, replacing, sha256_file

SUFFIX = ".safetensors"
PRETRAINED = Path(__file__).parent / "pretrained"
REGISTRY = "registry.toml"
FOLDER_VARIABLE = "REELCOLOR_MODELS"
MOST_BYTES = 1 << 30  # of a package
Origin = Literal["shipped", "folder", "registry", "file"]

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
_PATIENCE = 30.0  # seconds without a byte before a server is given up


@dataclass(frozen=True)
class Entry:
    """What a registry file says of a name: the hash that the package has, and where it may be fetched from."""

    name: str
    sha256: str
    urls: tuple[str, ...]

    @property
    def cached(self) -> Path:
        """Where it is kept once fetched; the hash is part of the name, so that a new version is another file."""
        return cache_folder() / "models" / f"{self.name}-{self.sha256[:16]}{SUFFIX}"


@dataclass(frozen=True)
class Package:
    """A model package that has been located: `path` is a path or URL, `entry` what the registry says of the name."""

    name: str
    origin: Origin
    path: str
    entry: Entry | None = None

    @property
    def here(self) -> bool:
        """Whether it can be read without fetching anything."""
        return self.origin != "registry" or Path(self.path).is_file()


def known() -> dict[str, Package]:
    """Every name and where it leads to, nothing fetched; raises EngineError where a registry file is malformed."""
    entries = registered()
    found = {e.name: Package(e.name, "registry", str(e.cached), e) for e in entries.values()}
    for origin, folder in reversed(_folders()):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if _NAME.fullmatch(path.stem):
                found[path.stem] = Package(path.stem, origin, str(path), entries.get(path.stem))
    return dict(sorted(found.items()))


def locate(name_or_path: str) -> Package:
    """A package by name, path or URL, fetched where it must be; raises EngineError where it leads nowhere."""
    if name_or_path.endswith(SUFFIX):
        return Package(local_path(name_or_path).stem, "file", name_or_path)
    shipped = PRETRAINED / f"{name_or_path}{SUFFIX}"
    if _NAME.fullmatch(name_or_path) and shipped.is_file():
        return Package(name_or_path, "shipped", str(shipped))
    packages = known()
    if name_or_path not in packages:
        names = ", ".join(packages) or "none"
        raise EngineError(
            f"{name_or_path}: no such model; known: {names}; or give a model package (*{SUFFIX}){_lost_folder()}"
        )
    package = packages[name_or_path]
    if package.origin == "registry" and package.entry is not None:
        _ensure(package.entry)
    return package


def registered() -> dict[str, Entry]:
    """The entries of all registry files by name; where two name one, the shipped registry's counts."""
    entries: dict[str, Entry] = {}
    for _, folder in _folders():
        entries = {e.name: e for e in _read(folder / REGISTRY)} | entries
    return entries


def _folders() -> list[tuple[Origin, Path]]:
    """Shipped first, then the user's."""
    folders: list[tuple[Origin, Path]] = [("shipped", PRETRAINED)]
    if user := os.environ.get(FOLDER_VARIABLE):
        folders.append(("folder", Path(user)))
    return folders


def _lost_folder() -> str:
    user = os.environ.get(FOLDER_VARIABLE)
    return f"; {FOLDER_VARIABLE} is {user}, which is no folder" if user and not Path(user).is_dir() else ""


def _read(path: Path) -> Iterator[Entry]:
    """The entries of a registry file, none where there is no such file."""
    try:
        document = tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, ValueError) as e:
        raise EngineError(f"{path}: cannot be read as TOML: {' '.join(str(e).split())}") from e
    for name, values in document.items():
        wrong = f"{path}: [{name[:40]!r}]: expected"
        if not _NAME.fullmatch(name) or name.endswith(SUFFIX):
            raise EngineError(f"{wrong} a name of letters, digits, '-', '_' and '.'")
        if not isinstance(values, dict) or values.keys() != {"sha256", "urls"}:
            raise EngineError(f"{wrong} the keys sha256 and urls, and no others")
        sha256, urls = values["sha256"], values["urls"]
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise EngineError(f"{wrong} sha256 to be 64 hexadecimal digits in lower case")
        if not isinstance(urls, list) or not all(isinstance(u, str) and u.isprintable() for u in urls):
            raise EngineError(f"{wrong} urls to be a list of addresses")
        yield Entry(name, sha256, tuple(urls))


class _NotFetchedError(Exception):
    """Why an address did not give what was wanted."""


def _ensure(entry: Entry) -> None:
    """Have the entry's package in the cache, whole; processes that want it at the same time fetch it once."""
    target = entry.cached
    with locked(target):
        if target.is_file() and sha256_file(target) == entry.sha256:
            return
        failures = []
        for url in entry.urls:
            _log.info("fetching %s from %s", entry.name, url)
            try:
                with replacing(target) as part:
                    _fetch(url, part, entry.sha256)
            except _NotFetchedError as e:
                failures.append(f"{url}: {e}")
            else:
                return
    tried = "; ".join(failures) or "the registry has no address for it"
    raise EngineError(
        f"model {entry.name} cannot be fetched ({tried}); get the file with SHA-256 {entry.sha256} by hand and put it "
        f"at {_by_hand(entry)}"
    )


def _by_hand(entry: Entry) -> Path:
    user = os.environ.get(FOLDER_VARIABLE)
    return Path(user) / f"{entry.name}{SUFFIX}" if user else entry.cached


def _fetch(url: str, part: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with part.open("wb") as f:
        for chunk in _chunks(url):
            digest.update(chunk)
            f.write(chunk)
    if digest.hexdigest() != sha256:
        raise _NotFetchedError(f"not the whole file, or another one: its SHA-256 is {digest.hexdigest()}")


def _chunks(url: str) -> Iterator[bytes]:
    """What is at the address. HTTP by the standard library, as fsspec would need another package for it."""
    from http.client import HTTPException  # rarely needed, and slow to import, as is urllib

    try:
        with _open(url) as f:
            size = 0
            while chunk := f.read(_CHUNK):
                size += len(chunk)
                if size > MOST_BYTES:
                    raise _NotFetchedError(f"larger than {MOST_BYTES >> 20} MiB")
                yield chunk
    except (OSError, HTTPException, ReelcolorError, ImportError, ValueError) as e:
        raise _NotFetchedError(" ".join(str(e).removeprefix(f"{url}: ").split())[:200] or type(e).__name__) from e


def _open(url: str) -> IO[bytes]:
    if url.startswith(("https://", "http://")):
        import urllib.request

        opened: IO[bytes] = urllib.request.urlopen(url, timeout=_PATIENCE)
        return opened
    return open_input(url)
