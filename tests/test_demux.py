"""Reading packets past what goes wrong, against a container that goes wrong to order."""

import errno
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from media import write

from pipeline.demux import DecodeReport, read_packets
from pipeline.errors import InputError, StorageError
from pipeline.frames import Source
from pipeline.packet_index import packet_index

SOURCE = Source("film.ts")


class Container:
    """Yields these packets, and raises these errors, one a call after the other."""

    def __init__(self, *events: Any) -> None:
        self.events = list(events)

    def demux(self, _: object) -> Iterator[av.Packet]:
        while self.events:
            event = self.events.pop(0)
            if isinstance(event, Exception):
                raise event
            yield event


def failing(code: int) -> Exception:
    with pytest.raises(av.FFmpegError) as caught:
        av.error.err_check(-code)
    return caught.value


def read(*events: Any) -> tuple[int, DecodeReport]:
    report = DecodeReport()
    return len(list(read_packets(Container(*events), None, SOURCE, report))), report  # type: ignore[arg-type]


def test_damage_is_passed_and_counted() -> None:
    packet, spoilt = av.Packet(b"data"), failing(1094995529)
    count, report = read(packet, spoilt, packet, spoilt, spoilt, failing(errno.ENOMEM), packet, av.Packet())
    assert (count, report.unreadable) == (3, 4)
    assert report.warnings == ("4 damaged stretches of the file skipped",)


def test_a_file_that_gives_nothing_more_is_left() -> None:
    spoilt = failing(1094995529)
    count, report = read(av.Packet(b"data"), *[spoilt] * 99)
    assert (count, report.unreadable) == (1, 16)
    assert report.notes == ["the rest of the file cannot be read"]


def test_a_stream_that_begins_late_ends_no_run() -> None:
    assert read(av.Packet(b"data"), IndexError("list index out of range"))[0] == 1


@pytest.mark.parametrize("error", [failing(errno.EIO), OSError(errno.ETIMEDOUT, "Connection timed out")])
def test_failing_storage_is_not_damage(error: Exception) -> None:
    with pytest.raises(StorageError, match=r"^film\.ts: reading failed: \w+"):
        read(av.Packet(b"data"), error)


def test_the_index_is_what_the_packets_say(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", b_frames=2, pts=range(-14, 16), mux={"avoid_negative_ts": "disabled"})
    index = packet_index(Source(str(path)))
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert index.pts.tolist() == [p.pts for p in packets]
    assert index.dts.tolist() == [p.dts for p in packets]
    assert index.size.tolist() == [p.size for p in packets]
    assert index.keyframe.tolist() == [p.is_keyframe for p in packets]
    assert index.shown.tolist() == [not p.is_discard for p in packets]
    assert 0 < index.shown.sum() < len(index)


def test_an_index_of_more_pictures_than_bytes_is_not_listed(tmp_path: Path) -> None:
    """Sample tables that say 100,000 times one byte, all in one chunk (ISO 14496-12, 8.6.1.2, 8.7.3, 8.7.4)."""
    path = write(tmp_path / "a.mp4", frames=3)
    data, count = bytearray(path.read_bytes()), 100_000
    assert len(data) < count
    for box, values in (("stsz", (1, count)), ("stts", (1, count, 512)), ("stsc", (1, 1, count, 1))):
        struct.pack_into(f">{len(values)}I", data, data.index(box.encode()) + 8, *values)
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"says that it has {count} pictures in {len(data)} bytes; it is damaged"):
        packet_index(Source(str(path)))


def test_the_index_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    source = Source(str(write(tmp_path / "a.mp4", frames=4)))
    first = packet_index(source)
    assert packet_index(source) is first
    write(tmp_path / "a.mp4", frames=6)
    assert len(packet_index(source)) == 6
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(InputError, match="no such file"):
        packet_index(source)
