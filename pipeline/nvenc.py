"""NVIDIA's encoders (NVENC): when they are used, and how they are driven so that a reel's segments fit together.

Constant quantiser, no pictures out of order, every GOP closed, one pass, one engine a picture: nothing that the bits of
a segment could depend on besides its pictures. Whether that holds on a machine is tried: before a reel is planned for
NVENC, a few pictures of its size and format are coded twice, compared, and decoded.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import cast

from pipeline.codecs import FAMILIES, NVENC, Codec, EncoderSettings, check_settings, wanted_subsampling
from pipeline.encoders import EncoderSpec, make_spec, resolve_encoder
from pipeline.errors import EngineError, UnsupportedError
from pipeline.frames import ColorTags, Source, StreamInfo, Subsampling
from pipeline.gpu import Hwaccel
from pipeline.trial import LOSSLESS, encoder_failure

_FORMATS: tuple[tuple[str, int, Subsampling], ...] = (("yuv420p", 8, (1, 1)), ("p010le", 10, (1, 1)))
_GOP = 250  # pictures between keyframes, as x264 has it
_PRESETS = {  # of x264 and x265, as NVENC's p1 (fastest) to p7
    "ultrafast": 1, "superfast": 1, "veryfast": 2, "faster": 3, "fast": 3, "medium": 4, "slow": 5, "slower": 6,
    "veryslow": 7, "placebo": 7,
}  # fmt: skip


def choose_encoder(
    info: StreamInfo, settings: EncoderSettings, hwaccel: Hwaccel = "none", begun_with: str | None = None
) -> EncoderSpec:
    """The encoder for a reel: NVENC where it is wished for and does it, else `resolve_encoder`'s.

    begun_with: the encoder of the reel's finished segments, which the others must have, too. Raises what
    `resolve_encoder` does, UnsupportedError where `cuda` is asked for and NVENC does not code such pictures, and
    EngineError where a reel was begun with an NVENC that this machine does not have.
    """
    check_settings(settings)
    begun_there = begun_with in NVENC.values()
    if hwaccel == "none" or settings.codec not in NVENC or not (begun_with is None or begun_there):
        return resolve_encoder(info, settings)
    made = _nvenc(info, settings)
    if isinstance(made, EncoderSpec):
        return made
    if begun_there:
        raise EngineError(
            f"{info.source.url}: was begun with {begun_with}, which does not do it here ({made}); go on where it does, "
            "or begin anew with --hwaccel none"
        )
    if hwaccel == "cuda":
        raise UnsupportedError(
            f"{info.source.url}: {NVENC[settings.codec]} does not code it ({made}); "
            "--hwaccel auto takes software in such a case"
        )
    spec = resolve_encoder(info, settings)
    said_before = no_nvenc(settings.codec) is not None
    return spec if said_before else replace(spec, notes=(*spec.notes, f"coded by {spec.encoder}, not NVENC: {made}"))


@lru_cache(maxsize=8)
def no_nvenc(codec: Codec) -> str | None:
    """Why this machine's NVENC does not code even a plain picture in a codec that it knows; None where it does."""
    plain = StreamInfo(
        source=Source(""), container="", index=0, codec="h264", width=640, height=480, pix_fmt="yuv420p", bit_depth=8,
        subsampling=(1, 1), time_base=Fraction(1, 25), fps=Fraction(25), vfr=False, frames=1, start_pts=0, end_pts=1,
        color=ColorTags("bt709", full_range=False),
    )  # fmt: skip
    made = _nvenc(plain, EncoderSettings(codec))
    return None if isinstance(made, EncoderSpec) else made


def nvenc_options(settings: EncoderSettings, bit_depth: int) -> tuple[tuple[str, str], ...]:
    """How NVENC is run: the CRF becomes the constant quantiser that is nearest to it, x264's presets become p1 to p7.

    The quantiser is the CRF itself in H.264 and HEVC, four times it in AV1, whose scale is 0..255. CRF 0 is lossless.
    """
    family = FAMILIES[settings.codec]
    preset = settings.preset or cast(str, family.preset)
    speed = _PRESETS[preset] if preset in _PRESETS else max(1, min(7, 8 - round(int(preset) / 2)))
    crf = cast(float, family.crf if settings.crf is None else settings.crf)
    steps = 4 if settings.codec == "av1" else 1
    quantiser = max(1, min(255 if settings.codec == "av1" else 51, round(crf * steps)))
    rate = (("rc", "constqp"), ("qp", str(quantiser))) if crf else (LOSSLESS,)
    options = (("preset", f"p{speed}"), *rate, ("g", str(_GOP)), ("bf", "0"), ("forced-idr", "1"))
    options += (("rc-lookahead", "0"), ("multipass", "disabled"))
    if settings.codec == "h264":
        lossy = (("profile", "high" if bit_depth == 8 else "high10"),)
        return (*options, *(lossy if crf else ()))
    return (*options, ("split_encode_mode", "disabled"))  # or the number of NVENCs of a GPU would change the bits


def _nvenc(info: StreamInfo, settings: EncoderSettings) -> EncoderSpec | str:
    """The reel's NVENC, tried; else why not."""
    family = replace(FAMILIES[settings.codec], encoder=NVENC[settings.codec])
    fields = info.interlaced and family.interlaced
    if fields or info.width % 2 or info.height % 2 or wanted_subsampling(info, family) != (1, 1):
        return "NVENC is used for whole frames of even size at 4:2:0"
    chosen = next((format_ for format_ in _FORMATS if format_[1] >= info.bit_depth), None)
    if chosen is None:
        return f"NVENC codes 10 bits, the source has {info.bit_depth}"
    spec = make_spec(info, settings, family, chosen, nvenc_options(settings, chosen[1]))
    return encoder_failure(replace(spec, notes=())) or spec
