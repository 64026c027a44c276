"""Albums in, albums out: the images of an archive or a folder, a segment of them at a time.

read_members ─► open_image ─► Canvas ─► colorizer ─► Canvas.colour ─► ImageFile.write ─► segment file
   bytes          headers      L* at the    ab          RGB at the       same format       bytes by ordinal
                               network size             source's L*
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from pipeline.album_bind import AssembledAlbum, MemberError, assemble_album
from pipeline.album_store import MemberResult, StoreWriter
from pipeline.archives import list_members, read_members
from pipeline.errors import InputError
from pipeline.frames import Look, Segment, SegmentFile
from pipeline.images import guarded, open_image
from pipeline.infer import Colorizer
from pipeline.limits import Limits
from pipeline.members import Album, Member
from pipeline.pictures import ImageFile, Picture
from pipeline.rendering import Canvas
from pipeline.storage import Place, hashed, local_file

__all__ = ["AssembledAlbum", "MemberError", "assemble_album", "colorize_images", "cut_album", "list_members"]

_SEGMENT_BYTES = 512 << 20
# A compressed tar is read from its beginning for every segment; more segments than this cost more than they spread.
_COMPRESSED_SEGMENTS = 16
_WINDOW_WEIGHT = 1 << 25  # in memory at a time, but for a single larger page
_WINDOW_PAGES = 64
_BATCH = 16
_THREADS = 2  # as a worker has processors; more wait for the interpreter lock longer than they work


def cut_album(album: Album, target_members: int = 256) -> tuple[Segment, ...]:
    """Runs of members, `target_members` images or half a gigabyte of them each; start and end are ordinals.

    `Segment.frames` counts the images to colour. Every ordinal is in one segment. A function of the album alone.
    """
    most_bytes = _SEGMENT_BYTES
    if album.kind in ("tar.gz", "tar.bz2", "tar.xz"):
        total = sum(member.size for member in album.members if member.colourable)
        target_members = max(target_members, -(-album.images // _COMPRESSED_SEGMENTS))
        most_bytes = max(most_bytes, -(-total // _COMPRESSED_SEGMENTS))
    segments: list[Segment] = []
    start = images = size = 0
    for member in album.members:
        if member.colourable:
            if images and (images == target_members or size + member.size > most_bytes):
                segments.append(Segment(len(segments), start, member.ordinal, frames=images))
                start, images, size = member.ordinal, 0, 0
            images += 1
            size += member.size
    if album.members:
        segments.append(Segment(len(segments), start, album.members[-1].ordinal + 1, frames=images))
    return tuple(segments)


def colorize_images(
    album: Album,
    segment: Segment,
    colorizer: Colorizer,
    look: Look,
    limits: Limits,
    out: Place,
    progress: Callable[[int], None] | None = None,
) -> SegmentFile:
    """Colour the images of `segment` and write the finished files to `out`; `progress` hears of images done.

    album: the whole, or `album.part(segment)`. A member that fails is noted and the others go on: `pts` are the
    ordinals of those that did not fail, `frames` their number, `metrics["failed"]` the number of those that did.
    Raises only for what is not a member's fault: the archive as a whole, the engine, the disk.
    """
    with local_file(out) as file:
        with StoreWriter(file) as store, ThreadPoolExecutor(_THREADS) as pool:
            painter = _Painter(store, pool, colorizer, look, progress or (lambda _: None))
            for window in _windows(painter.open(read_members(album.part(segment), limits), limits)):
                painter.paint(window)
        sha256, size = hashed(file)
    done = tuple(result.ordinal for result in store.results if result.state != "failed")
    return SegmentFile(
        path=str(out),
        frames=len(done),
        pts=done,
        sha256=sha256,
        bytes=size,
        luma_sha256=painter.luma.hexdigest(),
        gamut_pulled=painter.gamut_pulled,
        passed_through=sum(result.state == "kept" for result in store.results),
        metrics={"failed": float(len(store.results) - len(done))},
    )


@dataclass
class _Work:
    """One image on its way through; its pages may be spread over several windows."""

    member: Member
    image: ImageFile
    error: str = ""
    coloured: int = 0
    pulled: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class _Page:
    work: _Work
    index: int
    picture: Picture | None = None
    canvas: Canvas | None = None
    lightness: NDArray[np.float32] | None = None  # None: in colour already
    ab: NDArray[np.float32] | None = None

    @property
    def weight(self) -> int:
        """Memory in units of a decoded pixel: the pixels, and the file that they come from."""
        width, height = self.work.image.sizes[self.index]
        return width * height + (self.work.member.size // 4 if self.index == 0 else 0)


class _Painter:
    """Takes windows of pages through decoding, inference and encoding; holds what a segment's result sums up."""

    def __init__(
        self, store: StoreWriter, pool: Executor, colorizer: Colorizer, look: Look, progress: Callable[[int], None]
    ) -> None:
        self._store, self._pool, self._colorizer, self._look, self._progress = store, pool, colorizer, look, progress
        self.luma = hashlib.sha256()
        self.gamut_pulled = 0

    def open(self, members: Iterable[tuple[Member, bytes | InputError]], limits: Limits) -> Iterator[_Page]:
        """The pages of all members that open; the others are noted as failed."""
        for member, data in members:
            try:
                if isinstance(data, InputError):
                    raise data
                work = _Work(member, open_image(data, limits))
            except InputError as e:
                self._done(MemberResult(member.ordinal, "failed", str(e)))
                continue
            yield from (_Page(work, index) for index in range(len(work.image.sizes)))

    def paint(self, window: list[_Page]) -> None:
        """Colour one window of pages; images whose last page is in it are finished."""
        for _ in self._pool.map(self._decode, window):
            pass
        for page in window:
            if page.canvas is not None:
                self.luma.update(page.canvas.grey.data)
        self._infer([page for page in window if page.lightness is not None])
        runs = [list(run) for _, run in groupby(window, key=lambda page: page.work.member.ordinal)]
        for run, data in zip(runs, self._pool.map(self._encode, runs), strict=True):
            if data is not None:
                self._finish(run[-1].work, data)

    def _decode(self, page: _Page) -> None:
        if page.work.error:
            return
        try:
            with guarded("decoded"):
                page.picture = page.work.image.read(page.index)
                page.canvas = Canvas(page.picture)
                if self._look.recolor or not page.canvas.in_colour:
                    page.lightness = page.canvas.network_input()
        except InputError as e:
            page.work.error = str(e)

    def _infer(self, pages: list[_Page]) -> None:
        """Find ab, in batches of equal size; a picture's result does not depend on its batch."""
        inputs = [(page, page.lightness) for page in pages if page.lightness is not None]
        inputs.sort(key=lambda item: item[1].shape)
        for _, group in groupby(inputs, key=lambda item: item[1].shape):
            alike = list(group)
            for first in range(0, len(alike), _BATCH):
                batch = alike[first : first + _BATCH]
                found = self._colorizer(np.stack([lightness for _, lightness in batch]))
                for (page, _), ab in zip(batch, found, strict=True):
                    page.ab = ab * np.float32(self._look.saturation)

    def _encode(self, run: list[_Page]) -> bytes | None:
        """Write a run of pages of one image; its bytes where the last page is among them."""
        work = run[0].work
        try:
            with guarded("coloured and written"):
                for page in run:
                    self._write(page)
                if run[-1].index + 1 < len(work.image.sizes):
                    return None
                return work.image.finish() if work.coloured and not work.error else b""
        except InputError as e:
            work.error = str(e)
            return b"" if run[-1].index + 1 == len(work.image.sizes) else None

    def _write(self, page: _Page) -> None:
        work = page.work
        if work.error or page.picture is None or page.canvas is None:
            return
        if page.ab is None:
            work.image.write(page.index, page.picture, page.picture.pixels)
            return
        rgb, pulled = page.canvas.colour(page.ab)
        work.image.write(page.index, page.picture, rgb)
        work.coloured += 1
        work.pulled += pulled
        work.notes += [note for note in page.picture.notes if note not in work.notes]

    def _finish(self, work: _Work, data: bytes) -> None:
        ordinal = work.member.ordinal
        if work.error:
            self._done(MemberResult(ordinal, "failed", work.error))
        elif not work.coloured:
            self._done(MemberResult(ordinal, "kept"))
        else:
            self.gamut_pulled += work.pulled
            sizes = tuple(work.image.sizes)
            self._done(MemberResult(ordinal, "coloured", "", sizes, len(data), tuple(work.notes)), data)

    def _done(self, result: MemberResult, data: bytes = b"") -> None:
        self._store.add(result, data)
        self._progress(1)


def _windows(pages: Iterable[_Page]) -> Iterator[list[_Page]]:
    """Runs of pages that fit in memory together."""
    window: list[_Page] = []
    weight = 0
    for page in pages:
        if window and (len(window) == _WINDOW_PAGES or weight + page.weight > _WINDOW_WEIGHT):
            yield window
            window, weight = [], 0
        window.append(page)
        weight += page.weight
    if window:
        yield window
