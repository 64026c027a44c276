"""`reelcolor verify`: the comparison of a source with its output, as a document and in words."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from jobs.kinds import kind_of
from pipeline.errors import InputError
from pipeline.frames import Source
from pipeline.storage import is_folder, is_local, place


def prove(source: str, output: str) -> dict[str, Any]:
    """Decode and compare; raises InputError where either cannot be read as a video, or is pictures."""
    from pipeline.verify import verify_reel

    where = place(output)
    if is_folder(where) if isinstance(where, Path) else where.is_dir():
        raise InputError(f"{output}: is a folder, expected a video that reelcolor wrote")
    video = _source(source, output)
    for url in (source, output) if video.format is None else (output,):
        _expect_video(url)
    found = verify_reel(video, output)
    return {"source": source, "output": output, **dataclasses.asdict(found)}


def _expect_video(url: str) -> None:
    """InputError for an archive or an image: FFmpeg would take the first JPEG in it for a film."""
    from pipeline.archives import album_kind

    if kind_of(place(url).name) != "video" and (kind := album_kind(url)):
        what = "an image" if kind == "image" else f"an archive of images ({kind})"
        raise InputError(f"{url}: is {what}, expected a video; pictures are checked when they are written")


def _source(source: str, output: str) -> Source:
    """The source as a video; a numbered scan runs at the output's rate."""
    from pipeline.probe import probe, scan_source

    place(source)  # refused where it holds credentials
    path = Path(source)
    if is_local(source) and (is_folder(path) or ("%" in path.name and not os.path.lexists(path))):
        return scan_source(source, probe(Source(output)).fps)
    return Source(source)


def in_words(proof: dict[str, Any]) -> str:
    """The proof for reading."""
    lines = [f"{proof['frames']} frames, {proof['streams']} streams"]
    if proof["exact"]:
        lines += ["luma: bit for bit the source's", f"  SHA-256 {proof['source_sha256']}"]
    else:
        lines += [f"luma: PSNR-Y {proof['psnr_mean']:.2f} dB on average, {proof['psnr_min']:.2f} dB at least"]
    lines += [f"note: {w}" for w in proof["warnings"]]
    lines += [f"PROBLEM: {p}" for p in proof["problems"]]
    return "\n".join([*lines, "not as promised" if proof["problems"] else "as promised"])
