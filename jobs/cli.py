"""The command line: every command is parse → one call → echo. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from jobs.bench_cli import bench_command
from jobs.cluster_cli import cluster_options, jobs, submit
from jobs.command import Command, debug_option, echo, json_option
from jobs.compiling_cli import compile_command
from jobs.evaluating_cli import evaluate
from jobs.models_cli import models
from jobs.planning_cli import plan
from jobs.request_cli import fps_option, request_options
from jobs.shares import Shares
from jobs.training_cli import train
from pipeline.errors import RecipeError
from pipeline.version import VERSION

if TYPE_CHECKING:
    from jobs.request import Request


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="reelcolor")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Colorize black-and-white film reels, surveillance footage and image archives in bulk.

    \b
    Example:
      reelcolor colorize reel.mkv -o coloured
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


class _Colorize(Command):
    def failed(self, ctx: click.Context, error: str) -> dict[str, Any]:
        """Every input as failed."""
        from jobs.results import all_failed

        return all_failed(ctx.params["inputs"], error).document()


@main.command(cls=_Colorize)
@request_options
@click.option("--address", metavar="auto|HOST:PORT", help="Work on the Ray cluster that this machine is part of.")
@cluster_options
@click.option("--dry-run", is_flag=True, help="Print the plan and every problem that can be seen beforehand.")
@json_option
@debug_option
@click.pass_context
def colorize(
    ctx: click.Context, /, request: Request, shares: Shares, address: str | None, dry_run: bool, as_json: bool
) -> None:
    """Colour videos, folders, archives of images and numbered scans into OUTDIR.

    An INPUT is a video file, a folder, a glob, an archive of images (.zip .cbz .tar .tar.gz .tar.bz2 .tar.xz), an
    image, or a numbered scan (frames/%06d.dpx, or a folder with --fps); @list.txt names one a line. Both INPUT and
    OUTDIR may be on a store (s3://bucket/films/); credentials come by environment. The same command again resumes.

    \b
    Examples:
      reelcolor colorize reel.mkv -o coloured
      reelcolor colorize films/ scans.zip -o coloured --profile preservation --json
      reelcolor colorize 'frames/%06d.dpx' --fps 18 -o coloured --codec ffv1
      reelcolor colorize s3://archive/films/ -o s3://archive/coloured
    """
    from jobs.console import Console
    from jobs.run import colorize as run

    if address:
        request = replace(request, shares=replace(shares, address=address, most=shares.most or request.workers))
    elif shares != Shares():
        raise RecipeError("what a worker takes of a cluster's nodes needs --address; on this machine, see --workers")
    console = Console(request.debug)
    if dry_run:
        from jobs.preview import preview

        seen = preview(request, console)
        echo(seen.document() if as_json else seen.in_words())
        ctx.exit(seen.exit_code)
    report = run(request, console)
    if as_json:
        echo(report.document())
    else:
        console.summary(report)
    ctx.exit(report.exit_code)


@main.command(cls=Command)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@fps_option
@json_option
@debug_option
@click.pass_context
def probe(ctx: click.Context, inputs: tuple[str, ...], fps: str | None, as_json: bool, debug: bool) -> None:
    """Say what an input is: codec, size, rate, range and matrix, depth, fields, colour, streams.

    \b
    Example:
      reelcolor probe reel.mkv photos.zip --json
    """
    from jobs.describe import describe_all, in_words
    from jobs.recipe import parse_fps

    described = describe_all(inputs, parse_fps(fps) if fps else None, debug)
    echo({"inputs": described} if as_json else "\n".join(map(in_words, described)))
    ctx.exit(int(any(d["error"] for d in described)))


@main.command(cls=Command)
@click.argument("source")
@click.argument("output")
@json_option
@debug_option
@click.pass_context
def verify(ctx: click.Context, source: str, output: str, as_json: bool, debug: bool) -> None:
    """Prove that OUTPUT is SOURCE in colour: frames, timestamps, streams, and luma by hash or PSNR.

    Both are decoded whole. SOURCE may be a numbered scan. Exit status 1 where something differs.

    \b
    Example:
      reelcolor verify reel.mkv coloured/reel.mkv
    """
    del debug
    from jobs.proof import in_words, prove

    proof = prove(source, output)
    echo(proof if as_json else in_words(proof))
    ctx.exit(int(bool(proof["problems"])))


for _command in (submit, jobs, plan, models, train, evaluate, compile_command, bench_command):
    main.add_command(_command)
