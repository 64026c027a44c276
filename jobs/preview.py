"""`--dry-run`: the plan in words, with every problem that can be seen beforehand; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs import estimate
from jobs.apart import Apart
from jobs.console import Console
from jobs.inputs import find_inputs
from jobs.ledger import Job
from jobs.plan import Planner, plan_all, settle_names
from jobs.reels import AlbumReel, Reel, VideoReel
from jobs.request import Colouring, Request, default_colouring, job_of, sources_of
from jobs.text import clock, printable, size
from pipeline.storage import free_bytes


@dataclass(frozen=True)
class Preview:
    """What a command would do. `done` are outputs of earlier runs, not verified again; `problems` would fail."""

    reels: tuple[Reel, ...]
    done: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    workers: int
    free: int  # bytes

    @property
    def exit_code(self) -> int:
        """1 where something would fail."""
        return int(bool(self.problems))

    @property
    def seconds(self) -> float:
        """Estimated wall-clock time."""
        return estimate.seconds(self.reels, self.workers)

    @property
    def bytes(self) -> float:
        """Estimated size of all outputs."""
        return sum(map(estimate.output_bytes, self.reels))

    def document(self) -> dict[str, Any]:
        """For --json."""
        planned = [
            reel.entry() | {"frames": reel.frames, "estimated_bytes": round(estimate.output_bytes(reel))}
            for reel in self.reels
        ]
        estimated = {"seconds": round(self.seconds, 1), "bytes": round(self.bytes), "basis": estimate.BASIS}
        return {
            "plan": planned,
            "already_done": list(self.done),
            "skipped": [list(entry) for entry in self.skipped],
            "problems": list(self.problems),
            "workers": self.workers,
            "estimate": estimated,
        }

    def in_words(self) -> str:
        """For reading."""
        lines = [line for reel in self.reels for line in _reel_lines(reel)]
        lines += [f"already done: {path}" for path in self.done]
        lines += [f"left out: {path}: {reason}" for path, reason in self.skipped]
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        if self.reels:
            frames = sum(reel.frames for reel in self.reels)
            lines.append(
                f"{len(self.reels)} to do, {frames} frames, {self.workers} workers: about {clock(self.seconds)}, "
                f"{size(self.bytes)}; {size(self.free)} are free"
            )
            lines.append(f"  ({estimate.BASIS})")
        return printable("\n".join(lines or ["nothing to do"]))


def preview(request: Request, console: Console, colouring: Colouring | None = None) -> Preview:
    """Plan without writing anything."""
    with Apart(request.debug) as apart:
        return _preview(request, console, apart, colouring or default_colouring(request.recipe))


def _preview(request: Request, console: Console, apart: Apart, colouring: Colouring) -> Preview:
    from jobs.pool import default_workers

    job = job_of(request, colouring)
    planner = Planner(request.recipe, colouring.weights, job.outdir)
    found = find_inputs(request.inputs, job.outdir, request.recipe.fps is not None)
    finished = {planner.reel_id(item): job.finished(planner.reel_id(item)) for item in found.items}
    done = [entry[1] for entry in finished.values() if entry]
    todo = [item for item in found.items if not finished[planner.reel_id(item)]]
    planned, unplanned = plan_all(planner, todo, apart, console.planning)
    taken = {job.outdir / d.output / name: d.input for d in done for name in d.files}
    reels, misnamed = settle_names(planned, taken, sources_of(found.items))
    problems = [f"{path}: {reason}" for path, reason in found.refused]
    problems += [refusal.error for refusal in (*unplanned, *misnamed)]
    problems += _problems(request, job, reels)
    free = free_bytes(job.outdir)
    workers = request.workers or default_workers(max((reel.frame_pixels for reel in reels), default=0))
    outputs = tuple(str(job.outdir / d.output) for d in done)
    return Preview(tuple(reels), outputs, tuple(found.skipped), tuple(problems), workers, free)


def _problems(request: Request, job: Job, reels: Sequence[Reel]) -> list[str]:
    """What is in the way of reels that can be planned."""
    problems = []
    for reel in reels:
        there = reel.existing()
        if there and not request.overwrite and job.reel(reel.id).announced() != reel.name:
            problems.append(f"{reel.input}: its output {there} exists; --overwrite replaces it")
        problems += reel.facts().get("problems", []) if isinstance(reel, AlbumReel) else []
    needed = 2 * max(map(estimate.output_bytes, reels), default=0) + sum(map(estimate.output_bytes, reels))
    free = free_bytes(job.outdir)
    if needed > free:
        problems.append(f"{job.outdir}: {size(free)} are free, about {size(needed)} may be needed at the peak")
    return problems


def _reel_lines(reel: Reel) -> list[str]:
    lines = [f"{reel.input} → {reel.output}"]
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
    lines.append(
        f"  {reel.frames} {reel.unit} in {len(reel.segments)} segments, about {size(estimate.output_bytes(reel))}"
    )
    return [*lines, *(f"  note: {warning}" for warning in reel.warnings)]


def _mark(what: str, assumed: Sequence[str]) -> str:
    return " (assumed)" if what in assumed else ""
