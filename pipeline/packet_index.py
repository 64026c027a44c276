"""The packets of a file's main stream, listed once: what planning knows of a reel."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.clusters import cluster_watch
from pipeline.demux import (
    NO_PTS,
    DecodeReport,
    LateStream,
    check_file,
    is_unknown,
    late_streams,
    main_stream,
    open_media,
    read_only,
    read_packets,
)
from pipeline.errors import InputError
from pipeline.frames import FieldOrder, Source
from pipeline.h264 import FieldPairs
from pipeline.mpeg4 import PictureFields
from pipeline.ranges import StoredObject
from pipeline.scans import scan_files
from pipeline.shapes import Shape, ShapeWatch, mpeg2_fields
from pipeline.skim import SKIMMING, is_indexed, skim
from pipeline.storage import is_local
from pipeline.stores import StorePath

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_COMPARED = 24  # packets listed both ways before a file is listed without its pictures


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """The main stream's packets in file order: (N,) arrays.

    pts, dts: int64 in the stream's time base, NO_PTS where missing; duration: int64, 0 where missing; size: bytes;
    keyframe: decoding can start here, says the container; shown: not cut away by an edit list, nor a picture's second
    field. field_packets: pictures came in two packets, one a field; the duration of the first is 0 then. shapes: what
    pictures are like, where headers differ. fields: how many pictures say that they are interlaced, top and bottom
    field first, in H.264, MPEG-2 and MPEG-4, where each says so. late: streams that begin after the file was opened.
    untold_sound: one that is announced at the file's beginning, but has not begun where FFmpeg looked.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    duration: NDArray[np.int64]
    size: NDArray[np.int64]
    keyframe: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    warnings: tuple[str, ...] = ()
    field_packets: bool = False
    shapes: tuple[Shape, ...] = ()
    fields: tuple[int, int] = (0, 0)
    late: tuple[LateStream, ...] = ()
    untold_sound: bool = False

    def __len__(self) -> int:
        return len(self.pts)

    def equals(self, other: PacketIndex) -> bool:
        """Whether the other holds the same packets."""
        names = ("pts", "dts", "duration", "size", "keyframe", "shown")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)


def packet_index(source: Source) -> PacketIndex:
    """Index of the main stream's packets, by demuxing the whole file once; kept while the file stays as it is."""
    if source.format == "image2":
        sizes = np.array([path.stat().st_size for path in scan_files(source)], np.int64)
        n = len(sizes)
        return PacketIndex(np.arange(n), np.arange(n), np.ones(n, np.int64), sizes, np.ones(n, bool), np.ones(n, bool))
    if not is_local(source.url):
        return _kept_index(source, StoredObject(StorePath(source.url)).signature)
    found = check_file(source)
    return _kept_index(source, (found.st_size, found.st_mtime_ns, found.st_ino))


@lru_cache(maxsize=2)
def _kept_index(source: Source, _signature: tuple[Any, ...]) -> PacketIndex:
    return _read_index(source) if is_local(source.url) else _light_index(source)


def _light_index(source: Source) -> PacketIndex:
    """The index of a file on a store: of an MP4 or MOV without reading its pictures.

    Where the first packets are not the same without their content, where pictures may be interlaced, which they say
    themselves, and in other containers, all of the file is read.
    """
    with open_media(source) as container:
        context = main_stream(container, source).codec_context
        light = is_indexed(container) and not _may_be_interlaced(context)
    light = light and _read_index(source, _COMPARED, skimming=True).equals(_read_index(source, _COMPARED))
    return _read_index(source, skimming=light)


def _may_be_interlaced(context: VideoCodecContext) -> bool:
    codec = context.codec.canonical_name
    return codec in ("mpeg2video", "mpeg4") or (codec == "h264" and FieldPairs(context.extradata).possible)


def _field_reader(context: VideoCodecContext) -> Callable[[av.Packet[VideoStream]], FieldOrder] | None:
    """What reads from a packet how its picture is interlaced, where that takes no look at others."""
    codec = context.codec.canonical_name
    if codec == "mpeg4":
        return PictureFields(context.extradata).order
    return mpeg2_fields if codec == "mpeg2video" else None


def _read_index(source: Source, most: int | None = None, skimming: bool = False) -> PacketIndex:
    pts, dts, duration, size = array("q"), array("q"), array("q"), array("q")
    keyframe, shown = bytearray(), bytearray()
    apart, interlaced = False, Counter[str]()
    report = DecodeReport()
    clusters, whole = None if skimming else cluster_watch(source), 0  # packets before damage was met
    with open_media(source, None, clusters, **(SKIMMING if skimming else {})) as container:
        stream = main_stream(container, source)
        read_only(container, stream)
        if "mov" in container.format.name and stream.frames > container.size > 0:
            said = f"says that it has {stream.frames} pictures in {container.size} bytes"
            raise InputError(f"{source.url}: {said}; it is damaged, copy it again")
        if skimming:
            skim(container)
        context, unit = stream.codec_context, Fraction(stream.time_base or 0)
        fields = FieldPairs(context.extradata) if context.codec.canonical_name == "h264" and not skimming else None
        watch = None if skimming else ShapeWatch(context)
        field_order = None if skimming else _field_reader(context)
        if clusters:
            clusters.begun = True
        for packet in islice(read_packets(container, stream, source, report), most):
            if not pts and packet.has_sidedata("encryption_info"):
                raise InputError(f"{source.url}: is encrypted; decrypt it first")
            whole += clusters is not None and (packet.pos or 0) < clusters.first
            pts.append(NO_PTS if packet.pts is None else packet.pts)
            dts.append(NO_PTS if packet.dts is None else packet.dts)
            duration.append(packet.duration or 0)
            size.append(packet.size)
            keyframe.append(packet.is_keyframe)
            shown.append(not packet.is_discard)
            if watch and keyframe[-1] and shown[-1]:
                watch.see(packet, len(pts) - 1)
            if field_order and shown[-1]:
                interlaced[field_order(packet)] += 1
            if fields and packet.has_sidedata("new_extradata"):
                fields.configure(bytes(packet.get_sidedata("new_extradata")))
            if fields and (fields.possible or keyframe[-1]):
                if fields.completes(bytes(packet)):
                    shown[-1], duration[-2], apart = False, 0, True
                elif shown[-1]:
                    interlaced[fields.order] += 1
        damage = clusters.warnings(pts[whole - 1] * unit if whole else None) if clusters else []
        late, untold_sound = late_streams(container), any(map(is_unknown, container.streams.audio))
    return PacketIndex(
        np.array(pts, np.int64),
        np.array(dts, np.int64),
        np.array(duration, np.int64),
        np.array(size, np.int64),
        np.array(keyframe, np.bool_),
        np.array(shown, np.bool_),
        (*report.warnings, *damage),
        apart,
        watch.shapes() if watch else (),
        (interlaced["tff"], interlaced["bff"]),
        late,
        untold_sound,
    )
