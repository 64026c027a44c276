"""What jobs keep for a resume that may never come: segments of unfinished reels, and half-written files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.ledger import Job
from pipeline.storage import sizes_below


@dataclass(frozen=True)
class Kept:
    """Files of a job that only a resume is for: how many, how large, of which reels."""

    files: int
    bytes: int
    reels: frozenset[str]


def kept_by(job: Job) -> Kept:
    """What there is; of a job that is running, its work. Raises StorageError."""
    sizes = sizes_below(job.folder / "reels", _is_kept)
    return Kept(len(sizes), sum(sizes.values()), frozenset(name.partition("/")[0] for name in sizes))


def _is_kept(name: str) -> bool:
    file = name.rpartition("/")[2]
    return file.endswith(".seg") or (file.startswith(".") and ".part" in file)


def clean(job: Job) -> Kept:
    """Remove it, and the records that are nothing without it; what there was.

    Plan, status, failures and finished reels stay as they are. Raises StorageError where a run is working on the job.
    """
    kept = kept_by(job)
    if not kept.files:
        return kept
    with job.locked():
        kept = kept_by(job)
        for reel_id in sorted(kept.reels):
            ledger = job.reel(reel_id)
            output = ledger.announced()
            if output and isinstance(job.outdir, Path) and job.claim(output):  # else another run may be writing it
                job.sweep(ledger, output, (job.outdir / output,))
            ledger.abandon()
    return kept
