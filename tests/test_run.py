"""Whole runs with a fake network: the result is the same however it came about, and every fault is one clear line.

What a run makes without Ray and without faults, `reference`, is what every other run must make.
"""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import SIZE, content, no_leftovers, records, run, statuses
from media import write
from PIL import Image

from jobs import pool
from jobs.hands import Census
from jobs.ledger import FOLDER, ReelLedger
from jobs.run import Run
from jobs.tasks import AssembleTask, _added_up
from pipeline import storage
from pipeline.errors import StorageError

# --- without faults


def test_one_small_segment_needs_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "local_ray", None)
    source = write(tmp_path / "short.mp4", frames=10, **SIZE)
    report = run(source, out=tmp_path / "out")
    (result,) = report.results
    assert (result.status, result.frames, result.output) == ("done", 10, str(tmp_path / "out/short.mp4"))
    assert report.exit_code == 0
    assert no_leftovers(tmp_path / "out")


def test_any_number_of_workers_makes_the_same(film: Path, reference: Any, tmp_path: Path) -> None:
    report = run(film, out=tmp_path, workers=3)
    assert statuses(report) == ["done"]
    assert len(records(tmp_path)) > 3
    assert content(tmp_path / "film.mkv") == reference
    assert reference[0] == content(film)[0]


@pytest.mark.usefixtures("no_ray")
def test_the_plan_is_a_function_of_input_and_recipe(film: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(film, out=tmp_path / name)
    one, two = (next((tmp_path / name).glob(f"{FOLDER}/*/plan.json")).read_text() for name in ("one", "two"))
    assert one == two
    (entry,) = json.loads(one)["reels"]
    assert [s["frames"] for s in entry["segments"]] == [len(r) for r in _pts(tmp_path / "one")]


def _pts(out: Path) -> list[list[int]]:
    return [json.loads(path.read_text())["file"]["pts"] for path in records(out)]


def test_pictures_that_segments_warn_of_are_added_up() -> None:
    """But not packets and stretches, which two may have met, nor what is counted of something else."""
    one = ["2 damaged packets skipped", "3 damaged pictures patched by the decoder", "5 of 25 packets gave no picture"]
    two = ["2 damaged packets skipped", "3 damaged pictures patched by the decoder", "6 of 25 packets gave no picture"]
    lines = [*one, *two, "4 pictures had luma above the peak of their depth", "the rest of the file cannot be read"]
    assert _added_up(lines) == [
        one[0], "6 damaged pictures patched by the decoder", one[2], two[2], *lines[-2:]
    ]  # fmt: skip


@pytest.mark.usefixtures("no_ray")
def test_a_disk_without_room_is_not_written_to(
    film: Path, reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(storage, "free_bytes", lambda _folder: 0)
        (result,) = run(film, out=tmp_path).results
    assert result.status == "failed"
    assert " are needed next; free some and run the same command again" in str(result.error)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".mkv", ".seg")]
    assert statuses(run(film, out=tmp_path)) == ["done"]
    assert content(tmp_path / "film.mkv") == reference


