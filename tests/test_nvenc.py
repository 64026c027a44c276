"""NVENC: chosen by trying, driven so that segments fit together. The encoders themselves are marked gpu."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np
import pytest
from fakes import SIZE, content, records, run
from media import write
from reels import decode_segment_file, luma_of, noise, stream_info, write_segment

from jobs.inputs import Item
from jobs.ledger import FOLDER, Job
from jobs.plan import Planner, encoder_settings
from jobs.recipe import Recipe
from jobs.reels import VideoReel
from jobs.survey import State
from pipeline import encode, nvenc, trial
from pipeline.assemble import assemble
from pipeline.codecs import NVENC, Codec, EncoderSettings
from pipeline.containers import choose_container
from pipeline.encode import PROFILES, make_frame, resolve_encoder
from pipeline.errors import EngineError, RecipeError, UnsupportedError
from pipeline.frames import Source
from pipeline.nvenc import choose_encoder, no_nvenc, nvenc_options
from pipeline.planes import pixel_layout, read_planes
from pipeline.trial import encoder_failure

ACCESS = PROFILES["access"]
PLAIN = stream_info(width=320, height=240)
FAKE_OPTIONS = (("preset", "ultrafast"), ("crf", "18"), ("bf", "0"), ("g", "250"))
SHAPES = "NVENC is used for whole frames of even size at 4:2:0"
without_nvenc = pytest.mark.skipif(no_nvenc("h264") is None, reason="this machine has NVENC")


@pytest.fixture
def fake_nvenc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose NVENC is x264 in disguise."""
    no_nvenc.cache_clear()
    monkeypatch.setattr(nvenc, "NVENC", {"h264": "libx264"})
    monkeypatch.setattr(nvenc, "nvenc_options", lambda *_: FAKE_OPTIONS)
    yield
    no_nvenc.cache_clear()


# --- how it is driven


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_the_build_has_every_option_and_takes_every_value(codec: Codec, depth: int) -> None:
    for settings in (EncoderSettings(codec), EncoderSettings(codec, crf=0.0)):
        for name, value in nvenc_options(settings, depth):
            assert _refuses_options(codec, {name: "nonsense"}), name
            assert not _refuses_options(codec, {name: value}), f"{name}={value}"


def _refuses_options(codec: Codec, options: dict[str, str]) -> bool:
    """FFmpeg reads the options before it looks for a GPU."""
    context: Any = av.CodecContext.create(NVENC[codec], "w")
    context.width, context.height, context.pix_fmt, context.options = 640, 480, "yuv420p", options
    context.time_base = PLAIN.time_base
    try:
        context.open()
    except av.ArgumentError:
        return True
    except av.FFmpegError:
        return False
    return False


@pytest.mark.parametrize(
    ("codec", "crf", "quantiser"),
    [
        ("h264", 18.0, 18),
        ("hevc", None, 20),
        ("av1", None, 112),
        ("av1", 63.0, 252),
        ("h264", 0.2, 1),
        ("h264", 51, 51),
    ],
)
def test_the_crf_becomes_a_constant_quantiser(codec: Codec, crf: float | None, quantiser: int) -> None:
    options = dict(nvenc_options(EncoderSettings(codec, crf), 8))
    assert (options["rc"], options["qp"], options["bf"]) == ("constqp", str(quantiser), "0")
    assert "tune" not in options


def test_crf_0_is_lossless() -> None:
    options = dict(nvenc_options(EncoderSettings("h264", 0.0), 8))
    assert options["tune"] == "lossless"
    assert not {"rc", "qp", "profile"} & options.keys()


@pytest.mark.parametrize(
    ("codec", "preset", "level"),
    [
        ("h264", "ultrafast", 1),
        ("h264", "medium", 4),
        ("hevc", "placebo", 7),
        ("av1", "-1", 7),
        ("av1", "8", 4),
        ("av1", "13", 2),
    ],
)
def test_presets_keep_their_order(codec: Codec, preset: str, level: int) -> None:
    assert dict(nvenc_options(EncoderSettings(codec, preset=preset), 8))["preset"] == f"p{level}"
    names = nvenc.FAMILIES[codec].presets
    levels = [int(dict(nvenc_options(EncoderSettings(codec, preset=p), 8))["preset"][1:]) for p in names]
    assert levels == sorted(levels, reverse=codec == "av1")


