"""Where a cluster is, and what a worker takes of its nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jobs.text import size

CPUS_A_WORKER = 2  # what its engine and its encoder are told to use, whatever the machine has
_MEMORY_A_WORKER, _MEMORY_A_PIXEL = 500 << 20, 700  # bytes; 2.0 GB at 1080p with two segments in flight, measured


def memory_of(frame_pixels: int) -> int:
    """Bytes that a worker takes for frames of this size."""
    return _MEMORY_A_WORKER + _MEMORY_A_PIXEL * frame_pixels


@dataclass(frozen=True)
class Shares:
    """What a worker takes of a node. `gpus` None: a GPU where there is one, and processors alone on other nodes.

    `most`: so many workers are asked for, whether or not there is room, as an autoscaler needs. `memory`: bytes, of
    what a node says it has; 0 for not counting them.
    """

    address: str = "auto"
    gpus: float | None = None
    cpus: float = CPUS_A_WORKER
    most: int | None = None
    memory: int = 0

    @property
    def asked(self) -> str:
        """What a worker asks for, in words."""
        gpu = f", {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} processors{gpu}, {size(self.memory)} of memory"

    def within(self, nodes: Collection[Mapping[str, float]]) -> Shares:
        """These, with the memory of the largest node where it is for memory that none of them has room for a worker."""
        uncounted = dataclasses.replace(self, memory=0)
        fitting = [node for node in nodes if any(uncounted.slots(node))]
        if not fitting or any(any(self.slots(node)) for node in fitting):
            return self
        return dataclasses.replace(self, memory=int(max(node.get("memory", 0.0) for node in fitting)))

    def slots(self, node: Mapping[str, float]) -> tuple[int, int]:
        """(workers with a GPU, workers without) that a node with these resources has room for."""
        room = int(node.get("CPU", 0.0) / self.cpus + 1e-6)
        if self.memory:
            room = min(room, int(node.get("memory", 0.0) / self.memory))
        there = node.get("GPU", 0.0)
        if self.gpus == 0 or (self.gpus is None and not there):
            return 0, room
        return min(int(there / (self.gpus or 1.0) + 1e-6), room), 0
