"""The codecs on offer: their FFmpeg encoders, what they can hold, and the options they are run with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, cast, get_args

import av

from pipeline.errors import RecipeError
from pipeline.frames import StreamInfo, Subsampling
from pipeline.planes import pixel_layout

Codec = Literal["h264", "hevc", "av1", "prores", "ffv1"]


@dataclass(frozen=True)
class EncoderSettings:
    """The wished codec. `crf` and `preset`: None takes the codec's default; ProRes and FFV1 have neither."""

    codec: Codec
    crf: float | None = None
    preset: str | None = None
    threads: int = 4


PROFILES: dict[str, EncoderSettings] = {
    # CRF 18 is where x264's loss stops being visible; no tune: film and grain double the size of an access copy.
    "access": EncoderSettings("h264", 18.0, "medium"),
    "mezzanine": EncoderSettings("prores"),
    "preservation": EncoderSettings("ffv1"),
}


@dataclass(frozen=True)
class Family:
    """An FFmpeg encoder, its rate control, and the smallest picture that it codes without harm."""

    encoder: str
    crf: float | None = None
    crf_max: float = 51.0
    preset: str | None = None
    presets: tuple[str, ...] = ()
    minimum: int = 1
    interlaced: bool = True
    full_range: bool = True


_X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")
FAMILIES: dict[Codec, Family] = {
    "h264": Family("libx264", 18.0, 51.0, "medium", _X26X),
    "hevc": Family("libx265", 20.0, 51.0, "medium", _X26X, minimum=16, interlaced=False),
    # SVT-AV1 4.1 writes outside its buffers when a picture is narrower than 32 (seen with glibc's MALLOC_CHECK_).
    "av1": Family("libsvtav1", 28.0, 63.0, "8", tuple(map(str, range(-1, 14))), minimum=64, interlaced=False),
    "prores": Family("prores_ks", full_range=False),
    "ffv1": Family("ffv1"),
}
# NVIDIA's, for what each family's own is for; `pipeline.nvenc` has how they are run.
NVENC: dict[Codec, str] = {"h264": "h264_nvenc", "hevc": "hevc_nvenc", "av1": "av1_nvenc"}
# Range coder, large context model, intra only, a CRC per slice: what archives ask of FFV1 (RFC 9043).
_FFV1 = (("level", "3"), ("g", "1"), ("coder", "range_def"), ("context", "1"), ("slicecrc", "1"))
CHROMA_NAMES: dict[Subsampling, str] = {
    (2, 2): "410", (2, 0): "411", (1, 1): "420", (1, 0): "422", (0, 1): "440", (0, 0): "444",
}  # fmt: skip


def check_settings(settings: EncoderSettings) -> Family:
    """The codec's encoder, once the settings are known to make sense."""
    if settings.codec not in get_args(Codec):
        raise RecipeError(f"codec {settings.codec!r} is not known; choose one of {', '.join(get_args(Codec))}")
    family = FAMILIES[settings.codec]
    if settings.threads < 1:
        raise RecipeError(f"encoder threads must be at least 1, got {settings.threads}")
    if settings.crf is not None and family.crf is None:
        raise RecipeError(f"{settings.codec} has no CRF; leave --crf out or choose h264, hevc or av1")
    if settings.crf is not None and not 0 <= settings.crf <= family.crf_max:
        raise RecipeError(f"CRF of {settings.codec} lies in 0..{family.crf_max:g}, got {settings.crf:g}")
    if settings.preset is not None and settings.preset not in family.presets:
        known = ", ".join(family.presets) or "none"
        raise RecipeError(f"preset {settings.preset!r} is not one of {settings.codec}'s: {known}")
    return family


def formats(info: StreamInfo, family: Family) -> Iterator[tuple[str, int, Subsampling]]:
    """(pixel format, depth, subsampling) that the encoder has, the most faithful first.

    Depth: the source's, else the next deeper, else the deepest. Chroma: as the source, then ever richer, then poorer.
    """
    known = _known_formats(family.encoder)
    depths = sorted({depth for depth, _ in known})
    wanted = wanted_subsampling(info, family)
    richer = [s for s in CHROMA_NAMES if s[0] <= wanted[0] and s[1] <= wanted[1]]
    poorer = [s for s in CHROMA_NAMES if s not in richer]
    order = sorted(richer, key=lambda s: (-sum(s), s)) + sorted(poorer, key=lambda s: (sum(s), s))
    for depth in [d for d in depths if d >= info.bit_depth] or depths[-1:]:
        yield from ((known[depth, s], depth, s) for s in order if (depth, s) in known)


@lru_cache(maxsize=8)
def _known_formats(encoder: str) -> dict[tuple[int, Subsampling], str]:
    """The planar Y'CbCr formats of an encoder, by (depth, subsampling)."""
    layouts = {name: s for s, name in CHROMA_NAMES.items()}
    names = [f.name for f in av.Codec(encoder, "w").video_formats or ()]
    found = [m for name in names if (m := re.fullmatch(r"yuv(\d{3})p(?:(\d+)le)?", name))]
    return {(int(m[2] or 8), layouts[m[1]]): m[0] for m in found}


def wanted_subsampling(info: StreamInfo, family: Family) -> Subsampling:
    """The source's; 4:2:0 for grey, and for RGB where the codec is one that players must decode."""
    if pixel_layout(info.pix_fmt).is_rgb:
        return (0, 0) if family.crf is None else (1, 1)
    return info.subsampling or (1, 1)


def options_of(info: StreamInfo, settings: EncoderSettings, family: Family) -> Iterator[tuple[tuple[str, str], ...]]:
    """Encoder options, the preferred first; FFV1 gets fewer slices where the picture is too small for more."""
    if settings.codec == "ffv1":
        for slices in (24, 12, 4, 1):
            yield (*_FFV1, ("slices", str(slices)))
        return
    if settings.codec == "prores":
        yield (("vendor", "apl0"),)
        return
    crf = family.crf if settings.crf is None else settings.crf
    rate = (("crf", f"{crf:g}"), ("preset", settings.preset or cast(str, family.preset)))
    if settings.codec == "h264":
        # Scaled references are not defined for fields in x264; saying so keeps it from warning. It learns the fields'
        # order from the first picture, too late for the picture timing of those that it looks ahead.
        fields = ("weightp", "0"), ("x264-params", "bff=1" if info.field_order == "bff" else "tff=1")
        yield (*rate, *fields) if info.interlaced else rate
    elif settings.codec == "hevc":
        # The number of frame threads changes the bits. x265 4.2 writes past a row of its lookahead when a picture is
        # narrower than 64 unless cutree is off (seen with valgrind).
        params = f"log-level=none:open-gop=0:info=0:frame-threads=2:pools={settings.threads}"
        yield (*rate, ("x265-params", params + (":cutree=0" if info.width < 64 else "")))
    else:
        yield (*rate, ("svtav1-params", f"lp={min(settings.threads, 6)}"))
