"""The job folder: records survive a round trip, and nothing that is damaged counts as done."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from jobs.ledger import Job, ReelLedger
from jobs.records import Done, Record, output_digest, plain
from pipeline.errors import InputError, StorageError
from pipeline.frames import Segment, SegmentFile
from pipeline.storage import sha256_file

SEGMENT = Segment(3, 100, 200, 90, 2)


def written(ledger: ReelLedger) -> Record:
    """A segment's media file and its record, as a worker leaves them."""
    media = ledger.media("000003.seg")
    media.parent.mkdir(parents=True, exist_ok=True)
    media.write_bytes(b"coded pictures")
    made = SegmentFile(media.name, 2, (100, 150), sha256_file(media), 14, "luma", 5, 1, {"flicker": 0.5}, ("damaged",))
    record = Record("identity", "engine", SEGMENT, made, {"crf": 18}, ("int8 failed",))
    ledger.write_record(record)
    return record


def done(**changes: object) -> Done:
    facts = Done("in.mkv", "out.mkv", (".",), "00", 3, 2, 1.5, "identity", "engine", "2026-01-01T00:00:00+00:00")
    return dataclasses.replace(facts, **changes)


def test_a_record_comes_back_equal(tmp_path: Path) -> None:
    ledger = ReelLedger(tmp_path)
    record = written(ledger)
    assert ledger.read_record(SEGMENT, "identity") == record
    assert ledger.read_record(Segment(4, 200, None), "identity") is None
    assert [path.name for path in sorted(ledger.segments.iterdir())] == ["000003.json", "000003.seg"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda led: led.media("000003.seg").unlink(), "its file is missing or damaged"),
        (lambda led: led.media("000003.seg").write_bytes(b"coded pictureS"), "its file is missing or damaged"),
        (lambda led: led.media("000003.seg").write_bytes(b"coded"), "its file is missing or damaged"),
        (lambda led: (led.segments / "000003.json").write_bytes(b""), "its ledger record cannot be read"),
        (lambda led: (led.segments / "000003.json").write_bytes(b"\xff\x00{}"), "its ledger record cannot be read"),
        (lambda led: (led.segments / "000003.json").write_text("[1, 2]"), "its ledger record cannot be read"),
        (lambda led: (led.segments / "000003.json").write_text("null"), "its ledger record cannot be read"),
    ],
)
def test_what_is_damaged_is_done_again(tmp_path: Path, damage: Callable[[ReelLedger], object], reason: str) -> None:
    ledger = ReelLedger(tmp_path)
    written(ledger)
    damage(ledger)
    assert ledger.read_record(SEGMENT, "identity") == reason


def test_a_record_cut_off_anywhere_is_unreadable(tmp_path: Path) -> None:
    ledger = ReelLedger(tmp_path)
    written(ledger)
    path = ledger.segments / "000003.json"
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        assert ledger.read_record(SEGMENT, "identity") == "its ledger record cannot be read"


def test_a_record_of_something_else_does_not_count(tmp_path: Path) -> None:
    ledger = ReelLedger(tmp_path)
    record = written(ledger)
    other = "it was made from another source or with other settings"
    assert ledger.read_record(SEGMENT, "another") == other
    assert ledger.read_record(dataclasses.replace(SEGMENT, end=210), "identity") == other
    ledger.write_record(dataclasses.replace(record, file=dataclasses.replace(record.file, frames=3)))
    assert ledger.read_record(SEGMENT, "identity") == "its ledger record contradicts itself"


def test_a_finished_reel_keeps_records_and_drops_media(tmp_path: Path) -> None:
    job = Job(tmp_path, "abc")
    ledger = job.reel("reel")
    written(ledger)
    ledger.announce("out.mkv")
    ledger.write_done(done(plan={"fingerprint": {"bytes": 1}}, segments=({"index": 0},), warnings=("w",)))
    assert ledger.read_done() == done(plan={"fingerprint": {"bytes": 1}}, segments=({"index": 0},), warnings=("w",))
    assert [path.name for path in ledger.segments.iterdir()] == ["000003.json"]
    assert ledger.announced() is None
    ledger.forget()
    assert ledger.read_done() is None
    assert not any(ledger.segments.iterdir())


