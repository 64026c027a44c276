"""The plan in words, with every problem that can be seen beforehand; nothing is written.

`colorize --dry-run` estimates from typical figures, `reelcolor plan` from shots that it really colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jobs import estimate
from jobs.apart import Apart
from jobs.console import Console
from jobs.estimate import Cost, Range
from jobs.hardware import check_hwaccel
from jobs.inputs import find_inputs
from jobs.ledger import Job
from jobs.measure import Measured, measure
from jobs.plan import Planner, plan_all, settle_names
from jobs.reels import AlbumReel, Reel, VideoReel
from jobs.request import Colouring, Request, default_colouring, job_of, sources_of
from jobs.text import clock, named, printable, size
from pipeline.storage import free_bytes

_SHOWN = 100  # reels described in words, and lines of what is left out or done; --json has all


@dataclass(frozen=True)
class Preview:
    """What a command would do. `done` are outputs of earlier runs, not verified again; `problems` would fail.

    costs: of each reel; `measured` is None where they are typical figures. free: bytes.
    """

    reels: tuple[Reel, ...]
    costs: tuple[Cost, ...]
    done: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    workers: int
    free: int
    measured: Measured | None = None

    @property
    def exit_code(self) -> int:
        """1 where something would fail."""
        return int(bool(self.problems))

    @property
    def cost(self) -> Cost:
        """Of all reels."""
        return estimate.total(self.costs)

    @property
    def seconds(self) -> Range:
        """Estimated wall-clock time, once the workers are there."""
        segments = sum(len(reel.segments) for reel in self.reels)
        return self.cost.seconds * (1 / max(1, min(self.workers, segments)))

    @property
    def film_seconds(self) -> float:
        """Length of the films together."""
        return sum(reel.info.seconds for reel in self.reels if isinstance(reel, VideoReel))

    @property
    def _inputs(self) -> list[list[tuple[Reel, Cost]]]:
        """What is to be done, by input: the reels that a huge folder was cut into come together."""
        costed = zip(self.reels, self.costs, strict=True)
        return [list(parts) for _, parts in groupby(costed, key=lambda part: part[0].input)]

    def document(self) -> dict[str, Any]:
        """For --json."""
        planned = [
            reel.entry()
            | {"frames": reel.frames, "estimated_bytes": round(cost.bytes.likely)}
            | self._spent(reel, cost)
            for reel, cost in zip(self.reels, self.costs, strict=True)
        ]
        likely = {"seconds": round(self.seconds.likely, 1), "bytes": round(self.cost.bytes.likely)}
        return {
            "plan": planned,
            "already_done": list(self.done),
            "skipped": [list(entry) for entry in self.skipped],
            "problems": list(self.problems),
            "workers": self.workers,
            "estimate": likely | self._measured() | {"basis": self.basis()},
        }

    def _spent(self, reel: Reel, cost: Cost) -> dict[str, Any]:
        if self.measured is None:
            return {}
        return {"estimated_worker_seconds": cost.seconds.rounded(1), "measured": reel.id in self.measured.samples}

    def _measured(self) -> dict[str, Any]:
        if self.measured is None:
            return {}
        hours = (self.cost.seconds * (1 / 3600)).rounded(4)
        return {
            "seconds_range": self.seconds.rounded(1),
            "bytes_range": self.cost.bytes.rounded(0),
            "processor_hours_range": (self.cost.processor_seconds * (1 / 3600)).rounded(4),
            "gpu_hours_range": hours if self.measured.on_gpu else [0.0, 0.0, 0.0],
            "peak_bytes": round(peak_bytes(self.costs)),
            "free_bytes": self.free,
            "sampled": {
                "reels": len(self.measured.samples),
                "shots": self.measured.shots,
                "frames": self.measured.frames,
                "engine": self.measured.engine,
            },
        }

    def basis(self) -> str:
        """What the estimate rests on, and what its bounds mean."""
        if self.measured is None:
            return estimate.BASIS
        frames, shots, inputs = self.measured.frames, self.measured.shots, len(self.measured.samples)
        return (
            f"measured on this machine: {frames} pictures in {shots} shots of {inputs} of {len(self.reels)} inputs, "
            f"{self.measured.engine}; the bounds are for all of it being like the easiest, or the hardest, of its "
            "shots; starting workers and putting outputs together come on top"
        )

    def in_words(self) -> str:
        """For reading."""
        lines = [line for parts in self._inputs[:_SHOWN] for line in _input_lines(parts)]
        lines += _more(len(self._inputs), "to do")
        done = list(dict.fromkeys(self.done))
        lines += [f"already done: {named(path)}" for path in done[:_SHOWN]] + _more(len(done), "already done")
        lines += [f"left out: {named(path)}: {reason}" for path, reason in self.skipped[:_SHOWN]]
        lines += _more(len(self.skipped), "left out")
        lines += [f"PROBLEM: {named(problem)}" for problem in self.problems]
        if self.reels:
            lines += self._summary() if self.measured else self._quick_summary()
            lines.append(f"  ({self.basis()})")
        return printable("\n".join(lines or ["nothing to do"]))

    def _quick_summary(self) -> list[str]:
        frames = sum(reel.frames for reel in self.reels)
        return [
            f"{len(self._inputs)} to do, {frames} frames, {self.workers} workers: about {clock(self.seconds.likely)}, "
            f"{size(self.cost.bytes.likely)}; {size(self.free)} are free"
        ]

    def _summary(self) -> list[str]:
        """Time, processors and disk, each with its bounds."""
        assert self.measured is not None
        frames = sum(reel.frames for reel in self.reels)
        spent, output = self.cost.seconds, self.cost.bytes
        gpu = f", {_between(spent, clock)} of one GPU" if self.measured.on_gpu else ""
        count = f"{len(self._inputs)} to do, {len(set(self.done))} done before, {len(self.problems)} problems"
        workers = f"{self.workers} worker{'s' * (self.workers > 1)} like this machine's"
        return [
            f"{count}: {clock(self.film_seconds)} of film, {frames} pictures",
            f"  time        {_between(self.seconds, clock)} with {workers}",
            f"  processors  {_between(self.cost.processor_seconds, clock)} of one processor{gpu}",
            f"  disk        {_between(output, size)} of output, about {size(peak_bytes(self.costs))} at the peak; "
            f"{size(self.free)} are free",
        ]


def peak_bytes(costs: Sequence[Cost]) -> float:
    """Disk taken at most: all outputs, and the largest one's segments beside it while it is put together."""
    sizes = [cost.bytes.likely for cost in costs]
    return sum(sizes) + 2 * max(sizes, default=0)


