"""Memory that runs out in the middle of a run: a smaller batch, else an error that names the segment; never grey."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tight
from fakes import Cramped, content, run, statuses
from media import write


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the batches that were tried."""
    tried: list[int] = []
    monkeypatch.setattr(Cramped, "sizes", tried)
    return tried


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(("fits", "tried"), [(3, {1, 2}), (1, {1})])  # anchors are coloured one by one
def test_a_run_goes_on_with_smaller_batches_and_the_same_colours(
    film: Path, reference: Any, tmp_path: Path, sizes: list[int], fits: int, tried: set[int]
) -> None:
    report = run(film, out=tmp_path, kind="cramped", fits=fits)
    assert statuses(report) == ["done"]
    assert content(tmp_path / "film.mkv") == reference
    too_large = [size for size in sizes if size > fits]
    assert sizes[: len(too_large)] == too_large, "once memory has run out, no larger batch is tried"
    assert all(following == size // 2 for size, following in pairwise(too_large))
    assert set(sizes) - set(too_large) == tried


@pytest.mark.usefixtures("no_ray")
def test_no_memory_for_one_picture_costs_that_reel_and_no_frame_is_grey(
    film: Path, flash: Path, reference: Any, tmp_path: Path, sizes: list[int]
) -> None:
    report = run(flash, film, out=tmp_path, kind="cramped", fits=16)
    failed, done = report.results
    assert (failed.status, done.status) == ("failed", "done")
    assert failed.error is not None
    assert "not enough memory for one picture; close other programs or use fewer workers" in failed.error
    assert 1 in sizes
    assert not (tmp_path / "flash.mkv").exists()
    assert content(tmp_path / "film.mkv") == reference
    assert not list(tmp_path.rglob("*.part*"))
    assert report.exit_code == 1


@pytest.mark.slow
def test_memory_that_really_runs_out(tmp_path: Path) -> None:
    """OpenVINO in a process that is given no more memory while it colours: what needs none is coloured all the same."""
    usual = write(tmp_path / "usual.mkv", frames=20, gop=10, width=64, height=48, rate=Fraction(10))
    wide = write(tmp_path / "wide.mkv", frames=20, gop=10, width=96, height=48, rate=Fraction(10))
    command = [sys.executable, tight.__file__, str(usual), str(wide), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["free"] == ["done", "done"]
    assert found["tight"] == ["done", "failed"]
    assert "wide.mkv" in found["error"]
    # OpenVINO's own thread may be what dies of it, which it tells as a promise that nobody keeps.
    words = ("not enough memory for one picture; close other programs or use fewer workers", "Broken promise")
    assert any(said in found["error"] for said in words), found["error"]
    assert content(tmp_path / "tight/usual.mkv") == content(tmp_path / "free/usual.mkv")
    assert not (tmp_path / "tight/wide.mkv").exists()
