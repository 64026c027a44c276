"""What a bench found: as a table for the terminal, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.storage import replacing


def in_words(document: dict[str, Any]) -> str:
    """For reading."""
    machine = document["machine"]
    lines = [f"{machine['gpu'] or machine['cpu']}, {machine['processors']} processors"]
    if "engines" in document:
        lines += ["", *_engine_lines(document)]
    if "video" in document:
        lines += ["", *_video_lines(document["video"])]
    return "\n".join(lines)


def _engine_lines(document: dict[str, Any]) -> list[str]:
    model, limits = document["model"], document["limits"]
    rates = ", ".join(f"{precision} {rate:.0f}" for precision, rate in limits["gflops"].items())
    rows = [("precision", "batch", "frames/s", "of the limit", "of a bare loop", "of fp32")]
    for e in document["engines"]:
        of_fp32 = f"{e['of_fp32']:.2f}" if e["of_fp32"] else ""
        shares = (f"{e['of_limit']:.0%}", f"{e['of_bare']:.2f}", of_fp32)
        rows.append((e["precision"], str(e["batch"]), f"{e['fps']:.1f}", *shares))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{model['name']} at {model['size']}², {model['gflop']:.2f} GFLOP a frame, on the {document['device']}",
        f"limits: {rates} GFLOP/s of matrix product, {limits['copy_gb_per_s']:.1f} GB/s of copying",
        *("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
    if opencv := document["opencv_dnn"]:
        lines.append(
            f"  OpenCV DNN {opencv['fps']:.2f} frames/s; the fp32 engine {opencv['engine_over_it']:.1f} times it"
        )
    return [*lines, *(f"  left out: {reason}" for reason in document["left_out"])]


def _video_lines(video: dict[str, Any]) -> list[str]:
    film = video["film"]
    return [
        f"{film['frames']} frames of {film['width']}×{film['height']} H.264, model {video['model']}, frames/s",
        *(f"  {name.ljust(9)}  {video[f'{name}_fps']:.1f}" for name in ("decode", "encode", "transcode", "colorize")),
        f"  colorizing takes {video['ratio']:.2f} times the plain transcode",
    ]


def draw(document: dict[str, Any], path: Path) -> None:
    """A PNG of the same; raises StorageError."""
    from matplotlib.figure import Figure

    parts = [part for part in ("engines", "video") if part in document]
    figure = Figure(figsize=(6 * len(parts), 4.5), layout="constrained")
    for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        (_draw_engines if part == "engines" else _draw_video)(axes, document)
    machine = document["machine"]
    figure.suptitle(machine["gpu"] or f"{machine['cpu']}, {machine['processors']} processors", fontsize=10)
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_engines(axes: Any, document: dict[str, Any]) -> None:
    """Frames a second of engine and bare loop, with the engine's share of the limit."""
    engines, model = document["engines"], document["model"]
    places = range(len(engines))
    bars = axes.bar([x - 0.2 for x in places], [e["fps"] for e in engines], 0.4, label="engine")
    axes.bar([x + 0.2 for x in places], [e["bare_fps"] for e in engines], 0.4, label="bare loop", color="0.75")
    axes.bar_label(bars, [f"{e['of_limit']:.0%}" for e in engines], fontsize=8)
    axes.set_xticks(places, [f"{e['precision']}\nbatch {e['batch']}" for e in engines], fontsize=8)
    axes.set(title=f"{model['name']}, {model['size']}²; percent: of the matrix product's rate", ylabel="frames/s")
    axes.title.set_fontsize(9)
    axes.legend(fontsize=8)


def _draw_video(axes: Any, document: dict[str, Any]) -> None:
    video = document["video"]
    names = ["decode", "encode", "transcode", "colorize"]
    bars = axes.bar(names, [video[f"{name}_fps"] for name in names])
    axes.bar_label(bars, fmt="%.1f", fontsize=8)
    film = video["film"]
    axes.set(
        title=f"{film['width']}×{film['height']}; colorizing is {video['ratio']:.2f} × transcode", ylabel="frames/s"
    )
    axes.title.set_fontsize(9)
