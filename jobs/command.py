"""What every command shares: errors and signals turned into what a shell expects, and the options all have."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import click

from pipeline.errors import RecipeError, ReelcolorError

_INTERRUPTED = 130  # exit code, as shells have it for SIGINT
_CURSOR = "\x1b[?25h"  # shows it; a live display hides it

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; the rest on stderr.")
debug_option = click.option("--debug", is_flag=True, help="Show tracebacks and FFmpeg's and Ray's own messages.")


class Command(click.Command):
    """Turns our errors into what the shell expects: usage 2, anything else 1, interrupted 130."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click has it; an empty argument would stand for the folder that one is in."""
        if "" in args:
            raise click.UsageError("an argument is empty, as that of a variable which is not set", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with the error tree translated."""
        from jobs.failures import failure
        from jobs.text import log_everything, named, printable

        debug = bool(ctx.params.get("debug"))
        try:
            if debug:
                log_everything()
            with stoppable():
                return super().invoke(ctx)
        except RecipeError as e:
            raise click.UsageError(printable(str(e)), ctx) from e
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's to act on
        except Exception as e:
            said = str(e) if isinstance(e, ReelcolorError) else failure(e).message
            if ctx.params.get("as_json"):
                click.echo(json.dumps(self.failed(ctx, said), indent=1))
            if debug:
                raise
            raise click.ClickException(named(said)) from e
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(_INTERRUPTED)

    def failed(self, ctx: click.Context, error: str) -> dict[str, Any]:
        """The document of --json where there is nothing to say but the error."""
        del ctx
        return {"error": error}


def echo(document: dict[str, Any] | str) -> None:
    """Words fit for a terminal, or a document."""
    from jobs.text import printable

    click.echo(printable(document) if isinstance(document, str) else json.dumps(document, indent=1))


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """End a run as Ctrl-C does when the terminal closes or a supervisor asks; at once where Ctrl-C is pressed again.

    Then nothing is tidied up: as after a kill, the janitor ends what the run has started, the next sweeps its files.
    """
    asked = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            os.write(2, (_CURSOR if os.isatty(2) else "").encode() + b"interrupted\n")
            os._exit(_INTERRUPTED)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
