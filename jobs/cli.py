"""The command line: every command is parse → one call → echo. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.command import Command, debug_option, json_option
from jobs.compiling_cli import compile_command
from jobs.evaluating_cli import evaluate
from jobs.models_cli import models
from jobs.training_cli import train
from pipeline.errors import ReelcolorError

if TYPE_CHECKING:
    from jobs.recipe import Recipe


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="reelcolor", prog_name="reelcolor")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Colorize black-and-white film reels, surveillance footage and image archives in bulk.

    \b
    Example:
      reelcolor colorize reel.mkv -o coloured
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


_fps = click.option("--fps", metavar="RATE", help="Frames a second of a numbered scan: 24, 23.976, 24000/1001.")


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that make a recipe; each is a key of a recipe file, too."""
    from jobs.recipe import CODECS, PRECISIONS, PROFILES

    options = [
        click.option("--model", metavar="NAME|FILE", help="Model package. [default: default]"),
        click.option("--profile", type=click.Choice(PROFILES), help="[default: access]"),
        click.option("--codec", type=click.Choice(CODECS), help="Instead of the profile's."),
        click.option("--crf", type=float, metavar="N", help="Quality of h264, hevc (0 to 51) and av1 (0 to 63)."),
        click.option("--preset", metavar="P", help="The encoder's, such as veryfast, or 0 to 13 for av1."),
        click.option(
            "--temperature",
            type=float,
            metavar="T",
            help="0.01 to 2; low takes the likeliest colour, high the mean. [default: the model's]",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            help="Of the network's arithmetic. [default: auto, the fastest here that passes the self-test]",
        ),
        click.option("--saturation", type=float, metavar="S", help="0 (grey) to 2. [default: 1]"),
        click.option("--recolor", is_flag=True, default=None, help="Colour anew what is in colour already."),
        click.option("--segment-seconds", type=float, metavar="S", help="Length of a unit of work. [default: 10]"),
        _fps,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command(cls=Command)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", required=True, metavar="OUTDIR", help="Output folder, here or on a store (s3://…).")
@_recipe_options
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="[default: one for two processors]")
@click.option("--recipe", type=click.Path(path_type=Path), metavar="FILE.toml", help="Options as keys of a TOML file.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that are there and not this command's own.")
@click.option("--dry-run", is_flag=True, help="Print the plan and every problem that can be seen beforehand.")
@json_option
@debug_option
@click.pass_context
def colorize(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    output: str,
    workers: int | None,
    recipe: Path | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Colour videos, folders, archives of images and numbered scans into OUTDIR.

    An INPUT is a video file, a folder, a glob, an archive of images (.zip .cbz .tar .tar.gz .tar.bz2 .tar.xz), an
    image, or a numbered scan (frames/%06d.dpx, or a folder with --fps). The same command again resumes.

    \b
    Examples:
      reelcolor colorize reel.mkv -o coloured
      reelcolor colorize films/ scans.zip -o coloured --profile preservation --json
      reelcolor colorize 'frames/%06d.dpx' --fps 18 -o coloured --codec ffv1
    """
    from jobs.console import Console
    from jobs.request import Request
    from jobs.results import all_failed
    from jobs.run import colorize as run
    from pipeline.storage import place

    request = Request(inputs, place(output), _recipe(recipe, options), workers, overwrite, debug)
    console = Console(debug)
    if dry_run:
        from jobs.preview import preview

        plan = preview(request, console)
        click.echo(json.dumps(plan.document(), indent=1) if as_json else plan.in_words())
        ctx.exit(plan.exit_code)
    try:
        report = run(request, console)
    except ReelcolorError as e:
        if as_json:
            click.echo(json.dumps(all_failed(inputs, str(e)).document(), indent=1))
        raise
    if as_json:
        click.echo(json.dumps(report.document(), indent=1))
    else:
        console.summary(report)
    ctx.exit(report.exit_code)


@main.command(cls=Command)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@_fps
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
    from jobs.text import printable

    described = describe_all(inputs, parse_fps(fps) if fps else None, debug)
    text = json.dumps({"inputs": described}, indent=1) if as_json else "\n".join(map(in_words, described))
    click.echo(text if as_json else printable(text))
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
    from jobs.text import printable

    proof = prove(source, output)
    click.echo(json.dumps(proof, indent=1) if as_json else printable(in_words(proof)))
    ctx.exit(int(bool(proof["problems"])))


def _recipe(file: Path | None, options: dict[str, Any]) -> Recipe:
    from jobs.recipe import make_recipe, parse_fps

    if options["fps"] is not None:
        options["fps"] = parse_fps(options["fps"])
    return make_recipe(file, options)


for _command in (models, train, evaluate, compile_command):
    main.add_command(_command)
