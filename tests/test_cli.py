"""The command line as a shell sees it: documents on stdout, words on stderr, exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import fakes
import numpy as np
import pytest
from click.testing import CliRunner, Result
from media import write
from PIL import Image

from jobs import console, run
from jobs.cli import main
from pipeline import storage

SIZE: dict[str, Any] = {"width": 64, "height": 48, "frames": 6}


@pytest.fixture(autouse=True)
def fake_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.run.default_colouring", lambda _recipe: fakes.colouring())
    monkeypatch.setattr("jobs.preview.default_colouring", lambda _recipe: fakes.colouring())
    monkeypatch.setattr(run.Run, "_work_on_ray", lambda self, _segments: self._work_here(engine=True))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def album(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return path


def photo(level: int = 90) -> bytes:
    buffer = BytesIO()
    Image.linear_gradient("L").point(lambda v: v * level // 255).save(buffer, "PNG")
    return buffer.getvalue()


def test_bare_and_version() -> None:
    bare = call()
    assert (bare.exit_code, bare.output) == (0, call("--help").output)
    assert call("--version").output.startswith("reelcolor, version ")


def test_colorize_prints_one_document(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", **SIZE)
    result = call("colorize", source, "-o", tmp_path / "out", "--json", "--preset", "ultrafast")
    assert result.exit_code == 0, result.output
    (reel,) = json.loads(result.stdout)["reels"]
    assert set(reel) == {"input", "output", "status", "frames", "seconds", "fps", "error", "warnings"}
    assert (reel["input"], reel["output"]) == (str(source), str(tmp_path / "out/a.mkv"))
    assert (reel["status"], reel["frames"], reel["error"]) == ("done", 6, None)
    assert reel["fps"] > 0
    assert reel["seconds"] > 0
    again = json.loads(call("colorize", source, "-o", tmp_path / "out", "--json", "--preset", "ultrafast").stdout)
    assert again["reels"][0]["status"] == "skipped"


def test_words_go_to_stderr(tmp_path: Path) -> None:
    sources = [write(tmp_path / name, **SIZE) for name in ("a.mkv", "b.mkv")]
    result = call("colorize", *sources, tmp_path / "none.mkv", "-o", tmp_path / "out", "--preset", "ultrafast")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"failed: {tmp_path}/none.mkv: no such file or folder" in result.stderr
    assert "2 done, 1 failed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["colorize"], "Missing argument 'INPUT...'"),
        (["colorize", "a.mkv"], "Missing option '-o'"),
        (["colorize", "a.mkv", "-o", "x", "--crf", "99"], "CRF of h264 lies in 0..51, got 99"),
        (["colorize", "a.mkv", "-o", "x", "--crf", "18", "--profile", "mezzanine"], "prores has no CRF"),
        (["colorize", "a.mkv", "-o", "x", "--preset", "warp"], "preset 'warp' is not one of h264's"),
        (["colorize", "a.mkv", "-o", "x", "--codec", "vp9"], "'vp9' is not one of"),
        (["colorize", "a.mkv", "-o", "x", "--saturation", "-1"], "--saturation expects 0 to 2, got -1"),
        (["colorize", "a.mkv", "-o", "x", "--segment-seconds", "0.1"], "--segment-seconds expects 1 to 3600"),
        (["colorize", "a.mkv", "-o", "x", "--workers", "0"], "0 is not in the range"),
        (["colorize", "a.mkv", "-o", "x", "--fps", "soon"], "--fps expects a rate such as 25"),
        (["colorize", "a.mkv", "-o", "x", "--recipe", "none.toml"], "none.toml: cannot be read"),
        (["colorize", "a.mkv", "-o", "x", "--max-workers", "4"], "needs --address"),
        (["colorise", "a.mkv"], "No such command 'colorise'"),
        (["probe", "a.mkv", "--fps", "x"], "--fps expects a rate"),
        (["colorize", "", "-o", "x"], "an argument is empty"),
        (["train", "default", "--data", "a.mkv", "-o", ""], "an argument is empty"),
    ],
)
def test_usage_errors_exit_2(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "x").exists()


def test_an_album_with_a_bad_member_is_written_and_fails(tmp_path: Path) -> None:
    source = album(tmp_path / "scans.zip", good_png=photo(), bad_png=b"\x89PNG\r\n\x1a\nnothing", notes_txt=b"hello")
    result = call("colorize", source, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 1
    (reel,) = json.loads(result.stdout)["reels"]
    assert reel["status"] == "failed"
    assert "bad.png" in reel["error"]
    with zipfile.ZipFile(tmp_path / "out/scans.zip") as made, zipfile.ZipFile(source) as was:
        assert made.namelist() == was.namelist()
        assert made.read("notes.txt") == b"hello"
        assert Image.open(BytesIO(made.read("good.png"))).mode == "RGB"
    again = call("colorize", source, "-o", tmp_path / "out", "--json")
    assert (again.exit_code, json.loads(again.stdout)["reels"][0]["error"]) == (1, reel["error"])


def test_limits_are_set_by_option_and_by_recipe(tmp_path: Path) -> None:
    source = album(tmp_path / "scans.zip", a_png=photo())
    command = ("colorize", source, "-o", tmp_path / "out", "--json")
    small = call(*command, "--limit", "image-pixels=5000")
    assert small.exit_code == 1
    assert "256×256 pixels, more than the limit of 5000 (image-pixels)" in json.loads(small.stdout)["reels"][0]["error"]
    (tmp_path / "r.toml").write_text("[limits]\nimage-pixels = 5000")
    by_file = (*command, "--recipe", tmp_path / "r.toml", "--overwrite")
    assert call(*by_file).exit_code == 1
    assert call(*by_file, "--limit", "image-pixels=65536").exit_code == 0
    wrong = call(*command, "--limit", "pixels=5")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "no such limit 'pixels' (did you mean 'image-pixels'?)" in wrong.stderr


def test_a_single_photo_and_a_folder_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        (folder / name).write_bytes(photo())
    assert call("colorize", folder / "a.png", "-o", tmp_path / "one").exit_code == 0
    with Image.open(tmp_path / "one/a.png") as made:
        assert made.mode == "RGB"
    assert call("colorize", folder, "-o", tmp_path / "all").exit_code == 0
    names = sorted(str(p.relative_to(tmp_path / "all")) for p in (tmp_path / "all").rglob("*.png"))
    assert names == ["a.png", "deep/b.png"]
    (tmp_path / "all/a.png").write_bytes(b"mine now")
    again = call("colorize", folder, "-o", tmp_path / "all")
    assert again.exit_code == 1
    assert "all/a.png exists; --overwrite replaces it" in again.stderr
    assert (tmp_path / "all/a.png").read_bytes() == b"mine now"


def test_an_image_that_may_not_be_read_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_bytes(photo())

    class Guarded(storage._LocalFile):  # root may read anything
        def __init__(self, path: Path) -> None:
            if path == folder / "b.png":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            super().__init__(path)

    monkeypatch.setattr(storage, "_LocalFile", Guarded)
    for _ in range(2):
        result = call("colorize", folder, "-o", tmp_path / "out")
        assert result.exit_code == 1
        said = f"failed: {folder}: not all of it could be coloured: b.png: cannot be read: Permission denied\n"
        assert result.stderr == said
        assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png"]
    assert not list((tmp_path / "out").rglob("*.seg"))


def test_dry_run_writes_nothing_and_sees_what_is_coming(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", **SIZE)
    bad = album(tmp_path / "b.zip", good_png=photo(), **{"../evil_png": photo()})
    (tmp_path / "c.mkv").write_bytes(b"no video")
    arguments = ("colorize", source, bad, tmp_path / "c.mkv", "-o", tmp_path / "out", "--dry-run")
    result = call(*arguments)
    assert result.exit_code == 1
    assert not (tmp_path / "out").exists()
    for said in (
        f"{source} → {tmp_path}/out/a.mkv",
        "h264 64×48 25.000 fps → h264 yuv420p in Matroska; bt601 (assumed), limited range",
        "6 frames in 1 segments",
        "PROBLEM: ../evil.png: has a name that leads outside the archive",
        f"PROBLEM: {tmp_path}/c.mkv: ",
        "2 to do, 7 frames",
        "not measured here",
    ):
        assert said in result.stdout, result.stdout
    document = json.loads(call(*arguments, "--json").stdout)
    assert [reel["frames"] for reel in document["plan"]] == [6, 1]
    assert len(document["problems"]) == 2
    assert document["estimate"]["bytes"] > 0
    fine = call("colorize", source, "-o", tmp_path / "out", "--dry-run")
    assert (fine.exit_code, "PROBLEM" in fine.stdout) == (0, False)


def test_a_recipe_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", **SIZE)
    (tmp_path / "r.toml").write_text('profile = "preservation"\nsaturation = 0.5\n')
    result = call(
        "colorize", source, "-o", tmp_path / "out", "--recipe", tmp_path / "r.toml", "--saturation", "0", "--json"
    )
    assert json.loads(result.stdout)["reels"][0]["output"].endswith("a.mkv")
    plan = json.loads(next((tmp_path / "out").glob(".reelcolor/*/plan.json")).read_text())
    assert (plan["recipe"]["profile"], plan["recipe"]["saturation"]) == ("preservation", 0.0)


def test_probe(tmp_path: Path) -> None:
    video = write(tmp_path / "a.mkv", **SIZE)
    archive = album(tmp_path / "b.zip", a_png=photo(), b_txt=b"x")
    result = call("probe", video, archive, "--json")
    assert result.exit_code == 0, result.output
    described, second = json.loads(result.stdout)["inputs"]
    expected = {"codec": "h264", "width": 64, "height": 48, "fps": "25", "vfr": False, "frames": 6, "bit_depth": 8}
    expected |= {"range": "limited", "matrix": "bt601", "in_colour": "no", "field_order": "progressive"}
    assert {key: described[key] for key in expected} == expected
    assert "matrix" in described["assumed"]
    assert (second["kind"], second["images"], second["members"]) == ("zip", 1, 2)
    words = call("probe", video, archive, tmp_path / "none.avi")
    assert words.exit_code == 1
    assert "matrix bt601 (assumed), progressive" in words.stdout
    assert f"{tmp_path}/none.avi: no such file or folder" in words.stdout


@pytest.mark.parametrize(("grey_from", "expected"), [(75, "yes"), (50, "in parts"), (0, "no")])
def test_probe_sees_colour(tmp_path: Path, grey_from: int, expected: str) -> None:
    with av.open(str(tmp_path / "c.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        rgb = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8).repeat(12, 0).repeat(16, 1)
        for n in range(75):
            shown = rgb if n < grey_from else np.repeat(rgb[..., :1], 3, -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, "rgb24").reformat(format="yuv444p")))
        container.mux(stream.encode(None))
    (described,) = json.loads(call("probe", tmp_path / "c.mkv", "--json").stdout)["inputs"]
    assert described["in_colour"] == expected


def test_verify_proves_and_disproves(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", **SIZE)
    call("colorize", source, "-o", tmp_path / "out", "--profile", "preservation")
    good = call("verify", source, tmp_path / "out/a.mkv")
    assert good.exit_code == 0, good.output
    assert "bit for bit" in good.stdout
    shorter = write(tmp_path / "b.mkv", **SIZE | {"frames": 5})
    bad = call("verify", shorter, tmp_path / "out/a.mkv", "--json")
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["problems"]
    assert call("verify", source, tmp_path / "none.mkv").exit_code == 1
    assert "Error: " in call("verify", source, tmp_path / "none.mkv").stderr


def test_verify_takes_no_pictures_for_films(tmp_path: Path) -> None:
    """FFmpeg finds the first JPEG that is stored in an archive, and would have it proven in the name of all."""
    photo, photos, film = tmp_path / "a.jpg", tmp_path / "photos.zip", write(tmp_path / "a.mkv", **SIZE)
    Image.linear_gradient("L").save(photo)
    with zipfile.ZipFile(photos, "w") as archive:
        archive.write(photo, "a.jpg")
    for source, output in ((photos, photos), (photo, photo), (film, photos), (photos, film)):
        refused = call("verify", source, output)
        assert refused.exit_code == 1
        assert "expected a video; pictures are checked when they are written" in refused.stderr


def test_an_output_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", **SIZE)
    for dry in ((), ("--dry-run",)):
        refused = call("colorize", source, "-o", source, *dry)
        assert refused.exit_code == 1
        assert f"{source}: is a file, expected an output folder; choose another with -o" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "none.mkv", "nor.mkv"),
        ("models", "show", "nosuch"),
        ("models", "verify", "nosuch"),
        ("models", "import", "none.pth", "--network", "eccv16", "-o", "x.safetensors"),
        ("evaluate", "default", "--data", "nowhere", "-o", "results"),
        ("compile", "nosuch"),
        ("train", "default", "--data", "nowhere", "-o", "run"),
    ],
)
def test_json_is_json_where_nothing_could_be_done(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments, "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert result.stderr.strip() == f"Error: {error}"


def test_names_that_no_terminal_can_show(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\nfailed: \x1b[31mred [bold]\xff.mkv")
    source = write(tmp_path / "a.mkv", **SIZE).rename(tmp_path / name)
    result = call("colorize", source, "-o", tmp_path / "out", "--json", "--preset", "ultrafast")
    assert result.exit_code == 0, result.output
    (reel,) = json.loads(result.stdout)["reels"]
    assert Path(reel["output"]) == tmp_path / "out" / name
    assert Path(reel["output"]).exists()
    assert "\x1b" not in result.stderr
    assert not [line for line in result.stderr.splitlines() if line.startswith("failed")]
    assert "[bold]" in result.stderr
    assert len(call("colorize", source, "-o", tmp_path / "other", "--dry-run").stdout.splitlines()[0].split("→")) == 2
    assert call("probe", source).exit_code == 0


@pytest.mark.parametrize("command", ["colorize", "plan", "probe"])
def test_a_file_is_named_as_it_is_and_on_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "two  spaces.mkv").write_bytes(b"junk" * 100)
    (tmp_path / "x\nfailed: all.txt").touch()
    (tmp_path / "y\nfailed: all.mkv").write_bytes(b"junk" * 100)
    result = call(command, tmp_path, *(() if command == "probe" else ("-o", tmp_path / "out")))
    assert result.exit_code == 1
    assert f"{tmp_path}/two  spaces.mkv: is not a video" in result.output
    assert not [line for line in result.output.splitlines() if line.startswith("failed: all")]
    if command == "colorize":
        job = next((tmp_path / "out/.reelcolor").glob("*/")).name
        said = call("jobs", "logs", job, "-o", tmp_path / "out").stdout
        assert not [line for line in said.splitlines() if line.startswith("failed: all")]


def test_what_nobody_thought_of_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("of\nall things")

    monkeypatch.setattr(run, "prepare", broken)
    said = "internal error, RuntimeError: of all things; --debug shows where"
    result = call("colorize", "a.mkv", "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {said}\n")
    (reel,) = json.loads(call("colorize", "a.mkv", "-o", tmp_path / "out", "--json").stdout)["reels"]
    assert (reel["status"], reel["error"]) == ("failed", said)


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", **SIZE)
    (tmp_path / "file").touch()
    for dry in ((), ("--dry-run",)):
        result = call("colorize", source, "-o", tmp_path / "file/out", *dry)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {tmp_path}/file: is a file, expected an output folder")
        assert len(result.stderr.splitlines()) == 1
    (reel,) = json.loads(call("colorize", source, "-o", tmp_path / "file/out", "--json").stdout)["reels"]
    assert (reel["status"], reel["input"]) == ("failed", str(source))


def test_a_folder_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    result = call("probe", "a.mkv", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"].startswith("the folder that this was started in is gone")


def test_a_model_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    source = write(tmp_path / "a.mkv", **SIZE)
    result = call("colorize", source, "-o", tmp_path / "out", "--model", "nonesuch")
    assert result.exit_code == 1
    assert "nonesuch: no such model" in result.stderr
    assert not (tmp_path / "out").exists()


def test_progress_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(console, "_LINE_SECONDS", 0.0)
    shown = console.Console()
    shown.begin([("1", "/x/a.mkv", 100, 20), ("2", "/x/b.mkv", 50, 0)])
    shown.advance({"1": 60})
    shown.end()
    assert "60 of 150 frames" in capsys.readouterr().err


def test_the_live_display(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = console.Console()
    shown.begin([("1", "/x/[odd] name.mkv", 100, 0)])
    shown.start_clock()
    shown.advance({"1": 60})
    assert shown._progress is not None
    shown._progress.refresh()
    shown.end()
    printed = capsys.readouterr().err
    assert "[odd] name.mkv" in printed
    assert "60/100" in printed


def test_debug_shows_where(tmp_path: Path) -> None:
    """Without it an error is a line; with it, a traceback. In a process of its own, as logging is set up for good."""
    (tmp_path / "bad.mkv").write_bytes(b"x" * 100)
    code = "from jobs.cli import main; main()"
    arguments = ["verify", str(tmp_path / "bad.mkv"), str(tmp_path / "bad.mkv")]
    plain, debug = (
        subprocess.run([sys.executable, "-c", code, *arguments, *extra], check=False, capture_output=True, text=True)
        for extra in ([], ["--debug"])
    )
    assert plain.returncode == debug.returncode == 1
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert "InputError" in debug.stderr
