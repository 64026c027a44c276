"""`reelcolor plan`: what a command would take, measured before it is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobs.command import Command, debug_option, echo, json_option
from jobs.request_cli import request_options

if TYPE_CHECKING:
    from jobs.request import Request


@click.command(cls=Command)
@request_options
@click.option(
    "--sample-reels",
    type=click.IntRange(1),
    default=12,
    metavar="N",
    show_default=True,
    help="Inputs to measure at most, spread evenly over all there is to colour.",
)
@json_option
@debug_option
@click.pass_context
def plan(ctx: click.Context, /, request: Request, sample_reels: int, as_json: bool) -> None:
    """Say what `colorize` would make, what stands in its way, and what it takes; nothing is written.

    Three shots of two seconds each, or of 8 images, are really decoded, coloured and encoded: of every input, or of
    --sample-reels of them. Time, processors and disk are extrapolated from these, with bounds. Exit status 1 where
    something would fail.

    \b
    Examples:
      reelcolor plan films/ scans.zip -o coloured
      reelcolor plan films/ -o coloured --profile preservation --sample-reels 30 --json
    """
    from jobs.console import Console
    from jobs.preview import preview

    seen = preview(request, Console(request.debug), sampled_reels=sample_reels)
    echo(seen.document() if as_json else seen.in_words())
    ctx.exit(seen.exit_code)
