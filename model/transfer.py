"""A new network that begins where a trained one ended, whatever bins either has."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.bins import Bins
from model.networks import NETWORKS, Network, NetworkConfig, network_name
from model.weights import Model
from pipeline.errors import RecipeError

_SAME = 0.5  # chroma within which two centres are one bin


def extended(base: Model, bins: Bins, bias: Tensor, config: NetworkConfig | None = None) -> Network:
    """A network with the weights of `base` and a head for `bins`, in training mode.

    The head's rows come from the base's bins of the same centre. A bin that the base lacks, and every output of a head
    of another kind (a regression from a classification, another space), begins with no weights and its `bias` (C,), see
    `model.losses.initial_bias`. config: what a recipe asks for, None for what the base is; raises RecipeError where
    the two differ in anything but the number of bins.
    """
    own = dataclasses.replace(base.network.config, bins=len(bins))
    if config is not None and dataclasses.replace(config, bins=len(bins)) != own:
        raise RecipeError(
            f"{base.name}: cannot be the base, it is {own} and the recipe asks for {config}; choose another base, or "
            "give the recipe the base's network"
        )
    made = NETWORKS[network_name(base.network)][1](own)
    head = {id(p) for p in base.network.head.parameters()}
    body = {n: p for n, p in base.network.state_dict(keep_vars=True).items() if id(p) not in head}
    made.load_state_dict(body, strict=False)
    _fill_head(made, base, bins, bias)
    return made


@torch.no_grad()
def _fill_head(made: Network, base: Model, bins: Bins, bias: Tensor) -> None:
    new, old = made.head, base.network.head
    assert new.bias is not None
    assert old.bias is not None
    new.weight.zero_()
    new.bias.copy_(bias)
    rows, of = _shared(bins, base.bins)
    new.weight[rows] = old.weight[of]
    new.bias[rows] = old.bias[of]


def _shared(bins: Bins, others: Bins) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the outputs that two heads share, in each; all of two regressions in one space."""
    if bins.space != others.space or (len(bins) > 0) != (len(others) > 0):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if not len(bins):
        return np.arange(2), np.arange(2)
    distance = np.abs(bins.centers[:, None].astype(np.float64) - others.centers[None]).max(-1)
    rows = np.flatnonzero(distance.min(1) < _SAME)
    return rows, distance[rows].argmin(1)
