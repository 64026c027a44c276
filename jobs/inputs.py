"""What the INPUT arguments stand for: files, folders, globs, lists, archives and numbered scans → items of work.

Nothing but lists is opened here; kinds are told from names (`kinds.py`) and by the file system or the store.
"""

from __future__ import annotations

import codecs
import glob
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from jobs.kinds import kind_of
from jobs.runs import runs
from jobs.store_inputs import QUERIES, expand
from pipeline.errors import ReelcolorError, StorageError
from pipeline.storage import Place, absence, is_folder, is_local, local_path, place
from pipeline.stores import StorePath, redacted

Kind = Literal["video", "album", "scan"]

_NUMBER = re.compile(r"%0?\d*d")
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Item:
    """One reel or album to be.

    `name` is where the result goes below OUTDIR, spelt as the source is; the extension may still change.
    `files` are the images of a folder's album, relative to `path`, in order; empty for anything else.
    `certain` is false where the name did not tell the kind.
    """

    kind: Kind
    path: str
    name: PurePosixPath
    files: tuple[str, ...] = ()
    certain: bool = True


@dataclass
class Found:
    """Items of work; files left out and arguments that are no good, each with a reason."""

    items: list[Item] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def find_inputs(arguments: tuple[str, ...], outdir: Place, as_scan: bool = False) -> Found:
    """Expand the arguments, in their order; inside a folder, in order of names.

    The images of a folder argument, or of a glob, make one album, or several where there are thousands of them;
    `as_scan` makes each folder of images one reel.
    """
    finder = _Finder(outdir, as_scan)
    for argument in dict.fromkeys(arguments):
        finder.add(argument)
    return finder.result()


@dataclass
class _Images:
    """The images met below one root: what becomes one album."""

    root: Place
    files: list[str] = field(default_factory=list)


