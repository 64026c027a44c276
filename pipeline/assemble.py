"""Segment files and the source's other streams become the finished reel, by packet copy; checked, then published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import av

from pipeline.codecs import NVENC
from pipeline.demux import open_whole
from pipeline.encode import encoder_for
from pipeline.encoders import EncoderSpec
from pipeline.errors import VerificationError
from pipeline.frames import SegmentFile, Source, StreamInfo
from pipeline.join import CodedPicture, write_reel
from pipeline.mux import Reel
from pipeline.packets import PacketFile, open_packets
from pipeline.storage import Place, hashed, replacing, storage_error
from pipeline.streams import Container
from pipeline.timing import frame_ticks
from pipeline.written import changed_tags, find_problems


@dataclass(frozen=True)
class AssembledReel:
    """A finished output: its frames, duration of the video in seconds, hash, and what had to be repaired."""

    path: Place
    frames: int
    seconds: float
    bytes: int
    sha256: str
    warnings: tuple[str, ...] = ()


def assemble(
    source: Source,
    info: StreamInfo,
    spec: EncoderSpec,
    container: Container,
    segments: Sequence[SegmentFile],
    destination: Place,
    provenance: Mapping[str, str],
    *,
    replace: bool = True,
) -> AssembledReel:
    """Write `destination` from the segments in order; nothing is decoded, and memory does not grow with the reel.

    The file appears under its name only after it was read back and found whole. Raises FileExistsError where there is
    one by then that is not to be replaced, VerificationError where a segment is damaged or the file is not what was to
    be written, UnsupportedError where the container does not take a stream, EngineError where this machine lacks the
    encoder, StorageError where reading or writing fails.
    """
    files = [open_packets(segment.path) for segment in segments]
    _check_segments(files, segments, spec)
    if spec.encoder in NVENC.values():
        encoder_for(spec, destination)  # the muxer takes its headers from it, and could not say what is missing
    pts = [p for segment in segments for p in segment.pts]
    with replacing(destination, f".part{container.extension}", replace=replace) as temporary:
        try:
            with open_whole(source) as opened:
                written = write_reel(
                    temporary, opened, Reel(info, spec, container, provenance),
                    pictures=_pictures(files, segments, spec), pts=pts,
                    reorder=max(f.reorder for f in files), extradata=files[0].header.extradata,
                )  # fmt: skip
            problems = find_problems(temporary, written.expected)
        except av.FFmpegError as e:
            raise storage_error(destination, OSError(e.errno, e.strerror or str(e))) from e
        if problems:
            shown = "; ".join(problems[:3])
            raise VerificationError(f"{destination}: not written, what was read back is not what was meant: {shown}")
        changed = changed_tags(temporary, written.tags)
        sha256, size = hashed(temporary)
    return AssembledReel(
        path=destination,
        frames=len(pts),
        seconds=float((pts[-1] + _last_duration(files, spec) - pts[0]) * spec.time_base),
        bytes=size,
        sha256=sha256,
        warnings=(*written.warnings, *(f"tag {key} is not kept as it was" for key in changed)),
    )


def _check_segments(files: Sequence[PacketFile], segments: Sequence[SegmentFile], spec: EncoderSpec) -> None:
    """Hold the files to their records and to each other."""
    if not any(segment.frames for segment in segments):
        raise VerificationError("there are no coded pictures to assemble; run the same command again")
    for file, segment in zip(files, segments, strict=True):
        if sorted(file.pts.tolist()) != list(segment.pts):
            raise VerificationError(f"{file.path}: timestamps are not the recorded ones; run the same command again")
        if len(file) and not file.key[0]:
            raise VerificationError(f"{file.path}: does not begin with a key picture; run the same command again")
        if (file.header, file.header.encoder) != (files[0].header, spec.encoder):
            raise VerificationError(f"{file.path}: coded with other settings than the first; run with --overwrite")
        if file.header.time_base != spec.time_base:
            raise VerificationError(f"{file.path}: its time base is not the reel's; run with --overwrite")
    for before, after in pairwise(s for s in segments if s.pts):
        if after.pts[0] <= before.pts[-1]:
            raise VerificationError(f"{after.path}: overlaps the segment before it; run with --overwrite")


def _pictures(
    files: Sequence[PacketFile], segments: Sequence[SegmentFile], spec: EncoderSpec
) -> Iterator[CodedPicture]:
    """All coded pictures in coding order, read one at a time; raises VerificationError once a file is seen damaged."""
    usual = _usual_duration(spec)
    for file, segment in zip(files, segments, strict=True):
        entries = zip(file.payloads(segment.sha256), file.pts, file.duration, file.key, strict=True)
        for payload, pts, duration, key in entries:
            yield CodedPicture(payload, int(pts), int(duration) or usual, bool(key))


def _last_duration(files: Sequence[PacketFile], spec: EncoderSpec) -> int:
    """How long the last picture is shown."""
    last = next(f for f in reversed(files) if len(f))
    return int(last.duration[last.pts.argmax()]) or _usual_duration(spec)


def _usual_duration(spec: EncoderSpec) -> int:
    """A picture's time at the reel's rate, for pictures that come without one."""
    return frame_ticks(spec.fps, spec.time_base)