@pytest.mark.usefixtures("no_ray")
def test_scratch_of_a_process_that_was_killed_is_removed(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, alive = (tmp_path / f"reelcolor-scratch-{name}" for name in ("dead", "alive"))
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "lock").touch()
    with (alive / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert statuses(run(film, out=tmp_path / "out")) == ["done"]
    assert [folder.exists() for folder in (dead, alive)] == [False, True]


def test_no_more_is_said_to_be_done_than_there_is() -> None:
    """A worker's last word may be of a segment that has been finished since."""
    told: list[dict[str, int]] = []
    run = Run.__new__(Run)
    run._job = SimpleNamespace(check=lambda: None)  # type: ignore[assignment]
    run._states = {"a": SimpleNamespace(reel=SimpleNamespace(frames=60), frames_done=50)}  # type: ignore[dict-item]
    run._under_way = {"a": None}
    run._books = SimpleNamespace(tick=lambda done, _census: told.append(done))  # type: ignore[assignment]
    run.tick({"a": 10}, Census(1))
    run.tick({"a": 20}, Census(1))
    assert told == [{"a": 60}, {"a": 60}]


@pytest.mark.usefixtures("no_ray")
def test_the_same_command_again_does_nothing(film: Path, tmp_path: Path) -> None:
    run(film, out=tmp_path)
    before = _file(tmp_path / "film.mkv")
    again = run(film, out=tmp_path)
    assert statuses(again) == ["skipped"]
    assert again.results[0].frames == 60
    assert _file(tmp_path / "film.mkv") == before
    assert statuses(run(film, out=tmp_path, saturation=0.5)) == ["failed"], "another recipe's output is in the way"


def _file(path: Path) -> tuple[int, int, int]:
    """What a write would change; a reader's look changes the access time alone."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


@pytest.mark.usefixtures("no_ray")
def test_segments_left_by_a_run_killed_as_it_ended_are_removed(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ReelLedger, "remove_media", lambda _: None)
        run(film, out=tmp_path)
    assert not no_leftovers(tmp_path)
    assert statuses(run(film, out=tmp_path)) == ["skipped"]
    assert no_leftovers(tmp_path)


@pytest.mark.usefixtures("no_ray")
def test_a_job_with_more_inputs_keeps_what_is_done(film: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more.mkv", frames=5, **SIZE)
    run(film, out=tmp_path / "out")
    assert statuses(run(film, more, out=tmp_path / "out")) == ["skipped", "done"]


@pytest.mark.usefixtures("no_ray")
def test_a_foreign_output_is_not_replaced_unasked(film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "film.mkv").write_text("precious")
    other = write(tmp_path / "other.mkv", frames=5, **SIZE)
    report = run(film, other, out=out)
    assert statuses(report) == ["failed", "done"]
    assert "film.mkv exists; --overwrite replaces it" in str(report.results[0].error)
    assert (out / "film.mkv").read_text() == "precious"
    assert statuses(run(film, other, out=out, overwrite=True)) == ["done", "skipped"]


@pytest.mark.usefixtures("no_ray")
def test_an_output_lost_or_changed_later(film: Path, reference: Any, tmp_path: Path) -> None:
    run(film, out=tmp_path)
    (tmp_path / "film.mkv").unlink()
    assert statuses(run(film, out=tmp_path)) == ["done"]
    assert content(tmp_path / "film.mkv") == reference
    with (tmp_path / "film.mkv").open("ab") as f:
        f.write(b"!")
    changed = run(film, out=tmp_path)
    assert "exists; --overwrite" in str(changed.results[0].error)
    assert statuses(run(film, out=tmp_path, overwrite=True)) == ["done"]


@pytest.mark.usefixtures("no_ray")
def test_a_changed_source_is_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.mkv", frames=10, **SIZE)
    run(source, out=tmp_path / "out")
    write(source, frames=12, **SIZE)
    report = run(source, out=tmp_path / "out")
    assert [(r.status, r.frames) for r in report.results] == [("done", 12)]
    assert "a.mkv: changed since it was coloured; done again" in capsys.readouterr().err


@pytest.mark.usefixtures("no_ray")
def test_names_that_meet_are_kept_apart(tmp_path: Path) -> None:
    avi = write(tmp_path / "a.avi", codec="mpeg4", frames=5, **SIZE)
    mkv = write(tmp_path / "a.mkv", frames=5, **SIZE)
    report = run(avi, mkv, out=tmp_path / "out", codec="ffv1", preset=None)
    outputs = {Path(str(r.output)).name for r in report.results}
    assert statuses(report) == ["done", "done"]
    assert len(outputs) == 2
    assert "a.mkv" in outputs


@pytest.mark.usefixtures("no_ray")
def test_a_source_is_never_written_over(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", frames=5, **SIZE)
    before = source.read_bytes()
    report = run(source, out=tmp_path, overwrite=True)
    assert "would replace a source" in str(report.results[0].error)
    assert source.read_bytes() == before


@pytest.mark.usefixtures("no_ray")
def test_one_bad_file_does_not_stop_the_others(film: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"this is not a video" * 100)
    (tmp_path / "empty.mkv").touch()
    good = write(tmp_path / "good.mkv", frames=5, **SIZE)
    report = run(tmp_path / "bad.mp4", good, tmp_path / "empty.mkv", tmp_path / "none.mov", film, out=tmp_path / "out")
    assert statuses(report) == ["failed", "done", "failed", "done", "failed"]
    assert report.exit_code == 1
    errors = [str(r.error) for r in report.results if r.error]
    assert all("\n" not in error for error in errors)
    assert all(error.startswith(str(tmp_path)) for error in errors)


# --- faults that the ledger answers to


def interrupted(film: Path, out: Path) -> None:
    """Leave a job with all segments but no output: assembly fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.assemble.assemble", _no_assembly)
        assert statuses(run(film, out=out)) == ["failed"]
    assert not (out / "film.mkv").exists()


def _no_assembly(*_args: Any) -> None:
    raise StorageError("the power went")


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda record: record.with_suffix(".seg").write_bytes(b"garbage"), "file is missing or damaged"),
        (lambda record: record.with_suffix(".seg").unlink(), "file is missing or damaged"),
        (lambda record: record.write_bytes(record.read_bytes()[:200]), "ledger record cannot be read"),
        (lambda record: record.write_text("{}"), "ledger record cannot be read"),
        (lambda record: record.unlink(), ""),
        (lambda record: (record.parents[3] / "plan.json").write_text("{"), ""),
    ],
)
def test_damage_before_resume(
    film: Path,
    reference: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    said: str,
) -> None:
    interrupted(film, tmp_path)
    damage(records(tmp_path)[2])
    capsys.readouterr()
    assert statuses(run(film, out=tmp_path)) == ["done"]
    assert content(tmp_path / "film.mkv") == reference
    noted = [line for line in capsys.readouterr().err.splitlines() if "is done again" in line]
    assert len(noted) == bool(said)
    assert all(said in line and "segment 3 of" in line for line in noted)