def _between(value: Range, words: Callable[[float], str]) -> str:
    return f"about {words(value.likely)} ({words(value.low)} to {words(value.high)})"


def _more(count: int, what: str) -> list[str]:
    return [f"and {count - _SHOWN} more {what}; --json lists them"] if count > _SHOWN else []


def preview(
    request: Request, console: Console, colouring: Colouring | None = None, sampled_reels: int | None = None
) -> Preview:
    """Plan without writing anything, and measure shots of at most `sampled_reels` reels; None: of no reel.

    Raises EngineError where shots are to be measured and the engine cannot be opened.
    """
    with Apart(request.debug) as apart:
        return _preview(request, console, apart, colouring or default_colouring(request.recipe), sampled_reels)


def _preview(
    request: Request, console: Console, apart: Apart, colouring: Colouring, sampled_reels: int | None
) -> Preview:
    from jobs.pool import default_workers

    job = job_of(request, colouring)
    planner = Planner(request.recipe, colouring.weights, job.outdir, job.folder)
    check_hwaccel(request.recipe, apart, console.note)
    found = find_inputs(request.inputs, job.outdir, request.recipe.fps is not None)
    finished = {planner.reel_id(item): job.finished(planner.reel_id(item)) for item in found.items}
    done = [entry[1] for entry in finished.values() if entry]
    todo = [item for item in found.items if not finished[planner.reel_id(item)]]
    planned, unplanned = plan_all(planner, todo, apart, console.planning)
    taken = {job.outdir / d.output / name: d.input for d in done for name in d.files}
    reels, misnamed = settle_names(planned, taken, sources_of(found.items))
    measured = None
    if sampled_reels is not None:
        measured = measure(reels, sampled_reels, apart, colouring.open, console.sampling)
    costs = estimate.costs(reels, measured.samples if measured else {})
    problems = [f"{path}: {reason}" for path, reason in found.refused]
    problems += [refusal.error for refusal in (*unplanned, *misnamed)]
    problems += _problems(request, job, reels)
    problems += measured.problems if measured else ()
    free = free_bytes(job.outdir)
    if (needed := peak_bytes(costs)) > free:
        problems.append(f"{job.outdir}: {size(free)} are free, about {size(needed)} may be needed at the peak")
    workers = request.workers or default_workers(max((reel.frame_pixels for reel in reels), default=0))
    outputs = tuple(str(job.outdir / d.output) for d in done)
    return Preview(tuple(reels), tuple(costs), outputs, tuple(found.skipped), tuple(problems), workers, free, measured)


def _problems(request: Request, job: Job, reels: Sequence[Reel]) -> list[str]:
    """What is in the way of reels that can be planned."""
    problems = []
    for reel in reels:
        there = reel.existing()
        if there and not request.overwrite and job.reel(reel.id).announced() != reel.name:
            problems.append(f"{reel.input}: its output {there} exists; --overwrite replaces it")
        problems += reel.facts().get("problems", []) if isinstance(reel, AlbumReel) else []
    return problems


def _input_lines(parts: Sequence[tuple[Reel, Cost]]) -> list[str]:
    reel = parts[0][0]
    lines = [f"{named(reel.input)} → {named(str(reel.output))}"]
    if isinstance(reel, VideoReel):
        info, spec = reel.info, reel.spec
        tags = [
            info.color.matrix + _mark("matrix", info.color.assumed),
            ("full" if info.color.full_range else "limited") + " range" + _mark("range", info.color.assumed),
        ]
        lines.append(
            f"  {info.codec} {info.width}×{info.height} {float(info.fps):.3f} fps → {spec.codec} {spec.pix_fmt} in "
            f"{reel.container.name}; {', '.join(tags)}"
        )
    frames, segments = sum(part.frames for part, _ in parts), sum(len(part.segments) for part, _ in parts)
    bytes_likely = sum(cost.bytes.likely for _, cost in parts)
    lines.append(f"  {frames} {reel.unit} in {segments} segments, about {size(bytes_likely)}")
    return [*lines, *dict.fromkeys(f"  note: {warning}" for part, _ in parts for warning in part.warnings)]


def _mark(what: str, assumed: Sequence[str]) -> str:
    return " (assumed)" if what in assumed else ""
