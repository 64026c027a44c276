"""What the data is: how many pictures of which source, what was left out and why, and which colours it has."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.sources import SourceConfig
from pipeline.color import rgb_to_lab
from pipeline.errors import InputError
from pipeline.storage import is_folder, replacing

_LIMIT = 112  # |a*| and |b*| of 8-bit sRGB stay below 108
_STEP = 2  # width of a histogram cell in a* and b*
_CELLS = 2 * _LIMIT // _STEP
_EVERY = 4  # pixels each way that the histogram looks at
_OUTLINE = 65  # points of an edge of the RGB cube


@dataclass(frozen=True)
class SourceReport:
    """One source's pictures: kept, of which `train` and `held_out` (a few may be in neither), and dropped by reason."""

    name: str
    pictures: int
    train: int
    held_out: int
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataReport:
    """Of all sources. histogram: (S, S) int64, pixels by a* (rows) and b* in cells of 2 from -112 on."""

    sources: tuple[SourceReport, ...]
    histogram: NDArray[np.int64]
    licences: tuple[dict[str, Any], ...] = ()

    def lines(self) -> list[str]:
        """For a terminal: a line for each source, then the whole where there are several."""
        rows = [_line(source) for source in self.sources]
        return rows if len(rows) == 1 else [*rows, _line(self.total)]

    @property
    def total(self) -> SourceReport:
        """All sources as one."""
        dropped = sum((Counter(source.dropped) for source in self.sources), Counter[str]())
        counts = np.array([(s.pictures, s.train, s.held_out) for s in self.sources])
        pictures, train, held = counts.sum(axis=0).tolist()
        return SourceReport("all", pictures, train, held, dict(sorted(dropped.items())))

    def to_json(self) -> dict[str, Any]:
        """Plain values: sources, total and licences."""
        rows = [vars(source) for source in self.sources]
        return {"sources": rows, "total": vars(self.total), "licences": list(self.licences)}

    def training_data(self) -> list[dict[str, Any]]:
        """For the model package: source, repository, licence and number of photographs of each."""
        return list(self.licences)

    def ab_histogram_png(self, path: Path) -> None:
        """Draw how much of the pictures has which colour, on a log scale, inside what 8-bit sRGB can show."""
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 5.4), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        share = self.histogram / max(1, self.histogram.sum())
        shown = np.ma.masked_equal(share, 0)
        norm = LogNorm(1e-7, max(1e-2, float(share.max())))
        mesh = axes.imshow(shown, norm=norm, origin="lower", extent=(-_LIMIT, _LIMIT, -_LIMIT, _LIMIT), cmap="viridis")
        outline = gamut_outline()
        axes.plot(outline[:, 1], outline[:, 0], color="0.4", linewidth=1)
        axes.set(xlabel="b* (blue – yellow)", ylabel="a* (green – red)")
        axes.set_title(f"{self.total.pictures} pictures, share of pixels by colour")
        figure.colorbar(mesh, ax=axes, label=f"share of pixels in a cell of {_STEP} × {_STEP}")
        with replacing(path) as part:
            figure.savefig(part, format="png")


def ab_counts(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The histogram (S, S) of one picture (h, w, 3), by a* and b*, over one pixel in 16."""
    ab = rgb_to_lab(rgb[::_EVERY, ::_EVERY].astype(np.float32) / 255)[..., 1:].reshape(-1, 2)
    a, b = np.clip((ab.T + _LIMIT) // _STEP, 0, _CELLS - 1).astype(np.int64)
    return np.bincount(a * _CELLS + b, minlength=_CELLS**2).reshape(_CELLS, _CELLS)


def licences(sources: Sequence[SourceConfig], names: Sequence[Sequence[str]]) -> tuple[dict[str, Any], ...]:
    """Photographs by source, repository and licence, given the names of the pictures kept of each.

    A MANIFEST.csv with columns file, source, licence and perhaps repository, in a folder or beside a file, tells of the
    pictures, and by what is before their @ of the videos, that it names; SourceConfig tells of the rest. Raises
    InputError where the file is no such table.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for config, kept in zip(sources, names, strict=True):
        told = _manifest(Path(config.path))
        default = (config.title, "", config.licence or "none stated")
        counts.update(told.get(Path(name).name.partition("@")[0], default) for name in kept)
    return tuple(
        {"source": source, "repository": repository, "licence": licence, "photographs": count}
        for (source, repository, licence), count in sorted(counts.items())
    )


def _manifest(path: Path) -> dict[str, tuple[str, str, str]]:
    found = (path if is_folder(path) else path.parent) / "MANIFEST.csv"
    if not found.is_file():
        return {}
    try:
        with found.open(newline="", encoding="utf-8") as f:
            rows = csv.DictReader(f)
            return {r["file"]: (r["source"], r.get("repository") or "", r["licence"] or "none stated") for r in rows}
    except (KeyError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(
            f"{found}: expected a table with columns file, source and licence; correct it or move it"
        ) from e


def _line(source: SourceReport) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in source.dropped.items())
    split = f"{source.train} to train on, {source.held_out} held out"
    if between := source.pictures - source.train - source.held_out:
        split += f", {between} between them in neither"
    return f"{source.name}: {source.pictures} pictures ({split}){f'; left out {dropped}' if dropped else ''}"


def gamut_outline() -> NDArray[np.float64]:
    """(M, 2) ab around all that 8-bit sRGB can show: the edges of the RGB cube from red by yellow, green … to red."""
    corners = np.array([(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0)], np.float64)
    share = np.linspace(0, 1, _OUTLINE)[:, None]
    edges = [first + (second - first) * share for first, second in itertools.pairwise(corners)]
    return np.asarray(rgb_to_lab(np.concatenate(edges))[:, 1:], np.float64)