@pytest.mark.usefixtures("no_ray")
def test_a_source_that_changes_in_its_middle_is_begun_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where a damaged copy is copied again: neither its size nor its ends tell."""
    stuffing = (b"\x47\x1f\xff\x10" + bytes([255]) * 184) * 6000  # MPEG-TS's null packets, over a megabyte
    sound = write(tmp_path / "film.ts", frames=60, gop=2, **SIZE).read_bytes()
    middle = len(sound) // 2 // 188 * 188 + 100
    damaged = sound[:middle] + bytes(40) + sound[middle + 40 :]
    source, out = tmp_path / "film.ts", tmp_path / "out"
    source.write_bytes(stuffing + damaged + stuffing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.assemble.assemble", _no_assembly)
        assert statuses(run(source, out=out)) == ["failed"]
    made = len(records(out))
    assert made > 3
    source.write_bytes(stuffing + sound + stuffing)
    capsys.readouterr()
    assert statuses(run(source, out=out)) == ["done"]
    assert capsys.readouterr().err.count("is done again: it was made from another source") == made
    source.touch()
    assert statuses(run(source, out=out)) == ["skipped"], "what is done is told by its content"


@pytest.mark.usefixtures("no_ray")
def test_segments_of_another_engine_are_not_mixed_in(film: Path, reference: Any, tmp_path: Path) -> None:
    interrupted(film, tmp_path)
    records(tmp_path)[0].unlink()
    assert statuses(run(film, out=tmp_path, key="another engine")) == ["done"]
    made = {json.loads(path.read_text())["engine"] for path in records(tmp_path)}
    assert made == {"another engine"}
    assert content(tmp_path / "film.mkv") == reference, "this fake computes the same under any key"


@pytest.mark.usefixtures("no_ray")
def test_a_reel_that_fails_leaves_the_others(flash: Path, film: Path, reference: Any, tmp_path: Path) -> None:
    report = run(flash, film, out=tmp_path, kind="failing")
    assert statuses(report) == ["failed", "done"]
    assert report.results[0].error == f"{flash}: too bright"
    assert content(tmp_path / "film.mkv") == reference


@pytest.mark.usefixtures("no_ray")
def test_an_engine_that_does_not_open_is_said_once(
    film: Path, flash: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(film, flash, out=tmp_path, kind="broken")
    assert statuses(report) == ["failed", "failed"]
    assert capsys.readouterr().err.count("the weights are damaged") == 1
    assert [r.error for r in report.results] == [f"{path}: the weights are damaged" for path in (film, flash)]


@pytest.mark.usefixtures("no_ray")
def test_a_source_that_grows_meanwhile(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.mkv"
    source.write_bytes(film.read_bytes())

    def grow(_run: Run, _task: Any) -> None:
        with source.open("ab") as f:
            f.write(b"more")

    monkeypatch.setattr(Run, "started", grow)
    report = run(source, out=tmp_path / "out")
    assert "a.mkv: changed while it was coloured; run the same command again" in str(report.results[0].error)
    assert not (tmp_path / "out/a.mkv").exists()
    monkeypatch.undo()
    monkeypatch.setattr(Run, "_work_on_ray", lambda self, _segments: self._work_here(engine=True))
    assert statuses(run(source, out=tmp_path / "out")) == ["done"]


@pytest.mark.usefixtures("no_ray")
def test_killed_between_rename_and_record(film: Path, reference: Any, tmp_path: Path) -> None:
    """The output is there and whole, but nothing says that it is ours except the announcement."""
    run(film, out=tmp_path)
    (done,) = tmp_path.glob(f"{FOLDER}/*/reels/*/done.json")
    done.unlink()
    done.with_name("announced.json").write_text('"film.mkv"')
    assert statuses(run(film, out=tmp_path)) == ["done"]
    assert content(tmp_path / "film.mkv") == reference


def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB; skips where none can be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here (not root, or no CAP_SYS_ADMIN)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


small_disk = pytest.fixture(full_disk)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("left", [60_000, 130_000])
def test_a_full_disk_is_one_line_and_resumes(small_disk: Path, film: Path, reference: Any, left: int) -> None:
    """Full while a segment is written, and while the output is."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400 * 1024 - left))
    report = run(film, out=small_disk / "out")
    assert statuses(report) == ["failed"]
    assert re.search(r"film\.mkv: .*[Nn]o space left", str(report.results[0].error))
    assert not (small_disk / "out/film.mkv").exists()
    assert not list((small_disk / "out").rglob("*.part*"))
    ballast.unlink()
    assert statuses(run(film, out=small_disk / "out")) == ["done"]
    assert content(small_disk / "out/film.mkv") == reference


