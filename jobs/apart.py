"""A process of its own for reading files that nobody has looked at: one that crashes FFmpeg costs that file only."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, ParamSpec, Self, TypeVar

from jobs.text import log_everything
from pipeline.errors import InputError, ReelcolorError

P = ParamSpec("P")
R = TypeVar("R")
Call = tuple[Any, ...]  # the path that it is about, a function, its arguments
_PATIENCE = 1.0  # seconds that it is given to end by itself; interrupted, it may be in the middle of a long file


class Apart:
    """Calls functions in another process; a context manager. That process ends with this one, however this one ends."""

    def __init__(self, debug: bool = False) -> None:
        self.debug = debug
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def call(self, path: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(*args)` over there. Raises what it raises; InputError, naming `path`, where that process dies."""
        self.ask(function, *args, **kwargs)
        value: R = self.answer(path)
        return value

    def ask(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Connection[Any, Any]:
        """Have it call a function; what is returned has something to read once `answer` need not wait."""
        pipe = self._pipe or self._start()
        with contextlib.suppress(ConnectionError):  # the answer will say
            pipe.send((function, args, kwargs))
        return pipe

    def answer(self, path: str) -> Any:
        """What came of it, as `call` has it."""
        pipe = self._pipe or self._start()
        try:
            good, result = pipe.recv()
        except (EOFError, ConnectionError) as e:
            code = self._stop()
            how = signal.Signals(-code).name if code and code < 0 else f"exit {code}"
            raise InputError(f"{path}: reading it crashes the process that does ({how}); left out") from e
        if good:
            return result
        raise result

    def _start(self) -> Connection[Any, Any]:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.debug), daemon=True)
        resource_tracker.ensure_running()  # which takes signals that are blocked for its own, and starts but once
        # Inherited: Ctrl-C is this process's to act on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
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


def spread(helpers: Iterable[Apart], calls: Iterable[Call]) -> Iterator[tuple[int, Any]]:
    """What comes of many calls, each with its number, in the order in which they end; an exception is one, too."""
    idle = deque(helpers)
    flying: dict[Any, tuple[Apart, int, str]] = {}
    waiting = enumerate(calls)
    while True:
        while idle and (entry := next(waiting, None)):
            number, (path, function, *arguments) = entry
            helper = idle.popleft()
            flying[helper.ask(function, *arguments)] = helper, number, path
        if not flying:
            return
        for pipe in wait(list(flying)):
            helper, number, path = flying.pop(pipe)
            idle.append(helper)
            try:
                outcome = helper.answer(path)
            except Exception as e:  # the caller's to judge
                outcome = e
            yield number, outcome


def _serve(pipe: Connection[Any, Any], debug: bool) -> None:
    """Do as asked until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # also where something unblocks it
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
        try:
            pipe.send(answer)
        except ConnectionError:  # nobody waits for it any more
            return
