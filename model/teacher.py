"""Distillation: a trained network's word on what colours a picture may have, learnt beside the one that it did have.

A photograph shows one colour of the many that its greys allow, and rare ones weigh much: that is a noisy thing to learn
from. A teacher gives the whole distribution at once (Hinton, Vinyals, Dean 2015, arXiv 1503.02531).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.bins import Bins, prior_shift
from model.networks import Network
from model.transfer import rebalancing_of
from model.weights import Model
from pipeline.errors import RecipeError


@dataclass(frozen=True)
class Teacher:
    """network: the teacher's, frozen. shift: (Q, 1, 1), takes all rebalancing out of its logits. weights: (Q, 1, 1),
    what a colour weighs for the pupil.
    """

    network: Network
    shift: Tensor
    weights: Tensor

    @torch.no_grad()
    def distribution(self, lightness: Tensor) -> Tensor:
        """p(q | L) (N, Q, h/s, w/s) of lightness (N, 1, h, w), as common as colours are."""
        logits: Tensor = self.network(lightness)
        return torch.softmax(logits.float() + self.shift, 1)

    def loss(self, output: Tensor, lightness: Tensor) -> Tensor:
        """Scalar, in nats: equation 2 of Zhang et al. 2016 as it is expected to be, were the truth drawn from the
        teacher's distribution: the mean over pixels of -Σ_q p_q w_q log softmax(output)_q.

        output: logits (N, Q, h/s, w/s) of the pupil for lightness (N, 1, h, w).
        """
        expected = self.distribution(lightness) * self.weights
        return -(expected * output.float().log_softmax(1)).sum(1).mean()


def make_teacher(model: Model, bins: Bins, weights: NDArray[np.float64], device: torch.device) -> Teacher:
    """A packed model as the teacher of a network with these bins, whose objective weighs colours so (Q,).

    Raises RecipeError where it has other bins, or does not say what its own objective was.
    """
    if model.bins.space != bins.space or not np.array_equal(model.bins.centers, bins.centers):
        raise RecipeError(
            f"objective.teacher: {model.name} has {len(model.bins)} bins in {model.bins.space}, expected the recipe's "
            f"{len(bins)} in {bins.space}; choose a teacher that was trained with the same [bins]"
        )
    trained, taken_back = rebalancing_of(model)
    shift = prior_shift(trained, 1 - taken_back)
    columns = (torch.from_numpy(values).float()[:, None, None].to(device) for values in (shift, weights))
    network: Any = model.network.eval().requires_grad_(False)
    return Teacher(network.to(device).to(memory_format=torch.channels_last), *columns)
