"""The command line: every command is parse → one call → echo. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pipeline.errors import RecipeError, ReelcolorError

if TYPE_CHECKING:
    from jobs.recipe import Recipe

_INTERRUPTED = 130  # exit code, as shells have it for SIGINT


class _Command(click.Command):
    """Turns our errors into what the shell expects: usage 2, anything else 1, interrupted 130."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with the error tree translated."""
        from jobs.text import log_everything, printable

        debug = bool(ctx.params.get("debug"))
        try:
            if debug:
                log_everything()
            with _stoppable():
                return super().invoke(ctx)
        except RecipeError as e:
            raise click.UsageError(printable(str(e)), ctx) from e
        except ReelcolorError as e:
            if debug:
                raise
            raise click.ClickException(printable(str(e))) from e
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(_INTERRUPTED)


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


_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; the rest on stderr.")
_debug = click.option("--debug", is_flag=True, help="Show tracebacks and FFmpeg's and Ray's own messages.")
_fps = click.option("--fps", metavar="RATE", help="Frames a second of a numbered scan: 24, 23.976, 24000/1001.")


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that make a recipe; each is a key of a recipe file, too."""
    from jobs.recipe import CODECS, PROFILES

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
        click.option("--saturation", type=float, metavar="S", help="0 (grey) to 2. [default: 1]"),
        click.option("--recolor", is_flag=True, default=None, help="Colour anew what is in colour already."),
        click.option("--segment-seconds", type=float, metavar="S", help="Length of a unit of work. [default: 10]"),
        _fps,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command(cls=_Command)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUTDIR", help="Output folder.")
@_recipe_options
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="[default: one for two processors]")
@click.option("--recipe", type=click.Path(path_type=Path), metavar="FILE.toml", help="Options as keys of a TOML file.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that are there and not this command's own.")
@click.option("--dry-run", is_flag=True, help="Print the plan and every problem that can be seen beforehand.")
@_json
@_debug
@click.pass_context
def colorize(
    ctx: click.Context,
    /,
    inputs: tuple[str, ...],
    output: Path,
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

    request = Request(inputs, output, _recipe(recipe, options), workers, overwrite, debug)
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


@main.command(cls=_Command)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@_fps
@_json
@_debug
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


@main.command(cls=_Command)
@click.argument("source")
@click.argument("output")
@_json
@_debug
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


@main.group()
def models() -> None:
    """Model packages: those shipped, those in the folder $REELCOLOR_MODELS, those a registry.toml there names.

    \b
    Examples:
      reelcolor models list
      reelcolor models show default
    """


@models.command("list", cls=_Command)
@_json
def list_models(as_json: bool) -> None:
    """Name every model: where it is from, its network, size and SHA-256. Fetches nothing.

    \b
    Example:
      reelcolor models list --json
    """
    from jobs.models import list_all, list_in_words

    listed = list_all()
    _echo({"models": listed} if as_json else list_in_words(listed))


@models.command("show", cls=_Command)
@click.argument("name", metavar="NAME|FILE")
@_json
def show_model(name: str, as_json: bool) -> None:
    """Say what a package says of itself: network, training data and licences, metrics, what T means for it.

    \b
    Example:
      reelcolor models show default
    """
    from jobs.models import show, show_in_words

    shown = show(name)
    _echo(shown if as_json else show_in_words(shown))


@models.command("verify", cls=_Command)
@click.argument("name", metavar="NAME|FILE")
@_json
@click.pass_context
def verify_model(ctx: click.Context, name: str, as_json: bool) -> None:
    """Check a package's hash and weights, and that the engine computes with it what it should. Exit status 1 if not.

    \b
    Example:
      reelcolor models verify default
    """
    from jobs.models import verify, verify_in_words

    checked = verify(name)
    _echo(checked if as_json else verify_in_words(checked))
    ctx.exit(int(bool(checked["problems"])))


@models.command("import", cls=_Command)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.pth")
@click.option("--network", required=True, type=click.Choice(["eccv16"]), help="What the weights are of.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT.safetensors", help="New.")
@_json
def import_model(file: Path, network: str, output: Path, as_json: bool) -> None:
    """Make a model package of published weights: eccv16, the PyTorch release of Zhang, Isola, Efros 2016.

    Nothing in the file is executed, and every tensor is accounted for by name and shape.

    \b
    Example:
      reelcolor models import colorization_release_v2-9b330a0b.pth --network eccv16 -o zhang.safetensors
    """
    from jobs.models import import_model as run
    from jobs.models import show_in_words

    shown = run(file, network, output)
    _echo(shown if as_json else show_in_words(shown))


def _echo(document: dict[str, Any] | str) -> None:
    """Words fit for a terminal, or a document."""
    from jobs.text import printable

    click.echo(printable(document) if isinstance(document, str) else json.dumps(document, indent=1))


def _recipe(file: Path | None, options: dict[str, Any]) -> Recipe:
    from jobs.recipe import make_recipe, parse_fps

    if options["fps"] is not None:
        options["fps"] = parse_fps(options["fps"])
    return make_recipe(file, options)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """End a run as Ctrl-C does when the terminal closes or a supervisor asks."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
