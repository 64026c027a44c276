"""Made pictures that are worth training on, and the archives and videos that tests keep them in."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def scene(seed: int, h: int = 90, w: int = 120) -> Picture:
    """(h, w, 3) sRGB: soft patches of many colours, another arrangement for every seed."""
    patches = np.random.default_rng(seed).integers(20, 236, (5, 6, 3), np.uint8)
    return np.asarray(cv2.resize(patches, (w, h), interpolation=cv2.INTER_CUBIC), np.uint8)


def toned(picture: Picture, black: tuple[int, int, int], white: tuple[int, int, int]) -> Picture:
    """The picture in shades from one colour to another."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] / 255
    return np.rint(np.array(black) + (np.array(white) - np.array(black)) * grey).astype(np.uint8)


def encoded(picture: Picture, suffix: str = ".png") -> bytes:
    """As an image file."""
    return cv2.imencode(suffix, picture[..., ::-1] if picture.ndim == 3 else picture)[1].tobytes()


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """A tar of these members."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def colour_video(path: Path, frames: Iterable[Picture], rate: int = 10, sar: Fraction | None = None) -> Path:
    """H.264 of these pictures, tagged as BT.709 in limited range."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "8"})
        context = stream.codec_context
        context.colorspace, context.color_range, context.thread_count = 1, 1, 1
        for number, picture in enumerate(frames):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv444p"
                if sar:
                    context.sample_aspect_ratio = sar
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
