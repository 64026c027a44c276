"""What the shell calls as `reelcolor`."""

from __future__ import annotations

import os
import signal

from jobs import streams

# NumPy's own threads wait for each other by spinning: where processors are shared, four times slower than one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> None:
    """Run the command; Ctrl-C ends it without a word while it is still being read in."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    streams.steady()
    from jobs.cli import main as command

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()
