"""The command while it is still being read in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PRESSED = """
import os, signal, sys
from jobs.start import main

class Presses:  # Ctrl-C, as the command line's own module is looked for
    def find_spec(self, name, *_):
        if name == "jobs.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Presses())
main()
"""


def test_ctrl_c_while_modules_are_read_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", PRESSED], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


THREADS = "import jobs.start, sys; assert 'numpy' not in sys.modules; import numpy, threadpoolctl; \
print(*[lib['num_threads'] for lib in threadpoolctl.threadpool_info() if lib['user_api'] == 'blas'])"


@pytest.mark.parametrize(("asked", "used"), [(None, "1"), ("2", "2")])
def test_numpy_has_one_thread_unless_more_are_asked_for(asked: str | None, used: str) -> None:
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    settings = {name: value for name, value in os.environ.items() if name not in names}
    settings |= {"OPENBLAS_NUM_THREADS": asked} if asked else {}
    done = subprocess.run([sys.executable, "-c", THREADS], check=True, capture_output=True, text=True, env=settings)
    assert done.stdout.split() == [used]


STREAMS = """
import contextlib, os, sys
from jobs import streams
streams.steady()
from jobs.console import Console
with open(sys.argv[1], "w") as file:
    with contextlib.suppress(OSError):
        os.write(2, b"a decoder says something")
    Console().note("so does the run")
    os.write(2, b"again")
    file.write("whole")
"""


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2>&-", "2>/dev/full", "2>&$1"])
def test_without_standard_streams_a_run_goes_on_and_no_file_takes_their_place(tmp_path: Path, streams: str) -> None:
    unread, pipe = os.pipe()
    os.close(unread)
    command = f'exec "$0" -c "$2" "$3" {streams}'
    arguments = [sys.executable, str(pipe), STREAMS, str(tmp_path / "file")]
    assert subprocess.run(["bash", "-c", command, *arguments], check=False, pass_fds=[pipe]).returncode == 0
    os.close(pipe)
    assert (tmp_path / "file").read_text() == "whole"


def test_a_full_standard_output_is_one_line() -> None:
    command = [sys.executable, "-c", "from jobs.start import main; main()", "probe", "none.mkv", "--json"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: standard output: cannot be written: No space left on device\n")
