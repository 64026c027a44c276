"""Batches made ahead on a thread, so that the decoding and cropping of the next overlap the training on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Wanted = TypeVar("Wanted")
Made = TypeVar("Made")


def ahead(wanted: Iterator[Wanted], make: Callable[[Wanted], Made], depth: int = 3) -> Iterator[tuple[Wanted, Made]]:
    """Yield each of `wanted` with what `make` gives for it, in order; `depth` are made before they are asked for.

    `wanted` is read by the caller's thread, `make` called on another. What `make` raises is raised here in its turn.
    """
    pool = ThreadPoolExecutor(1, "ahead")

    def submitted(count: int) -> Iterator[tuple[Wanted, Future[Made]]]:
        return ((item, pool.submit(make, item)) for item in islice(wanted, count))

    try:
        waiting = deque(submitted(depth))
        while waiting:
            item, future = waiting.popleft()
            waiting.extend(submitted(1))
            yield item, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
