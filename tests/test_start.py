"""The command while it is still being read in."""

from __future__ import annotations

import signal
import subprocess
import sys

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
