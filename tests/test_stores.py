"""Places on a store: the methods of a Path, retries, ranges, and whole runs whose OUTDIR is one; fsspec's memory."""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import media
import numpy as np
import pytest
from fakes import content, run, statuses
from fsspec.implementations.memory import MemoryFileSystem
from media import write
from PIL import Image

from jobs import lease
from jobs import plan as planning
from jobs.apart import Apart
from jobs.inputs import Found, find_inputs
from jobs.ledger import FOLDER
from jobs.leftovers import clean, kept_by
from jobs.plan import Planner
from jobs.proof import prove
from jobs.recipe import Recipe
from jobs.status import jobs_of
from pipeline import stores
from pipeline.errors import InputError, StorageError
from pipeline.frames import Source
from pipeline.packet_index import packet_index
from pipeline.probe import probe
from pipeline.ranges import StoredObject
from pipeline.storage import first_existing, place, replacing, sha256_file, write_bytes
from pipeline.stores import StorePath, redacted


class Counting(MemoryFileSystem):
    """A store of its own that keeps count of requests, and can be told to fail."""

    protocol = "counting"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    calls: ClassVar[list[str]] = []
    fails: ClassVar[list[Exception]] = []
    read: ClassVar[list[int]] = []  # bytes

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("counting:"))  # type: ignore[no-any-return]

    def _asked(self, what: str) -> None:
        self.calls.append(what)
        if self.fails:
            raise self.fails.pop(0)

    def info(self, path: str, **kwargs: Any) -> Any:
        self._asked("info")
        return super().info(path, **kwargs)

    def find(self, path: str, **kwargs: Any) -> Any:
        self._asked("find")
        return super().find(path, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self._asked("cat")
        data: bytes = super().cat_file(path, start, end, **kwargs)
        self.read.append(len(data))
        return data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._asked("pipe")
        super().pipe_file(path, value, mode, **kwargs)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan in this process, which has the store in its memory."""

    def call(self: Apart, path: str, function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    def spread(helpers: list[Apart], calls: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        return enumerate(helpers[0].call(*arguments) for arguments in calls)

    monkeypatch.setattr(Apart, "call", call)
    monkeypatch.setattr(planning, "spread", spread)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Counting]]:
    fsspec.register_implementation("counting", Counting, clobber=True)
    monkeypatch.setattr(stores, "_FIRST_DELAY", 0.0)
    monkeypatch.setattr(stores, "_ATOMIC", (*stores._ATOMIC, "counting"))
    monkeypatch.setattr(lease, "_SETTLING", 0.0)
    yield Counting
    Counting.store.clear()
    Counting.calls.clear()
    Counting.fails.clear()


def names(store: type[Counting]) -> list[str]:
    return sorted(store.store)


def test_an_address_is_handled_like_a_path() -> None:
    where = StorePath("s3://bucket/films/")
    film = where / "deep/reel.mkv"
    assert (str(film), film.name, film.suffix) == ("s3://bucket/films/deep/reel.mkv", "reel.mkv", ".mkv")
    assert film.parent.parent == where
    assert where / "." == where
    assert film.with_name("other.mov") == where / "deep" / "other.mov"
    assert pickle.loads(pickle.dumps(film)) == film
    assert place("file:///a/b") == Path("/a/b")
    assert isinstance(place("s3://bucket/a"), StorePath)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAKEY:sec/ret+key@bucket/film.mkv",
        "sftp://user:12345@host/film.mkv",
        "https://host/film.mkv?X-Amz-Signature=sec/ret&x=1",
    ],
)
def test_an_address_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StorageError, match="holds credentials; give them by environment") as error:
        place(url)
    assert not [secret for secret in ("sec/ret", "12345", "AKIAKEY") if secret in str(error.value)]


@pytest.mark.parametrize(
    "url", ["http://localhost:9000/a@b.mkv", "abfs://container@account/film.mkv", "sftp://user@host/film.mkv"]
)
def test_other_addresses_are_left_alone(url: str) -> None:
    assert str(place(url)) == redacted(url) == url


def test_what_may_pass_is_tried_again(store: type[Counting]) -> None:
    where = place("counting://b/a.json")
    store.fails[:] = [OSError(5, "throttled"), TimeoutError("slow"), RuntimeError("connection lost")]
    write_bytes(where, b"whole")
    store.fails[:] = [OSError(5, "throttled")] * (stores._ATTEMPTS - 1)
    assert where.read_bytes() == b"whole"


def test_what_does_not_pass_is_one_line_with_the_address(store: type[Counting]) -> None:
    where = place("counting://b/a.json")
    store.fails[:] = [OSError(5, "through http://me:secret@proxy/:\nunreachable")] * stores._ATTEMPTS
    with pytest.raises(StorageError) as error:
        where.read_bytes()
    assert str(error.value) == (
        f"counting://b/a.json: cannot be read: [Errno 5] through http://***@proxy/: unreachable (tried "
        f"{stores._ATTEMPTS} times); run the same command again to resume"
    )


@pytest.mark.parametrize("failure", [PermissionError("InvalidAccessKeyId"), ImportError("Install s3fs")])
def test_what_another_attempt_does_not_change_is_said_at_once(store: type[Counting], failure: Exception) -> None:
    store.fails[:] = [failure]
    with pytest.raises(StorageError, match=r"counting://b/a: cannot be read: .*(environment|pip install)"):
        place("counting://b/a").read_bytes()
    assert store.calls == ["cat"]


def test_what_is_to_be_installed_for_a_store_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(StorageError, match=r"^s3://b/a: cannot be read: .*s3fs.*; pip install .*\[s3\]"):
        place("s3://b/a").read_bytes()


def test_a_missing_object_is_no_storage_error(store: type[Counting]) -> None:
    where = place("counting://b/none")
    with pytest.raises(FileNotFoundError):
        where.read_bytes()
    where.unlink(missing_ok=True)
    assert not where.exists()
    with pytest.raises(InputError, match="counting://b/none: no such file"):
        sha256_file(where)


def test_a_file_appears_whole_or_not_at_all(store: type[Counting]) -> None:
    def interrupted() -> None:
        with replacing(place("counting://b/out.mkv")) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not store.store
    with replacing(place("counting://b/out.mkv")) as temporary:
        temporary.write_bytes(b"whole")
        assert not store.store
    assert store.store["/b/out.mkv"].getvalue() == b"whole"
    assert not temporary.exists()


def test_where_a_put_is_seen_half_done_it_goes_by_another_name(
    store: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_ATOMIC", ())
    seen: list[list[str]] = []

    def put(self: Any, local: str, path: str, **_: Any) -> None:
        MemoryFileSystem.pipe_file(self, path, b"ha")
        seen.append(names(store))
        if len(seen) == 1:
            raise OSError("cut off")
        MemoryFileSystem.pipe_file(self, path, Path(local).read_bytes())

    monkeypatch.setattr(Counting, "put_file", put)
    with replacing(place("counting://b/out.mkv")) as temporary:
        temporary.write_bytes(b"whole")
    assert len(seen) == 2
    assert all(".part" in name for listing in seen for name in listing)
    assert names(store) == ["/b/out.mkv"]


def test_ranges_are_read_once_and_only_what_is_needed(store: type[Counting]) -> None:
    data = bytes(range(256)) * 40_000  # 10 MB
    fsspec.filesystem("counting").pipe_file("/b/film", data)
    store.calls.clear()
    source = StoredObject(StorePath("counting://b/film"))
    with source.open() as f:
        assert f.seek(-100, 2) == len(data) - 100
        assert f.read() == data[-100:]
        f.seek(5_000_000)
        assert f.read(1000) == data[5_000_000:5_001_000]
    with source.open() as f:
        f.seek(5_000_500)
        assert f.read(200) == data[5_000_500:5_000_700]
    assert store.calls == ["info", "cat", "cat"], "the third look is into a block that is there"
    with source.open() as f:
        assert f.read() == data
    assert len(store.calls) < 20, "what is read on is fetched in larger and larger pieces"


def test_hollow_parts_are_not_read(store: type[Counting]) -> None:
    data = bytes([7]) * 2_000_000
    fsspec.filesystem("counting").pipe_file("/b/film", data)
    store.calls.clear()
    f = StoredObject(StorePath("counting://b/film")).open()
    f.hollow([(10, 20), (300_000, 1_900_000)])
    assert f.read(30) == b"\7" * 10 + bytes(10) + b"\7" * 10
    f.seek(299_999)
    assert f.read(1_600_002) == b"\7" + bytes(1_600_000) + b"\7"
    assert store.calls == ["info", *["cat"] * 3]


def test_a_failure_is_kept_for_who_hides_it(store: type[Counting]) -> None:
    fsspec.filesystem("counting").pipe_file("/b/film", b"x")
    f = StoredObject(StorePath("counting://b/film")).open()
    store.fails[:] = [PermissionError("no more")]
    with pytest.raises(StorageError):
        f.read()
    assert f.failure is not None


def test_many_names_are_looked_up_in_one_listing(store: type[Counting]) -> None:
    folder = place("counting://b/out")
    write_bytes(folder / "photos/0007.jpg", b"x")
    store.calls.clear()
    wanted = [folder / f"photos/{n:04d}.jpg" for n in range(100)]
    assert first_existing(wanted) == wanted[7]
    assert first_existing(wanted[:7]) is None
    assert store.calls == ["find", "find"]


# --- whole runs


@pytest.mark.usefixtures("no_ray")
def test_a_run_onto_a_store_makes_what_a_local_one_makes(
    film: Path, reference: Any, store: type[Counting], tmp_path: Path
) -> None:
    out = place("counting://b/out")
    report = run(film, out=out)
    assert statuses(report) == ["done"]
    assert report.results[0].output == "counting://b/out/film.mkv"
    assert fetched(out / "film.mkv", tmp_path) == reference
    kinds = {name.rpartition(".")[2] for name in names(store)}
    assert kinds == {"mkv", "json"}, "the segments' media and the lock are gone"
    store.calls.clear()
    assert statuses(run(film, out=out)) == ["skipped"]
    assert store.calls.count("find") == 1


def left_by_an_interrupted_run(film: Path, store: type[Counting], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the segments that are on the store when Ctrl-C comes before they are put together."""
    with monkeypatch.context() as patch:
        patch.setattr("jobs.tasks.AssembleTask.run", interrupt)
        assert run(film, out=place("counting://b/out")).interrupted
    return [name for name in names(store) if name.endswith(".seg")]


@pytest.mark.usefixtures("no_ray")
def test_what_a_job_keeps_on_a_store_is_found_and_removed(
    film: Path, store: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = place("counting://b/out")
    media = left_by_an_interrupted_run(film, store, monkeypatch)
    (job,) = jobs_of(out)
    kept = kept_by(job)
    assert (kept.files, kept.bytes) == (len(media), sum(len(store.store[name].getvalue()) for name in media))
    assert clean(job) == kept
    assert not [name for name in names(store) if name.endswith((".seg", "/lock")) or "/segments/" in name]
    assert statuses(run(film, out=out)) == ["done"]


@pytest.mark.usefixtures("no_ray")
def test_what_is_damaged_on_the_store_is_done_again(
    film: Path, reference: Any, store: type[Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = place("counting://b/out")
    media = left_by_an_interrupted_run(film, store, monkeypatch)
    assert len(media) > 3
    store.store[media[1]].getbuffer()[5] ^= 1
    made: list[str] = []
    write = StorePath.upload
    monkeypatch.setattr(StorePath, "upload", lambda self, file: (made.append(self.name), write(self, file)))
    assert statuses(run(film, out=out)) == ["done"]
    assert made == [Path(media[1]).name, "film.mkv"]
    assert fetched(out / "film.mkv", tmp_path) == reference


@pytest.mark.usefixtures("no_ray")
def test_an_output_that_is_not_ours_is_left_alone(film: Path, store: type[Counting]) -> None:
    out = place("counting://b/out")
    write_bytes(out / "film.mkv", b"someone else's")
    (result,) = run(film, out=out).results
    assert "its output counting://b/out/film.mkv exists; --overwrite replaces it" in str(result.error)
    assert (out / "film.mkv").read_bytes() == b"someone else's"
    ours = {name.rpartition("/")[2] for name in names(store) if FOLDER in name}
    assert ours == {"plan.json", "run.json", "failed.json"}, "no lock and no segment is left"


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def fetched(where: Any, folder: Path) -> Any:
    """The content of a video on a store."""
    copy = folder / where.name
    copy.write_bytes(where.read_bytes())
    return content(copy)


# --- inputs


def put(local: Path, url: str) -> str:
    write_bytes(place(url), local.read_bytes())
    return url


def found(*arguments: str, out: str = "counting://b/out", as_scan: bool = False) -> Found:
    return find_inputs(arguments, place(out), as_scan)


def empty(*urls: str) -> None:
    for url in urls:
        write_bytes(place(f"counting://b/{url}"), b"")


def test_a_folder_on_a_store_is_mirrored_after_one_listing(store: type[Counting]) -> None:
    empty("in/a.mkv", "in/deep/b.mov", "in/deep/c.zip", "in/1.jpg", "in/x/2.png", "in/notes.txt", "in/.d/e.mkv")
    store.calls.clear()
    result = found("counting://b/in/")
    assert [(item.kind, item.path, str(item.name), item.files) for item in result.items] == [
        ("album", "counting://b/in", ".", ("1.jpg", "x/2.png")),
        ("video", "counting://b/in/a.mkv", "a.mkv", ()),
        ("video", "counting://b/in/deep/b.mov", "deep/b.mov", ()),
        ("album", "counting://b/in/deep/c.zip", "deep/c.zip", ()),
    ]
    assert [path for path, _ in result.skipped] == ["counting://b/in/notes.txt"]
    assert store.calls == ["find"]
    assert found("counting://b/in").items == result.items
    assert [str(i.name) for i in found("counting://b/in/", out="counting://b/in/deep").items] == [".", "a.mkv"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("in/*.mkv", ["a.mkv", "b.mkv"]),
        ("in/**/*.mkv", ["a.mkv", "b.mkv", "deep/c.mkv"]),
        ("in/[b-z].mkv", ["b.mkv"]),
        ("*/deep", ["in/deep/c.mkv"]),
    ],
)
def test_a_pattern_on_a_store(store: type[Counting], pattern: str, names: list[str]) -> None:
    empty("in/a.mkv", "in/b.mkv", "in/deep/c.mkv", "in/.hidden.mkv")
    result = found(f"counting://b/{pattern}")
    assert [str(item.name) for item in result.items] == names


def test_an_object_with_a_known_name_costs_no_request(store: type[Counting]) -> None:
    (item,) = found("counting://b/deep/film.mkv").items
    assert (item.path, str(item.name)) == ("counting://b/deep/film.mkv", "film.mkv")
    assert not store.calls


@pytest.mark.parametrize("where", ["counting://b/lists/today.txt", "today.txt"])
def test_a_list_names_one_input_a_line(
    store: type[Counting], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local.mkv").touch()
    empty("in/a.mkv")
    text = "\ufeff# reels\n\ncounting://b/in/a.mkv\r\n  local.mkv\ncounting://b/in/a.mkv\n@more.txt\nnone.mkv\n"
    write_bytes(place(where), text.encode())
    result = found(f"@{where}")
    assert [item.path for item in result.items] == ["counting://b/in/a.mkv", "local.mkv"]
    assert result.skipped == [("counting://b/in/a.mkv", "is given twice")]
    assert [path for path, _ in result.refused] == ["@more.txt", "none.mkv"]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("counting://b/none/", "no such file or folder"),
        ("counting://b/none", "no such file or folder"),
        ("counting://b/none*.mkv", "no file or folder matches"),
        ("@counting://b/none.txt", "the list cannot be read: no such file"),
        ("@none.txt", "the list cannot be read: no such file"),
        ("counting://me:secret@b/film.mkv", "holds credentials; give them by environment (AWS_*, FSSPEC_*)"),
        ("counting://b/out/", "is the output folder too; choose another with -o"),
    ],
)
def test_what_is_not_there_is_said(store: type[Counting], argument: str, reason: str) -> None:
    ((path, said),) = found(argument).refused
    assert (path, said) == (argument.replace("me:secret", "***"), reason)


def test_a_scan_on_a_store_is_refused(store: type[Counting]) -> None:
    empty("in/1.dpx", "in/2.dpx")
    assert {reason for _, reason in found("counting://b/in/", as_scan=True).refused} >= {
        "numbered scans are read from a local folder only; copy them first"
    }
    (item,) = found("counting://b/in/%06d.dpx").items
    with pytest.raises(InputError, match="numbered scans are read from a local folder only"):
        Planner(Recipe(), "00", Path("out")).plan(item)


@pytest.mark.usefixtures("no_ray", "together")
def test_a_film_on_a_store_becomes_what_the_local_one_becomes(
    film: Path, reference: Any, store: type[Counting], tmp_path: Path
) -> None:
    url = put(film, "counting://b/in/film.mkv")
    assert statuses(run(url, out=place("counting://b/out"))) == ["done"]
    assert fetched(place("counting://b/out/film.mkv"), tmp_path) == reference
    assert not prove(url, "counting://b/out/film.mkv")["problems"]


@pytest.mark.usefixtures("no_ray", "together")
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_an_album_on_a_store_becomes_what_the_local_one_becomes(
    store: type[Counting], tmp_path: Path, kind: str
) -> None:
    names = ["1.png", "deep/2.png", "deep/3.png"]
    for n, name in enumerate(names):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(40 * 30, dtype=np.uint8).reshape(30, 40) + np.uint8(n)).save(path)
        put(path, f"counting://b/in/{name}")
    source, url = tmp_path / "in", "counting://b/in/"
    if kind == "zip":
        source, url = tmp_path / "in.zip", "counting://b/in.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for name in names:
                archive.write(tmp_path / "in" / name, name)
        put(source, url)
    assert statuses(run(source, out=tmp_path / "out")) == ["done"]
    assert statuses(run(url, out=place("counting://b/out"))) == ["done"]
    for path in (p for p in (tmp_path / "out").rglob("*") if p.is_file() and FOLDER not in p.parts):
        there = place("counting://b/out") / path.relative_to(tmp_path / "out").as_posix()
        assert there.read_bytes() == path.read_bytes()
    assert statuses(run(url, out=place("counting://b/out"))) == ["skipped"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {"b_frames": 2}),
        ("a.mp4", {"interlaced": True, "height": 64}),
        ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
        ("a.mp4", {"codec": "mpeg4", "b_frames": 1}),
        ("a.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("a.mp4", {"mux": {"movflags": "frag_keyframe+empty_moov"}}),
    ],
)
def test_an_index_read_without_the_pictures_is_the_whole_one(
    store: type[Counting], tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    path = write(tmp_path / name, frames=200, **settings)
    url = put(path, f"counting://b/{name}")
    store.read.clear()
    found, whole = packet_index(Source(url)), packet_index(Source(str(path)))
    assert found.equals(whole)
    assert found.fields == whole.fields


def noise(n: int, width: int, height: int, depth: int = 8) -> Any:
    return np.random.default_rng(n).integers(16, 235, (height, width), np.uint16)


def test_looking_at_a_film_reads_a_small_share_of_it(store: type[Counting], tmp_path: Path) -> None:
    noisy = {"preset": "ultrafast", "qp": "0"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media, "picture", noise)
        path = write(tmp_path / "a.mp4", frames=200, width=320, height=240, options=noisy)
    assert path.read_bytes().rindex(b"moov") > path.stat().st_size * 0.9, "its index is at its end"
    url = put(path, "counting://b/a.mp4")
    store.read.clear()
    info = probe(Source(url))
    assert info.frames == 200
    assert sum(store.read) < 0.25 * path.stat().st_size, "some 2 MB of 12"


# --- leases


def test_two_runs_do_not_share_a_job_on_a_store(store: type[Counting], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.05)
    lock = place("counting://b/job/lock")
    busy = pytest.raises(StorageError, match=r"out: another run is working on this job \(process \d+ on .*\)")
    with lease.holding(lock, "out") as first, busy, lease.holding(lock, "out"):
        pass
    first.check()
    assert not lock.exists()
    with lease.holding(lock, "out") as hold:
        assert not hold.interrupted, "a run that ended by itself leaves no trace"


def dead(**changes: Any) -> bytes:
    """The lease of a process that has been gone since the machine began."""
    holder = {"host": lease.socket.gethostname(), "boot": lease._boot(), "pid": 1, "began": "never", "token": "old"}
    return json.dumps(holder | changes).encode()


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once(store: type[Counting]) -> None:
    lock = place("counting://b/job/lock")
    write_bytes(lock, dead())
    with lease.holding(lock, "out") as hold:
        assert hold.interrupted


def test_the_lease_of_another_machine_is_taken_when_it_expires(
    store: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.05)
    monkeypatch.setattr(lease, "EXPIRY", 0.3)
    lock = place("counting://b/job/lock")
    write_bytes(lock, dead(host="elsewhere"))
    with lease.holding(lock, "out") as hold:
        assert hold.interrupted
        lease.time.sleep(0.2)
        assert json.loads(lock.read_bytes())["beats"] > 0


def test_who_has_lost_the_lease_stops(store: type[Counting], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.05)
    lock = place("counting://b/job/lock")
    with lease.holding(lock, "out") as hold:
        write_bytes(lock, dead(host="elsewhere"))
        lease.time.sleep(0.3)
        with pytest.raises(
            StorageError, match=r"out: stopped, another run has taken it over \(process 1 on elsewhere\)"
        ):
            hold.check()
    assert lock.exists(), "it is not ours to take away"
