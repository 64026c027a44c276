"""From a network in training to a model package."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from model.bins import prior_shift
from model.checkpoint import State
from model.losses import bin_weights
from model.networks import Network
from model.task import Task
from model.weights import Model, save_model


def averaged(task: Task, state: State) -> Model:
    """The averaged weights as a model on the CPU, with a share of the rebalancing taken back as the recipe says."""
    network = cast(Network, copy.deepcopy(state.network).cpu().eval().requires_grad_(False))
    network.load_state_dict(state.average)
    recipe = task.recipe
    if recipe.objective.classifies:
        shift = prior_shift(bin_weights(recipe.objective, task.prior), recipe.package.taken_back)
        assert network.head.bias is not None
        with torch.no_grad():
            network.head.bias.add_(torch.from_numpy(shift).float())
    temperature = recipe.package.temperature if recipe.objective.classifies else 1.0
    return Model(recipe.name, "", network, task.bins, task.prior.astype(np.float32), temperature, {})


def save_package(
    path: Path, model: Model, task: Task, state: State, base: Model | None, metrics: Mapping[str, Any]
) -> None:
    """Write a model package that says what it was made of, and how well it does; raises StorageError."""
    training = {
        "recipe": task.recipe.document(),
        "photographs": task.photos.report.training_data(),
        "base": {"name": base.name, "sha256": base.sha256} if base else None,
        "steps": state.step,
        "samples": state.samples,
        "hours": round(state.seconds / 3600, 3),
    }
    save_model(
        path,
        network=model.network,
        bins=model.bins,
        prior=model.prior,
        temperature=model.temperature,
        training=training,
        metrics=metrics,
    )
