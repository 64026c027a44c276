"""`reelcolor bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jobs.command import Command, debug_option, echo, json_option


@click.command("bench", cls=Command)
@click.option("--model", default="default", show_default=True, metavar="NAME|FILE", help="Or a network's name.")
@click.option(
    "--device",
    type=click.Choice(("auto", "cpu", "cuda")),
    default="auto",
    show_default=True,
    help="auto takes the GPU that there is.",
)
@click.option("--only", type=click.Choice(("engines", "video")), help="Half of it. [default: both]")
@click.option(
    "--seconds", type=click.FloatRange(0, 86400), default=120, show_default=True, metavar="S",
    help="For all of it; every case is run at least once.",
)  # fmt: skip
@click.option(
    "--film", type=click.FloatRange(1, 3600), default=4, show_default=True, metavar="S", help="Length of the film."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default="bench", show_default=True, metavar="DIR",
    help="Folder for bench.json and bench.png.",
)  # fmt: skip
@json_option
@debug_option
def bench_command(film: float, as_json: bool, debug: bool, **options: Any) -> None:
    """Measure how near the engines and the whole way come to what this machine can do.

    Cases are run in turns, so that ratios hold while other programs run. A matrix product and a copy show the
    machine's limits; engines are held against them, against the same graph in a bare loop of OpenVINO and in OpenCV's
    DNN module; colorizing a made film against a plain transcode. A network's name, such as eccv16, stands for that
    network with random weights.

    A round of all cases takes about a minute on two processors, half of it for the engines with eccv16; where there is
    less time, it is said before, and each case is run once.

    \b
    Examples:
      reelcolor bench
      reelcolor bench --model eccv16 --only engines --seconds 300 -o bench_eccv16
    """
    del debug
    from jobs.bench import Request, bench
    from jobs.bench_report import in_words
    from jobs.film import Film
    from jobs.turns import turns

    with turns("measuring") as told:
        document = bench(Request(film=Film(film), **options), told)
    echo(document if as_json else in_words(document))
