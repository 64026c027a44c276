"""The options that say what to make of which inputs, and where: those of every command that plans."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jobs.recipe import Recipe

fps_option = click.option("--fps", metavar="RATE", help="Frames a second of a numbered scan: 24, 23.976, 24000/1001.")


def recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that make a recipe; each is a key of a recipe file, too."""
    from jobs.recipe import CODECS, HWACCELS, PRECISIONS, PROFILES

    options = [
        click.option("--model", metavar="NAME|FILE", help="Model package. [default: default]"),
        click.option("--profile", type=click.Choice(PROFILES), help="[default: access]"),
        click.option("--codec", type=click.Choice(CODECS), help="Instead of the profile's."),
        click.option("--crf", type=float, metavar="N", help="Quality of h264, hevc (0 to 51) and av1 (0 to 63)."),
        click.option("--preset", metavar="P", help="The encoder's, such as veryfast, or 0 to 13 for av1."),
        click.option(
            "--hwaccel",
            type=click.Choice(HWACCELS),
            help="auto: decode and encode on an NVIDIA GPU what it does there; cuda: or fail. [default: none]",
        ),
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
        fps_option,
        click.option(
            "--limit",
            "limits",
            multiple=True,
            metavar="KEY=N",
            help="What is hostile in images and archives: image-pixels [500000000], image-pages [10000], image-bytes "
            "[2 GiB], total-bytes [4 TiB], ratio of expanded to stored bytes [200], ratio-floor [256 MiB], members "
            "[2000000]. May be repeated.",
        ),
    ]
    return _with(command, options)


def request_options(command: Callable[..., None]) -> Callable[..., None]:
    """INPUT..., OUTDIR, and the recipe; the command gets them as `request`, a Request for this machine."""
    file = click.Path(path_type=Path)
    head = [
        click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
        click.option(
            "-o", "--output", required=True, metavar="OUTDIR", help="Output folder, here or on a store (s3://…)."
        ),
    ]
    tail = [
        click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="[default: one for two processors]"),
        click.option("--recipe", type=file, metavar="FILE.toml", help="Options as keys of a TOML file."),
        click.option("--overwrite", is_flag=True, help="Replace outputs that are there and not this command's own."),
    ]
    return _with(recipe_options(_with(_with_request(command), tail)), head)


def _with_request(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def parsed(
        *args: Any,
        inputs: tuple[str, ...],
        output: str,
        workers: int | None,
        recipe: Path | None,
        overwrite: bool,
        debug: bool,
        **options: Any,
    ) -> None:
        from jobs.recipe import Recipe
        from jobs.request import Request
        from pipeline.storage import place

        chosen = {f.name: options.pop(f.name) for f in dataclasses.fields(Recipe)}
        request = Request(inputs, place(output), _recipe_of(recipe, chosen), workers, overwrite, debug)
        command(*args, request=request, **options)

    return parsed


def _recipe_of(file: Path | None, options: dict[str, Any]) -> Recipe:
    from jobs.recipe import make_recipe, parse_fps, parse_limits

    options["limits"] = parse_limits(options["limits"])
    if options["fps"] is not None:
        options["fps"] = parse_fps(options["fps"])
    return make_recipe(file, options)


def _with(command: Callable[..., None], options: Sequence[Callable[..., Any]]) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command
