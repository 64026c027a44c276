import errno
import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import InputError, NoRoomError, StorageError


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    storage.write_bytes(target, b"old")

    def interrupted() -> None:
        with storage.replacing(target) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_the_name_appears_only_when_the_content_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.bin"
    with storage.replacing(target) as temporary:
        temporary.write_bytes(b"x" * 1000)
        assert not target.exists()
    assert target.read_bytes() == b"x" * 1000
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("name", ["\U0001f600" * 63, "\u6f22" * 85, "x" * 255, os.fsdecode(b"\xe9" * 255)])
def test_the_longest_names_leave_room_for_half_written_files(tmp_path: Path, name: str) -> None:
    """File systems count bytes, of which a character may have four."""
    target = tmp_path / name
    with storage.replacing(target) as temporary:
        assert list(storage.half_written(target)) == [temporary]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_disk_full_says_what_to_do() -> None:
    error = storage.storage_error("/out/film.mkv", OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(error, NoRoomError)
    assert str(error).startswith("/out/film.mkv: no space left")


def test_room_is_looked_for_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.check_room(tmp_path / "not/there/yet", 1)
    with pytest.raises(
        NoRoomError,
        match=f"^{tmp_path}: no space left for more, .* MB are free, about .* are needed next; free some and run",
    ):
        storage.check_room(tmp_path, 1 << 60)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(NoRoomError, match=f"^{tmp_path}: "):
        storage.check_room(storage.place("s3://bucket/out"), 1 << 60)


def test_hash_and_fingerprint_agree_with_hashlib(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    assert storage.sha256_file(path) == hashlib.sha256(data).hexdigest()
    before = storage.fingerprint(str(path))
    assert before["bytes"] == len(data)
    path.write_bytes(data[:-1] + b"\0" if data[-1] else data[:-1] + b"\1")
    assert storage.fingerprint(str(path)) != before


@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_what_never_ends_is_not_opened(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe or device, expected a file"):
        storage.sha256_file(tmp_path / name)


def test_where_no_folder_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.check_folder(tmp_path / "not/there/yet")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, what in (("file", "a file"), ("link", "a broken link")):
        with pytest.raises(StorageError, match=f"^{tmp_path}/{name}: is {what}, expected an output folder"):
            storage.check_folder(tmp_path / name / "out")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may do anything
    with pytest.raises(StorageError, match=f"^{tmp_path}: cannot be written to"):
        storage.check_folder(tmp_path / "out")


def test_missing_file_and_folder_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        storage.open_input(str(tmp_path / "none.mp4"))
    with pytest.raises(InputError, match="is a folder"):
        storage.open_input(str(tmp_path))


def test_a_store_that_is_not_known_is_named() -> None:
    with pytest.raises(StorageError, match=r"nostore://bucket/a\.mp4: cannot be read"):
        storage.open_input("nostore://bucket/a.mp4")


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_not_to_be_replaced_is_kept(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", lambda *_a, **_k: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no")))
    target = tmp_path / "film.mkv"
    with storage.replacing(target, replace=False) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    with pytest.raises(FileExistsError), storage.replacing(target, replace=False) as temporary:
        temporary.write_bytes(b"newer")
    assert target.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["film.mkv"]


def test_what_cannot_be_read_is_named() -> None:
    """Nothing is mapped at a process's address 0: Linux says "Input/output error", as of a bad sector."""
    memory = f"/proc/{os.getpid()}/mem"
    with (
        storage.open_input(memory) as f,
        pytest.raises(StorageError, match=rf"^{memory}: cannot be read: Input"),
    ):
        f.read(16)
    with storage.open_input(memory) as f, pytest.raises(StorageError, match=rf"^{memory}: cannot be read"):
        f.read()
