"""The driver of a submitted job, on the cluster: python -m jobs.entry OUTDIR JOB all|unfinished|failed SUBMISSION."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import cast

from jobs.command import stoppable
from jobs.journal import SUBMISSION, Journal, Standing
from jobs.ledger import Job
from jobs.request import Colouring, Only, Request, default_colouring, job_of
from pipeline.errors import EngineError, ReelcolorError
from pipeline.storage import place


def main(outdir: str, name: str, only: str, submission: str) -> int:
    """Run it; the exit code of `reelcolor colorize`."""
    from jobs.console import Console
    from jobs.run import colorize
    from jobs.submitting import stored_request

    os.environ[SUBMISSION] = submission
    console = Console()
    job = Job(place(outdir), name)
    try:
        with stoppable():
            request = stored_request(job, cast(Only, only))
            report = colorize(request, console, _colouring(request, job))
    except ReelcolorError as e:
        console.note(f"Error: {e}")
        with contextlib.suppress(ReelcolorError), job.locked():  # unless it is because another run holds the job
            Journal(job.folder).beat(Standing(stopped=str(e)), "failed")
        return 1
    except KeyboardInterrupt:
        return 130
    console.summary(report)
    return report.exit_code


def _colouring(request: Request, job: Job) -> Colouring:
    """The model as it is here; raises EngineError where it is not the one that the job is of."""
    colouring = default_colouring(request.recipe)
    if job_of(request, colouring).folder != job.folder:
        raise EngineError(
            f"{request.recipe.model}: the model of this name is another here than where the job was submitted; "
            "have the same reelcolor on the cluster and there, or give the model as a file that all nodes share"
        )
    return colouring


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
