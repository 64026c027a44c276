"""What MP4 and MOV ask of players, by films whose boxes were changed by hand."""

from io import BytesIO
from pathlib import Path

import pytest
from media import write, write_sound

from pipeline.errors import InputError
from pipeline.frames import Source
from pipeline.mp4 import boxes, crops
from pipeline.probe import probe

PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")


def aperture(*terms: int) -> bytes:
    """A `clap` box: width, height, and how far its centre is from the picture's, as numerators and denominators."""
    return (40).to_bytes(4, "big") + b"clap" + b"".join(term.to_bytes(4, "big", signed=True) for term in terms)


def with_box(data: bytes, added: bytes) -> bytes:
    """At the end of the first description of pictures; in files whose index comes last nothing else moves."""
    at, end = 0, len(data)
    changed = bytearray(data)
    for kind in PATH:
        box = next(box for box in boxes(BytesIO(data), at, end) if box.kind == kind)
        changed[box.start - 8 : box.start - 4] = (box.end - box.start + 8 + len(added)).to_bytes(4, "big")
        at, end = box.start + 8 * (kind == b"stsd"), box.end
    return bytes(changed[:end]) + added + bytes(changed[end:])


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ((), False),
        ((64, 1, 48, 1, 0, 1, 0, 1), False),
        ((128, 2, 48, 1, 0, 7, 0, 0), False),
        ((60, 1, 48, 1, 0, 1, 0, 1), True),
        ((5917, 91, 48, 1, 0, 1, 0, 1), True),
        ((64, 1, 48, 1, -1, 2, 0, 1), True),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_cropping_is_said(tmp_path: Path, name: str, terms: tuple[int, ...], said: bool) -> None:
    path = write(tmp_path / name, frames=3)
    if terms:
        path.write_bytes(with_box(path.read_bytes(), aperture(*terms)))
    words = ("it asks players to crop its pictures; the output is whole, and does not ask for that",)
    info = probe(Source(str(path)))
    assert (info.frames, info.width, info.warnings) == (3, 64, words if said else ())


def test_an_edit_list_that_hides_everything_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=3, b_frames=1)
    data = path.read_bytes()
    at = data.index(b"elst") + 16  # media_time of the first edit
    path.write_bytes(data[:at] + (1 << 30).to_bytes(4, "big") + data[at + 4 :])
    with pytest.raises(InputError, match="its edit list hides all of its 3 pictures; to be rid of it: ffmpeg"):
        probe(Source(str(path)))


def test_damaged_boxes_ask_for_nothing(tmp_path: Path) -> None:
    data = with_box(write(tmp_path / "a.mp4", frames=1).read_bytes(), aperture(60, 1, 48, 1, 0, 1, 0, 1))
    assert crops(BytesIO(data))
    assert not any(crops(BytesIO(data[:cut])) for cut in range(0, data.index(b"clap"), 5))
    assert not crops(BytesIO(bytes(1000)))
    assert not crops(BytesIO(write_sound(tmp_path / "a.mov").read_bytes()))


def test_boxes_with_long_sizes_and_with_the_files_rest() -> None:
    long = (1).to_bytes(4, "big") + b"mdat" + (20).to_bytes(8, "big") + b"data"
    last = bytes(4) + b"free" + bytes(9)
    assert list(boxes(BytesIO(long + last), 0, 37)) == [(b"mdat", 16, 20), (b"free", 28, 37)]
