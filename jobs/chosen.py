"""The pictures that an evaluation measures on, and what its bootstrap draws of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.data import Photos

_FEWEST = 10  # groups of alike pictures for the bootstrap to draw, else pictures; below that there are no intervals


@dataclass(frozen=True)
class Chosen:
    """The pictures to measure on, by index into the photographs, in an order drawn at random."""

    photos: Photos
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        return self.photos[int(self.indices[i])]

    def of(self, names: Sequence[str]) -> list[str]:
        """What the photographs have of something, for these pictures."""
        return [names[i] for i in self.indices]


def choose(photos: Photos, held_out: bool, count: int | None) -> Chosen:
    """Held-out photographs or all of them, at most `count`, in an order that does not change from run to run."""
    import numpy as np

    indices = photos.split()[1] if held_out else np.arange(len(photos))
    return Chosen(photos, np.random.default_rng(0).permutation(indices)[:count])


def bootstrap_units(chosen: Chosen) -> tuple[list[str], str]:
    """What the bootstrap draws, for each picture, and in words: groups of alike pictures, where there are enough."""
    groups = chosen.of(chosen.photos.groups)
    count = len(set(groups))
    if count >= _FEWEST:
        return groups, f"{count} groups (pictures, or the videos or folders they are from)"
    pictures = [str(i) for i in chosen.indices]
    return pictures, f"{len(chosen)} pictures of {count} groups; being alike, they make intervals too narrow"


def bootstrap_replicates(chosen: Chosen) -> int:
    """How often the bootstrap draws anew: not at all from so few pictures that an interval would mislead."""
    from model.evaluate import REPLICATES

    return REPLICATES if len(chosen) >= _FEWEST else 0
