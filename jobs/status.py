"""How jobs stand, from what they have put down on storage: nothing is asked of a cluster, which may be gone."""

from __future__ import annotations

import datetime
import json
from typing import Any

from jobs import journal
from jobs.ledger import FAILED, Job
from jobs.submitting import folder_of
from jobs.text import clock
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
    facts = {key: run.get(key) for key in ("began", "heard", "host", "process", "submission")}
    counts = {key: run.get(key, {}) for key in ("reels", "segments", "frames", "workers")}
    return (
        {"job": job.folder.name, "state": state, "silent": round(silent, 1)}
        | facts
        | counts
        | {"failures": [{k: v for k, v in entry.items() if k != "trace"} for entry in failures]}
    )


def all_jobs(outdir: Place) -> list[dict[str, Any]]:
    """Every job of an OUTDIR, the last to be heard of first; without its failures."""
    names = {name.partition("/")[0] for name in files_below(folder_of(outdir)) if "/" in name}
    found = [job_status(Job(outdir.absolute(), name)) for name in sorted(names)]
    return sorted(found, key=lambda status: str(status["heard"] or ""), reverse=True)


def in_words(status: dict[str, Any]) -> str:
    """For people."""
    lines = [_headline(status)]
    reels, segments, frames = status["reels"], status["segments"], status["frames"]
    if reels:
        lines.append("  reels: " + ", ".join(f"{count} {state}" for state, count in reels.items() if count))
    if segments:
        lines.append(
            "  segments: " + ", ".join(f"{count} {state}".replace("_", " ") for state, count in segments.items())
        )
    if frames:
        lines.append(f"  frames: {frames['done']} of {frames['of']}, {frames['fps']} a second")
    for entry in status["failures"]:
        lines.append(f"  failed [{entry['class']}] {entry['error']}")
        if entry["segment"] and entry["segment"] not in str(entry["error"]):
            lines.append(f"    in {entry['segment']}")
        lines.append(f"    log: {entry['log']}")
    return "\n".join(lines)


def _headline(status: dict[str, Any]) -> str:
    text = f"{status['job']}: {status['state']}"
    if status["state"] == "lost":
        text += f"; nothing heard of it for {clock(status['silent'])}, `reelcolor jobs resume` goes on with it"
    elif status["state"] == "running":
        text += f" on {status['host']}, heard of {clock(status['silent'])} ago"
    elif status["state"] == "submitted":
        text += "; its driver has not begun"
    return text


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
