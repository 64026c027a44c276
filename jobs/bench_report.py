"""What a bench found: as a table for the terminal, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.storage import replacing

_OURS, _OTHER = "tab:blue", "0.75"  # colours


def in_words(document: dict[str, Any]) -> str:
    """For reading."""
    machine = document["machine"]
    asked, took = document["request"]["seconds"], document["seconds"]
    lines = [f"{machine['gpu'] or machine['cpu']}, {machine['processors']} processors; {took:.0f} s of {asked:.0f} s"]
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
        rows.append((_name(e), str(e["batch"]), f"{e['fps']:.1f}", *shares))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{model['name']} at {model['size']}², {model['gflop']:.2f} GFLOP a frame, on the {document['device']}",
        f"{_times(document['rounds'])}, after {model['ready']:.0f} s of making ready",
        f"limits: {rates} GFLOP/s of matrix product, {limits['copy_gb_per_s']:.1f} GB/s of copying",
        *("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
    if opencv := document["opencv_dnn"]:
        lines.append(
            f"  OpenCV DNN {opencv['fps']:.2f} frames/s; the fp32 engine {opencv['engine_over_it']:.1f} times it"
        )
    return [*lines, *(f"  left out: {reason}" for reason in document["left_out"])]


def _name(engine: dict[str, Any]) -> str:
    return f"{engine['engine']} {engine['precision']}".strip()


def _video_lines(video: dict[str, Any]) -> list[str]:
    film = video["film"]
    return [
        f"{film['frames']} frames of {film['width']}×{film['height']} H.264, model {video['model']}, frames/s",
        f"{_times(video['rounds'])}",
        *(f"  {name.ljust(9)}  {video[f'{name}_fps']:.1f}" for name in ("decode", "encode", "transcode", "colorize")),
        f"  colorizing takes {video['ratio']:.2f} times the plain transcode",
    ]


def _times(rounds: int) -> str:
    return f"median of {rounds} rounds" if rounds > 1 else "one round"


def draw(document: dict[str, Any], path: Path) -> None:
    """A PNG of the same; raises StorageError."""
    from matplotlib.figure import Figure

    parts = [part for part in ("engines", "video") if part in document]
    rows = len(document.get("engines", ())) + bool(document.get("opencv_dnn"))
    figure = Figure(figsize=(6.5 * len(parts), max(4.5, 0.45 * rows + 1.2)), layout="constrained")
    for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        (_draw_engines if part == "engines" else _draw_video)(axes, document)
        axes.spines[["top", "right"]].set_visible(False)
    machine = document["machine"]
    figure.suptitle(machine["gpu"] or f"{machine['cpu']}, {machine['processors']} processors", fontsize=11)
    with replacing(path, ".png") as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_engines(axes: Any, document: dict[str, Any]) -> None:
    """Frames a second of engine, bare loop and OpenCV, with the engine's share of the limit."""
    engines, model = document["engines"], document["model"]
    names = [f"{_name(e)} × {e['batch']}" for e in engines]
    places = range(len(engines))
    ours = axes.barh([y - 0.2 for y in places], [e["fps"] for e in engines], 0.38, label="engine", color=_OURS)
    bare = axes.barh([y + 0.2 for y in places], [e["bare_fps"] for e in engines], 0.38, label="bare loop", color=_OTHER)
    axes.bar_label(ours, [f"{_rate(e['fps'])} ({e['of_limit']:.0%})" for e in engines], fontsize=8, padding=2)
    axes.bar_label(bare, [_rate(e["bare_fps"]) for e in engines], fontsize=8, padding=2, color="0.4")
    if opencv := document["opencv_dnn"]:
        names.append("OpenCV DNN × 1")
        theirs = axes.barh(len(engines), opencv["fps"], 0.38, color=_OTHER)
        axes.bar_label(theirs, [_rate(opencv["fps"])], fontsize=8, padding=2, color="0.4")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.18)
    axes.set_xlabel("frames a second")
    axes.set_title(f"{model['name']} at {model['size']}² (percent: of a matrix product's rate)", fontsize=10)
    axes.legend(fontsize=9, frameon=False, loc="best")


def _draw_video(axes: Any, document: dict[str, Any]) -> None:
    video = document["video"]
    names = ["decode", "encode", "transcode", "colorize"]
    colours = [_OTHER, _OTHER, _OTHER, _OURS]
    bars = axes.bar(names, [video[f"{name}_fps"] for name in names], 0.6, color=colours)
    axes.bar_label(bars, [_rate(video[f"{name}_fps"]) for name in names], fontsize=9, padding=2)
    axes.tick_params(axis="x", length=0)
    axes.margins(y=0.15)
    axes.set_ylabel("frames a second")
    size = f"{video['film']['width']}×{video['film']['height']}"
    axes.set_title(f"{size} H.264: colorizing takes {video['ratio']:.2f} × a plain transcode", fontsize=10)


def _rate(frames_per_second: float) -> str:
    return f"{frames_per_second:,.0f}" if frames_per_second >= 100 else f"{frames_per_second:.3g}"
