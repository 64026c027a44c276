"""How far a long count has come: a bar on a terminal, a line now and then otherwise; on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_SECONDS = 10.0


@contextmanager
def counted(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what is to be told (done, total) as the work goes on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None)
        spoken = time.monotonic()

        def done(count: int, total: int) -> None:
            nonlocal spoken
            progress.update(bar, completed=count, total=total)
            if not console.is_terminal and time.monotonic() - spoken >= _LINE_SECONDS:
                spoken = time.monotonic()
                console.print(f"{title}: {count} of {total}")

        yield done
