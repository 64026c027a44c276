"""Outlives a run that is killed, and ends what the run left; runs as a script and imports nothing of ours.

Ray's processes end with their parent, but for two agents that take another minute to notice. The janitor waits until
the run's end of a pipe is closed, be it by the run or by its death; then it kills every other process that has a file
open in the run's folder, where Ray keeps its logs and sockets, or was started with a name in it, and removes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_ROUNDS = 10  # a process that was just being started is found the next time


@contextlib.contextmanager
def janitor(folder: Path) -> Iterator[None]:
    """Have the folder, and all processes that use it, gone when the block ends or this process dies."""
    command = [sys.executable, "-I", "-S", __file__, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)  # left where the janitor itself was killed


def users_of(folder: str, but: int) -> list[int]:
    """Processes that have a file below `folder` open, or the name of one in their command line, `but` for one."""
    return [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and int(process.name) != but and _uses(process, f"{folder}/")
    ]


def _uses(process: Path, folder: str) -> bool:
    """One that was just started has nothing open yet, and would make the folder anew."""
    with contextlib.suppress(OSError):
        if folder.encode() in (process / "cmdline").read_bytes():
            return True
        return any(str(link.readlink()).startswith(folder) for link in (process / "fd").iterdir())
    return False


def main() -> None:
    """Wait, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run = os.getppid()
    sys.stdin.read()
    folder = os.path.realpath(sys.argv[1])
    for _ in range(_ROUNDS):
        users = users_of(folder, but=run)
        for pid in users:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        if not users:
            break
        time.sleep(0.2)


if __name__ == "__main__":
    main()
