"""What the engines say while they are made and at work: a precision that gives way, a compiler that takes minutes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.text import one_line

Say = Callable[[str], None]


class _Ear(logging.Handler):
    def __init__(self, say: Say) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(one_line(record.getMessage()))


@contextmanager
def heard(say: Say) -> Iterator[None]:
    """`say` every message of the models' code, one line each, from whichever thread it comes."""
    logger, ear = logging.getLogger("model"), _Ear(say)
    level = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(ear)
