"""`reelcolor submit` and `reelcolor jobs`: runs on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from jobs.command import Command, debug_option, echo, json_option
from jobs.request_cli import recipe_of, request_options

if TYPE_CHECKING:
    from jobs.shares import Shares

_Command = Callable[..., None]


def cluster_options(command: _Command) -> _Command:
    """What a worker takes of the cluster's nodes."""
    options = [
        click.option(
            "--gpus-per-worker", type=click.FloatRange(0, 8), metavar="F", help="[default: 1 if there is one]"
        ),
        click.option("--cpus-per-worker", type=click.FloatRange(0.1, 256), metavar="N", help="[default: 2]"),
        click.option(
            "--max-workers", type=click.IntRange(1), metavar="N", help="[default: as many as there is room for]"
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def shares_of(address: str, gpus: float | None, cpus: float | None, most: int | None) -> Shares:
    """The options as one."""
    from jobs.shares import CPUS_A_WORKER, Shares

    return Shares(address, gpus, CPUS_A_WORKER if cpus is None else cpus, most)


_address = click.option(
    "--address", metavar="URL", help="The cluster's. [default: the job's, or http://127.0.0.1:8265]"
)
_output = click.option("-o", "--output", metavar="OUTDIR", help="Where the job writes to.")


@click.command(cls=Command)
@request_options
@_address
@cluster_options
@click.option(
    "--env",
    type=click.Choice(["image", "working-dir"]),
    default="image",
    show_default=True,
    help="Where the nodes have reelcolor from: installed there, or sent along from here.",
)
@click.option("--wait", "waiting", is_flag=True, help="Until it has ended; exit status 1 where something failed.")
@json_option
@debug_option
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    output: str,
    workers: int | None,
    recipe: Path | None,
    overwrite: bool,
    address: str | None,
    gpus_per_worker: float | None,
    cpus_per_worker: float | None,
    max_workers: int | None,
    env: str,
    waiting: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Colour on a Ray cluster: what `colorize` does, on all of its nodes.

    INPUT and OUTDIR must be the same from here and from every node: on a store, or a folder that all share. Nodes have
    their credentials in their own environment; none are sent. --workers is --max-workers.

    \b
    Examples:
      reelcolor submit s3://archive/reels -o s3://archive/coloured --address http://head:8265
      reelcolor submit /mnt/reels -o /mnt/coloured --gpus-per-worker 0.5 --max-workers 64 --wait
    """
    del debug
    from jobs.request import Request
    from jobs.submitting import submit as send
    from jobs.submitting import wait
    from pipeline.storage import place

    shares = shares_of("auto", gpus_per_worker, cpus_per_worker, max_workers or workers)
    request = Request(inputs, place(output), recipe_of(recipe, options), None, overwrite, False, shares)
    sent = send(request, address, env)
    state = wait(sent) if waiting else "SUBMITTED"
    facts = {"job": str(sent.job.folder), "submission": sent.submission, "address": sent.address, "state": state}
    echo(facts if as_json else f"{state.lower()}: {sent.job.folder}\n  reelcolor jobs status {sent.job.folder}")
    ctx.exit(int(state in ("FAILED", "STOPPED")))


@click.group()
def jobs() -> None:
    """How jobs stand, and what is to become of them. JOB is OUTDIR/.reelcolor/NAME, or NAME with -o OUTDIR."""


@jobs.command("list", cls=Command)
@click.option("-o", "--output", required=True, metavar="OUTDIR", help="Where the jobs write to.")
@json_option
@debug_option
def list_command(output: str, as_json: bool, debug: bool) -> None:
    """Every job of an OUTDIR, the last to be heard of first.

    \b
    Example:
      reelcolor jobs list -o s3://archive/coloured
    """
    del debug
    from jobs.status import all_jobs, in_words
    from pipeline.storage import place

    found = all_jobs(place(output))
    echo({"jobs": found} if as_json else "\n".join(in_words(status).partition("\n")[0] for status in found))


@jobs.command(cls=Command)
@click.argument("job")
@_output
@json_option
@debug_option
def status(job: str, output: str | None, as_json: bool, debug: bool) -> None:
    """How a job stands, and each failed reel: segment, error, its class, the line of log. Read from OUTDIR alone.

    \b
    Example:
      reelcolor jobs status 1f0c2ab94e77 -o s3://archive/coloured
    """
    del debug
    from jobs.status import in_words, job_status
    from jobs.submitting import find_job

    found = job_status(find_job(job, output))
    echo(found if as_json else in_words(found))


@jobs.command(cls=Command)
@click.argument("job")
@_output
@click.option("-f", "--follow", is_flag=True, help="Until the run ends.")
@json_option
@debug_option
def logs(job: str, output: str | None, follow: bool, as_json: bool, debug: bool) -> None:
    """What the last run said; from OUTDIR, the last 200 lines, where the cluster does not answer.

    \b
    Example:
      reelcolor jobs logs 1f0c2ab94e77 -o s3://archive/coloured -f
    """
    del debug
    from jobs.status import last_lines
    from jobs.submitting import find_job, last_submission, log_lines
    from jobs.text import printable
    from pipeline.errors import ReelcolorError

    found = find_job(job, output)
    try:
        sent = last_submission(found)
        pieces = log_lines(sent.address, sent.submission, follow)
        if as_json:
            echo({"source": sent.address, "lines": "".join(pieces).splitlines()})
            return
        for piece in pieces:
            click.echo(printable(piece), nl=False)
    except ReelcolorError as e:
        lines = last_lines(found)
        if as_json:
            echo({"source": str(found.folder), "lines": lines})
            return
        click.echo(f"{e}; what is stored:", err=True)
        echo("\n".join(lines))


@jobs.command(cls=Command)
@click.argument("job")
@_output
@_address
@json_option
@debug_option
def stop(job: str, output: str | None, address: str | None, as_json: bool, debug: bool) -> None:
    """End a job's run; what is finished stays, and `resume` goes on from there.

    \b
    Example:
      reelcolor jobs stop 1f0c2ab94e77 -o s3://archive/coloured
    """
    del debug
    from jobs.submitting import ask, find_job, last_submission

    sent = last_submission(find_job(job, output))
    was_running = bool(ask(address or sent.address, "stop_job", sent.submission))
    said = "is being stopped" if was_running else "was not running"
    echo({"submission": sent.submission, "stopped": was_running} if as_json else f"{sent.submission} {said}")


def _begin(
    job: str, output: str | None, only: Literal["unfinished", "failed"], address: str | None, as_json: bool
) -> None:
    from jobs.submitting import begin_again, find_job

    sent = begin_again(find_job(job, output), only, address)
    facts = {"job": str(sent.job.folder), "submission": sent.submission, "address": sent.address}
    echo(facts if as_json else f"submitted: {sent.job.folder}")


@jobs.command(cls=Command)
@click.argument("job")
@_output
@_address
@json_option
@debug_option
def resume(job: str, output: str | None, address: str | None, as_json: bool, debug: bool) -> None:
    """Go on with what is neither done nor failed, on the same cluster or another.

    \b
    Example:
      reelcolor jobs resume 1f0c2ab94e77 -o s3://archive/coloured --address http://new-head:8265
    """
    del debug
    _begin(job, output, "unfinished", address, as_json)


@jobs.command(cls=Command)
@click.argument("job")
@_output
@_address
@json_option
@debug_option
def retry(job: str, output: str | None, address: str | None, as_json: bool, debug: bool) -> None:
    """Try the failed reels again, and no others.

    \b
    Example:
      reelcolor jobs retry 1f0c2ab94e77 -o s3://archive/coloured
    """
    del debug
    _begin(job, output, "failed", address, as_json)
