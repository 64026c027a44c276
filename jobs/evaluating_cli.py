"""`reelcolor evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jobs.command import Command, debug_option, echo, json_option
from jobs.counting import counted

_BASELINES = ("gray", "random")
_FILE = click.Path(path_type=Path)


def _baselines(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    """A list with commas, such as gray,random, or the word none."""
    listed = [] if value.strip() == "none" else value.split(",")
    names = tuple(dict.fromkeys(name.strip() for name in listed if name.strip()))
    if unknown := [name for name in names if name not in _BASELINES]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(_BASELINES)}")
    return names


@click.command(cls=Command)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--data", multiple=True, required=True, metavar="PATH", help="Folder, archive, colour video or glob; repeatable."
)
@click.option(
    "--baselines", default="gray,random", callback=_baselines, metavar="NAMES", show_default=True, help="Or none."
)
@click.option("--classifier", type=_FILE, metavar="FILE.onnx", help="Measure what this network recognises, too.")
@click.option("--labels", type=_FILE, metavar="FILE.csv", help="Right classes, for --classifier.")
@click.option(
    "--held-out/--all", default=True, help="Those that `train` leaves out of the same data, or all. [default: held-out]"
)
@click.option(
    "--split",
    type=click.Choice(["picture", "folder"]),
    default="picture",
    show_default=True,
    help="What `train` kept together when it left some out.",
)
@click.option(
    "--temperature",
    "temperatures",
    type=click.FloatRange(0.01, 2),
    multiple=True,
    metavar="T",
    help="0.01 to 2; repeatable, a row each. [default: the model's]",
)
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    default=192,
    show_default=True,
    metavar="N",
    help="Side of the square of as many pixels as pictures are measured at.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Of pictures, drawn at random. [default: all]")
@click.option("-o", "--output", required=True, type=_FILE, metavar="DIR", help="Folder for the results.")
@json_option
@debug_option
def evaluate(as_json: bool, debug: bool, **options: Any) -> None:
    """Measure how near models and baselines come to the true colours of photographs.

    Writes results.json, results.md and sheet.png, a sheet of pictures, to DIR, and prints the table: accuracy in ab
    (AuC, raw and with every colour alike), PSNR, SSIM, ΔE2000, colourfulness, with 95 % intervals.

    A classifier is an ONNX network on RGB (N, 3, h, w) normalised as for ImageNet. Without labels, what it sees in
    the true colours counts as right. A line of FILE.csv is `name,index`: of a picture's file or of the folder it
    is in, and of its class. The sheet shows the photographs: mind their licence.

    \b
    Examples:
      reelcolor evaluate default --data photos/ -o results
      reelcolor evaluate default mine.safetensors --data photos.tar --temperature 0.38 --temperature 1 -o results
    """
    del debug
    from jobs.evaluate import Request
    from jobs.evaluate import evaluate as run
    from jobs.scores import in_words

    if options["labels"] and not options["classifier"]:
        raise click.UsageError("--labels says what a classifier is to see; give --classifier, too")
    with counted("measuring") as done:
        document = run(Request(**options), done)
    echo(document if as_json else in_words(document))
