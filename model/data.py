"""Pictures for training: found, screened and decoded once into a memory-mapped file, drawn from there."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from model.data_report import DataReport, SourceReport, ab_counts, licences
from model.screen import Screening, Seen, fault, perceptual_hash, without_bars
from model.sources import Found, SourceConfig, file_identity, pictures_of, source_files
from model.split import split
from pipeline.errors import InputError
from pipeline.storage import replacing

SHORT_EDGE = 160  # pixels that photographs are reduced to
SCREENING = Screening()
_VERSION = 1  # of what is kept in the cache; raised whenever the same sources would give other pictures
_AHEAD = 64  # pictures decoded ahead
_THREADS = 8

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Photos:
    """Decoded photographs, one behind the other in one flat array.

    pixels: (bytes,) uint8, sRGB, usually a memory map. names, sizes (N, 2) as (h, w), offsets (N,) into `pixels`.
    groups: (N) what stays on one side of the split. folders: (N) names of the folders that directly hold them, "" for
    none. origins: (N,) index of each one's source. report: how all this came about.
    """

    pixels: NDArray[np.uint8]
    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    groups: tuple[str, ...]
    folders: tuple[str, ...]
    origins: NDArray[np.int64]
    sources: tuple[SourceConfig, ...]
    report: DataReport

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """(h, w, 3) sRGB."""
        (h, w), start = self.sizes[index], self.offsets[index]
        return self.pixels[start : start + h * w * 3].reshape(h, w, 3)

    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of the photographs to train on, and of those held out: see `model.split`."""
        return split(self.groups, self.origins)

    def sampling_probabilities(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """How likely each of these is to be drawn, summing to 1: by the weight of its source."""
        weights = np.array([source.weight for source in self.sources])[self.origins[indices]]
        return np.asarray(weights / weights.sum(), np.float64)


def in_memory(
    pictures: Sequence[NDArray[np.uint8]], names: Sequence[str] | None = None, groups: Sequence[str] | None = None
) -> Photos:
    """Photos of pictures (h, w, 3) that are at hand; names by default 0.png, 1.png …, groups the names."""
    names = tuple(names or (f"{i}.png" for i in range(len(pictures))))
    entries = [
        {"name": name, "group": group, "folder": "", "origin": 0, "size": list(picture.shape[:2])}
        for name, group, picture in zip(names, groups or names, pictures, strict=True)
    ]
    histogram = sum((ab_counts(picture) for picture in pictures), np.zeros_like(ab_counts(pictures[0])))
    pixels = np.concatenate([picture.ravel() for picture in pictures])
    return _photos(pixels, entries, (SourceConfig("memory"),), [Counter()], histogram)


def open_photos(
    sources: Sequence[SourceConfig],
    cache: Path,
    short_edge: int = SHORT_EDGE,
    screening: Screening | None = SCREENING,
) -> Photos:
    """The pictures of these sources, decoded, screened (not at all if None) and reduced, memory-mapped from `cache`.

    They are put there on first use, and again when a source, the size or the screening changes. Raises InputError for
    a source that cannot be read, no pictures, none left after screening, and fewer than two.
    """
    files = [(origin, file) for origin, source in enumerate(sources) for file in source_files(source)]
    identity = [[origin, sources[origin].split, file_identity(file)] for origin, file in files]
    wanted = [_VERSION, short_edge, asdict(screening) if screening else None, identity]
    key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:12]
    index, flat = cache / f"photos-{key}.json", cache / f"photos-{key}.rgb"
    if not (index.exists() and flat.exists()):
        found = ((origin, item) for origin, file in files for item in pictures_of(file, sources[origin]))
        with replacing(flat) as part:
            made = _decode_all(found, part, short_edge, screening)
            _check_enough(sources, made)
        with replacing(index) as part:
            part.write_text(json.dumps(made))
    made = json.loads(index.read_text())
    dropped = [Counter(reason for o, reason, _ in made["dropped"] if o == origin) for origin in range(len(sources))]
    pixels = np.memmap(flat, np.uint8, mode="r")
    return _photos(pixels, made["pictures"], tuple(sources), dropped, np.array(made["histogram"], np.int64))


