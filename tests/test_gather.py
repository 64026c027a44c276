"""Gathering: callers share batches, and each gets its own results, whoever its neighbours are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from model.engines.gather import Gatherer

LONG = 20.0  # seconds: a batch that waits so long is a failed test


class Lanes:
    """`count` places to run a batch in; doubles its pictures, and remembers how many came together."""

    def __init__(self, count: int = 1, error: Exception | None = None) -> None:
        self.free = threading.Semaphore(count)
        self.error = error
        self.sizes: list[int] = []

    @contextmanager
    def start(self) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        with self.free:
            yield self.run

    def run(self, pictures: np.ndarray) -> np.ndarray:
        self.sizes.append(len(pictures))
        if self.error is not None:
            raise self.error
        return 2 * pictures


def pictures(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.float32)[:, None]


def wait_until(condition: Callable[[], bool]) -> None:
    until = threading.Event()
    for _ in range(2000):
        if condition():
            return
        until.wait(0.005)
    raise AssertionError("it did not come to pass")


def test_a_caller_alone_waits_no_longer_than_the_window() -> None:
    lanes = Lanes()
    np.testing.assert_array_equal(Gatherer(0.001).run("k", 16, pictures(0, 5), lanes.start), 2 * pictures(0, 5))
    assert lanes.sizes == [5]


def test_callers_that_fill_a_batch_share_it_and_what_has_no_room_goes_into_the_next() -> None:
    lanes, gatherer = Lanes(), Gatherer(LONG)
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(gatherer.run, "k", 8, pictures(0, 6), lanes.start)
        wait_until(lambda: "k" in gatherer._open)
        second = callers.submit(gatherer.run, "k", 8, pictures(50, 10), lanes.start)
        np.testing.assert_array_equal(first.result(LONG), 2 * pictures(0, 6))
        np.testing.assert_array_equal(second.result(LONG), 2 * pictures(50, 10))
    assert lanes.sizes == [8, 8]


def test_those_who_come_while_every_lane_is_busy_share_the_next_batch() -> None:
    lanes, gatherer = Lanes(), Gatherer(0.0)
    lanes.free.acquire()
    with ThreadPoolExecutor(4) as callers:
        jobs = [callers.submit(gatherer.run, "k", 16, pictures(10 * i, 3), lanes.start) for i in range(4)]
        wait_until(lambda: "k" in gatherer._open and gatherer._open["k"].count == 12)
        lanes.free.release()
        for i, job in enumerate(jobs):
            np.testing.assert_array_equal(job.result(LONG), 2 * pictures(10 * i, 3))
    assert lanes.sizes == [12]


def test_pictures_of_two_sizes_never_share() -> None:
    lanes, gatherer = Lanes(), Gatherer(0.0)
    lanes.free.acquire()
    with ThreadPoolExecutor(2) as callers:
        jobs = [callers.submit(gatherer.run, kind, 16, pictures(0, 3), lanes.start) for kind in ("wide", "narrow")]
        wait_until(lambda: len(gatherer._open) == 2)
        lanes.free.release()
        assert all(job.result(LONG).shape == (3, 1) for job in jobs)
    assert lanes.sizes == [3, 3]


def test_many_callers_each_get_their_own_in_order() -> None:
    lanes, gatherer = Lanes(2), Gatherer(0.001)
    asked = [pictures(1000 * i, 1 + i % 11) for i in range(60)]
    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(lambda p: gatherer.run("k", 8, p, lanes.start), asked))
    for mine, got in zip(asked, found, strict=True):
        np.testing.assert_array_equal(got, 2 * mine)
    assert sum(lanes.sizes) == sum(map(len, asked))
    assert max(lanes.sizes) <= 8
    assert gatherer._open == {}


def test_a_failure_is_told_to_all_who_share_the_batch_and_the_next_is_another() -> None:
    lanes, gatherer = Lanes(error=RuntimeError("CUDA out of memory.")), Gatherer(LONG)
    with ThreadPoolExecutor(2) as callers:
        jobs = [callers.submit(gatherer.run, "k", 6, pictures(0, 3), lanes.start) for _ in range(2)]
        for job in jobs:
            with pytest.raises(RuntimeError, match="out of memory"):
                job.result(LONG)
    assert lanes.sizes == [6]
    lanes.error = None
    assert gatherer.run("k", 3, pictures(0, 3), lanes.start).shape == (3, 1)


def test_a_lane_that_cannot_be_opened_fails_its_batch_only() -> None:
    @contextmanager
    def broken() -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        raise MemoryError
        yield

    gatherer = Gatherer(0.0)
    with pytest.raises(MemoryError):
        gatherer.run("k", 8, pictures(0, 3), broken)
    assert gatherer.run("k", 8, pictures(0, 3), Lanes().start).shape == (3, 1)
