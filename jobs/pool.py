"""Ray on this machine, for the length of one run: nothing of it can be reached from outside, nothing of it stays."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from jobs.hands import Hand, WorkerDied
from jobs.janitor import janitor
from jobs.worker import IN_FLIGHT, Failure, Opener, Outcome, Task, Worker
from pipeline.errors import EngineError

CPUS_A_WORKER = 2  # what its engine and its encoder are told to use, whatever the machine has
_MEMORY_A_WORKER, _MEMORY_A_PIXEL = 500 << 20, 600  # bytes; 1.7 GB at 1080p with two segments in flight, measured
_OBJECT_STORE = 80 << 20  # bytes, Ray's least; only references travel
_LONGEST_FOLDER = 40  # of Ray's folder: its sockets' names add 66, and a Unix socket's name ends at 107
_PREFIX = "reelcolor-"


def default_workers(frame_pixels: int) -> int:
    """One worker for two of the processors that this process may use, as far as memory goes for such frames."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(_processors() // CPUS_A_WORKER, memory // (_MEMORY_A_WORKER + _MEMORY_A_PIXEL * frame_pixels)))


def _processors() -> int:
    """Processors this process may use: its affinity, and the quota of its control group (cgroup v2)."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))


@contextlib.contextmanager
def local_ray(workers: int, debug: bool = False) -> Iterator[Pool]:
    """Start Ray for `workers` workers and stop it; raises EngineError where it does not start.

    It listens on the loopback interface only, asks for a token that this process alone knows, and keeps its files in a
    folder of this user's. If this process is killed, the kernel and the janitor end all of it at once.
    """
    with _private_folder() as folder, _environment(_settings()), _ray_prints(debug):
        import ray

        try:
            ray.init(
                address="local",
                num_cpus=workers * CPUS_A_WORKER,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                log_to_driver=debug,
                logging_level=logging.INFO if debug else logging.CRITICAL,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
            )
        except Exception as e:  # Ray raises all sorts
            ray.shutdown()
            raise EngineError(f"Ray does not start on this machine: {' '.join(str(e).split())}; see --debug") from e
        try:
            yield Pool(debug)
        finally:
            ray.shutdown()


class Pool:
    """Ray, running: starts workers in processes of their own."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._servers = [pid for pid in _children() if _stat(pid)[:1] in (["raylet"], ["gcs_server"])]

    def hire(self, opener: Opener) -> Hand:
        """Start a worker."""
        return _RayHand(self, opener, self._debug)

    def check(self) -> None:
        """Raise EngineError where Ray itself has died: its promises would never be kept."""
        for pid in self._servers:
            if _stat(pid)[1:2] in ([], ["Z"]):
                raise EngineError("Ray has died (out of memory?); run the same command again to go on from here")


class _RayHand:
    """One actor. It is never restarted by Ray: who died, and during what, is for the drive to know."""

    def __init__(self, pool: Pool, opener: Opener, debug: bool) -> None:
        import ray

        self._pool = pool
        groups = {"tasks": IN_FLIGHT, "progress": 1}  # threads
        options: dict[str, Any] = {"concurrency_groups": groups, "num_cpus": CPUS_A_WORKER, "max_restarts": 0}
        self._actor: Any = ray.remote(**options)(Worker).remote(opener, debug)
        self._asked: Future[dict[str, int]] | None = None
        self._written: dict[str, int] = {}
        self._listening: Future[list[str]] | None = None

    def open(self) -> Future[str | Failure]:
        return _future(self._actor.open.options(concurrency_group="tasks").remote())

    def submit(self, task: Task) -> Future[Outcome]:
        return _future(self._actor.perform.options(concurrency_group="tasks").remote(task))

    def progress(self) -> Mapping[str, int]:
        self._pool.check()
        if self._asked is not None and self._asked.done():
            self._written = {} if self._asked.exception() else self._asked.result()
            self._asked = None
        if self._asked is None:
            self._asked = _future(self._actor.progress.options(concurrency_group="progress").remote())
        return self._written

    def said(self) -> list[str]:
        lines: list[str] = []
        if self._listening is not None and self._listening.done():
            lines = [] if self._listening.exception() else self._listening.result()
            self._listening = None
        if self._listening is None:
            self._listening = _future(self._actor.said.options(concurrency_group="progress").remote())
        return lines

    def close(self) -> None:
        import ray

        ray.kill(self._actor)


def _future(reference: Any) -> Future[Any]:
    """Ray's promise as Python's; the death of the actor as WorkerDied."""
    import ray

    mine: Future[Any] = Future()

    def pass_on(theirs: Future[Any]) -> None:
        error = theirs.exception()
        if error is None:
            mine.set_result(theirs.result())
        elif isinstance(error, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError):
            mine.set_exception(WorkerDied(_how(error)))
        else:
            mine.set_exception(error)

    reference.future().add_done_callback(pass_on)
    return mine


def _how(error: BaseException) -> str:
    """The cause of a worker's death, out of Ray's many lines on it; a signal is all the same to Ray."""
    text = str(error).strip()
    return text.splitlines()[-1] if "creation task" in text else "killed or crashed"


def _children() -> list[int]:
    """Processes that this one has started."""
    pids = [int(process.name) for process in Path("/proc").iterdir() if process.name.isdigit()]
    return [pid for pid in pids if _stat(pid)[2:3] == [str(os.getpid())]]


def _stat(pid: int) -> list[str]:
    """Name, state and parent of a process; empty where there is none."""
    try:
        head, _, rest = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(") ")
    except OSError:
        return []
    return [head.partition(" (")[2], *rest.split()[:2]]


def _settings() -> dict[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
        # Ray takes 127.0.0.1 for a wish to be told the outward address, unless clusters are switched off altogether.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # it would kill workers because of what other programs take
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }


@functools.cache
def _token() -> str:
    """One for this process: Ray reads it once."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _ray_prints(debug: bool) -> Iterator[None]:
    """Ray tells of deaths, and of what workers print, on this process's stdout, which is for the JSON document."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(sys.stderr if debug else nowhere):
        yield


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """A short path that only this user may enter, and the janitor that removes it, however this process ends."""
    root = Path(tempfile.gettempdir())
    if len(str(root)) + len(_PREFIX) + 12 > _LONGEST_FOLDER:
        root = Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    with janitor(folder):
        (folder / "r").mkdir()  # Ray opens its own folder to everyone
        yield folder / "r"
