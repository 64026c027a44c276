"""The stages together: what goes into a reel's luma, timestamps and own colour comes out of it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import media
import numpy as np
import pytest
from colorizers import Flickerer, Tinter, Waverer
from numpy.typing import NDArray

from pipeline.assemble import assemble
from pipeline.color import ycbcr_to_rgb
from pipeline.containers import choose_container
from pipeline.encode import PROFILES, resolve_encoder
from pipeline.frames import Look, Source
from pipeline.infer import Colorizer
from pipeline.keyframes import Keyframes
from pipeline.probe import other_streams, probe
from pipeline.reel import colorize_segment
from pipeline.segments import cut_segments
from pipeline.temporal import warmup_frames

GREY = Look()


def colorize(path: Path, colorizer: Colorizer = Tinter(), look: Look = GREY, seconds: float = 1e9) -> Path:  # noqa: B008
    """The whole way for one file, losslessly; returns the output."""
    source = Source(str(path))
    info = probe(source)
    spec = resolve_encoder(info, PROFILES["preservation"])
    parts = [
        colorize_segment(source, info, s, colorizer, look, spec, path.with_suffix(f".{s.index}.seg"))
        for s in cut_segments(source, info, seconds, warmup_frames(info.fps))
    ]
    container = choose_container(info, spec, other_streams(source))
    return assemble(source, info, spec, container, parts, path.with_suffix(".out.mkv"), {}).path


def planes(path: Path) -> list[tuple[NDArray[Any], ...]]:
    """(Y, Cb, Cr) of every frame by PyAV alone; 8-bit planar YUV."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [
        tuple(np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes)
        for frame in frames
    ]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


@pytest.mark.parametrize(("width", "height"), [(64, 48), (35, 21), (2, 2), (1, 1)])
def test_luma_and_times_are_the_sources(tmp_path: Path, width: int, height: int) -> None:
    path = media.write(tmp_path / "a.mkv", codec="ffv1", width=width, height=height, frames=7)
    out = colorize(path)
    before, after = planes(path), planes(out)
    assert len(before) == len(after) == 7
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[0], new[0])
    assert times(out) == pytest.approx(times(path), abs=5e-4)


def test_colour_is_what_the_colorizer_said(tmp_path: Path) -> None:
    """A flat frame of L* 70: ab = (15, -4) must come back through an independent YCbCr → Lab."""
    from skimage.color import rgb2lab

    width, height = 64, 48
    path = tmp_path / "flat.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        image = np.full((height * 3 // 2, width), 128, np.uint8)
        image[:height] = 162
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p")))
        container.mux(stream.encode())
    y, cb, cr = planes(colorize(path))[0]
    grey = (162 - 16) / 219
    lightness = rgb2lab(np.full((1, 1, 3), grey))[0, 0, 0]
    lab = rgb2lab(ycbcr_to_rgb(y[::2, ::2], cb, cr, "bt601", False, 8))
    assert np.abs(lab[..., 1] - 0.5 * (lightness - 40)).max() < 1.5
    assert np.abs(lab[..., 2] - 0.4 * (60 - lightness)).max() < 1.5


def test_colour_of_every_pixel_of_the_networks_input_is_taken_as_that_of_cells_is(tmp_path: Path) -> None:
    """Colour follows lightness here, so finer ab is nearer what full resolution would give."""
    path = media.write(tmp_path / "a.mkv", codec="ffv1", width=320, height=240, frames=12)
    films = {scale: np.array([f[1:] for f in planes(colorize(path, Tinter(scale)))], float) for scale in (4, 2, 1)}
    assert films[1].shape == films[4].shape == (12, 2, 120, 160)
    spread = np.abs(films[1] - films[1].mean((2, 3), keepdims=True)).mean()
    assert spread > 4
    assert np.abs(films[2] - films[1]).mean() < np.abs(films[4] - films[1]).mean() < 0.3 * spread


def test_no_saturation_is_exactly_neutral(tmp_path: Path) -> None:
    path = media.write(tmp_path / "a.mkv", codec="ffv1", frames=3)
    for _, cb, cr in planes(colorize(path, look=Look(saturation=0))):
        assert (cb == 128).all()
        assert (cr == 128).all()


