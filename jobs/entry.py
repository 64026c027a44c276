"""The driver of a submitted job, on the cluster: python -m jobs.entry OUTDIR JOB all|unfinished|failed SUBMISSION."""

from __future__ import annotations

import os
import sys
from typing import cast

from jobs.command import stoppable
from jobs.journal import SUBMISSION
from jobs.request import Only
from pipeline.errors import ReelcolorError
from pipeline.storage import place


def main(outdir: str, name: str, only: str, submission: str) -> int:
    """Run it; the exit code of `reelcolor colorize`."""
    from jobs.console import Console
    from jobs.ledger import Job
    from jobs.run import colorize
    from jobs.submitting import stored_request

    os.environ[SUBMISSION] = submission
    console = Console()
    try:
        with stoppable():
            report = colorize(stored_request(Job(place(outdir), name), cast(Only, only)), console)
    except ReelcolorError as e:
        console.note(f"Error: {e}")
        return 1
    except KeyboardInterrupt:
        return 130
    console.summary(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
