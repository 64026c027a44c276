"""`reelcolor compile`."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.command import Command, debug_option, echo, json_option
from jobs.recipe import PRECISIONS

_DEVICES = ("auto", "cpu", "cuda")


def _sizes(_ctx: click.Context, _param: click.Parameter, value: str | None) -> list[tuple[int, int]]:
    from jobs.compiling import parse_sizes

    try:
        return parse_sizes(value) if value is not None else []
    except ValueError as e:
        raise click.BadParameter(str(e)) from e


@click.command("compile", cls=Command)
@click.argument("model", metavar="NAME|FILE")
@click.option(
    "--device",
    type=click.Choice(_DEVICES),
    default="auto",
    show_default=True,
    help="auto takes the GPU that there is.",
)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="fp8 is for TensorRT alone."
)
@click.option(
    "--shapes",
    "sizes",
    callback=_sizes,
    metavar="HxW,...",
    help="Of the network's input, multiples of 32. [default: those of 4:3 and 16:9]",
)
@click.option(
    "--temperature", type=click.FloatRange(0.01, 2), metavar="T", help="That colorize is to use. [default: the model's]"
)
@click.option("--calibrate", metavar="PATH", help="Photographs to measure on what 8 bits are to span.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.ranges.json",
    help="Where to write that, too, if it passes.",
)
@click.option("--check", is_flag=True, help="Exit status 1 where the precision asked for does not pass.")
@json_option
@debug_option
@click.pass_context
def compile_command(
    ctx: click.Context,
    model: str,
    device: str,
    precision: str,
    sizes: list[tuple[int, int]],
    temperature: float | None,
    calibrate: str | None,
    output: Path | None,
    check: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Compile a model for this machine, and hold it against the reference.

    Otherwise the first run does so: on a GPU with TensorRT that takes minutes for each shape. Golden frames are
    coloured and compared with PyTorch in float32; a precision that fails gives way to the next of int8, fp16, bf16,
    fp32, fp8 to fp16. What --calibrate measures is used from then on only if it passes, on the CPU at every size that
    pictures are computed at.

    \b
    Examples:
      reelcolor compile default
      reelcolor compile default --device cuda --precision fp16 --shapes 160x224,128x256 --check
      reelcolor compile default --precision int8 --calibrate photos/
    """
    del debug
    from jobs.compiling import Request, compile_model, in_words
    from jobs.hearing import heard
    from jobs.turns import turns

    if calibrate is not None and precision not in ("int8", "fp8"):
        raise click.UsageError("--calibrate is for 8 bits; give --precision int8, too")
    if output is not None and calibrate is None:
        raise click.UsageError("--output is for what --calibrate measures; give --calibrate, too")
    with turns("compiling") as told, heard(told.say):
        document = compile_model(Request(model, device, precision, sizes, temperature, calibrate, output), told.done)
    echo(document if as_json else in_words(document))
    ctx.exit(int((check or calibrate is not None) and not document["passed"]))
