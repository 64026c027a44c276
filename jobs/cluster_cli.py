"""`reelcolor submit` and `reelcolor jobs`: runs on a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import click

from jobs.command import Command, debug_option, echo, json_option
from jobs.request_cli import request_options
from jobs.shares import CPUS_A_WORKER, Shares

if TYPE_CHECKING:
    from jobs.ledger import Job
    from jobs.request import Request

_Command = Callable[..., None]


def cluster_options(command: _Command) -> _Command:
    """What a worker takes of the cluster's nodes; the command gets them as `shares`."""

    @functools.wraps(command)
    def parsed(
        *args: Any, gpus_per_worker: float | None, cpus_per_worker: float, max_workers: int | None, **rest: Any
    ) -> None:
        command(*args, shares=Shares(gpus=gpus_per_worker, cpus=cpus_per_worker, most=max_workers), **rest)

    gpus = click.FloatRange(0, 8)
    cpus = click.FloatRange(0.1, 256)
    for option in (
        click.option("--max-workers", type=click.IntRange(1), metavar="N", help="[default: as there is room for]"),
        click.option(
            "--cpus-per-worker", type=cpus, metavar="N", default=CPUS_A_WORKER, help=f"[default: {CPUS_A_WORKER}]"
        ),
        click.option("--gpus-per-worker", type=gpus, metavar="F", help="[default: 1 if there is one]"),
    ):
        parsed = option(parsed)
    return parsed


_address = click.option(
    "--address", metavar="URL", help="The cluster's. [default: the job's, or http://127.0.0.1:8265]"
)


def _job_options(command: _Command) -> _Command:
    """JOB, which the command gets as the Job that is there, and how to show what is said of it."""

    @functools.wraps(command)
    def parsed(job: str, output: str | None, debug: bool, **rest: Any) -> None:
        del debug
        from jobs.submitting import find_job

        command(find_job(job, output), **rest)

    named = click.option("-o", "--output", metavar="OUTDIR", help="Where the job writes to.")
    return click.argument("job")(named(json_option(debug_option(parsed))))


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
    request: Request,
    shares: Shares,
    address: str | None,
    env: str,
    waiting: bool,
    as_json: bool,
) -> None:
    """Colour on a Ray cluster: what `colorize` does, on all of its nodes.

    INPUT and OUTDIR must be the same from here and from every node: on a store, or a folder that all share. Nodes have
    their credentials in their own environment; none are sent. --workers is --max-workers.

    \b
    Examples:
      reelcolor submit s3://archive/reels -o s3://archive/coloured --address http://head:8265
      reelcolor submit /mnt/reels -o /mnt/coloured --gpus-per-worker 0.5 --max-workers 64 --wait
    """
    from jobs.submitting import submit as send
    from jobs.submitting import wait

    shares = replace(shares, most=shares.most or request.workers)
    sent = send(replace(request, workers=None, debug=False, shares=shares), address, env)
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
    """Every job of an OUTDIR, the last to be heard of first, and what it keeps for a resume.

    \b
    Example:
      reelcolor jobs list -o s3://archive/coloured
    """
    del debug
    from jobs.status import all_jobs, in_a_line
    from pipeline.storage import place

    found = all_jobs(place(output))
    echo({"jobs": found} if as_json else "\n".join(map(in_a_line, found)) or f"no jobs in {output}")


@jobs.command(cls=Command)
@_job_options
def status(job: Job, as_json: bool) -> None:
    """How a job stands, and each failed reel: segment, error, its class, the line of log. Read from OUTDIR alone.

    \b
    Example:
      reelcolor jobs status 1f0c2ab94e77 -o s3://archive/coloured
    """
    from jobs.status import in_words, job_status

    found = job_status(job)
    echo(found if as_json else in_words(found))


