"""Numbered scans: a folder of images, or a pattern such as frames/%06d.dpx, as one video."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

from pipeline.errors import InputError
from pipeline.frames import Source
from pipeline.storage import is_folder, is_local, local_path

IMAGE_SUFFIXES = (
    *(".bmp", ".cin", ".dpx", ".exr", ".j2c", ".j2k", ".jp2", ".jpeg", ".jpg", ".pam", ".pbm", ".pgm", ".png", ".pnm"),
    *(".ppm", ".sgi", ".tga", ".tif", ".tiff", ".webp"),
)
_LARGEST = 2**31 - 1  # of the numbers that the image2 demuxer counts in
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)  # the last number of a name


def scan_source(pattern_or_folder: str, fps: Fraction) -> Source:
    """The numbered images of a folder, or those a pattern names, as a video of `fps` pictures a second.

    In a pattern, `%06d` or `%d` stands for the number and `%%` for a percent sign. Raises InputError where there are no
    images, where they are of several kinds, or where a number is missing.
    """
    if not is_local(pattern_or_folder):
        raise InputError(f"{pattern_or_folder}: numbered scans are read from a local folder only; copy them first")
    path = local_path(pattern_or_folder)
    pattern = _folder_pattern(path) if is_folder(path) else str(path)
    files = _matching(pattern)
    if not files:
        raise InputError(
            f"{pattern_or_folder}: no image has such a name; check the folder and the digits in the pattern"
        )
    numbers = sorted(files)
    if numbers[-1] > _LARGEST:
        raise InputError(f"{files[numbers[-1]]}: its number is above {_LARGEST}; rename the images, counting from 1")
    gap = next((a + 1 for a, b in itertools.pairwise(numbers) if b != a + 1), None)
    if gap is not None:
        before, width, after = _split(pattern)
        missing = files[numbers[0]].with_name(f"{before}{gap:0{width}d}{after}")
        raise InputError(f"{missing}: is missing from the scan; add it or renumber the images after it")
    rate = f"{fps.numerator}/{fps.denominator}"
    options = (("framerate", rate), ("pattern_type", "sequence"), ("start_number", str(numbers[0])))
    return Source(pattern, "image2", options)


def scan_files(source: Source) -> list[Path]:
    """The images of a scan in order, as `scan_source` found them."""
    files = _matching(str(local_path(source.url)))
    first = int(dict(source.options).get("start_number", min(files, default=0)))
    count = next(n for n in range(len(files) + 1) if first + n not in files)
    return [files[first + n] for n in range(count)]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as e:
        why = "no such folder" if isinstance(e, FileNotFoundError) else f"cannot be listed: {e.strerror}"
        raise InputError(f"{folder}: {why}") from e


def _folder_pattern(folder: Path) -> str:
    """The pattern that the images in `folder` follow."""
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in _listed(folder):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        match = _NUMBERED.fullmatch(path.stem)
        if match is None:
            raise InputError(f"{path}: has no number in its name; rename the images as 000001{path.suffix} and so on")
        kinds[match[1], match[3] + path.suffix].append(match[2])
    if not kinds:
        raise InputError(f"{folder}: holds no images; expected numbered {', '.join(IMAGE_SUFFIXES)}")
    if len(kinds) > 1:
        names = ", ".join(sorted(f"{a}…{b}" for a, b in kinds)[:4])
        raise InputError(
            f"{folder}: holds more than one series of images ({names}); pass one as a pattern, name%06d.dpx"
        )
    ((before, after), digits), *_ = kinds.items()
    padded = any(d.startswith("0") and d != "0" for d in digits)
    width = f"0{min(map(len, digits))}" if padded else ""
    return f"{_escape(str(folder))}/{_escape(before)}%{width}d{_escape(after)}"


def _matching(pattern: str) -> dict[int, Path]:
    """Number → file, of the files that `pattern` names."""
    parent = str(Path(pattern).parent)
    if "%" in parent.replace("%%", ""):
        raise InputError(f"{pattern}: a folder's name stands as it is, but for %; write %% in its place")
    folder = Path(_unescape(parent))
    before, width, after = _split(pattern)
    regex = re.compile(re.escape(before) + r"(\d+)" + re.escape(after), re.DOTALL)
    found = ((regex.fullmatch(path.name), path) for path in _listed(folder))
    return {int(m[1]): path for m, path in found if m and m[1] == f"{int(m[1]):0{width}d}"}


def _split(pattern: str) -> tuple[str, int, str]:
    """(what stands before the number, its least digits, what stands after) in a pattern's file name."""
    parts = re.split(r"(%%|%0?\d*d)", Path(pattern).name)
    places = [i for i in range(1, len(parts), 2) if parts[i] != "%%"]
    if len(places) != 1:
        raise InputError(f"{pattern}: expected a folder, or one %06d or %d in the file name for the number")
    at = places[0]
    return _unescape("".join(parts[:at])), int(parts[at][1:-1] or 1), _unescape("".join(parts[at + 1 :]))


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _unescape(text: str) -> str:
    return text.replace("%%", "%")
