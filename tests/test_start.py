"""The command while it is still being read in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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