def colour_film(path: Path, tint: str, frames: int = 30) -> Path:
    """`grey then colour`: a shot without chroma, then one with; or a `sepia` shot."""
    height, width = 96, 128
    y, x = np.mgrid[0:height, 0:width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            image = np.full((height * 3 // 2, width), 128, np.uint8)
            shot = tint == "mixed" and n >= frames // 2
            wave = np.sin((x + 2 * n) / 9) * np.cos(y / 7) if shot else np.sin((y - 2 * n) / 5 + x / 23)
            image[:height] = 120 + 80 * wave
            if shot:
                cy, cx = np.mgrid[0 : height // 2, 0 : width // 2]
                image[height : height * 5 // 4] = (128 + 50 * np.sin(cx / 11)).reshape(-1, width)
                image[height * 5 // 4 :] = (128 + 50 * np.cos(cy / 8)).reshape(-1, width)
            if tint == "sepia":
                image[height : height * 5 // 4], image[height * 5 // 4 :] = 112, 140
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p")))
        container.mux(stream.encode())
    return path


def test_a_shot_in_colour_keeps_it_exactly_and_a_grey_one_is_coloured(tmp_path: Path) -> None:
    path = colour_film(tmp_path / "mixed.mkv", "mixed")
    before, after = planes(path), planes(colorize(path))
    for n, (old, new) in enumerate(zip(before, after, strict=True)):
        kept = all(np.array_equal(o, c) for o, c in zip(old[1:], new[1:], strict=True))
        assert kept == (n >= 15), f"frame {n}"


def test_recolor_colours_what_is_in_colour(tmp_path: Path) -> None:
    path = colour_film(tmp_path / "mixed.mkv", "mixed")
    recoloured = planes(colorize(path, look=Look(recolor=True)))
    assert not any(np.array_equal(o[1], c[1]) for o, c in zip(planes(path), recoloured, strict=True))


def test_sepia_is_dropped_and_coloured_anew(tmp_path: Path) -> None:
    path = colour_film(tmp_path / "sepia.mkv", "sepia", frames=5)
    for old, new in zip(planes(path), planes(colorize(path)), strict=True):
        np.testing.assert_array_equal(old[0], new[0])
        assert new[1].std() > 1


def test_fields_do_not_mix(tmp_path: Path) -> None:
    """Two interlaced films that differ in their bottom fields only have the same chroma in their top fields."""
    films = []
    for name, bottom in (("a", 60), ("b", 200)):
        path = tmp_path / f"{name}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            stream.codec_context.field_order = 2  # AV_FIELD_TT
            x = np.arange(128)
            for n in range(4):
                image = np.full((144, 128), 128, np.uint8)
                image[0:96:2] = 120 + 70 * np.sin((x + 3 * n) / 12)
                image[1:96:2] = bottom + 30 * np.sin(x[::-1] / 3)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p")))
            container.mux(stream.encode())
        assert probe(Source(str(path))).field_order == "tff"
        films.append(planes(colorize(path)))
    for one, other in zip(*films, strict=True):
        np.testing.assert_array_equal(one[0][0::2], other[0][0::2])
        for c in (1, 2):
            np.testing.assert_array_equal(one[c][0::2], other[c][0::2])
            assert not np.array_equal(one[c][1::2], other[c][1::2])


def test_seams_are_no_larger_than_what_lies_between(tmp_path: Path) -> None:
    """Forced short segments against one: chroma steps at the seams stay within those inside."""
    path = media.write(tmp_path / "long.mp4", width=128, height=96, frames=150, gop=10)
    whole = planes(colorize(path, Flickerer()))
    split = planes(colorize(path, Flickerer(), seconds=1))
    source = Source(str(path))
    info = probe(source)
    segments = cut_segments(source, info, 1, warmup_frames(info.fps))
    assert len(segments) >= 4
    seams = np.cumsum([s.frames for s in segments])[:-1]
    steps = [np.abs(b[1].astype(int) - a[1]).mean() for a, b in pairwise(split)]
    inside = np.delete(steps, seams - 1)
    assert np.mean([steps[s - 1] for s in seams]) <= inside.mean() + 2 * inside.std() / np.sqrt(len(seams))
    difference = [np.abs(a[1].astype(int) - b[1]).mean() for a, b in zip(whole, split, strict=True)]
    assert max(difference) < 1


def passing(path: Path, interlaced: bool) -> Path:
    """What a fixed camera sees in half a minute: nothing changes but one corner, dark and light by turns of 2 s."""
    y, x = np.mgrid[0:96, 0:128]
    image = np.full((144, 128), 128, np.uint8)
    image[:96] = 120 + 60 * np.sin(x / 9) * np.cos(y / 7)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.field_order = 2 if interlaced else 1  # AV_FIELD_TT, AV_FIELD_PROGRESSIVE
        for n in range(150):
            image[:16, :16] = 40 if n // 10 % 2 else 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("interlaced", [False, True])
def test_what_stands_still_keeps_its_colour_as_things_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interlaced: bool
) -> None:
    path = passing(tmp_path / "fixed.mkv", interlaced)
    source = Source(str(path))
    info = probe(source)
    assert info.interlaced == interlaced
    assert len(cut_segments(source, info, 6, warmup_frames(info.fps))) >= 3

    def still(seconds: float = 1e9) -> NDArray[np.int64]:
        """Cb of what stands still, (pictures, rows, columns)."""
        return np.array([cb[16:, 24:] for _, cb, _ in planes(colorize(path, Waverer(), seconds=seconds))], int)

    whole, split = still(), still(6)
    assert np.abs(whole - split).max() <= 1
    monkeypatch.setattr(Keyframes, "near", lambda *_: ())
    unheld = np.ptp(still(), axis=0).mean()
    assert unheld > 20
    assert np.ptp(whole, axis=0).mean() < unheld / 5


def test_fields_ask_for_the_keyframes_of_one_moment_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = passing(tmp_path / "fixed.mkv", interlaced=True)
    asked: list[int] = []
    monkeypatch.setattr(Keyframes, "near", lambda _, pts: asked.append(pts) or ())
    colorize(path, seconds=6)
    starts = 1 + sum(second < first for first, second in pairwise(asked))
    source = Source(str(path))
    info = probe(source)
    assert starts == len(cut_segments(source, info, 6, warmup_frames(info.fps))) > 2
