"""What is being measured, on a terminal; on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.bench import Told

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


class _Shown(Told):
    def __init__(self, title: str, console: Console, status: Status) -> None:
        self._title, self._console, self._status = title, console, status

    def done(self, name: str) -> None:
        self._status.update(f"{self._title}: {name} done")

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)


@contextmanager
def turns(title: str) -> Iterator[Told]:
    """Yield what hears of each case that has had its turn."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, emoji=False)
    with console.status(title) as status:
        yield _Shown(title, console, status)
