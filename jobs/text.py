"""Text for people: fit for a terminal, whatever is in a file's name."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """Line breaks stay; other control characters and lone surrogates are escaped."""
    return "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)


def named(path: str) -> str:
    """A file's name on one line: its line breaks are escaped, too, or it could say what no run has said."""
    return printable(path).replace("\n", "\\n")


def one_line(text: str) -> str:
    """Text without line breaks, and without what is blank round them; other spaces may be part of a name."""
    return re.sub(r"\s*\n\s*", " ", text.strip("\n"))


def clock(seconds: float) -> str:
    """A duration: 45 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def size(count: float) -> str:
    """A number of bytes: 512 B, 3.4 MB, 1.2 TB."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] == "B" else f"{count:.1f} {units[0]}"


def _escaped(c: str) -> str:
    return c.encode("unicode_escape", "surrogatepass").decode("ascii")


def log_everything() -> None:
    """FFmpeg's and our own messages on this process's stderr, for --debug."""
    import logging

    import av

    logging.basicConfig(level=logging.INFO)
    av.logging.set_level(av.logging.WARNING)
