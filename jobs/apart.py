"""A process of its own for reading files that nobody has looked at: one that crashes FFmpeg costs that file only."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, ParamSpec, Self, TypeVar

from jobs.text import log_everything
from pipeline.errors import InputError, ReelcolorError

P = ParamSpec("P")
R = TypeVar("R")
_PATIENCE = 1.0  # seconds that it is given to end by itself; interrupted, it may be in the middle of a long file


class Apart:
    """Calls functions in another process; a context manager. That process ends with this one, however this one ends."""

    def __init__(self, debug: bool = False) -> None:
        self._debug = debug
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def call(self, path: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(*args)` over there. Raises what it raises; InputError, naming `path`, where that process dies."""
        pipe = self._pipe or self._start()
        try:
            pipe.send((function, args, kwargs))
            good, result = pipe.recv()
        except (EOFError, ConnectionError) as e:
            code = self._stop()
            how = signal.Signals(-code).name if code and code < 0 else f"exit {code}"
            raise InputError(f"{path}: reading it crashes the process that does ({how}); left out") from e
        if good:
            value: R = result
            return value
        raise result

    def _start(self) -> Connection[Any, Any]:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._debug), daemon=True)
        self._process.start()
        theirs.close()
        return self._pipe

    def _stop(self) -> int | None:
        """End the process; its exit code, negative where a signal ended it."""
        if self._pipe is None or self._process is None:
            return None
        self._pipe.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        self._process.close()
        self._pipe = self._process = None
        return code


def _serve(pipe: Connection[Any, Any], debug: bool) -> None:
    """Do as asked until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's to act on
    if debug:
        log_everything()
    import pipeline.containers  # noqa: F401  (so that it is there when the first call comes)

    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = (True, function(*args, **kwargs))
        except Exception as e:  # the boundary of the process: it goes to the caller
            answer = (False, e if isinstance(e, ReelcolorError) else RuntimeError(f"{type(e).__name__}: {e}"))
        pipe.send(answer)
