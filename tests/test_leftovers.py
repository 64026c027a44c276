"""What jobs keep for a resume: it is named, it can be removed, and never under a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import content, records, run, statuses

from jobs.cli import main
from jobs.ledger import FOLDER, Job

pytestmark = pytest.mark.usefixtures("no_ray")


def jobs(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["jobs", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


def segments(out: Path) -> list[Path]:
    return sorted(out.glob(f"{FOLDER}/*/reels/*/segments/*.seg"))


@pytest.fixture
def abandoned(film: Path, flash: Path, tmp_path: Path) -> Path:
    """An OUTDIR with a finished reel, and one that failed after some of its segments were done."""
    out = tmp_path / "out"
    assert statuses(run(film, flash, out=out, kind="failing")) == ["done", "failed"]
    assert segments(out)
    return out


def test_what_is_kept_is_named_and_removed(abandoned: Path, film: Path, flash: Path, reference: Any) -> None:
    count = len(segments(abandoned)) + 1
    half = segments(abandoned)[0].with_name(".000003.json.x.part")
    half.write_bytes(bytes(1000))
    total = sum(path.stat().st_size for path in [*segments(abandoned), half])
    (listed,) = json.loads(jobs("list", "-o", abandoned, "--json"))["jobs"]
    assert listed["kept"] == {"files": count, "bytes": total}
    assert f"{listed['job']}: failed; keeps {count} files, " in jobs("list", "-o", abandoned)
    assert "`reelcolor jobs clean` removes them" in jobs("status", listed["job"], "-o", abandoned)
    assert f"{listed['job']}: {count} files removed, " in jobs("clean", listed["job"], "-o", abandoned)
    assert not segments(abandoned)
    assert not half.exists()
    status = json.loads(jobs("status", listed["job"], "-o", abandoned, "--json"))
    assert status["kept"] == {"files": 0, "bytes": 0}
    assert [Path(entry["input"]).name for entry in status["failures"]] == ["flash.mkv"], "what is known of it stays"
    assert content(abandoned / "film.mkv") == reference
    assert statuses(run(film, flash, out=abandoned)) == ["skipped", "done"]


def test_records_go_with_their_segments(abandoned: Path, flash: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the next run would name every segment as damaged."""
    finished = len(records(abandoned)) - len(segments(abandoned))
    jobs("clean", "--all", "-o", abandoned)
    assert len(records(abandoned)) == finished, "those of a finished reel say what it was made of"
    run(flash, out=abandoned)
    assert "is done again" not in capsys.readouterr().err


def test_all_jobs_but_those_that_run(abandoned: Path, flash: Path) -> None:
    old = segments(abandoned)
    run(flash, out=abandoned, kind="failing", saturation=0.5)
    (job,) = {path.parts[-5] for path in segments(abandoned)} - {path.parts[-5] for path in old}
    kept = [path for path in segments(abandoned) if job in path.parts]
    with Job(abandoned, job).locked():
        said = jobs("clean", "--all", "-o", abandoned)
        assert f"{len(old)} files removed" in said
        assert f"{job}: {abandoned}: another run is working on this job" in said
        assert "another run is working on this job" in jobs("clean", job, "-o", abandoned, code=1)
        assert segments(abandoned) == kept
    jobs("clean", "--all", "-o", abandoned)
    assert not segments(abandoned)


def test_half_an_output_goes_too_unless_another_run_writes_it(abandoned: Path) -> None:
    (folder,) = {path.parents[1] for path in segments(abandoned)}
    (folder / "announced.json").write_text('"flash.mkv"')
    half = abandoned / ".flash.mkv.abc.part"
    half.write_bytes(b"half")
    jobs("clean", "--all", "-o", abandoned)
    assert not half.exists()
    assert (folder / "announced.json").exists(), "what appears under that name is still known for ours"


def test_usage(tmp_path: Path) -> None:
    assert "give either a JOB or --all" in jobs("clean", code=2)
    assert "give either a JOB or --all" in jobs("clean", "x", "--all", "-o", tmp_path, code=2)
    assert "of which OUTDIR" in jobs("clean", "--all", code=2)
    assert jobs("clean", "--all", "-o", tmp_path) == f"no jobs in {tmp_path}\n"
