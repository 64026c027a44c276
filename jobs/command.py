"""What every command shares: errors and signals turned into what a shell expects, and the options all have."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from pipeline.errors import RecipeError, ReelcolorError, StorageError

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
            _expect_here()
            with stoppable():
                return super().invoke(ctx)
        except RecipeError as e:
            raise click.UsageError(printable(str(e)), ctx) from e
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's to act on
        except Exception as e:
            said = str(e) if isinstance(e, ReelcolorError) else failure(e).message
            if ctx.params.get("as_json"):
                with contextlib.suppress(StorageError):  # where stdout is what has failed
                    echo(self.failed(ctx, said))
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


def _expect_here() -> None:
    """Raise StorageError where the folder that this process is in has been removed: no name can be made absolute."""
    try:
        Path.cwd()
    except OSError as e:
        raise StorageError(f"the folder that this was started in is gone ({e.strerror}); change to another") from e


def echo(document: dict[str, Any] | str) -> None:
    """Words fit for a terminal, or a document; raises StorageError where stdout takes none."""
    from jobs.text import printable

    try:
        click.echo(printable(document) if isinstance(document, str) else json.dumps(document, indent=1))
    except BrokenPipeError:
        raise
    except OSError as e:
        raise StorageError(f"standard output: cannot be written: {e.strerror}") from e


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """End a run as Ctrl-C does when the terminal closes or a supervisor asks; at once where Ctrl-C is pressed again.

    Then nothing is tidied up: as after a kill, the janitor ends what the run has started, the next sweeps its files.
    Under `nohup`, the terminal may close.
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

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
