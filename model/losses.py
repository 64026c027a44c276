"""Training objectives: classification of colour, rebalanced or not, and regression of it (L2, L1, smooth L1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.bins import LAMBDA, Bins, SoftCodes, rebalancing
from model.spaces import UNIT

Kind = Literal["classification", "l2", "l1", "smooth_l1"]
HUBER = 1.0  # chroma, at which smooth L1 turns from square to straight (Zhang et al. 2017, arXiv 1705.02999, §3.1)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What a network is trained for.

    kind: `classification` of bins, or a regression: `l2`, `l1`, `smooth_l1`. Of classification only: rebalance, whether
    rare colours weigh more; uniform, λ of equation 4, 0..1; cap, the most that a colour may weigh, see `rebalancing`;
    teacher, a model package to learn from as well, and taught, the share of the loss that is its, see `model.teacher`.
    """

    kind: Kind = "classification"
    rebalance: bool = True
    uniform: float = LAMBDA
    cap: float | None = None
    teacher: str | None = None
    taught: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"expected a kind of {', '.join(get_args(Kind))}, got {self.kind}")
        if not 0 <= self.uniform <= 1:
            raise ValueError(f"expected uniform of 0 to 1, got {self.uniform}")
        if self.cap is not None and not self.cap >= 1:
            raise ValueError(f"expected a cap of 1 or more, got {self.cap}")
        if not 0 < self.taught <= 1:
            raise ValueError(f"expected taught above 0, at most 1, got {self.taught}")
        if self.teacher is not None and self.kind != "classification":
            raise ValueError(f"expected a teacher of classification alone, got {self.kind}")

    @property
    def classifies(self) -> bool:
        """Whether the network has bins."""
        return self.kind == "classification"


class Objective(Protocol):
    """A loss, and the tables it needs."""

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """Scalar. output: (N, C, h/s, w/s) of the network; truth: chroma (N, 2, h, w), averaged over cells of s×s."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        ...


def make_objective(config: ObjectiveConfig, bins: Bins, prior: NDArray[np.float64]) -> Objective:
    """The objective for a network with these bins (`no_bins` for a regression) and a prior (Q,) of their colours.

    Raises ValueError where kind and bins do not fit each other.
    """
    if config.classifies != (len(bins) > 0) or len(prior) != len(bins):
        raise ValueError(f"expected bins and prior as {config.kind} needs, got {len(bins) = }, {len(prior) = }")
    if config.classifies:
        return Classification(bins.soft_codes(), torch.from_numpy(bin_weights(config, prior)).float())
    return Regression(config.kind, UNIT[bins.space])


def bin_weights(config: ObjectiveConfig, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """w (Q,), what a pixel of each bin weighs; all 1 without rebalancing."""
    return rebalancing(prior, config.uniform, config.cap) if config.rebalance else np.ones(len(prior))


def initial_bias(config: ObjectiveConfig, prior: NDArray[np.float64]) -> Tensor:
    """Bias (C,) of a fresh head: the log of the distribution that it learns first, p̃ w; for a regression, grey."""
    if not config.classifies:
        return torch.zeros(2)
    return torch.from_numpy(np.log(prior * bin_weights(config, prior))).float()


@dataclass(frozen=True)
class Classification:
    """Soft codes of the truth, and the weight of each bin (Q,)."""

    codes: SoftCodes
    weights: Tensor

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """As Objective says; output are logits (N, Q, h/s, w/s); in nats."""
        indices, shares = self.codes(averaged(truth, output))
        return classification_loss(output.float(), indices, shares, self.weights)

    def to(self, device: torch.device) -> Classification:
        """As Objective says."""
        return Classification(self.codes.to(device), self.weights.to(device))


@dataclass(frozen=True)
class Regression:
    """The distance of chroma, both in units of `unit`: the mean over pixels of a sum over the two coordinates.

    l2: half the square, equation 1 of Zhang et al. 2016. l1: the absolute difference. smooth_l1: that of Huber with
    its turn at `HUBER`, divided by it, so that it is `l1` but for small differences.
    """

    kind: Kind
    unit: float

    def loss(self, output: Tensor, truth: Tensor) -> Tensor:
        """As Objective says; output is chroma/unit (N, 2, h/s, w/s)."""
        output, target = output.float(), averaged(truth, output) / self.unit
        if self.kind == "l2":
            return F.mse_loss(output, target)  # two coordinates, half of each
        if self.kind == "l1":
            return 2 * F.l1_loss(output, target)
        return 2 * F.smooth_l1_loss(output, target, beta=HUBER / self.unit)

    def to(self, device: torch.device) -> Regression:  # noqa: ARG002 (owns no tensors)
        """As Objective says."""
        return self


def averaged(truth: Tensor, output: Tensor) -> Tensor:
    """Truth (N, 2, h, w) averaged over cells to the size of the output (N, C, h/s, w/s)."""
    scale = truth.shape[-1] // output.shape[-1]
    return F.avg_pool2d(truth, scale) if scale > 1 else truth


def classification_loss(logits: Tensor, indices: Tensor, weights: Tensor, rebalance: Tensor) -> Tensor:
    """Mean over pixels of -v Σ_q Z_q log softmax(logits)_q: equations 2 and 3 of Zhang et al. 2016.

    logits: (N, Q, h, w). indices, weights: (N, h, w, K), the bins that share a pixel's colour, the nearest first, and
    their shares Z. rebalance: (Q,); v is the weight of the nearest bin. All other bins have Z = 0, so only K
    of the Q terms are computed. Returns a scalar, in nats.
    """
    normalizer = logits.logsumexp(1)
    picked = logits.gather(1, indices.permute(0, 3, 1, 2))
    expected = (picked * weights.permute(0, 3, 1, 2)).sum(1)
    loss: Tensor = (rebalance[indices[..., 0]] * (normalizer - expected)).mean()
    return loss
