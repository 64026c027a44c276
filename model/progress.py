"""What a training run tells of itself: reports to whoever watches, metrics.csv, and a plot of the loss."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.storage import replacing, write_bytes


@dataclass(frozen=True)
class Report:
    """The state of a run after a step.

    progress: share of the budget, 0..1. seconds: spent, over all runs; remaining: estimated. rate: learning rate. loss:
    of this step; smooth: its moving average; held_out: of the averaged weights, after an evaluation, else None.
    speed: pictures a second over the last steps. All losses are means over cells, in nats or squared units of 110.
    """

    step: int
    samples: int
    progress: float
    seconds: float
    remaining: float
    rate: float
    loss: float
    smooth: float
    speed: float
    held_out: float | None = None


COLUMNS = tuple(field.name for field in fields(Report))


class History:
    """The reports of a run, as metrics.csv in its folder holds them."""

    def __init__(self, folder: Path, step: int) -> None:
        """Begin with what the folder holds of the steps up to `step`: those after it are made again."""
        self._path, self._plot = folder / "metrics.csv", folder / "loss.png"
        self.rows = [row for row in _read(self._path) if row.step <= step] if step else []

    def add(self, report: Report) -> None:
        """Keep a report; it is on disk after the next `write`."""
        if self.rows and self.rows[-1].step == report.step:
            self.rows.pop()
        self.rows.append(report)

    def write(self) -> None:
        """Write metrics.csv; raises StorageError."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in self.rows)
        write_bytes(self._path, text.getvalue().encode())

    def draw(self) -> None:
        """Draw loss.png: the moving average of the training loss, and the held-out loss, over samples."""
        draw_losses(self.rows, self._plot)


def _read(path: Path) -> list[Report]:
    if not path.exists():
        return []
    with path.open(newline="") as f:
        return [_report(row) for row in csv.DictReader(f)]


def _report(row: dict[str, str]) -> Report:
    measured: dict[str, Any] = {name: float(row[name]) for name in COLUMNS[2:-1]}
    held_out = float(row["held_out"]) if row["held_out"] else None
    return Report(step=int(row["step"]), samples=int(row["samples"]), **measured, held_out=held_out)


def draw_losses(rows: Sequence[Report], path: Path) -> None:
    """A PNG of both losses over samples; raises StorageError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([r.samples for r in rows], [r.smooth for r in rows], label="training, moving average", color="0.5")
    measured = [(r.samples, r.held_out) for r in rows if r.held_out is not None]
    axes.plot([s for s, _ in measured], [h for _, h in measured], "o-", label="held out, averaged weights")
    finite = sorted(v for r in rows for v in (r.smooth, r.held_out) if v is not None and math.isfinite(v))
    if finite and finite[0] < finite[-1]:
        axes.set_ylim(finite[0] * 0.95, finite[int(0.99 * (len(finite) - 1))] * 1.05)
    axes.set(xlabel="samples", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path, ".png") as part:
        figure.savefig(part, dpi=120)
