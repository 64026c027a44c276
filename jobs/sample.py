"""Three short shots of a reel, really decoded, coloured and encoded: what a picture of it costs on this machine.

Runs in a process apart (`apart.py`), which holds the engine. What is read depends on the reel alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jobs.reels import AlbumReel, Reel, VideoReel
from jobs.worker import IN_FLIGHT, Opener
from pipeline.errors import InputError
from pipeline.frames import Segment

if TYPE_CHECKING:
    from pipeline.infer import Colorizer

T = TypeVar("T")
SHOTS = 3
# Of a shot. Bytes are counted of its first half: an encoder that looks ahead spends a quarter less on the last second.
_VIDEO_SECONDS = 2.0
_IMAGES = 8  # of a shot


@dataclass(frozen=True)
class Shot:
    """A stretch of a reel, measured. Seconds are a worker's, with another shot in flight beside this one.

    The lead is what every segment costs anew: its warm-up, its encoder, its first picture; a `frame` comes on top.
    """

    start: int | None  # as of a Segment
    frames: int
    lead_seconds: float
    frame_seconds: float
    lead_bytes: float
    frame_bytes: float
    source_bytes: int = 0  # of an album's images, as they were before

    @property
    def bytes(self) -> float:
        """Of all its pictures."""
        return self.lead_bytes + self.frame_bytes * (self.frames - 1)


@dataclass(frozen=True)
class Sample:
    """A reel's shots. `processors`: how many a worker kept busy; `copied_bytes`: what goes to the output as it is."""

    engine: str
    shots: tuple[Shot, ...]
    processors: float
    copied_bytes: int


_held: list[tuple[AbstractContextManager[Colorizer], Colorizer]] = []  # open until this process ends


def hold_engine(opener: Opener) -> Colorizer:
    """This process's engine, opened by the first call; raises EngineError."""
    if not _held:
        context = opener()
        _held.append((context, context.__enter__()))
    return _held[0][1]


def sample(reel: Reel, opener: Opener, folder: Path) -> Sample:
    """Measure a reel's shots; their files are written to `folder` and removed. Raises ReelcolorError."""
    engine = hold_engine(opener)
    cuts = shots_of(reel)
    _colour(reel, _beginning(reel, cuts[0]), engine, folder / "warm")  # what is compiled for this size is compiled now
    pieces = [piece for cut in cuts for piece in (_beginning(reel, cut), cut)]
    wall, processors = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        made = list(pool.map(lambda n: _colour(reel, pieces[n], engine, folder / str(n)), range(len(pieces))))
    wall, processors = time.monotonic() - wall, time.process_time() - processors
    share = wall / sum(piece.seconds for piece in made)
    pairs = zip(cuts, made[::2], made[1::2], strict=True)
    shots = tuple(_shot(reel, cut, first, whole, share) for cut, first, whole in pairs)
    return Sample(engine.key, shots, processors / wall, _copied_bytes(reel))


def shots_of(reel: Reel) -> list[Segment]:
    """Where the shots are: a function of the reel alone."""
    return _video_shots(reel) if isinstance(reel, VideoReel) else _album_shots(reel)


def _video_shots(reel: Reel) -> list[Segment]:
    """In the middle of each third, as near as keyframes allow."""
    from pipeline.segments import cut_segments
    from pipeline.temporal import warmup_frames
    from pipeline.timing import frame_ticks

    assert isinstance(reel, VideoReel)
    info = reel.info
    target = max(_VIDEO_SECONDS, info.seconds / (2 * SHOTS))
    parts = cut_segments(info.source, info, target, warmup_frames(info.fps))
    length = max(2, round(_VIDEO_SECONDS * info.fps)) * frame_ticks(info.fps, info.time_base)
    shots = []
    for part in _spread(parts):
        end = (info.start_pts if part.start is None else part.start) + length
        shots.append(dataclasses.replace(part, end=end if part.end is None else min(end, part.end), frames=0))
    return shots


