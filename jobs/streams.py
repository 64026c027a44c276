"""The standard streams, without which a run goes on: the terminal closes, nobody reads a pipe, a disk is full."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO, cast


def steady() -> None:
    """Open those that are closed, and let stderr be lost.

    Else the next files to be opened would get their numbers, and with these all that FFmpeg and others print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(opened, True)
            setattr(sys, name, open(opened, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stderr = cast(TextIO, _Steady(sys.stderr))


class _Steady:
    """A stream that swallows what can no longer be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self) -> None:
        """Send what is still to come, also from what this process starts, to nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
