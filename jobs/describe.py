"""`reelcolor probe`: what an input is, as a document and in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from jobs.apart import Apart
from jobs.failures import failure
from jobs.inputs import Item, find_inputs
from jobs.recipe import Recipe
from jobs.records import plain
from jobs.text import named, size
from pipeline.frames import FrameBatch, Source, StreamInfo

_LOOKS = 8  # pictures in which colour is looked for, spread over the reel


def describe_all(arguments: tuple[str, ...], fps: Fraction | None, debug: bool = False) -> list[dict[str, Any]]:
    """One description an input; `error` where it cannot be read."""
    found = find_inputs(arguments, Path("/nonexistent"), fps is not None)
    with Apart(debug) as apart:
        described = [_described(apart, item, fps) for item in found.items]
    return described + [{"input": path, "error": f"{path}: {reason}"} for path, reason in found.refused]


def _described(apart: Apart, item: Item, fps: Fraction | None) -> dict[str, Any]:
    try:
        return apart.call(item.path, describe, item, fps)
    except Exception as e:  # one file never stops the others
        return {"input": item.path, "error": failure(e, item.path).message}


def describe(item: Item, fps: Fraction | None = None) -> dict[str, Any]:
    """What one input is; raises InputError or StorageError where it cannot be read."""
    from pipeline.archives import album_kind, list_members

    if item.kind == "album" or (not item.certain and album_kind(item.path) is not None):
        album = list_members(item.path, files=item.files or None)
        problems = [*album.errors, *(f"{m.name}: {m.problem}" for m in album.members if m.problem)]
        counts = {"members": len(album.members), "images": album.images, "bytes": album.bytes}
        return {"input": item.path, "kind": album.kind, **counts, "problems": problems, "error": None}
    return _video(item, fps)


def _video(item: Item, fps: Fraction | None) -> dict[str, Any]:
    from pipeline.probe import other_streams, probe, scan_source

    source = scan_source(item.path, fps or Recipe.scan_fps) if item.kind == "scan" else Source(item.path)
    info = probe(source, fps)
    color = info.color
    return {
        "input": item.path,
        "kind": item.kind,
        "container": info.container,
        "codec": info.codec,
        "width": info.width,
        "height": info.height,
        "sar": str(info.sar),
        "rotation": info.rotation,
        "mirrored": info.mirrored,
        "pix_fmt": info.pix_fmt,
        "bit_depth": info.bit_depth,
        "fps": str(info.fps),
        "vfr": info.vfr,
        "frames": info.frames,
        "seconds": round(info.seconds, 3),
        "timestamps": info.timestamps,
        "field_order": info.field_order,
        "matrix": color.matrix,
        "range": "full" if color.full_range else "limited",
        "transfer": color.transfer,
        "primaries": color.primaries,
        "assumed": list(color.assumed),
        "in_colour": _in_colour(info),
        "streams": plain(other_streams(info.source)),
        "warnings": list(info.warnings),
        "error": None,
    }


def _in_colour(info: StreamInfo) -> str:
    """Whether pictures spread over the reel have real colour: "no", "yes", or "in parts"."""
    from pipeline.quality import has_real_colour

    answers = []
    for batch in _samples(info):
        cb, cr = batch.chroma or (None, None)
        found = cb is not None and cr is not None and has_real_colour(batch.luma[0], cb[0], cr[0], info.bit_depth)
        answers.append(found)
    return "yes" if answers and all(answers) else "in parts" if any(answers) else "no"


def _samples(info: StreamInfo) -> Iterator[FrameBatch]:
    """Batches whose first picture is to be looked at."""
    from pipeline.decode import decode_segment
    from pipeline.segments import cut_segments

    if info.subsampling is None:
        return
    for segment in cut_segments(info.source, info, max(1.0, info.seconds / _LOOKS), 0):
        start = info.start_pts if segment.start is None else segment.start
        for end in (start + 1, segment.end):  # one picture, unless there is none at that time
            batch = next(decode_segment(info.source, info, dataclasses.replace(segment, end=end), 0), None)
            if batch is not None:
                yield batch
                break


def in_words(d: dict[str, Any]) -> str:
    """A description for reading."""
    name = named(d["input"])
    if d["error"]:
        return f"{name}: {named(str(d['error']).removeprefix(d['input'] + ': '))}"
    if "members" in d:
        what = f"{d['kind']}, {d['images']} images of {d['members']} members, {size(d['bytes'])}"
        return "\n".join([f"{name}: {what}", *(f"  problem: {named(p)}" for p in d["problems"])])
    rate = f"{float(Fraction(d['fps'])):.3f}".rstrip("0").rstrip(".")
    lines = [
        f"{name}: {d['codec']} in {d['container']}, {d['width']}×{d['height']}"
        + (f", pixel aspect {d['sar']}" if d["sar"] != "1" else "")
        + (f", rotated {d['rotation']}°" if d["rotation"] else "")
        + (", mirrored" if d["mirrored"] else ""),
        f"  {d['frames']} frames, {rate} fps{' on average (variable)' if d['vfr'] else ''}, {d['seconds']:.2f} s"
        + ("" if d["timestamps"] else ", no timestamps in the file"),
        f"  {d['pix_fmt']}, {d['bit_depth']} bit, {_told(d, 'range')} range, matrix {_told(d, 'matrix')}, "
        + ("progressive" if d["field_order"] == "progressive" else f"interlaced ({d['field_order']})"),
        f"  in colour already: {d['in_colour']}",
    ]
    for stream in d["streams"]:
        words = (stream["type"], stream["codec"], stream["language"], stream["title"])
        lines.append(f"  stream {stream['index']}: {' '.join(filter(None, words))}")
    return "\n".join([*lines, *(f"  note: {w}" for w in d["warnings"])])


def _told(d: dict[str, Any], key: str) -> str:
    return f"{d[key]} ({'assumed' if key in d['assumed'] else 'tagged'})"