@pytest.mark.parametrize(("pix_fmt", "depth"), [("p010le", 10), ("nv12", 8), ("yuv420p10le", 10)])
def test_frames_in_the_layouts_of_gpus_hold_the_planes(pix_fmt: str, depth: int) -> None:
    info = stream_info(bit_depth=depth, pix_fmt="yuv420p" if depth == 8 else "yuv420p10le", width=70, height=50)
    spec = replace(resolve_encoder(info, ACCESS), pix_fmt=pix_fmt)
    planes = (
        noise(info, 0),
        noise(replace(info, width=35, height=25), 1),
        noise(replace(info, width=35, height=25), 2),
    )
    luma, chroma = read_planes(make_frame(spec, planes), pixel_layout(pix_fmt), "bt709")
    assert chroma is not None
    for expected, found in zip(planes, (luma, *chroma), strict=True):
        np.testing.assert_array_equal(expected, found)


# --- whether it is used


@pytest.mark.usefixtures("fake_nvenc")
def test_where_it_works_auto_and_cuda_take_it() -> None:
    for hwaccel in ("auto", "cuda"):
        spec = choose_encoder(PLAIN, ACCESS, hwaccel)
        assert (spec.options, spec.pix_fmt, spec.notes) == (FAKE_OPTIONS, "yuv420p", ())
    assert choose_encoder(PLAIN, ACCESS) == resolve_encoder(PLAIN, ACCESS)


@pytest.mark.usefixtures("fake_nvenc")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"field_order": "tff"}, SHAPES),
        ({"width": 321}, SHAPES),
        ({"pix_fmt": "yuv422p", "subsampling": (1, 0)}, SHAPES),
        ({"pix_fmt": "yuv420p12le", "bit_depth": 12}, "NVENC codes 10 bits, the source has 12"),
    ],
)
def test_what_it_is_not_for_goes_to_software_or_is_an_error(changes: dict[str, Any], why: str) -> None:
    info = replace(PLAIN, **changes)
    usual = resolve_encoder(info, ACCESS)
    note = f"coded by libx264, not NVENC: {why}"
    assert choose_encoder(info, ACCESS, "auto") == replace(usual, notes=(*usual.notes, note))
    with pytest.raises(UnsupportedError, match=re.escape(why)):
        choose_encoder(info, ACCESS, "cuda")


def test_codecs_without_it_stay_as_they_are() -> None:
    settings = PROFILES["preservation"]
    assert choose_encoder(PLAIN, settings, "auto") == resolve_encoder(PLAIN, settings)
    with pytest.raises(RecipeError, match="no GPU encodes ffv1"):
        encoder_settings(Recipe(profile="preservation", hwaccel="cuda"))


@without_nvenc
def test_where_it_does_not_work_auto_takes_software_and_cuda_says_why() -> None:
    why = no_nvenc("h264")
    assert why
    assert choose_encoder(PLAIN, ACCESS, "auto") == resolve_encoder(PLAIN, ACCESS)  # said once a run, not here
    with pytest.raises(UnsupportedError, match=rf"reel\.mp4: h264_nvenc does not code it \({re.escape(why)}\)"):
        choose_encoder(PLAIN, ACCESS, "cuda")


# --- the trial


def trial_of(**options: str) -> str | None:
    merged = dict(FAKE_OPTIONS) | options
    return encoder_failure(replace(resolve_encoder(PLAIN, ACCESS), options=tuple(merged.items())))


