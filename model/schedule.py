"""How long training lasts, how fast it learns, and how large crops and batches are: all as functions of progress.

Progress runs from 0 to 1 over a budget of either epochs or minutes. With epochs, what each step does depends on the
samples seen alone, so a run that was stopped goes on exactly. With minutes, the learning rate follows the clock: it
reaches its end on time on any machine, however busy, and no two runs are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """From a progress of `begin` on: square crops of `size` pixels, `batch` of them a step and worker."""

    begin: float
    size: int
    batch: int

    def __post_init__(self) -> None:
        if not (0 <= self.begin < 1 and self.size >= 32 and self.batch >= 1):
            raise ValueError(f"expected 0 <= begin < 1, size of at least 32, batch of at least 1, got {self}")


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe's [training]. One of `minutes` and `epochs` is the budget.

    An epoch is as many samples as there are photographs to train on, drawn at random. learning_rate: at its highest.
    warmup: share of the budget over which it rises. decay: down to 0 in half a cosine, or not at all. betas,
    weight_decay: of AdamW; vectors do not decay. average: decay of the moving average of the weights. clip: norm of the
    gradient. evaluate_epochs, evaluate_minutes: between evaluations; the one that matches the budget counts. patience:
    evaluations without a better held-out loss before training stops. precision: of the network's forward pass;
    auto is bf16 where the device computes with it.
    """

    minutes: float | None = None
    epochs: float | None = None
    stages: tuple[Stage, ...] = (Stage(0.0, 96, 48), Stage(0.6, 128, 32), Stage(0.85, 160, 20))
    learning_rate: float = 3e-3
    warmup: float = 0.01
    decay: Literal["cosine", "constant"] = "cosine"
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 0.02
    average: float = 0.999
    clip: float = 5.0
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    patience: int | None = None
    evaluate_epochs: float = 1.0
    evaluate_minutes: float = 10.0
    checkpoint_minutes: float = 4.0

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.epochs is None):
            raise ValueError("expected either minutes or epochs as the budget")
        for name in ("minutes", "epochs", "learning_rate", "clip", "evaluate_epochs", "evaluate_minutes", "patience"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"expected {name} above 0, got {value}")
        for name in ("warmup", "average", "weight_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"expected {name} of 0 to 1, got {getattr(self, name)}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"expected two betas of 0 to 1, got {list(self.betas)}")
        begins = [stage.begin for stage in self.stages]
        if begins[:1] != [0] or begins != sorted(set(begins)):
            raise ValueError(f"expected stages that begin at 0 and in rising order, got {begins}")

    def stage(self, progress: float) -> Stage:
        """What holds at a progress of 0..1."""
        return [stage for stage in self.stages if stage.begin <= progress][-1]

    def rate(self, progress: float) -> float:
        """Learning rate at a progress of 0..1: linear warm-up, then half a cosine or a constant."""
        if progress < self.warmup:
            return self.learning_rate * (0.05 + 0.95 * progress / self.warmup)
        if self.decay == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def evaluations(self, progress: float) -> int:
        """How many evaluations are due up to a progress of 0..1, without the one at the end."""
        if self.epochs is not None:
            return math.floor(progress * self.epochs / self.evaluate_epochs)
        assert self.minutes is not None
        return math.floor(progress * self.minutes / self.evaluate_minutes)


@dataclass(frozen=True)
class Order:
    """What one step is to do: crops of `size` pixels, `batch` of them a worker, at a progress of 0..1."""

    step: int
    progress: float
    size: int
    batch: int


def orders(
    config: TrainingConfig, progress: Callable[[int], float], step: int, samples: int, workers: int
) -> Iterator[Order]:
    """The steps from number `step` on, until `progress`, a function of the samples seen before, reaches 1."""
    while (share := progress(samples)) < 1:
        stage = config.stage(share)
        yield Order(step, share, stage.size, stage.batch)
        step += 1
        samples += stage.batch * workers
