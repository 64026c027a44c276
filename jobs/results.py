"""What became of every input: the JSON document, the exit code, and what a finished reel's record says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.records import Done
from pipeline.storage import Place

_NAMED = 3  # problems spelt out in an error; the ledger has them all


@dataclass(frozen=True)
class Result:
    """What became of one input; `seconds` are wall-clock time spent on it in this run, `fps` its frames by them."""

    input: str
    output: str | None
    status: Literal["done", "skipped", "failed"]
    frames: int = 0
    seconds: float = 0.0
    fps: float | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All results of a command, in the order of its inputs."""

    results: tuple[Result, ...]
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 all done, now or before; 1 something failed; 130 interrupted, as shells have it."""
        if self.interrupted:
            return 130
        return int(any(result.status == "failed" for result in self.results))

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {"reels": [dataclasses.asdict(result) for result in self.results]}


def all_failed(inputs: tuple[str, ...], error: str) -> Report:
    """What is left to say where nothing could be done at all."""
    return Report(tuple(Result(path, None, "failed", error=error) for path in inputs))


def finished(done: Done, outdir: Place, seconds: float = 0.0, made: int | None = None) -> Result:
    """The result of a finished reel; `made` frames were coloured in this run, None: it was finished before.

    A reel with members that could not be coloured has failed, though its output is there.
    """
    status: Literal["done", "skipped"] = "skipped" if made is None else "done"
    return Result(
        input=done.input,
        output=str(outdir / done.output),
        status="failed" if done.problems else status,
        frames=done.frames,
        seconds=round(seconds, 3),
        fps=round(made / seconds, 2) if made and seconds > 0 else None,
        error=_problems(done) if done.problems else None,
        warnings=done.warnings,
    )


def whole(parts: Sequence[Result], seconds: float) -> Result:
    """What became of an input that was done in parts, in so many seconds."""
    first = parts[0]
    if len(parts) == 1:
        return first
    statuses = {part.status for part in parts}
    made = sum(part.fps * part.seconds for part in parts if part.fps)
    errors = dict.fromkeys((part.error or "").removeprefix(f"{first.input}: ") for part in parts if part.error)
    return Result(
        input=first.input,
        output=first.output,
        status="failed" if "failed" in statuses else "done" if "done" in statuses else "skipped",
        frames=sum(part.frames for part in parts),
        seconds=round(seconds, 3),
        fps=round(made / seconds, 2) if made and seconds > 0 else None,
        error=f"{first.input}: {_some(list(errors))}" if errors else None,
        warnings=tuple(dict.fromkeys(warning for part in parts for warning in part.warnings)),
    )


def _some(lines: Sequence[str]) -> str:
    """The first of them."""
    rest = len(lines) - _NAMED
    return "; ".join(lines[:_NAMED]) + (f"; and {rest} more, see the job folder" if rest > 0 else "")


def _problems(done: Done) -> str:
    return f"{done.input}: not all of it could be coloured: {_some(done.problems)}"
