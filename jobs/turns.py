"""What is being measured, on a terminal; on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def turns(title: str) -> Iterator[Callable[[str], None]]:
    """Yield what hears of each case that has had its turn."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status(title) as status:
        yield lambda name: status.update(f"{title}: {name} done")