class _Finder:
    """Sorts arguments into items of work; remembers what it has met, so that nothing is taken twice."""

    def __init__(self, outdir: Place, as_scan: bool) -> None:
        self._outdir = _identity(outdir) if isinstance(outdir, Path) else None
        self._out_url = str(outdir)
        self._as_scan = as_scan
        self._found = Found()
        self._order: list[Item | _Images] = []
        self._albums: dict[Place, _Images] = {}
        self._scans: set[Path] = set()
        self._files: set[str] = set()
        self._folders: set[tuple[int, int] | None] = set()

    def add(self, argument: str) -> None:
        """Sort one argument."""
        path = local_path(argument)
        argument = str(path) if argument.startswith("file://") else argument
        if argument.startswith("@") and not os.path.lexists(path):
            self._add_list(argument[1:])
        elif not is_local(argument):
            self._add_url(argument)
        elif is_folder(path):
            self._add_tree(path, path, PurePosixPath())
        elif os.path.lexists(path):
            self._add_file(path, path.parent, PurePosixPath(path.name), explicit=True)
        elif _NUMBER.search(path.name):
            stem = _NUMBER.sub("", path.stem).replace("%%", "%").strip("._- ")
            name = (stem or path.absolute().parent.name or "scan") + path.suffix
            self._order.append(Item("scan", argument, PurePosixPath(name)))
        elif _MAGIC.search(argument):
            self._add_glob(argument)
        else:
            self._found.refused.append((argument, absence(path)))

    def result(self) -> Found:
        """The items in the order in which they were met."""
        for entry in self._order:
            self._found.items += [entry] if isinstance(entry, Item) else _albums(entry)
        return self._found

    def _add_list(self, url: str) -> None:
        """Each line of a text file; blank ones, and those that begin with #, say nothing."""
        try:
            text = place(url).read_bytes().removeprefix(codecs.BOM_UTF8)
        except (OSError, StorageError) as e:
            said = getattr(e, "strerror", None) or str(e).removeprefix(f"{url}: ")
            plain = "no such file" if isinstance(e, FileNotFoundError) else said
            self._found.refused.append((redacted(f"@{url}"), f"the list cannot be read: {plain}"))
            return
        if b"\0" in text:
            self._found.refused.append((redacted(f"@{url}"), "is no list: it holds bytes that no text does"))
            return
        for line in map(str.strip, os.fsdecode(text).split("\n")):
            if line.startswith("@"):
                self._found.refused.append((line, f"is a list inside the list {url}; give it by itself"))
            elif line and not line.startswith("#"):
                self.add(line)

    def _add_url(self, url: str) -> None:
        last = PurePosixPath(url.rstrip("/").rpartition("/")[2])
        if _NUMBER.search(last.name) and not url.startswith(QUERIES):  # there, %20 is a space
            self._order.append(Item("scan", url, last))  # refused when it is planned, with the reason
            return
        try:
            found = expand(url, certain=kind_of(last.name) is not None)
        except ReelcolorError as e:
            self._found.refused.append((redacted(url), str(e).removeprefix(f"{redacted(url)}: ")))
            return
        if str(found.root) == self._out_url and not found.named:
            self._found.refused.append((url, "is the output folder too; choose another with -o"))
            return
        before = self._met()
        for name in found.names:
            self._add_object(found.root, name, found.named)
        if self._met() == before and not found.named:
            self._found.refused.append((url, "no video, image or archive in this folder"))

    def _add_object(self, root: StorePath, name: str, named: bool) -> None:
        """One object; its result goes to where it lies below `root`."""
        path, kind = root / name, kind_of(name)
        if str(path).startswith(f"{self._out_url}/"):
            return
        if self._is_repeated(str(path), str(path)):
            return
        if kind is None and not named:
            self._found.skipped.append((str(path), "is no video, image or archive by its name"))
        elif kind == "image" and self._as_scan:
            self._found.refused.append((str(path), "numbered scans are read from a local folder only; copy them first"))
        elif kind == "image":
            self._album_of(root).files.append(name)
        else:
            sort: Kind = "video" if kind == "video" else "album"
            self._order.append(Item(sort, str(path), PurePosixPath(name), (), kind is not None))

    def _add_glob(self, pattern: str) -> None:
        root = _fixed_part(pattern)
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  (Path.glob wants a root)
        for match in map(Path, matches):
            if is_folder(match):
                self._add_tree(match, root, PurePosixPath(), repeats=False)
            else:
                self._add_file(match, root, PurePosixPath(match.relative_to(root)), explicit=False)
        if not matches:
            self._found.refused.append((pattern, "no file or folder matches"))

    def _add_tree(self, top: Path, root: Path, place: PurePosixPath, repeats: bool = True) -> None:
        """Everything below `top`; its results go to where it lies below `root`."""
        if _identity(top) == self._outdir:
            self._found.refused.append((str(top), "is the output folder too; choose another with -o"))
            return
        before = self._met()
        for folder, names in self._walk(top):
            below = folder.relative_to(root).as_posix()
            prefix = "" if below == "." else f"{below}/"
            absolute = os.path.abspath(folder)  # noqa: PTH100  (as in _add_file)
            for name in names:
                if not self._took_photo(f"{absolute}/{name}", prefix + name, root):
                    self._add_file(folder / name, root, place / (prefix + name), explicit=False)
        if repeats and self._met() == before:
            self._found.refused.append((str(top), "no video, image or archive in this folder"))

    def _met(self) -> int:
        return len(self._files)

    def _took_photo(self, path: str, name: str, root: Path) -> bool:
        """Take a plain image, of which there may be a million, in fewer steps than `_add_file`; or leave it to that."""
        if self._as_scan or path in self._files or kind_of(name) != "image" or _unusable(path) is not None:
            return False
        self._files.add(path)
        self._album_of(root).files.append(name)
        return True

    def _walk(self, top: Path) -> Iterator[tuple[Path, list[str]]]:
        """The folders below `top` and their files, in order; hidden ones and OUTDIR left out, loops of links cut."""
        for folder, folders, names in os.walk(top, followlinks=True, onerror=self._unreadable):
            here = Path(folder)
            identity = _identity(here)
            if identity in self._folders:
                self._found.skipped.append((folder, "is a folder met before"))
                folders.clear()
                continue
            self._folders.add(identity)
            folders[:] = sorted(f for f in folders if not f.startswith(".") and _identity(here / f) != self._outdir)
            yield here, sorted(name for name in names if not name.startswith("."))

    def _unreadable(self, e: OSError) -> None:
        self._found.refused.append((str(e.filename), f"cannot be listed: {e.strerror}"))

    def _add_file(self, path: Path, root: Path, name: PurePosixPath, explicit: bool) -> None:
        kind = kind_of(path.name, self._as_scan)
        reason = _unusable(path)
        if reason is None and kind is None and not explicit:
            reason = "is no video, image or archive by its name"
        if reason is not None:
            (self._found.refused if explicit else self._found.skipped).append((str(path), reason))
            return
        absolute = os.path.abspath(path)  # noqa: PTH100  (Path.absolute keeps "..")
        if self._is_repeated(absolute, str(path)):
            return
        if kind == "image":
            self._add_image(path, root, explicit)
        else:
            self._order.append(Item("album" if kind == "archive" else "video", str(path), name, (), kind is not None))

    def _is_repeated(self, address: str, shown: str) -> bool:
        """Note a file; whether it has been met before."""
        if address in self._files:
            self._found.skipped.append((shown, "is given twice"))
            return True
        self._files.add(address)
        return False

    def _album_of(self, root: Place) -> _Images:
        """The images below a root, which make one album."""
        if root not in self._albums:
            self._albums[root] = _Images(root)
            self._order.append(self._albums[root])
        return self._albums[root]

    def _add_image(self, path: Path, root: Path, explicit: bool) -> None:
        if self._as_scan and explicit:
            self._found.refused.append((str(path), "with --fps, give the folder or a pattern such as name%06d.dpx"))
            return
        if not self._as_scan:
            self._album_of(root).files.append(path.relative_to(root).as_posix())
            return
        folder = path.parent
        if folder not in self._scans:
            self._scans.add(folder)
            below = PurePosixPath(folder.relative_to(root))
            named = below if below.name else PurePosixPath(path.absolute().parent.resolve().name or "scan")
            self._order.append(Item("scan", str(folder), named.with_name(named.name + path.suffix)))


def _albums(images: _Images) -> list[Item]:
    if len(images.files) == 1:
        only = images.files[0]
        return [Item("album", str(images.root / only), PurePosixPath(only))]
    return [Item("album", str(images.root), PurePosixPath(), run) for run in runs(images.files)]


def _unusable(path: Path | str) -> str | None:
    """Why this cannot be read, if so; never opens it, as a pipe would block."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  (a million of them)
    except OSError as e:
        return "is a broken link" if os.path.islink(path) else f"cannot be read: {e.strerror}"  # noqa: PTH114
    return None if stat.S_ISREG(mode) else "is not a regular file"


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None for what does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _fixed_part(pattern: str) -> Path:
    """The leading folders of a glob that hold no magic."""
    path = Path(pattern)
    return next(parent for parent in (path, *path.parents) if not _MAGIC.search(str(parent)))