def _album_shots(reel: Reel) -> list[Segment]:
    """Runs of images in the middle of each third; all of a small album."""
    assert isinstance(reel, AlbumReel)
    ordinals = [member.ordinal for member in reel.listed().members if member.colourable]
    starts = [0] if len(ordinals) <= SHOTS * _IMAGES else _spread(range(len(ordinals)))
    length = SHOTS * _IMAGES if len(starts) == 1 else _IMAGES
    runs = [ordinals[start : start + length] for start in starts]
    return [Segment(n, run[0], run[-1] + 1) for n, run in enumerate(runs)]


def _spread(things: Sequence[T]) -> list[T]:
    """The middle one of each third; fewer where there are not as many."""
    return [things[n] for n in dict.fromkeys((2 * k + 1) * len(things) // (2 * SHOTS) for k in range(SHOTS))]


def _beginning(reel: Reel, shot: Segment) -> Segment:
    """The shot's first picture alone."""
    start = reel.info.start_pts if shot.start is None and isinstance(reel, VideoReel) else shot.start
    return dataclasses.replace(shot, end=(start or 0) + 1)


@dataclass(frozen=True)
class _Piece:
    """A run of pictures that was coloured: the time it took, and each picture's bytes, in order."""

    seconds: float
    sizes: tuple[int, ...]
    source_bytes: int = 0


def _colour(reel: Reel, segment: Segment, engine: Colorizer, path: Path) -> _Piece:
    started = time.monotonic()
    reel.part(segment).colorize(segment, engine, path, lambda _frames: None)
    seconds = time.monotonic() - started
    try:
        return _album_piece(reel, path, seconds) if isinstance(reel, AlbumReel) else _video_piece(path, seconds)
    finally:
        path.unlink()


def _video_piece(path: Path, seconds: float) -> _Piece:
    from pipeline.packets import open_packets

    packets = open_packets(path)
    return _Piece(seconds, tuple(packets.size[packets.pts.argsort(kind="stable")].tolist()))


def _album_piece(reel: AlbumReel, path: Path, seconds: float) -> _Piece:
    """What is not coloured is copied, and counts as it is."""
    from pipeline.album_store import StoreReader

    results = StoreReader(str(path)).results
    before = {member.ordinal: member.size for member in reel.listed().members}
    sizes = tuple(r.bytes if r.state == "coloured" else before[r.ordinal] for r in results)
    return _Piece(seconds, sizes, sum(before[r.ordinal] for r in results))


def _shot(reel: Reel, cut: Segment, first: _Piece, whole: _Piece, share: float) -> Shot:
    """Both pieces begin alike: what the whole takes longer, its further pictures take."""
    frames = len(whole.sizes)
    if not frames:
        raise InputError(f"{reel.input}: none of the pictures of a shot can be decoded; check that it plays")
    whole_reel = frames >= reel.frames or isinstance(reel, AlbumReel)
    counted = whole.sizes if whole_reel else whole.sizes[: max(2, frames // 2)]
    return Shot(
        start=cut.start,
        frames=frames,
        lead_seconds=min(first.seconds, whole.seconds) * share,
        frame_seconds=max(0.0, whole.seconds - first.seconds) * share / max(1, frames - 1),
        lead_bytes=float(counted[0]),
        frame_bytes=sum(counted[1:]) / max(1, len(counted) - 1),
        source_bytes=whole.source_bytes,
    )


def _copied_bytes(reel: Reel) -> int:
    """Sound and other streams; members of an archive that are no images."""
    if isinstance(reel, AlbumReel):
        return sum(member.size for member in reel.listed().members if not member.left_out and not member.colourable)
    from pipeline.packet_index import packet_index

    assert isinstance(reel, VideoReel)
    if reel.item.kind == "scan":
        return 0
    total: int = reel.fingerprint["bytes"]
    return max(0, total - int(packet_index(reel.info.source).size.sum()))
