"""Places on a store that fsspec opens, such as s3://bucket/key: a Path's methods, as far as they are used here.

Every request is tried again, with backoff, where its failure may pass. Credentials are the environment's: an address
that holds one is refused. What is read comes by ranges (ranges.py); what is written appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import StorageError

T = TypeVar("T")

_WRITING = "cannot be written"
_ATTEMPTS = 6
_FIRST_DELAY, _LONGEST_DELAY = 0.25, 8.0  # seconds; the n-th delay is drawn from 0 to 0.25 · 2ⁿ
# What another attempt would not change: the answer is no, or the question is wrong.
_FINAL = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(NotImplementedError, ImportError, ValueError, TypeError, AttributeError, KeyError),
)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")
_WRONG = (*_NO_CREDENTIALS, "ParamValidationError", "InvalidRegionError")  # botocore's, that have no class of ours
# Object stores, where a put is seen when it is complete; elsewhere a file appears by a rename.
_ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "ossfs", "r2", "memory")
# user:password@, where the password may hold slashes; host:port/ is none, nor is the container@ of abfs://.
_USER = re.compile(r"(?<=://)[^/@\s:]*:(?!\d+(?:/|$))\S*@")
_SIGNED = re.compile(r"([?&](?:x-amz-(?:signature|security-token)|x-goog-signature|sig|signature|token)=)[^&\s]*", re.I)


@dataclass(frozen=True)
class StorePath:
    """An address on a store; nothing of it is kept but the URL, so that it travels and prints safely.

    Methods raise FileNotFoundError as a Path's do, and StorageError, naming the URL, for whatever else goes wrong.
    """

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", self.url.rstrip("/"))
        if redacted(self.url) != self.url:
            raise StorageError(f"{redacted(self.url)}: holds credentials; give them by environment (AWS_*, FSSPEC_*)")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: object) -> StorePath:
        parts = [part for part in str(name).split("/") if part not in ("", ".")]
        return StorePath("/".join([self.url, *parts]))

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The name's extension."""
        return Path(self.name).suffix

    @property
    def parent(self) -> StorePath:
        """The folder that holds it."""
        return StorePath(self.url.rpartition("/")[0])

    def with_name(self, name: str) -> StorePath:
        """Another name in the same folder."""
        return self.parent / name

    def absolute(self) -> StorePath:
        """Itself: there are no relative addresses."""
        return self

    resolve = absolute

    def info(self) -> dict[str, Any]:
        """What the store says of the object: name, size, type and more."""
        found: dict[str, Any] = attempt(self.url, "cannot be read", lambda fs, path: fs.info(path))
        return found

    def exists(self) -> bool:
        """Whether there is an object, or a folder with something in it."""
        try:
            return bool(self.info())
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        try:
            return bool(self.info()["type"] == "directory")
        except FileNotFoundError:
            return False

    def read_bytes(self) -> bytes:
        """The whole object; for small ones."""
        data: bytes = attempt(self.url, "cannot be read", lambda fs, path: fs.cat_file(path))
        return data

    def write_bytes(self, data: bytes) -> None:
        """Write a small object, at once or not at all."""
        if self._atomic:
            attempt(self.url, _WRITING, lambda fs, path: fs.pipe_file(path, data))
        else:
            self._renamed(lambda fs, path: fs.pipe_file(path, data))

    def create(self, data: bytes) -> None:
        """Write a small object where there is none; raises FileExistsError. Exclusive where the store can do it."""

        def create(fs: Any, path: str) -> None:
            try:
                fs.pipe_file(path, data, mode="create")
            except (TypeError, NotImplementedError, OSError) as e:
                if fs.exists(path):
                    raise FileExistsError(path) from e
                if isinstance(e, OSError) and e.errno != errno.ENOSYS:
                    raise
                fs.pipe_file(path, data)

        attempt(self.url, _WRITING, create)

    def upload(self, file: Path) -> None:
        """Write a local file's content, in parts where it is large."""
        if self._atomic:
            attempt(self.url, _WRITING, lambda fs, path: fs.put_file(str(file), path))
        else:
            self._renamed(lambda fs, path: fs.put_file(str(file), path))
        size, sent = self.info()["size"], file.stat().st_size
        if size != sent:
            raise StorageError(f"{self.url}: {size} of {sent} bytes arrived; run the same command again")

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            attempt(self.url, "cannot be removed", lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """The objects of this folder, not of those below it, whose names match."""
        yield from (self / name for name in sorted(self.files()) if "/" not in name and fnmatchcase(name, pattern))

    def files(self) -> dict[str, dict[str, Any]]:
        """Every object below this folder in one listing: its name from here on, and what the store says of it."""

        def find(fs: Any, path: str) -> tuple[str, dict[str, Any]]:
            return fs._strip_protocol(path).strip("/"), fs.find(path, detail=True)

        try:
            root, found = attempt(self.url, "cannot be listed", find)
        except FileNotFoundError:
            return {}
        below = ((name.strip("/"), info) for name, info in found.items() if info["type"] == "file")
        return {name.removeprefix(f"{root}/"): info for name, info in below if name.startswith(f"{root}/")}

    @property
    def _atomic(self) -> bool:
        return self.url.partition("://")[0] in _ATOMIC

    def _renamed(self, write: Callable[[Any, str], Any]) -> None:
        """Have `write` write beside the name, then rename."""
        parent, part = self.parent, f"{part_prefix(self.name)}{secrets.token_hex(4)}.part"

        def put(fs: Any, path: str) -> None:
            folder = path.rpartition("/")[0]
            fs.makedirs(folder, exist_ok=True)
            try:
                write(fs, f"{folder}/{part}")
                fs.mv(f"{folder}/{part}", path)
            except BaseException:
                with contextlib.suppress(Exception):
                    fs.rm_file(f"{folder}/{part}")
                raise

        attempt((parent / self.name).url, _WRITING, put)


def part_prefix(name: str) -> str:
    """How the name of a file begins that will be called `name`: with 80 bytes of it, so that any name leaves room."""
    return f".{os.fsencode(name)[:80].decode(errors='ignore')}."


def attempt(url: str, failed: str, action: Callable[[Any, str], T]) -> T:
    """`action(file system, path)`, tried again where that may help.

    Raises FileExistsError and, of what is read, FileNotFoundError; StorageError that says what `failed` for the rest.
    """
    for n in range(_ATTEMPTS):
        try:
            fs, path = file_system(url)
            fs.invalidate_cache()  # others write to the same store
            return action(fs, path)
        except (FileNotFoundError, FileExistsError) as e:
            if failed == _WRITING and isinstance(e, FileNotFoundError):
                raise StorageError(f"{url}: {failed}: {_reason(e, n + 1)}; create the bucket first") from e
            raise
        except Exception as e:  # stores raise all sorts
            if isinstance(e, StorageError):
                raise
            if isinstance(e, _FINAL) or type(e).__name__ in _WRONG or n == _ATTEMPTS - 1:
                raise StorageError(f"{url}: {failed}: {_reason(e, n + 1)}") from e
            time.sleep(random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**n)))
    raise AssertionError


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path there."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    return fs, path


def redacted(text: str) -> str:
    """Text without user names, passwords and signatures in the addresses that it holds."""
    return _SIGNED.sub(r"\1***", _USER.sub("***@", text))


def _reason(e: Exception, attempts: int) -> str:
    """Why a request failed, in words and one line, and what to do."""
    text = redacted(" ".join(str(e).split())) or type(e).__name__
    if type(e).__name__ in _NO_CREDENTIALS:
        return f"{text}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    if isinstance(e, PermissionError):
        return f"access denied ({text}); check the credentials in the environment (AWS_*, FSSPEC_*)"
    if isinstance(e, ImportError):
        return f"{text}; pip install -c constraints-s3.txt -e '.[s3]' for s3://, else the package it names"
    if isinstance(e, _FINAL):
        return text
    return f"{text} (tried {attempts} times); run the same command again to resume"
