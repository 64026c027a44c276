from __future__ import annotations

import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.errors import VerificationError
from pipeline.matroska import ROOM, display_size, set_display_size


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
