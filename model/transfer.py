"""A new network that begins where a trained one ended, whatever bins either has."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.bins import Bins, prior_shift
from model.losses import ObjectiveConfig, bin_weights
from model.networks import NETWORKS, Network, NetworkConfig, network_name
from model.weights import Model
from pipeline.errors import RecipeError

_SAME = 0.5  # chroma within which two centres are one bin


def extended(base: Model, bins: Bins, bias: Tensor, config: NetworkConfig | None = None) -> Network:
    """A network with the weights of `base` and a head for `bins`, in training mode.

    The head's rows come from the base's bins of the same centre; what of the rebalancing was taken back when the base
    was packed is put back, so that training goes on with the loss that it ended with. A bin that the base lacks, and
    every output of a head of another kind (a regression from a classification, another space), begins with no weights
    and its `bias` (C,), see `model.losses.initial_bias`. config: what a recipe asks for, None for what the base is.

    Raises RecipeError where the two differ in anything but the number of bins, or the package does not say what its
    objective was.
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
    if len(bins) and len(rows):
        new.bias[rows] -= torch.from_numpy(prior_shift(*rebalancing_of(base))[of]).float()


def rebalancing_of(model: Model) -> tuple[NDArray[np.float64], float]:
    """What each colour weighed in training (Q,), and the share of it that packing took back (see `bins.prior_shift`).

    From what the package says of its training; equal weights and 0 where it says nothing. Raises RecipeError.
    """
    try:
        recipe = json.loads(model.metadata.get("training", "{}")).get("recipe", {})
        share = float(recipe.get("package", {}).get("taken_back", 0))
        if "objective" not in recipe and not share:
            return np.ones(len(model.bins)), 0.0
        return bin_weights(ObjectiveConfig(**recipe["objective"]), model.prior.astype(np.float64)), share
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        why = " ".join(str(e).split())
        raise RecipeError(
            f"{model.name}: its package does not say what it was trained for ({why}); choose another"
        ) from e


def _shared(bins: Bins, others: Bins) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the outputs that two heads share, in each; all of two regressions in one space."""
    if bins.space != others.space or (len(bins) > 0) != (len(others) > 0):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if not len(bins):
        return np.arange(2), np.arange(2)
    distance = np.abs(bins.centers[:, None].astype(np.float64) - others.centers[None]).max(-1)
    rows = np.flatnonzero(distance.min(1) < _SAME)
    return rows, distance[rows].argmin(1)
