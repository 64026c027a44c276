"""How jobs stand, from what they have put down on storage: nothing is asked of a cluster, which may be gone."""

from __future__ import annotations

import datetime
import json
from typing import Any

from jobs import journal
from jobs.ledger import FAILED, Job
from jobs.leftovers import kept_by
from jobs.submitting import REQUEST, folder_of
from jobs.text import clock, named, size
from pipeline.errors import ReelcolorError
from pipeline.storage import Place, files_below

_SILENT = 60.0  # seconds without a sign of life, after which a run counts as lost


def job_status(job: Job) -> dict[str, Any]:
    """The run's last words, and every failed reel with its reason."""
    run = _read(job.folder / journal.NAME)
    failed = [name.partition("/")[0] for name in files_below(job.folder / "reels") if name.endswith(f"/{FAILED}")]
    failures = [entry for reel_id in sorted(failed) if (entry := job.reel(reel_id).read_failed())]
    silent = _silence(run)
    state = run.get("state", "submitted")
    if state == "running" and silent > _SILENT:
        state = "lost"
    if state != "running" and run.get("submission") not in ("", None, _asked_last(job)):
        state = "submitted"  # anew, since that run ended
    facts = {key: run.get(key) for key in ("began", "heard", "host", "process", "submission", "stopped")}
    counts = {key: run.get(key, {}) for key in ("reels", "segments", "frames", "workers")}
    kept = kept_by(job)
    return (
        {"job": job.folder.name, "state": state, "silent": round(silent, 1)}
        | facts
        | counts
        | {"kept": {"files": kept.files, "bytes": kept.bytes}}
        | {"failures": [{k: v for k, v in entry.items() if k != "trace"} for entry in failures]}
    )


def all_jobs(outdir: Place) -> list[dict[str, Any]]:
    """Every job of an OUTDIR, the last to be heard of first; without its failures."""
    found = map(job_status, jobs_of(outdir))
    return sorted(found, key=lambda status: str(status["heard"] or ""), reverse=True)


def jobs_of(outdir: Place) -> list[Job]:
    """Every job of an OUTDIR, by name."""
    names = {name.partition("/")[0] for name in files_below(folder_of(outdir)) if "/" in name}
    return [Job(outdir.absolute(), name) for name in sorted(names)]


def in_words(status: dict[str, Any]) -> str:
    """For people."""
    lines = [_headline(status)]
    reels, segments, frames = status["reels"], status["segments"], status["frames"]
    if reels:
        lines.append("  reels: " + ", ".join(f"{count} {state}" for state, count in reels.items() if count))
    if frames and frames["of"]:
        lines.append(
            "  segments: " + ", ".join(f"{count} {state}".replace("_", " ") for state, count in segments.items())
        )
        lines.append(f"  frames: {frames['done']} of {frames['of']}, {frames['fps']} a second")
    if status["workers"] and status["state"] == "running":
        lines.append("  workers: " + ", ".join(f"{count} {state}" for state, count in status["workers"].items()))
    if kept := _kept(status):
        lines.append(f"  kept for a resume: {kept}; `reelcolor jobs clean` removes them")
    if status["stopped"]:
        lines.append(f"  stopped: {status['stopped']}")
    for entry in status["failures"]:
        lines.append(f"  failed [{entry['class']}] {named(str(entry['error']))}")
        if entry["segment"] and entry["segment"] not in str(entry["error"]):
            lines.append(f"    in {named(entry['segment'])}")
        lines.append(f"    log: {named(str(entry['log']))}")
    return "\n".join(lines)


def in_a_line(status: dict[str, Any]) -> str:
    """The least that is to be said of a job among others."""
    kept = _kept(status)
    return _headline(status) + (f"; keeps {kept}" if kept else "")


def _kept(status: dict[str, Any]) -> str:
    """What a job that is not running keeps, in words."""
    count, total = status["kept"]["files"], status["kept"]["bytes"]
    return f"{count} files, {size(total)}" if count and status["state"] != "running" else ""


def _headline(status: dict[str, Any]) -> str:
    text = f"{status['job']}: {status['state']}"
    if status["state"] == "lost":
        text += f"; nothing heard of it for {clock(status['silent'])}, `reelcolor jobs resume` goes on with it"
    elif status["state"] == "running":
        text += f" on {status['host']}, heard of {clock(status['silent'])} ago"
    elif status["state"] == "submitted":
        text += "; its driver has not begun"
    return text


def _asked_last(job: Job) -> object:
    """The name of the run that was submitted last."""
    return _read(job.folder / REQUEST).get("submission")


def last_lines(job: Job) -> list[str]:
    """What the run has said, the last of it."""
    return [str(line) for line in _read(job.folder / journal.NAME).get("lines", [])]


def _silence(run: dict[str, Any]) -> float:
    try:
        heard = datetime.datetime.fromisoformat(run["heard"])
    except (KeyError, ValueError):
        return 0.0
    return max(0.0, (datetime.datetime.now(datetime.UTC) - heard).total_seconds())


def _read(where: Place) -> dict[str, Any]:
    try:
        found = json.loads(where.read_bytes())
    except (FileNotFoundError, ValueError, ReelcolorError):
        return {}
    return found if isinstance(found, dict) else {}