# --- two runs into one folder


RIVAL = """
import sys
from contextlib import contextmanager
from pathlib import Path
from jobs.claims import claiming

with claiming(Path(sys.argv[1])) as claim:
    print(claim(sys.argv[2]), flush=True)
    sys.stdin.read()
"""


@contextmanager
def rival(out: Path, output: str) -> Iterator[None]:
    """Another process that makes an output meanwhile."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", RIVAL, str(out / FOLDER / "claims"), output]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield
        process.communicate()


@pytest.mark.usefixtures("no_ray")
def test_what_another_run_makes_is_left_to_it(film: Path, reference: Any, tmp_path: Path) -> None:
    other = write(tmp_path / "other.mkv", frames=5, **SIZE)
    with rival(tmp_path / "out", "film.mkv"):
        report = run(film, other, out=tmp_path / "out", saturation=0.5)
        assert statuses(report) == ["failed", "done"]
        assert "another run is making" in str(report.results[0].error)
        assert len(records(tmp_path / "out")) == 1, "of the other alone"
    assert statuses(run(film, out=tmp_path / "out")) == ["done"]
    assert content(tmp_path / "out/film.mkv") == reference


@pytest.mark.usefixtures("no_ray")
def test_folders_of_photographs_go_into_one_at_the_same_time(tmp_path: Path) -> None:
    for name in ("sea", "land"):
        (tmp_path / name).mkdir()
        for n in range(2):
            Image.new("L", (40, 30), 99).save(tmp_path / name / f"{name}{n}.png")
    out = tmp_path / "out"
    with rival(out, "sea0.png"):
        report = run(tmp_path / "sea", tmp_path / "land", out=out)
        assert statuses(report) == ["failed", "done"]
        assert "another run is making" in str(report.results[0].error)
    assert statuses(run(tmp_path / "sea", tmp_path / "land", out=out)) == ["done", "skipped"]
    assert {path.name for path in out.glob("*.png")} == {"sea0.png", "sea1.png", "land0.png", "land1.png"}


@pytest.mark.usefixtures("no_ray")
def test_an_output_that_appears_meanwhile_is_kept(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right before ours gets its name, and again in the next run."""
    real = storage.publish

    def late(temporary: Path, target: Path, replace: bool = True) -> None:
        if target.name == "film.mkv":
            target.write_text("precious")
        real(temporary, target, replace)

    monkeypatch.setattr(storage, "publish", late)
    report = run(film, out=tmp_path)
    assert "film.mkv: appeared while" in str(report.results[0].error)
    monkeypatch.setattr(storage, "publish", real)
    assert "exists; --overwrite" in str(run(film, out=tmp_path).results[0].error)
    assert (tmp_path / "film.mkv").read_text() == "precious"
    assert statuses(run(film, out=tmp_path, overwrite=True)) == ["done"]
    assert no_leftovers(tmp_path)


@pytest.mark.usefixtures("no_ray")
def test_a_worker_killed_as_it_put_the_output_together_leaves_nothing(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = AssembleTask.run

    def after_another(task: AssembleTask, *rest: Any) -> Any:
        ReelLedger(task.folder).announce(task.reel.name)
        (tmp_path / ".film.mkv.a1b2c3.part.mkv").write_bytes(b"half")
        return second(task, *rest)

    monkeypatch.setattr(AssembleTask, "run", after_another)
    assert statuses(run(film, out=tmp_path)) == ["done"]
    assert no_leftovers(tmp_path)


@pytest.mark.usefixtures("no_ray")
def test_a_killed_run_leaves_nothing_in_the_way_of_one_with_other_options(film: Path, tmp_path: Path) -> None:
    """Killed as it put the output together; what the other makes is not taken for its own afterwards."""
    interrupted(film, tmp_path)
    (ledger,) = tmp_path.glob(f"{FOLDER}/*/reels/*")
    (ledger / "announced.json").write_text('"film.mkv"')
    (tmp_path / ".film.mkv.a1b2c3.part.mkv").write_bytes(b"half")
    assert statuses(run(film, out=tmp_path, saturation=0.5)) == ["done"]
    assert not list(tmp_path.glob(".*.part*"))
    before = content(tmp_path / "film.mkv")
    assert "exists; --overwrite" in str(run(film, out=tmp_path).results[0].error)
    assert content(tmp_path / "film.mkv") == before
