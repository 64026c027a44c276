"""`reelcolor train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.command import Command, debug_option, echo, json_option

if TYPE_CHECKING:
    from model.recipe import TrainRecipe


@click.command(cls=Command)
@click.argument("recipe", metavar="RECIPE.toml|NAME")
@click.option("--data", multiple=True, metavar="PATH", help="Folder, archive, glob or colour video; may be repeated.")
@click.option("--base", metavar="NAME|FILE", help="Model package to go on from. [default: the recipe's, or none]")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), metavar="M", help="Budget of wall-clock time.")
@click.option(
    "--epochs", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Budget of passes over the data."
)
@click.option("--workers", type=click.IntRange(1, 256), default=1, metavar="N", help="Processes that train together.")
@click.option("--address", metavar="ray://HOST:PORT", help="Ray cluster to train on. [default: this machine]")
@click.option("--resume", is_flag=True, help="Go on with the run in OUT; begin one where there is none.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT", help="Folder of the run."
)
@json_option
@debug_option
def train(
    recipe: str,
    data: tuple[str, ...],
    base: str | None,
    minutes: float | None,
    epochs: float | None,
    workers: int,
    address: str | None,
    resume: bool,
    output: Path,
    as_json: bool,
    debug: bool,
) -> None:
    """Train a network by a recipe: default, fast, refine, underwater, eccv16, colorunet, or a TOML file of your own.

    OUT gets the model package RECIPE.safetensors, best.safetensors (the best so far, while it runs), metrics.csv,
    loss.png, a sheet of samples at every evaluation, and a report on the pictures. Ctrl-C ends it after the step in
    hand; the same command with --resume goes on, with the losses that it would have had where the budget is
    --epochs. With --minutes the learning rate follows the clock. Each of --workers takes batches of the recipe's size.

    \b
    Examples:
      reelcolor train underwater --data dives/ -o runs/dives
      reelcolor train default --data photos/ --data film.mkv --minutes 80 -o runs/mine
      reelcolor train my.toml --data photos.zip --epochs 10 --workers 2 -o runs/two --resume
    """
    from jobs.train import Training
    from jobs.train import train as run
    from jobs.training_console import TrainingConsole

    training = Training(_recipe(recipe, data, base, minutes, epochs), output, resume, workers, address, debug)
    with TrainingConsole() as console:
        try:
            made = run(training, console.note, console.show)
        except KeyboardInterrupt:
            best = output / "best.safetensors"
            console.note(f"stopped; {f'the best so far is {best}; ' if best.exists() else ''}--resume goes on")
            raise
    echo(made if as_json else "\n".join(f"{key}: {value}" for key, value in made.items()))


def _recipe(
    name: str, data: tuple[str, ...], base: str | None, minutes: float | None, epochs: float | None
) -> TrainRecipe:
    from model.recipe import load_recipe

    return load_recipe(name).within(minutes, epochs).on(data).beginning_with(base)
