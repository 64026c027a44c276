"""What went wrong, as a value: it travels from a worker to the drive, and into the ledger."""

from __future__ import annotations

import datetime
import os
import socket
import traceback
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, cast

from jobs.text import one_line
from pipeline.errors import EngineError, NoRoomError, ReelcolorError, StorageError
from pipeline.storage import is_full, storage_error

FailureKind = Literal["internal", "input", "storage", "engine", "recipe", "verification", "worker", "memory"]


@dataclass(frozen=True)
class Failure:
    """Why a task failed, in one line; `trace` is for --debug. `log`: when, where, in which line of source.

    `no_room`: because this worker's disk is full; another's may not be.
    """

    kind: FailureKind
    message: str
    trace: str = ""
    log: str = ""
    no_room: bool = False


def failure(e: Exception, what: str = "") -> Failure:
    """An exception as a value; `what` it is about is named where the exception does not."""
    kind, message = _told(e, what)
    full = isinstance(e, NoRoomError) or (isinstance(e, OSError) and is_full(e.errno))
    return Failure(kind, message, "".join(traceback.format_exception(e)), _log_line(e), full)


def _told(e: Exception, what: str) -> tuple[FailureKind, str]:
    if isinstance(e, ReelcolorError):
        return cast("FailureKind", e.kind), one_line(str(e))
    if isinstance(e, OSError):
        return "storage", one_line(str(storage_error(e.filename or "the output", e)))
    if isinstance(e, MemoryError):
        return "memory", "out of memory; use fewer --workers"
    about = f"{what}: " if what else ""
    return "internal", f"{about}internal error, {type(e).__name__}: {one_line(str(e))}; --debug shows where"


def _log_line(e: Exception) -> str:
    """When and where it happened: time, machine, process, line of source."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    frames = traceback.extract_tb(e.__traceback__)
    where = f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno} " if frames else ""
    return f"{now} {socket.gethostname()} process {os.getpid()} {where}{type(e).__name__}: {one_line(str(e))}"


def as_error(found: Failure) -> ReelcolorError:
    """The failure as an exception; for what concerns the whole run."""
    return StorageError(found.message) if found.kind == "storage" else EngineError(found.message)
