"""Outlives a run that is killed, and ends what the run left; runs as a script and imports nothing of ours.

Ray's processes end with their parent, but for two agents that take another minute to notice. The janitor waits until
the run's end of a pipe is closed, be it by the run or by its death; then it kills every other process that has a file
open in the run's folder, where Ray keeps its logs and sockets, and removes the folder.
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

_ROUNDS = 5  # a process that was just being started is found the next time


@contextlib.contextmanager
def janitor(folder: Path) -> Iterator[None]:
    """Have the folder, and all processes that use it, gone when the block ends or this process dies."""
    command = [sys.executable, "-I", "-S", __file__, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        process.communicate()


def users_of(folder: str, but: int) -> list[int]:
    """Processes that have a file below `folder` open, `but` for one."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != but:
            with contextlib.suppress(OSError):
                if any(str(link.readlink()).startswith(f"{folder}/") for link in (process / "fd").iterdir()):
                    found.append(int(process.name))
    return found


def main() -> None:
    """Wait, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run = os.getppid()
    sys.stdin.read()
    folder = os.path.realpath(sys.argv[1])
    for _ in range(_ROUNDS):
        users = users_of(folder, but=run)
        if not users:
            break
        for pid in users:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
