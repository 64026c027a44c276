"""Runs from and to an S3 server on this machine (moto), with throttling and broken connections on request."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
from fakes import run, statuses
from media import write
from PIL import Image
from s3server import SECRET, Server, bucket, fetched, forget_clients, put, serving

from jobs.run import Run
from pipeline.errors import InputError, StorageError
from pipeline.frames import Source
from pipeline.probe import probe
from pipeline.storage import place, replacing, sha256_file, write_bytes
from pipeline.stores import StorePath

pytest.importorskip("s3fs", reason="needs s3fs: pip install -c constraints-s3.txt -e '.[s3,s3-test]'")
pytest.importorskip("moto", reason="needs moto: pip install -c constraints-s3.txt -e '.[s3,s3-test]'")


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Server, str]]:
    with serving() as found:
        yield found


@pytest.fixture
def server(running: tuple[Server, str]) -> Iterator[Server]:
    with bucket(*running) as found:
        yield found


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("faults", [0.0, 0.05], ids=["sound", "faulty"])
def test_a_reel_from_s3_to_s3(film: Path, reference: Any, server: Server, tmp_path: Path, faults: float) -> None:
    url = put(film, "s3://reels/in/film.mkv")
    server.faults = faults
    report = run(url, out=place("s3://reels/out"))
    assert statuses(report) == ["done"], report
    assert bool(server.failed) == bool(faults)
    assert fetched("s3://reels/out/film.mkv", tmp_path) == reference
    server.faults = 0.0
    for name in StorePath("s3://reels").files():
        assert SECRET.encode() not in StorePath(f"s3://reels/{name}").read_bytes()
        assert not name.endswith((".seg", "/lock"))
    server.requests.clear()
    assert statuses(run(url, out=place("s3://reels/out"))) == ["skipped"]
    assert sum("list-type=2" in query and "reelcolor" in query for _, _, query in server.requests) == 1


@pytest.mark.usefixtures("no_ray")
def test_an_archive_from_s3_to_s3(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(5):
            with archive.open(f"{n}.png", "w") as f:
                Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40) + np.uint8(n)).save(f, "png")
    url = put(path, "s3://reels/scans.zip")
    assert statuses(run(path, out=tmp_path / "out")) == ["done"]
    assert statuses(run(url, out=place("s3://reels/out"))) == ["done"]
    assert sha256_file(place("s3://reels/out/scans.zip")) == sha256_file(tmp_path / "out/scans.zip")


@pytest.mark.usefixtures("no_ray")
def test_an_interrupted_run_goes_on(
    film: Path, reference: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, out = put(film, "s3://reels/in/film.mkv"), place("s3://reels/out")
    made: list[str] = []
    succeeded = Run.succeeded

    def counted(self: Run, task: Any, result: Any) -> Any:
        made.append(task.key.partition("/")[2])
        if len(made) == 3:  # of which the run has not heard: it is swept away
            raise KeyboardInterrupt
        return succeeded(self, task, result)

    monkeypatch.setattr(Run, "succeeded", counted)
    assert run(url, out=out).interrupted
    media = sorted(name for name in StorePath("s3://reels/out").files() if name.endswith(".seg"))
    assert len(media) == 2
    write_bytes(out / media[1], b"damaged")
    made[:] = ["", "", ""]
    assert statuses(run(url, out=out)) == ["done"]
    again = {str(n) for n in range(6)} - {str(int(Path(media[0]).stem))}
    assert (set(made[3:-1]), made[-1]) == (again, "assemble")
    assert fetched("s3://reels/out/film.mkv", tmp_path) == reference


def test_looking_at_a_film_reads_ranges(server: Server, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mov", frames=240, width=320, height=240, codec="prores_ks", pix_fmt="yuv422p10le")
    url = put(path, "s3://reels/a.mov")
    server.sent = 0
    assert probe(Source(url)).frames == 240
    assert path.stat().st_size > 10_000_000
    assert server.sent < 0.25 * path.stat().st_size


def test_large_files_are_written_in_parts(server: Server) -> None:
    whole = place("s3://reels/large.bin")
    with replacing(whole) as temporary:
        with temporary.open("wb") as f:
            f.truncate(110 << 20)
        server.requests.clear()
    puts = [query for method, _, query in server.requests if method == "PUT"]
    assert len([query for query in puts if "partNumber" in query]) == len(puts) > 1


def test_what_is_wrong_is_one_line(server: Server) -> None:
    with pytest.MonkeyPatch.context() as patch:
        wrong(patch)
    forget_clients()


def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^s3://none/a\.mkv: no such file, nor such a bucket$"):
        sha256_file(place("s3://none/a.mkv"))
    missing = r"^s3://none/a: cannot be written: .*bucket does not exist; create the bucket"
    with pytest.raises(StorageError, match=missing):
        write_bytes(place("s3://none/a"), b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "WRONG")
    forget_clients()
    refused = r"^s3://reels/a: cannot be read: access denied \(.*\); check the credentials in the environment"
    with pytest.raises(StorageError, match=refused):
        place("s3://reels/a").read_bytes()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    forget_clients()
    with pytest.raises(StorageError, match=r"^s3://reels/a: cannot be read: .*; set AWS_ACCESS_KEY_ID and"):
        place("s3://reels/a").read_bytes()


def test_a_lease_is_taken_by_one_only(server: Server) -> None:
    lock = StorePath("s3://reels/job/lock")
    lock.create(b"{}")
    with pytest.raises(FileExistsError):
        lock.create(b"{}")
    assert lock.read_bytes() == b"{}"


@pytest.mark.slow
def test_a_killed_driver_is_followed_by_another(film: Path, reference: Any, server: Server, tmp_path: Path) -> None:
    """Both with Ray workers, which read and write the store themselves."""
    options = {"inputs": [put(film, "s3://reels/in/film.mkv")], "out": "s3://reels/out", "workers": 2}
    driver = start(options | {"delay": 0.3})
    while driver.poll() is None and sum(n.endswith(".seg") for n in StorePath("s3://reels/out").files()) < 2:
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    driver = start(options)
    printed, errors = driver.communicate(timeout=200)
    assert driver.returncode == 0, errors
    assert json.loads(printed)["reels"][0]["status"] == "done"
    assert SECRET not in printed + errors
    assert fetched("s3://reels/out/film.mkv", tmp_path) == reference


def start(options: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, fakes.__file__, json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
