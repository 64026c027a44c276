"""Ray on this machine, for the length of one run: nothing of it can be reached from outside, nothing of it stays."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.hands import Hand, WorkerDied
from jobs.janitor import janitor
from jobs.rayhand import RayHand
from jobs.shares import CPUS_A_WORKER, memory_of
from jobs.worker import Opener
from pipeline.errors import EngineError

_OBJECT_STORE = 80 << 20  # bytes, Ray's least; only references travel
_LONGEST_FOLDER = 40  # of Ray's folder: its sockets' names add 66, and a Unix socket's name ends at 107
_PREFIX = "reelcolor-"


def default_workers(frame_pixels: int) -> int:
    """One worker for two of the processors that this process may use, as far as memory goes for such frames."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(processors() // CPUS_A_WORKER, memory // memory_of(frame_pixels)))


def processors() -> int:
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
    with _private_folder() as folder, environment(_settings()), ray_prints(debug):
        import ray

        try:
            start_ray(
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
        except BaseException as e:  # Ray raises all sorts, and what it has begun crashes as this process ends
            ray.shutdown()
            if not isinstance(e, Exception):
                raise
            raise EngineError(f"Ray does not start on this machine: {' '.join(str(e).split())}; see --debug") from e
        try:
            yield Pool(debug)
        finally:
            ray.shutdown()


def start_ray(**options: Any) -> None:
    """ray.init, without two things it does.

    It takes SIGTERM for itself and ends the process, with files half-written and another status; and it sends this
    process's command line around as UTF-8, which fails where a file on it has a name that is not.
    """
    import ray
    from ray._private import utils

    usual, ours = (utils.set_sigterm_handler, utils.get_entrypoint_name), signal.getsignal(signal.SIGTERM)
    utils.set_sigterm_handler, utils.get_entrypoint_name = lambda _handler: None, lambda: "reelcolor"
    try:
        ray.init(**options)
    finally:
        utils.set_sigterm_handler, utils.get_entrypoint_name = usual
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)  # there was another in its place, of Ray's C++


class Pool:
    """Ray, running: starts workers in processes of their own."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._servers = [pid for pid in _children() if _stat(pid)[:1] in (["raylet"], ["gcs_server"])]

    def hire(self, opener: Opener) -> Hand:
        """Start a worker."""
        return RayHand(self.check, opener, self._debug, {"num_cpus": CPUS_A_WORKER}, _explained(_oom_kills()))

    def check(self) -> None:
        """Raise EngineError where Ray itself has died: its promises would never be kept."""
        for pid in self._servers:
            if _stat(pid)[1:2] in ([], ["Z"]):
                raise EngineError("Ray has died (out of memory?); run the same command again to go on from here")


def _explained(before: int) -> Callable[[WorkerDied], WorkerDied]:
    """What a death is put down to where the kernel had ended `before` processes for want of memory until then."""

    def explain(death: WorkerDied) -> WorkerDied:
        if _oom_kills() == before:
            return death
        return WorkerDied("ended by the kernel, as memory ran out", of_memory=True)

    return explain


def _oom_kills() -> int:
    """Processes that the kernel has ended for want of memory since the machine was started, of whomever."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


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
        "PYTHONOPTIMIZE": "",  # without docstrings, Ray's own processes do not start
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }


@functools.cache
def _token() -> str:
    """One for this process: Ray reads it once."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def ray_prints(debug: bool) -> Iterator[None]:
    """Ray tells of deaths, and of what workers print, on this process's stdout, which is for the JSON document."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(sys.stderr if debug else nowhere):
        yield


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """With these variables, then as before."""
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
