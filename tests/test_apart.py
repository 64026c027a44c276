"""The process apart: answers, errors and deaths come back; it ends with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.apart import Apart, spread
from pipeline.errors import InputError, UnsupportedError


def double(n: int) -> int:
    return 2 * n


def refuse() -> None:
    raise UnsupportedError("a.mkv: no")


def stumble() -> None:
    raise KeyError("odd")


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def test_answers_errors_and_deaths_come_back() -> None:
    with Apart() as apart:
        assert apart.call("x", double, 21) == 42
        with pytest.raises(UnsupportedError, match=r"a\.mkv: no"):
            apart.call("x", refuse)
        with pytest.raises(RuntimeError, match="KeyError: 'odd'"):
            apart.call("x", stumble)
        with pytest.raises(InputError, match=r"bad\.mkv: reading it crashes the process that does \(SIGSEGV\)"):
            apart.call("bad.mkv", die, signal.SIGSEGV)
        assert apart.call("x", double, 4) == 8


def test_several_share_many_calls_and_a_death_costs_one() -> None:
    calls = [("x", double, n) for n in range(20)]
    calls[7] = ("bad.mkv", die, signal.SIGKILL)
    calls[9] = ("x", refuse)  # type: ignore[assignment]
    with Apart() as one, Apart() as two:
        outcomes = dict(spread([one, two], iter(calls)))
        processes = {one.call("x", os.getpid), two.call("x", os.getpid)}
    assert len(processes) == 2
    assert "reading it crashes the process" in str(outcomes.pop(7))
    assert isinstance(outcomes.pop(9), UnsupportedError)
    assert outcomes == {n: 2 * n for n in range(20) if n not in (7, 9)}


def test_it_ends_with_its_parent() -> None:
    code = """
import os, time
from jobs.apart import Apart
if __name__ == "__main__":
    with Apart() as apart:
        print(apart.call("", os.getpid), flush=True)
        time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    end = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


BLOCKED = """
import os, signal
from pathlib import Path
from jobs.apart import Apart

if __name__ == "__main__":
    with Apart() as apart:
        status = Path(f"/proc/{apart._process.pid}/status").read_text()
        blocked = next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1]
        os.kill(apart._process.pid, signal.SIGINT)
        print(int(blocked, 16) >> signal.SIGINT - 1 & 1, apart.call("x", max, 1, 2))
        print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_ctrl_c_does_not_reach_it_not_even_while_it_starts(tmp_path: Path) -> None:
    """A terminal's Ctrl-C goes to all processes of the command; Python itself would answer with a traceback."""
    (tmp_path / "started.py").write_text(BLOCKED)
    done = subprocess.run([sys.executable, tmp_path / "started.py"], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1 2\nFalse\n", "")
