"""A generator run on a thread of its own, so that decoding goes on while what it gave is coloured or compared."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """Yield what `items` yields, in order, while it makes the next one; what it raises is raised here in its turn.

    It runs and is closed on one thread, and has ended when this has, however this ends.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        try:
            coming = thread.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = thread.submit(next, items, None)
                yield item
        finally:
            thread.submit(items.close)
