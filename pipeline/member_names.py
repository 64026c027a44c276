"""What the name of a member tells, and whether it is fit to be passed on. No name is ever used as a path."""

from __future__ import annotations

import os
import re
import unicodedata

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".dib", ".dpx"])


def printable(name: str) -> str:
    """A name fit for a terminal and for JSON: one line, no control characters, no lone surrogates."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in name)
    return shown if len(shown) <= 200 else shown[:120] + "…" + shown[-79:]


class Names:
    """Finds a second member of the same name, which extraction would write over the first."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._folded: set[str] = set()
        self._alike = 0

    def repeated(self, name: bytes) -> str | None:
        """What is wrong with the name, if it came before."""
        place = b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))
        if place in self._seen:
            return "has the same name as an earlier member"
        self._seen.add(place)
        folded = unicodedata.normalize("NFC", place.decode("utf-8", "surrogateescape")).casefold()
        self._alike += folded in self._folded
        self._folded.add(folded)
        return None

    def warnings(self) -> tuple[str, ...]:
        """What to say of names that are nearly the same."""
        said = "names that differ from others in upper and lower case or in the way accents are written only"
        return (f"{said}: {self._alike}",) if self._alike else ()


def unsafe(name: bytes) -> str | None:
    """Why this name must not be passed on; both slashes separate, for the sake of Windows."""
    parts = re.split(rb"[/\\]", name)
    if not name or b"\0" in name:
        return "has no usable name"
    if not parts[0] or re.match(rb"[A-Za-z]:", name):
        return "has an absolute name"
    return "has a name that leads outside the archive" if b".." in parts else None


def is_image(name: str) -> bool:
    """By its suffix; macOS's `._name` companions are not."""
    base = name.replace("\\", "/").rpartition("/")[2]
    return not base.startswith("._") and os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
