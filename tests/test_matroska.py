from __future__ import annotations

import zlib
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import pytest
from media import write_with_company

from pipeline.clusters import cluster_watch
from pipeline.errors import VerificationError
from pipeline.frames import Source
from pipeline.matroska import ROOM, display_size, set_display_size
from pipeline.matroska_links import not_followed
from pipeline.probe import probe


@pytest.mark.parametrize(
    ("width", "height", "sar", "size"),
    [
        (720, 576, Fraction(16, 15), (768, 576, 0)),
        (720, 576, Fraction(64, 45), (1024, 576, 0)),
        (720, 480, Fraction(8, 9), (640, 480, 0)),
        (64, 48, Fraction(16, 15), (64, 45, 3)),
    ],
)
def test_display_size(width: int, height: int, sar: Fraction, size: tuple[int, int, int]) -> None:
    assert display_size(width, height, sar) == size


def two_tracks(path: Path, name: str) -> Path:
    with av.open(str(path), "w") as out:
        sound: Any = out.add_stream("flac", rate=44100, layout="mono")
        video: Any = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.metadata["title"] = name
        sound.metadata["title"] = "a sound"
        frame = av.VideoFrame(64, 48, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts = 0
        out.mux([*video.encode(frame), *video.encode(None)])
    return path


@pytest.mark.parametrize("name", ["", "die Rolle, Teil 1 – ungekürzt"])
def test_only_the_shape_and_the_name_of_the_track_change(tmp_path: Path, name: str) -> None:
    path = two_tracks(tmp_path / "a.mkv", name + ROOM)
    before = path.read_bytes()
    set_display_size(path, 1, display_size(64, 48, Fraction(16, 15)), name)
    after = path.read_bytes()
    assert len(after) == len(before)
    with av.open(str(path)) as file:
        assert file.streams.video[0].sample_aspect_ratio == Fraction(16, 15)
        assert file.streams.video[0].metadata.get("title", "") == name
        assert file.streams.audio[0].metadata["title"] == "a sound"
        assert len(list(file.decode(video=0))) == 1
    tracks = after.rindex(bytes.fromhex("1654AE6B"))  # the SeekHead names it before
    checksum = after.index(b"\xbf\x84", tracks)  # RFC 8794: the first child, over all that follow
    length = int.from_bytes(after[tracks + 4 : checksum], "big") & (1 << 7 * (checksum - tracks - 4)) - 1
    content = after[checksum + 6 : checksum + length]
    assert after[checksum + 2 : checksum + 6] == zlib.crc32(content).to_bytes(4, "little")
    assert after[checksum + length :] == before[checksum + length :]


def test_no_room_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    path = two_tracks(tmp_path / "a.mkv", "")
    before = path.read_bytes()
    with pytest.raises(VerificationError, match="no room"):
        set_display_size(path, 1, (4, 3, 3), "a long name indeed")
    assert path.read_bytes() == before


# What FFmpeg writes, and another element of the same length (RFC 9559): EditionFlagDefault and EditionFlagOrdered,
# ChapterUID and ChapterSegmentUUID, SegmentUUID and NextUUID, DisplayUnit and PixelCropTop.
ORDERED = bytes.fromhex("45DB8101"), bytes.fromhex("45DD8101")
ELSEWHERE = bytes.fromhex("73C4"), bytes.fromhex("6E67")
NEXT = bytes.fromhex("73A490"), bytes.fromhex("3EB9238F")

CLUSTER = b"\x1f\x43\xb6\x75"  # its ID: headers end there
CROPPED = bytes.fromhex("54B281"), bytes.fromhex("54BB81")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ((), None),
        ((CROPPED,), "it asks players to crop its pictures; the output is whole"),
        ((ORDERED,), "its chapters are to be played in an order of their own; it is coloured from beginning to end"),
        ((ORDERED, ELSEWHERE), "in an order of their own, with parts of other files; it is coloured"),
        ((NEXT,), "it names other files as its neighbours"),
    ],
)
def test_what_is_shown_otherwise_than_it_is_stored_is_said(
    tmp_path: Path, changes: tuple[tuple[bytes, bytes], ...], words: str | None
) -> None:
    path = write_with_company(tmp_path / "a.mkv")
    headers, *pictures = path.read_bytes().partition(CLUSTER)
    for was, now in changes:
        assert was in headers
        headers = headers.replace(was, now)
    path.write_bytes(b"".join((headers, *pictures)))
    said = [w for w in probe(Source(str(path))).warnings if "video streams" not in w]
    assert len(said) == bool(words)
    assert words is None or words in said[0]


def test_an_element_that_ends_beyond_any_file_says_nothing(tmp_path: Path) -> None:
    for size in ("00ffffffffffffffffff", "01fffffffffffffe", "00400000000000000000"):
        data = ebml("1A45DFA3", bytes(20)) + ebml("18538067", bytes.fromhex("ec" + size) + bytes(500), None)
        (tmp_path / "a.mkv").write_bytes(data)
        with (tmp_path / "a.mkv").open("rb") as f:
            assert not_followed(f) == []
        assert cluster_watch(Source(str(tmp_path / "a.mkv"))) is None


def test_chapters_behind_the_pictures_are_found() -> None:
    chapters = ebml("1043A770", ebml("45B9", ebml("45DD", b"\1")))
    cluster = ebml("1F43B675", bytes(5000))
    place = 24 + len(cluster)
    head = ebml(
        "114D9B74", ebml("4DBB", ebml("53AB", bytes.fromhex("1043A770")) + ebml("53AC", place.to_bytes(2, "big")))
    )
    assert len(head) == 24
    segment = head + cluster + chapters
    for size in (None, len(segment)):
        data = ebml("1A45DFA3", bytes(20)) + ebml("18538067", segment, size)
        assert len(not_followed(BytesIO(data))) == 1
        for cut in range(0, len(data), 7):
            assert len(not_followed(BytesIO(data[:cut]))) <= 1


def ebml(kind: str, body: bytes, size: int | None = -1) -> bytes:
    """An element (RFC 8794); size: None where it is not told."""
    told = b"\xff" if size is None else (1 << 14 | len(body)).to_bytes(2, "big")
    return bytes.fromhex(kind) + told + body
