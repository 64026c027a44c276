import threading
from collections.abc import Generator

import pytest

from pipeline.ahead import ahead


def test_what_comes_is_made_while_the_one_before_is_in_use() -> None:
    made = [threading.Event() for _ in range(4)]

    def items() -> Generator[int, None, None]:
        for i, event in enumerate(made):
            event.set()
            yield i

    found = []
    for i in ahead(items()):
        if i + 1 < len(made):
            assert made[i + 1].wait(10)
        assert not any(event.is_set() for event in made[i + 2 :])
        found.append(i)
    assert found == [0, 1, 2, 3]


def test_what_is_raised_comes_after_what_was_made_before_it() -> None:
    def items() -> Generator[int, None, None]:
        yield 1
        raise ValueError("no more")

    reading = ahead(items())
    assert next(reading) == 1
    with pytest.raises(ValueError, match="no more"):
        next(reading)


def test_an_end_in_the_middle_closes_it_on_its_own_thread_before_anything_goes_on() -> None:
    threads = []

    def items() -> Generator[int, None, None]:
        try:
            for i in range(100):
                threads.append(threading.current_thread())
                yield i
        finally:
            threads.append(threading.current_thread())

    before = threading.active_count()
    reading = ahead(items())
    assert next(reading) == 0
    reading.close()
    assert len(threads) == 3
    assert set(threads) == {threads[0]}
    assert threads[0] is not threading.current_thread()
    assert threading.active_count() == before
