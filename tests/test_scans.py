"""Numbered scans as video: names, gaps, and samples against what was written."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media import Video, ordinal, picture, write

from pipeline.decode import decode_segment
from pipeline.errors import InputError
from pipeline.frames import Source
from pipeline.probe import probe
from pipeline.scans import scan_files, scan_source
from pipeline.segments import cut_segments


def scan(folder: Path, name: str, codec: str = "png", pix_fmt: str = "gray", frames: int = 12, first: int = 1) -> Path:
    """Write a scan of `frames` images called `name`, a pattern with one %d."""
    folder.mkdir(exist_ok=True)
    pattern = Path(str(folder).replace("%", "%%")) / name
    write(pattern, codec=codec, pix_fmt=pix_fmt, frames=frames, format="image2", mux={"start_number": str(first)})
    return folder


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name", "depth"),
    [
        ("dpx", "gbrp10le", "%06d.dpx", 10),
        ("dpx", "gbrp12be", "%06d.dpx", 12),
        ("dpx", "rgb48be", "%06d.dpx", 16),
        ("dpx", "gray", "%06d.dpx", 8),
        ("tiff", "gray16le", "a%04d.tif", 16),
        ("tiff", "rgb48le", "a%04d.tiff", 16),
        ("png", "gray16be", "%d.png", 16),
        ("png", "rgb24", "%d.png", 8),
    ],
)
def test_samples_are_as_scanned(tmp_path: Path, codec: str, pix_fmt: str, name: str, depth: int) -> None:
    source = scan_source(str(scan(tmp_path / "scan", name, codec, pix_fmt)), Fraction(18))
    info = probe(source)
    assert (info.fps, info.frames, info.bit_depth, info.color.full_range) == (18, 12, depth, True)
    segments = cut_segments(source, info, 0.2, 2)
    assert len(segments) > 1
    batches = [b for segment in segments for b in decode_segment(source, info, segment, 2)]
    luma = np.concatenate([b.luma[b.warmup :] for b in batches])
    np.testing.assert_array_equal(luma, [picture(n, 64, 48, depth) for n in range(12)])
    assert np.concatenate([b.pts[b.warmup :] for b in batches]).tolist() == list(range(12))


@pytest.mark.parametrize("folder", ["100%", "a%06db", "what?*[1]", "no: colon", "café"])
def test_names_with_characters_that_patterns_use(tmp_path: Path, folder: str) -> None:
    images = scan(tmp_path / folder, "reel 2%%_%05d.png", first=98)
    source = scan_source(str(images), Fraction(24))
    assert [path.name for path in scan_files(source)] == [f"reel 2%_{n:05d}.png" for n in range(98, 110)]
    info = probe(source)
    batches = decode_segment(source, info, cut_segments(source, info, 60, 0)[0], 0)
    assert [ordinal(luma) for b in batches for luma in b.luma] == list(range(12))


def test_a_pattern_picks_one_series(tmp_path: Path) -> None:
    for letter in "ab":
        scan(tmp_path, f"{letter}%03d.png", frames=3)
    (tmp_path / "notes 7.txt").write_text("reel notes")
    (tmp_path / ".hidden001.png").write_bytes(b"")
    source = scan_source(str(tmp_path / "b%03d.png"), Fraction(16))
    assert source == Source(
        str(tmp_path / "b%03d.png"),
        "image2",
        (("framerate", "16/1"), ("pattern_type", "sequence"), ("start_number", "1")),
    )
    assert len(scan_files(source)) == 3
    with pytest.raises(InputError, match=r"more than one series of images \(a….png, b….png\)"):
        scan_source(str(tmp_path), Fraction(16))


def test_numbers_without_leading_zeros_count_on_past_nine(tmp_path: Path) -> None:
    scan(tmp_path, "im%d.png", first=8, frames=4)
    assert [path.name for path in scan_files(scan_source(str(tmp_path), Fraction(16)))] == [
        f"im{n}.png" for n in (8, 9, 10, 11)
    ]


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    (scan(tmp_path, "%06d.png") / "000005.png").unlink()
    with pytest.raises(InputError, match="^" + re.escape(f"{tmp_path / '000005.png'}: is missing from the scan")):
        scan_source(str(tmp_path), Fraction(16))


@pytest.mark.parametrize(
    ("names", "pattern", "message"),
    [
        ([], "", "holds no images"),
        (["cover.png"], "", "has no number in its name"),
        (["1.png"], "%04d.png", "no image has such a name"),
        (["1.png"], "1.png", "expected a folder, or one %06d"),
        (["99999999999.png"], "", "is above 2147483647"),
        (["1.png"], "of 90%/%d.png", "write %% in its place"),
    ],
)
def test_what_is_no_scan_is_refused(tmp_path: Path, names: list[str], pattern: str, message: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message) as caught:
        scan_source(str(tmp_path / pattern), Fraction(16))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such folder"):
        scan_source(str(tmp_path / "elsewhere" / "%06d.dpx"), Fraction(16))


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    scan(tmp_path, "%03d.png", frames=3)
    wide = Video("png", "gray", width=80, frames=2, format="image2", mux={"start_number": "4"})
    write(tmp_path / "%03d.png", wide)
    source = scan_source(str(tmp_path), Fraction(16))
    info = probe(source)
    with pytest.raises(InputError, match=r"changes from 64×48 gray to 80×48 gray at pts 3"):
        list(decode_segment(source, info, cut_segments(source, info, 60, 0)[0], 0))