def test_a_sound_encoder_passes_the_trial() -> None:
    assert trial_of() is None
    assert trial_of(crf="51") is None
    ten = stream_info(pix_fmt="yuv420p10le", bit_depth=10, width=320, height=240)
    assert encoder_failure(replace(resolve_encoder(ten, ACCESS), options=FAKE_OPTIONS)) is None
    hevc = replace(
        resolve_encoder(PLAIN, EncoderSettings("hevc")), options=(("x265-params", "log-level=none:bframes=0"),)
    )
    assert encoder_failure(hevc) is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"preset": "medium", "x264-params": "bframes=2:b-adapt=0:scenecut=0"}, "out of order"),
        ({"g": "1"}, "keyframes of its own"),
        ({"preset": "warp"}, "Error setting preset"),
    ],
)
def test_the_trial_finds_what_would_not_fit_together(options: dict[str, str], why: str) -> None:
    assert why in str(trial_of(**options))


def test_the_trial_finds_pictures_that_are_not_the_source_s(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder_failure.cache_clear()
    usual = trial.make_frame
    monkeypatch.setattr(trial, "make_frame", lambda spec, planes: usual(spec, (255 - planes[0], *planes[1:])))
    assert trial_of() == "what it codes does not look like the source"
    encoder_failure.cache_clear()


def test_the_trial_wants_lossless_to_be_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LOSSLESS", ("crf", "30"))
    assert trial_of(crf="30") == "what it codes does not look like the source"
    monkeypatch.setattr(trial, "LOSSLESS", ("crf", "0"))
    assert trial_of(crf="0") is None


def test_the_trial_wants_the_same_bits_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder_failure.cache_clear()
    qualities = iter(("18", "30"))
    usual = trial.open_encoder
    fickle = lambda spec: usual(replace(spec, options=(("crf", next(qualities)), ("bf", "0"))))  # noqa: E731
    monkeypatch.setattr(trial, "open_encoder", fickle)
    assert trial_of() == "it codes the same pictures differently each time"
    encoder_failure.cache_clear()


# --- plan, ledger, resume


def planned(source: Path, out: Path, hwaccel: str, begun_with: str | None = None) -> VideoReel:
    item = Item("video", str(source), PurePosixPath(source.name))
    planner = Planner(Recipe(hwaccel=hwaccel), "00", out, Job(out, "job").folder)
    if begun_with:
        Job(out, "job").reel(planner.reel_id(item)).begin(begun_with)
    reel = planner.plan(item)
    assert isinstance(reel, VideoReel)
    return reel


@pytest.mark.usefixtures("fake_nvenc")
def test_a_reel_goes_on_with_the_encoder_it_was_begun_with(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", frames=5, width=64, height=48)
    assert planned(source, tmp_path / "new", "auto").spec.options == FAKE_OPTIONS
    software = planned(source, tmp_path / "old", "auto", begun_with="libx265")  # the fake's name is libx264
    assert software.spec.options == resolve_encoder(software.info, ACCESS).options


@without_nvenc
def test_a_reel_begun_with_nvenc_does_not_go_on_without(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", frames=5, width=64, height=48)
    with pytest.raises(EngineError, match=r"a\.mkv: was begun with h264_nvenc, which does not do it here .*none$"):
        planned(source, tmp_path, "auto", begun_with="h264_nvenc")


def test_segments_of_another_encoder_are_not_this_reel_s(tmp_path: Path) -> None:
    reel = planned(write(tmp_path / "a.mkv", frames=5, width=64, height=48), tmp_path, "none")
    ledger = Job(tmp_path, "job").reel(reel.id)
    one, other = (State(replace(reel, spec=replace(reel.spec, encoder=e)), ledger, False) for e in ("libx264", "other"))
    assert one.identity(reel.segments[0]) != other.identity(reel.segments[0])
    decoding = State(replace(reel, gpu_decoding=True), ledger, False)
    assert decoding.identity(reel.segments[0]) == one.identity(reel.segments[0])


@without_nvenc
@pytest.mark.usefixtures("no_ray")
def test_a_whole_run_says_it_once_and_remembers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [write(tmp_path / name, frames=8, **SIZE) for name in ("a.mkv", "b.mkv")]
    for hwaccel in ("none", "auto"):
        assert run(*sources, out=tmp_path / hwaccel, hwaccel=hwaccel).exit_code == 0
    said = capsys.readouterr().err
    assert said.count("h264_nvenc does not work here (") == 1
    assert content(tmp_path / "none/a.mkv") == content(tmp_path / "auto/a.mkv")
    begun = sorted((tmp_path / "auto").glob(f"{FOLDER}/*/reels/*/begun.json"))
    assert [json.loads(path.read_text()) for path in begun] == ["libx264", "libx264"]
    assert not list((tmp_path / "none").glob(f"{FOLDER}/*/reels/*/begun.json"))
    plan = json.loads(next((tmp_path / "auto").glob(f"{FOLDER}/*/plan.json")).read_text())
    assert [(r["decoder"], r["encoder"]["encoder"]) for r in plan["reels"]] == [("software", "libx264")] * 2
    with pytest.raises(EngineError, match=r"--hwaccel cuda: NVDEC .*h264_nvenc does not work here"):
        run(*sources, out=tmp_path / "cuda", hwaccel="cuda")


@without_nvenc
@pytest.mark.usefixtures("no_ray")
def test_an_interrupted_run_of_another_machine_is_not_mixed_with_this_one_s(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", frames=8, **SIZE)
    assert run(source, out=tmp_path / "out", hwaccel="auto").exit_code == 0
    (reel,) = (tmp_path / "out").glob(f"{FOLDER}/*/reels/*")
    (reel / "done.json").unlink()
    (reel / "begun.json").write_text('"h264_nvenc"')
    (tmp_path / "out/a.mkv").unlink()
    (result,) = run(source, out=tmp_path / "out", hwaccel="auto").results
    assert result.status == "failed"
    assert "was begun with h264_nvenc" in str(result.error)
    assert len(records(tmp_path / "out")) == 1  # what was finished is still there for the machine that can go on


@without_nvenc
def test_a_worker_without_the_planned_encoder_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "node7")
    info = stream_info()
    spec = replace(resolve_encoder(info, ACCESS), encoder="h264_nvenc", options=nvenc_options(ACCESS, 8))
    with pytest.raises(EngineError, match=r"a\.seg: h264_nvenc failed: .* on node7; go on where it works"):
        write_segment(spec, tmp_path / "a.seg", [0], lambda at: noise(info, at))
    assert not list(tmp_path.iterdir())
    software = resolve_encoder(info, ACCESS)
    with monkeypatch.context() as patch:
        patch.setattr(encode, "open_encoder", lambda _spec, usual=encode.open_encoder: usual(software))
        segment = write_segment(spec, tmp_path / "b.seg", [0, 3600], lambda at: noise(info, at))
    source = write(tmp_path / "a.mkv", frames=2, width=64, height=48)
    where = Source(str(source))
    container = choose_container(replace(info, source=where, container="matroska,webm"), software, ())
    with pytest.raises(EngineError, match=r"out\.mkv: h264_nvenc failed: .* on node7"):
        assemble(where, info, spec, container, [segment], tmp_path / "out.mkv", {})
    assert not (tmp_path / "out.mkv").exists()


# --- the real thing


@pytest.mark.gpu
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize("crf", [None, 0.0])
def test_nvenc_gives_the_same_bits_and_lossless_is_exact(
    tmp_path: Path, codec: Codec, depth: int, crf: float | None
) -> None:
    if why := no_nvenc(codec):
        pytest.skip(f"no {NVENC[codec]} here: {why}")
    info = stream_info(width=640, height=480, bit_depth=depth, pix_fmt="yuv420p" if depth == 8 else "yuv420p10le")
    spec = choose_encoder(info, EncoderSettings(codec, crf), "auto")
    if spec.encoder != NVENC[codec]:
        pytest.skip(spec.notes[-1])
    pts = [n * 3600 for n in range(300)]  # more than a GOP
    files = [write_segment(spec, tmp_path / f"{n}.seg", pts, lambda at: noise(info, at // 3600)) for n in range(2)]
    assert files[0].sha256 == files[1].sha256
    if crf == 0.0:
        digest = hashlib.sha256()
        for frame in decode_segment_file(spec, files[0]):
            digest.update(luma_of(frame).tobytes())
        assert digest.hexdigest() == files[0].luma_sha256
