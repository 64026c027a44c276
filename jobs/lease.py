"""One run at a time on a job: a lock that the kernel holds on a file system, a lease with a heartbeat on a store.

A lease is an object that says who holds it and is written anew every HEARTBEAT seconds. Who finds one waits for it to
change; if it does not for EXPIRY seconds, or if its holder was a process of this machine that is gone, the lease is
taken over. No clocks are compared. Where the store can write an object only if there is none (S3 and most others), two
cannot take it at once; elsewhere each looks again after a while whether it was the last to write. A holder that finds
another's lease in the place of its own stops.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.storage import Place, storage_error
from pipeline.stores import StorePath

HEARTBEAT = 4.0  # seconds
EXPIRY = 20.0
_SETTLING = 1.0  # after which a write that came at the same time as ours is seen


@dataclass
class Hold:
    """The job, held. `interrupted`: the run before this one did not end by itself."""

    interrupted: bool
    check: Callable[[], None] = field(default=lambda: None)  # raises StorageError once the job is another run's


@contextlib.contextmanager
def holding(lock: Place, job: str) -> Iterator[Hold]:
    """Hold `job` by its lock until the block ends or the process dies; raises StorageError where another run has it."""
    with _locked(lock, job) if isinstance(lock, Path) else _leased(lock, job) as hold:
        yield hold


@contextlib.contextmanager
def _locked(path: Path, job: str) -> Iterator[Hold]:
    """By a lock that the kernel lets go of when the process dies, however it dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise storage_error(path, e) from e
    try:
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise _taken(job, f"process {holder}") from e
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        try:
            yield Hold(interrupted=bool(holder))
        finally:
            os.truncate(handle, 0)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _leased(place: StorePath, job: str) -> Iterator[Hold]:
    lease = _Lease(place, job)
    interrupted = lease.take()
    thread = threading.Thread(target=lease.keep, name="lease", daemon=True)
    thread.start()
    try:
        yield Hold(interrupted, lease.check)
    finally:
        lease.over.set()
        thread.join()
        lease.release()


class _Lease:
    """This run's lease on a job."""

    def __init__(self, place: StorePath, job: str) -> None:
        self._place, self._job = place, job
        self._token = secrets.token_hex(8)
        self._beats = 0
        self._lost = ""
        self.over = threading.Event()

    def take(self) -> bool:
        """Make it ours; whether a dead run's was in the way. Raises StorageError where it is held."""
        interrupted = False
        while not self._create():
            found = self._read()
            if found is None:
                continue
            if not _is_dead(found):
                self._wait_for_death(found)
            if self._read() == found:
                self._place.unlink(missing_ok=True)
                interrupted = True
        time.sleep(_SETTLING)
        holder = self._read() or {}
        if holder.get("token") != self._token:
            raise _taken(self._job, _name(holder))
        return interrupted

    def keep(self) -> None:
        """Renew it until it is over or lost."""
        renewed = time.monotonic()
        while not self.over.wait(HEARTBEAT):
            try:
                holder = self._read() or {}
                if holder.get("token") != self._token:
                    self._lost = f"another run has taken it over ({_name(holder)})"
                    return
                self._beats += 1
                self._place.write_bytes(self._text())
                renewed = time.monotonic()
            except StorageError as e:
                if time.monotonic() - renewed > EXPIRY:
                    self._lost = f"its lease cannot be renewed: {e}"
                    return

    def check(self) -> None:
        """Raise StorageError if the lease is lost."""
        if self._lost:
            raise StorageError(f"{self._job}: stopped, {self._lost}; run the same command again once that has ended")

    def release(self) -> None:
        """Take it away, if it is still ours."""
        with contextlib.suppress(StorageError):
            if (self._read() or {}).get("token") == self._token:
                self._place.unlink(missing_ok=True)

    def _create(self) -> bool:
        try:
            self._place.create(self._text())
        except FileExistsError:
            return (self._read() or {}).get("token") == self._token  # the answer to our first attempt was lost
        return True

    def _wait_for_death(self, found: dict[str, object]) -> None:
        """Return if the lease stays as it is until it expires; raise StorageError if it is renewed."""
        end = time.monotonic() + EXPIRY
        while time.monotonic() < end:
            time.sleep(HEARTBEAT / 4)
            now = self._read()
            if now is None:
                return
            if now != found:
                raise _taken(self._job, _name(now))

    def _read(self) -> dict[str, object] | None:
        try:
            found = json.loads(self._place.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _text(self) -> bytes:
        holder = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "began": _began(os.getpid())}
        return json.dumps(holder | {"token": self._token, "beats": self._beats}).encode()


def _taken(job: str, holder: str) -> StorageError:
    return StorageError(f"{job}: another run is working on this job ({holder}); wait for it")


def _name(holder: dict[str, object]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'another machine')}"


def _is_dead(holder: dict[str, object]) -> bool:
    """Whether the holder was a process of this machine, as it runs now, and is gone."""
    here = (holder.get("host"), holder.get("boot")) == (socket.gethostname(), _boot())
    pid = holder.get("pid")
    return here and isinstance(pid, int) and _began(pid) != holder.get("began")


def _boot() -> str:
    """Unlike that of any other machine or container, or of this one before it was started."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process was started, in ticks since the machine was; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(") ")[2].split()[19]
    except OSError:
        return ""
