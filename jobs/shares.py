"""Where a cluster is, and what a worker takes of its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CPUS_A_WORKER = 2  # what its engine and its encoder are told to use, whatever the machine has


@dataclass(frozen=True)
class Shares:
    """What a worker takes of a node. `gpus` None: a GPU where there is one, and processors alone on other nodes.

    `most`: so many workers are asked for, whether or not there is room, as an autoscaler needs.
    """

    address: str = "auto"
    gpus: float | None = None
    cpus: float = CPUS_A_WORKER
    most: int | None = None

    def slots(self, node: Mapping[str, float]) -> tuple[int, int]:
        """(workers with a GPU, workers without) that a node with these resources has room for."""
        by_cpu = int(node.get("CPU", 0.0) / self.cpus + 1e-6)
        there = node.get("GPU", 0.0)
        if self.gpus == 0 or (self.gpus is None and not there):
            return 0, by_cpu
        return min(int(there / (self.gpus or 1.0) + 1e-6), by_cpu), 0