def test_a_reel_finished_by_another_job_is_found(tmp_path: Path) -> None:
    Job(tmp_path, "first").reel("reel").write_done(done())
    found = Job(tmp_path, "second").finished("reel")
    assert found is not None
    assert found[1] == done()
    assert Job(tmp_path, "second").finished("other") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"input": 3}', "\x00"])
def test_a_damaged_record_of_a_reel_is_none(tmp_path: Path, text: str) -> None:
    ledger = ReelLedger(tmp_path)
    tmp_path.joinpath("done.json").write_text(text)
    assert ledger.read_done() is None


def test_two_runs_do_not_share_a_job(tmp_path: Path) -> None:
    job = Job(tmp_path, "abc")
    busy = pytest.raises(StorageError, match=r"another run is working on this job \(process \d+\)")
    with job.locked(), busy, Job(tmp_path, "abc").locked():
        pass
    with Job(tmp_path, "abc").locked(), Job(tmp_path, "other").locked():
        pass


def test_the_kernel_lets_go_of_a_dead_runs_lock(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from jobs.ledger import Job
with Job(Path({str(tmp_path)!r}), "abc").locked():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1])
    job = Job(tmp_path, "abc")
    with job.locked():
        assert job.interrupted
    with job.locked():
        assert not job.interrupted, "a run that ended by itself leaves no trace"


def test_leftovers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    ledger = ReelLedger(tmp_path / "reel")
    ledger.segments.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    mine = [
        tmp_path / "out/.a.mkv.x1y2.part",
        tmp_path / "out/.a.mkv.zz.part.mkv",
        ledger.segments / ".000001.seg.q.part",
        ledger.folder / ".done.json.k2nb.part",
    ]
    others = [tmp_path / "out/.b.mkv.x1y2.part", tmp_path / "out/a.mkv", tmp_path / "out/.a.mkv"]
    for path in [*mine, *others]:
        path.touch()
    ledger.sweep([tmp_path / "out/a.mkv"])
    left = [path.exists() for path in mine]
    assert left == [True, True, False, False], "without its announcement it may be another run's"
    ledger.announce("a.mkv")
    ledger.sweep([tmp_path / "out/a.mkv"])
    assert not any(path.exists() for path in mine)
    assert all(path.exists() for path in others)


def test_digest_of_a_folder_is_over_names_and_contents(tmp_path: Path) -> None:
    for name, data in (("a", b"1"), ("b", b"2"), ("other", b"3")):
        (tmp_path / name).write_bytes(data)
    before = output_digest(tmp_path, ("a", "b"))
    assert before.bytes == 2
    (tmp_path / "other").write_bytes(b"4")
    assert output_digest(tmp_path, ("a", "b")) == before
    (tmp_path / "a").write_bytes(b"9")
    assert output_digest(tmp_path, ("a", "b")) != before
    with pytest.raises(InputError):
        output_digest(tmp_path, ("a", "gone"))


def test_plain_values() -> None:
    made = plain({"a": Fraction(1, 3), "b": (1, Path("x")), "c": SEGMENT, "d": None, "e": 1.5})
    segment = {"index": 3, "start": 100, "end": 200, "seek": 90, "frames": 2}
    assert made == {"a": "1/3", "b": [1, "x"], "c": segment, "d": None, "e": 1.5}
    assert json.loads(json.dumps(made)) == made


def test_a_full_or_read_only_place_is_named(tmp_path: Path) -> None:
    (tmp_path / ".reelcolor").write_text("a file where the folder should be")
    refused = pytest.raises(StorageError, match=r"\.reelcolor/abc/lock: cannot be written: .*directory")
    with refused, Job(tmp_path, "abc").locked():
        pass