def _photos(
    pixels: NDArray[np.uint8],
    entries: Sequence[dict[str, Any]],
    sources: tuple[SourceConfig, ...],
    dropped: Sequence[Counter[str]],
    histogram: NDArray[np.int64],
) -> Photos:
    names, groups, folders = (tuple(entry[key] for entry in entries) for key in ("name", "group", "folder"))
    sizes = np.array([entry["size"] for entry in entries], np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes.prod(1) * 3)[:-1]])
    origins = np.array([entry["origin"] for entry in entries], np.int64)
    kept = [[names[k] for k in np.flatnonzero(origins == i)] for i in range(len(sources))]
    parts = [np.bincount(origins[part], minlength=len(sources)).tolist() for part in split(groups, origins)]
    rows = [
        SourceReport(source.title, len(own), train, held, dict(sorted(why.items())))
        for source, own, train, held, why in zip(sources, kept, *parts, dropped, strict=True)
    ]
    report = DataReport(tuple(rows), histogram, licences(sources, kept))
    return Photos(pixels, names, sizes, offsets, groups, folders, origins, sources, report)


def _check_enough(sources: Sequence[SourceConfig], made: dict[str, Any]) -> None:
    where = ", ".join(source.path for source in sources)
    kept, dropped = len(made["pictures"]), Counter(reason for _, reason, _ in made["dropped"])
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    if not kept and not dropped:
        raise InputError(f"{where}: no pictures inside; give images, archives of images, or colour video")
    if not kept:
        raise InputError(
            f"{where}: none of its {dropped.total()} pictures can be trained on ({reasons}); add colour ones"
        )
    if kept < 2:
        left_out = f" ({reasons} left out)" if reasons else ""
        raise InputError(
            f"{where}: one picture is too few{left_out}; at least 2 are needed, one to train on and one to hold out, "
            "and some hundreds to learn from"
        )


def _decode_all(
    found: Iterable[tuple[int, Found | InputError]], destination: Path, short_edge: int, screening: Screening | None
) -> dict[str, Any]:
    """Write the pictures' pixels to a file; returns what is told of them, of those dropped, and their histogram."""
    pictures: list[dict[str, Any]] = []
    dropped: list[tuple[int, str, str]] = []
    histogram = np.zeros((0, 0), np.int64)
    seen = Seen(screening) if screening else None
    videos: dict[str, int] = {}

    def prepared(item: tuple[int, Found | InputError]) -> _Prepared:
        return _prepare(*item, short_edge, screening)

    with destination.open("wb") as out:
        for each in _in_order(prepared, found):
            video = videos.setdefault(each.video, len(videos)) if each.video else -1
            reason = each.fault or ("near-duplicate" if seen and seen.repeats(each.hash, video) else None)
            if reason or each.rgb is None:
                dropped.append((each.entry["origin"], reason or "unreadable", each.entry["name"]))
                continue
            pictures.append(each.entry | {"size": list(each.rgb.shape[:2])})
            out.write(each.rgb.tobytes())
            counts = ab_counts(each.rgb)
            histogram = histogram + counts if histogram.size else counts
    return {"pictures": pictures, "dropped": dropped, "histogram": histogram.tolist()}


@dataclass(frozen=True)
class _Prepared:
    entry: dict[str, Any]
    video: str
    fault: str | None
    hash: int = 0
    rgb: NDArray[np.uint8] | None = None


def _prepare(origin: int, item: Found | InputError, short_edge: int, screening: Screening | None) -> _Prepared:
    if isinstance(item, InputError):
        return _Prepared({"origin": origin, "name": str(item)}, "", "unreadable")
    entry = {"origin": origin, "name": item.name, "group": item.group, "folder": item.folder}
    try:
        whole = item.load()
    except InputError:
        return _Prepared(entry, item.video, "unreadable")
    rgb = np.ascontiguousarray(reduced(without_bars(whole) if screening else whole, short_edge))
    reason = fault(rgb, screening) if screening else None
    return _Prepared(entry, item.video, reason, 0 if reason else perceptual_hash(rgb), rgb)


def reduced(picture: NDArray[np.uint8], short_edge: int) -> NDArray[np.uint8]:
    """(h, w, 3) with a short edge of at most so many pixels; a smaller picture as it is."""
    h, w = picture.shape[:2]
    scale = short_edge / min(h, w)
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, (round(w * scale), round(h * scale)), interpolation=cv2.INTER_AREA), np.uint8)


def _in_order(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """map() on threads, a bounded number of items ahead."""
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(_THREADS, "decode") as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
