"""`reelcolor models`: list, show, verify, import."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.command import Command, echo, json_option


@click.group()
def models() -> None:
    """Model packages: those shipped, those in the folder $REELCOLOR_MODELS, those a registry.toml there names.

    \b
    Examples:
      reelcolor models list
      reelcolor models show default
    """


@models.command("list", cls=Command)
@json_option
def list_models(as_json: bool) -> None:
    """Name every model: where it is from, its network, size and SHA-256. Fetches nothing.

    \b
    Example:
      reelcolor models list --json
    """
    from jobs.models import list_all, list_in_words

    listed = list_all()
    echo({"models": listed} if as_json else list_in_words(listed))


@models.command("show", cls=Command)
@click.argument("name", metavar="NAME|FILE")
@json_option
def show_model(name: str, as_json: bool) -> None:
    """Say what a package says of itself: network, training data and licences, metrics, what T means for it.

    \b
    Example:
      reelcolor models show default
    """
    from jobs.models import show, show_in_words

    shown = show(name)
    echo(shown if as_json else show_in_words(shown))


@models.command("verify", cls=Command)
@click.argument("name", metavar="NAME|FILE")
@json_option
@click.pass_context
def verify_model(ctx: click.Context, name: str, as_json: bool) -> None:
    """Check a package's hash and weights, and that the engine computes with it what it should. Exit status 1 if not.

    \b
    Example:
      reelcolor models verify default
    """
    from jobs.models import verify, verify_in_words

    checked = verify(name)
    echo(checked if as_json else verify_in_words(checked))
    ctx.exit(int(bool(checked["problems"])))


@models.command("import", cls=Command)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.pth")
@click.option("--network", required=True, type=click.Choice(["eccv16"]), help="What the weights are of.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT.safetensors", help="New.")
@json_option
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
    echo(shown if as_json else show_in_words(shown))
