"""`reelcolor plan`: shots really coloured and coded, problems named while the rest is measured, nothing left."""

from __future__ import annotations

import json
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import av
import fakes
import numpy as np
import pytest
from click.testing import CliRunner
from fakes import Fake, colouring, open_fake, run
from media import write
from PIL import Image

from jobs import estimate, sample
from jobs.apart import Apart
from jobs.cli import main
from jobs.estimate import Range
from jobs.inputs import find_inputs
from jobs.measure import choose, measure
from jobs.plan import Planner
from jobs.recipe import Recipe
from jobs.reels import Reel, VideoReel
from jobs.sample import Sample, Shot, shots_of
from pipeline.errors import EngineError
from pipeline.packets import open_packets

RECIPE = Recipe(segment_seconds=1.0, preset="ultrafast")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def fresh_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process holds no engine from another test."""
    monkeypatch.setattr(sample, "_held", [])


def photo(level: int, width: int = 40) -> bytes:
    buffer = BytesIO()
    Image.linear_gradient("L").resize((width, 30)).point(lambda v: v * level // 255).save(buffer, "PNG")
    return buffer.getvalue()


def planned(path: Path, out: Path) -> Reel:
    (item,) = find_inputs((str(path),), out).items
    return Planner(RECIPE, "00", out).plan(item)


def folder_of(path: Path, count: int) -> Path:
    path.mkdir()
    for n in range(count):
        (path / f"{n:03d}.png").write_bytes(photo(60 + n, 30 + n))
    return path


def heard(*_told: object) -> None:
    """Nobody listens."""


def video_packets(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [packet.size for packet in container.demux(video=0) if packet.size]


def test_a_reel_as_short_as_a_shot_is_what_was_estimated(tmp_path: Path, no_ray: None) -> None:
    source = write(tmp_path / "a.mkv", frames=15, gop=5, **fakes.SIZE)
    reel = planned(source, tmp_path / "out")
    found = sample.sample(reel, open_fake, tmp_path)
    assert len(found.shots) == len(reel.segments) == 1
    assert run(source, out=tmp_path / "out").exit_code == 0
    sizes = video_packets(tmp_path / "out/a.mkv")
    cost = estimate.from_sample(reel, found)
    assert found.shots[0].frames == len(sizes) == 15
    # Matroska puts four bytes of length in the place of start codes, some of which are three bytes long.
    assert cost.bytes.likely - found.copied_bytes == pytest.approx(sum(sizes), abs=len(sizes))
    assert cost.bytes.low == cost.bytes.likely == cost.bytes.high
    assert found.copied_bytes == source.stat().st_size - sum(video_packets(source))


def test_a_shots_figures_are_those_of_its_pictures_in_the_real_encoder(tmp_path: Path, film: Path) -> None:
    reel = planned(film, tmp_path / "out")
    found = sample.sample(reel, open_fake, tmp_path)
    assert len(found.shots) == 3
    for cut, shot in zip(shots_of(reel), found.shots, strict=True):
        reel.colorize(cut, Fake(), tmp_path / "again", heard)
        packets = open_packets(tmp_path / "again")
        sizes = packets.size[packets.pts.argsort()].tolist()
        half = sizes[: max(2, len(sizes) // 2)]
        assert (shot.start, shot.frames) == (cut.start, len(sizes))
        assert shot.bytes * (len(half) > 0) == pytest.approx(shot.lead_bytes + shot.frame_bytes * (len(sizes) - 1))
        assert (shot.lead_bytes, shot.frame_bytes) == (half[0], pytest.approx(sum(half[1:]) / (len(half) - 1)))
        assert shot.lead_seconds > 0
    assert found.engine == "fake"
    assert not list(tmp_path.glob("[0-9]*"))


def test_shots_are_spread_and_depend_on_the_reel_alone(tmp_path: Path, film: Path) -> None:
    reel = planned(film, tmp_path / "out")
    again = shots_of(planned(film, tmp_path / "elsewhere"))
    assert shots_of(reel) == again
    assert isinstance(reel, VideoReel)
    places = [float((s.start or 0) * reel.info.time_base) / reel.info.seconds for s in again]
    assert [int(3 * place) for place in places] == [0, 1, 2]


def test_shots_of_an_album_are_runs_of_its_images(tmp_path: Path) -> None:
    reel = planned(folder_of(tmp_path / "in", 60), tmp_path / "out")
    assert [(s.start, s.end) for s in shots_of(reel)] == [(10, 18), (30, 38), (50, 58)]
    small = planned(folder_of(tmp_path / "few", 5), tmp_path / "out")
    assert [(s.start, s.end) for s in shots_of(small)] == [(0, 5)]


def test_a_small_album_is_estimated_to_the_byte(tmp_path: Path, no_ray: None) -> None:
    source = folder_of(tmp_path / "in", 5)
    reel = planned(source, tmp_path / "out")
    cost = estimate.from_sample(reel, sample.sample(reel, open_fake, tmp_path))
    assert run(source, out=tmp_path / "out").exit_code == 0
    assert cost.bytes.likely == pytest.approx(sum(p.stat().st_size for p in (tmp_path / "out").glob("*.png")))


def test_typical_figures_of_photographs_are_near_what_comes_out(tmp_path: Path, no_ray: None) -> None:
    """And what is no image counts as it is: an estimate may be off by a factor of three, this one by less than two."""
    source = tmp_path / "photos.zip"
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("notes.bin", rng.bytes(500_000))
        for n in range(3):
            rough = Image.fromarray(rng.integers(0, 256, (30 + n, 40), np.uint8))
            buffer = BytesIO()
            rough.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            archive.writestr(f"{n}.jpg", buffer.getvalue())
    reel = planned(source, tmp_path / "out")
    likely = estimate.typical(reel).bytes.likely
    assert run(source, out=tmp_path / "out").exit_code == 0
    before, after = source.stat().st_size - 500_000, (tmp_path / "out/photos.zip").stat().st_size - 500_000
    assert after > 1.5 * before
    assert 0.5 < (likely - 500_000) / after < 2


def test_what_is_extrapolated() -> None:
    """Two shots, by hand: every segment costs the lead anew, every further picture the rest."""
    easy, hard = Shot(0, 10, 2.0, 0.5, 100.0, 10.0), Shot(9, 10, 4.0, 1.5, 300.0, 30.0)
    reel = type("TwoSegments", (), {"frames": 12, "segments": (None, None)})()
    cost = estimate.from_sample(reel, Sample("", (easy, hard), 1.5, 1000))  # type: ignore[arg-type]
    assert cost.seconds == Range(9.0, 16.0, 23.0)
    assert cost.processor_seconds == Range(13.5, 24.0, 34.5)
    assert cost.bytes == Range(1300.0, 1600.0, 1900.0)


def test_reels_that_are_not_sampled_cost_what_a_pixel_costs_elsewhere(tmp_path: Path) -> None:
    short, long = (write(tmp_path / f"{n}.mkv", frames=n, gop=5, **fakes.SIZE) for n in (10, 40))
    reels = [planned(path, tmp_path / "out") for path in (short, long)]
    shot = Shot(0, 10, 1.0, 1.0, 50.0, 50.0)
    first, second = estimate.costs(reels, {reels[0].id: Sample("", (shot,), 2.0, 0)})
    assert first.seconds.likely == 10.0
    assert second.seconds.likely == pytest.approx(40.0)
    assert second.bytes.likely == pytest.approx(4 * first.bytes.likely)
    typical = estimate.costs(reels, {})
    assert typical == [estimate.typical(reel) for reel in reels]


def test_which_reels_are_sampled(tmp_path: Path) -> None:
    lengths = [5, 5, 5, 60, 5, 5]
    paths = [write(tmp_path / f"{i}.mkv", frames=n, gop=5, **fakes.SIZE) for i, n in enumerate(lengths)]
    reels = [planned(path, tmp_path / "out") for path in paths]
    album = planned(folder_of(tmp_path / "in", 2), tmp_path / "out")
    assert choose([*reels, album], 7) == [*reels, album]
    few = choose([*reels, album], 3)
    assert album in few, "each kind has one"
    assert reels[3] in few, "where most pictures are"
    assert len(few) <= 3
    assert few == choose([*reels, album], 3)


def test_one_that_kills_the_process_is_named_and_the_rest_is_measured(
    tmp_path: Path, flash: Path, scratch: Path
) -> None:
    good = write(tmp_path / "good.mkv", frames=10, **fakes.SIZE)
    reels = [planned(path, tmp_path / "out") for path in (flash, good)]
    with Apart() as apart:
        found = measure(reels, 9, apart, colouring("deadly").open, heard)
    assert list(found.samples) == [reels[1].id]
    assert [p for p in found.problems if p.startswith(f"{flash}: a shot of it cannot be coloured: ")]
    assert "SIGKILL" in found.problems[0]
    assert list(scratch.iterdir()) == []


def test_without_an_engine_nothing_is_measured(tmp_path: Path, scratch: Path) -> None:
    reel = planned(write(tmp_path / "a.mkv", frames=3, **fakes.SIZE), tmp_path / "out")
    with Apart() as apart, pytest.raises(EngineError, match="the weights are damaged"):
        measure([reel], 9, apart, colouring("broken").open, heard)
    assert list(scratch.iterdir()) == []


def test_the_command(tmp_path: Path, film: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.preview.default_colouring", lambda _recipe: colouring())
    (tmp_path / "bad.mkv").write_bytes(b"no video")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("good.png", photo(90))
        archive.writestr("../evil.png", photo(90))
    inputs = [str(film), str(tmp_path / "bad.mkv"), str(tmp_path / "b.zip"), str(tmp_path / "none.mkv")]
    arguments = ["plan", *inputs, "-o", str(tmp_path / "out"), "--preset", "ultrafast"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    for said in (
        f"{film} → {tmp_path}/out/film.mkv",
        f"PROBLEM: {tmp_path}/bad.mkv: ",
        "PROBLEM: ../evil.png: has a name that leads outside the archive",
        f"PROBLEM: {tmp_path}/none.mkv: no such file",
        "2 to do, 0 done before, 3 problems: 6 s of film, 61 pictures",
        "of one processor",
        "are free",
        "4 shots of 2 of 2 inputs, fake;",
    ):
        assert said in result.stdout, result.stdout
    document = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert [reel["measured"] for reel in document["plan"]] == [True, True]
    assert len(document["problems"]) == 3
    figures = document["estimate"]
    low, likely, high = figures["seconds_range"]
    assert 0 < low <= likely <= high
    assert figures["sampled"] == {"reels": 2, "shots": 4, "frames": figures["sampled"]["frames"], "engine": "fake"}
    assert figures["sampled"]["frames"] >= 3 * 5 + 1
    assert figures["bytes"] + 2 * max(r["estimated_bytes"] for r in document["plan"]) == pytest.approx(
        figures["peak_bytes"], abs=3
    )
    assert not (tmp_path / "out").exists()
    assert list(scratch.iterdir()) == []