@jobs.command(cls=Command)
@_job_options
@click.option("-f", "--follow", is_flag=True, help="Until the run ends.")
def logs(job: Job, follow: bool, as_json: bool) -> None:
    """What the last run said; from OUTDIR, the last 200 lines, where the cluster does not answer.

    \b
    Example:
      reelcolor jobs logs 1f0c2ab94e77 -o s3://archive/coloured -f
    """
    from jobs.status import last_lines
    from jobs.submitting import last_submission, log_lines
    from jobs.text import printable
    from pipeline.errors import ReelcolorError

    try:
        sent = last_submission(job)
        pieces = log_lines(sent.address, sent.submission, follow)
        if as_json:
            echo({"source": sent.address, "lines": "".join(pieces).splitlines()})
            return
        for piece in pieces:
            click.echo(printable(piece), nl=False)
    except ReelcolorError as e:
        lines = last_lines(job)
        if as_json:
            echo({"source": str(job.folder), "lines": lines})
            return
        click.echo(f"{e}; what is stored:", err=True)
        echo("\n".join(lines))


@jobs.command(cls=Command)
@_job_options
@_address
def stop(job: Job, address: str | None, as_json: bool) -> None:
    """End a job's run; what is finished stays, and `resume` goes on from there.

    \b
    Example:
      reelcolor jobs stop 1f0c2ab94e77 -o s3://archive/coloured
    """
    from jobs.submitting import ask, last_submission

    sent = last_submission(job)
    was_running = bool(ask(address or sent.address, "stop_job", sent.submission))
    said = "is being stopped" if was_running else "was not running"
    echo({"submission": sent.submission, "stopped": was_running} if as_json else f"{sent.submission} {said}")


def _begin(job: Job, only: Literal["unfinished", "failed"], address: str | None, as_json: bool) -> None:
    from jobs.submitting import begin_again

    sent = begin_again(job, only, address)
    facts = {"job": str(sent.job.folder), "submission": sent.submission, "address": sent.address}
    echo(facts if as_json else f"submitted: {sent.job.folder}")


@jobs.command(cls=Command)
@_job_options
@_address
def resume(job: Job, address: str | None, as_json: bool) -> None:
    """Go on with what is neither done nor failed, on the same cluster or another.

    \b
    Example:
      reelcolor jobs resume 1f0c2ab94e77 -o s3://archive/coloured --address http://new-head:8265
    """
    _begin(job, "unfinished", address, as_json)


@jobs.command(cls=Command)
@_job_options
@_address
def retry(job: Job, address: str | None, as_json: bool) -> None:
    """Try the failed reels again, and no others.

    \b
    Example:
      reelcolor jobs retry 1f0c2ab94e77 -o s3://archive/coloured
    """
    _begin(job, "failed", address, as_json)


@jobs.command("clean", cls=Command)
@click.argument("job", required=False)
@click.option("--all", "every", is_flag=True, help="Of every job of OUTDIR that is not running.")
@click.option("-o", "--output", metavar="OUTDIR", help="Where the job writes to.")
@json_option
@debug_option
def clean_command(job: str | None, every: bool, output: str | None, as_json: bool, debug: bool) -> None:
    """Remove what a job keeps for a resume: segments of unfinished reels, half-written files. `list` says how much.

    What is known of the job stays, and so does every finished reel. A job that is running is left alone.

    \b
    Examples:
      reelcolor jobs clean 1f0c2ab94e77 -o s3://archive/coloured
      reelcolor jobs clean --all -o s3://archive/coloured
    """
    del debug
    from jobs.leftovers import clean
    from jobs.status import jobs_of
    from jobs.submitting import find_job
    from jobs.text import size
    from pipeline.errors import StorageError
    from pipeline.storage import place

    if every == (job is not None):
        raise click.UsageError("give either a JOB or --all")
    if every and output is None:
        raise click.UsageError("--all: of which OUTDIR? give -o OUTDIR")
    done: list[dict[str, Any]] = []
    for found in jobs_of(place(str(output))) if job is None else [find_job(job, output)]:
        facts: dict[str, Any] = {"job": found.folder.name, "files": 0, "bytes": 0, "error": None}
        try:
            kept = clean(found)
            done.append(facts | {"files": kept.files, "bytes": kept.bytes})
        except StorageError as e:
            if job is not None:
                raise
            done.append(facts | {"error": str(e)})
    said = [d["error"] or f"{d['files']} files removed, {size(d['bytes'])}" for d in done]
    lines = "\n".join(f"{d['job']}: {line}" for d, line in zip(done, said, strict=True))
    echo({"jobs": done} if as_json else lines or f"no jobs in {output}")
