"""Which pictures are kept for evaluation: by hash of what they belong to, so that neighbours stay on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HELD_OUT = 20  # one group in so many is never trained on
_ENOUGH = 20  # groups held out, of a source that gives as many ...
_MOST = 5  # ... without giving more than one in so many
_TAIL = 10  # of a single video or folder, the last one in so many pictures is held out
_GAP = 20  # ... and one in so many, before those, is left out of both


def held_out(name: str) -> bool:
    """Whether the group of this name (a photograph's file name) is kept for evaluation: a twentieth, by its hash."""
    return _hash(name) % HELD_OUT == 0


def split(groups: Sequence[str], origins: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on, and indices held out, of pictures that belong to `groups` (N) of sources `origins` (N,).

    Of a source where the hash holds out fewer than 20 groups, those of the lowest hashes are too, up to 20 or a fifth
    of its groups, at least one. Sources of one group each, such as single videos, count as one source together. A
    single group that is all alone has its last tenth held out, in the order of its pictures, with a twentieth before
    it in neither part.
    """
    chosen = {group for group in set(groups) if held_out(group)}
    alone = np.zeros(len(groups), bool)
    for source in np.unique(origins):
        own = origins == source
        names = _names(groups, own)
        if len(names) == 1:
            alone |= own
        else:
            chosen |= _more(names)
    lonely = _names(groups, alone)
    if len(lonely) > 1:
        chosen |= _more(lonely)
    if chosen >= set(groups) and len(chosen) > 1:
        chosen.remove(max(set(groups), key=_hash))
    held = np.array([group in chosen for group in groups], bool)
    train = ~held
    if len(lonely) == 1:
        train[alone], held[alone] = _tail(int(alone.sum()))
    return np.flatnonzero(train), np.flatnonzero(held)


def _more(names: set[str]) -> set[str]:
    """Those to hold out beside what the hash does, the lowest hashes first."""
    wanted = max(1, min(_ENOUGH, len(names) // _MOST)) - sum(map(held_out, names))
    return set(sorted((name for name in names if not held_out(name)), key=_hash)[: max(0, wanted)])


def _tail(count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    kept = max(1, round(count / _TAIL)) if count > 1 else 0
    place = np.arange(count)
    return place < count - kept - count // _GAP, place >= count - kept


def _names(groups: Sequence[str], of: NDArray[np.bool_]) -> set[str]:
    return {group for group, wanted in zip(groups, of, strict=True) if wanted}


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
