"""How a network in training fares on photographs that it is not trained on: a loss, and a sheet of samples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from model.baselines import all_grey
from model.bins import gamut_bins
from model.checkpoint import State
from model.crops import random_crops
from model.engines import open_engine
from model.evaluate import evaluate, pictured
from model.measures import ClassWeights
from model.prior import estimate_prior, shipped_prior
from model.sheets import draw_sheet
from model.spaces import rgb_to_space
from model.task import Task
from model.weights import Model

_MOST, _BATCH, _SHOWN, _EVALUATED = 256, 32, 6, 200  # pictures for the loss, at a time, on the sheet, at the end


class HeldOut:
    """The same crops of at most 256 held-out photographs every time, of the size that training ends with."""

    def __init__(self, task: Task) -> None:
        self._task = dataclasses.replace(task, teacher=None)  # photographs alone judge
        rng = np.random.default_rng(0)
        chosen = rng.permutation(task.photos.split()[1])[:_MOST]
        self._crops = random_crops(task.photos, chosen, task.recipe.training.stages[-1].size, rng)

    @torch.no_grad()
    def loss(self, state: State) -> float:
        """The objective of the averaged weights, not augmented; a mean over pictures."""

        def averaged(lightness: Tensor) -> Tensor:
            output: Tensor = functional_call(state.network, state.average, (lightness,))
            return output

        state.network.eval()
        total = 0.0
        for rgb in torch.split(self._crops, _BATCH):
            lightness, chroma = rgb_to_space(self._task.space, rgb.to(self._task.device))
            total += self._task.loss(averaged, lightness, chroma).item() * len(rgb)
        state.network.train()
        return total / len(self._crops)

    def draw(self, model: Model, path: Path) -> None:
        """A sheet of some of the photographs: the truth, grey, and as the model colours them."""
        with open_engine(model, "torch", threads=torch.get_num_threads()) as engine:
            rows = pictured({"grey": all_grey, "coloured": engine}, self._photographs(_SHOWN))
        draw_sheet(path, ["truth", "grey", "coloured"], rows)

    def metrics(self, model: Model) -> dict[str, float]:
        """Measures on at most 200 whole held-out photographs, colours weighted by how rare they are in training.

        Keys are those of `model.evaluate.evaluate`.
        """
        task, bins = self._task, gamut_bins()
        weights = ClassWeights(bins.centers, estimate_prior(task.photos, task.train, bins, shipped_prior(bins)))
        with open_engine(model, "torch", threads=torch.get_num_threads()) as engine:
            found = evaluate(engine, self._photographs(_EVALUATED), weights)
        return {name: round(value, 3) for name, value in found.items()}

    def _photographs(self, most: int) -> list[NDArray[np.uint8]]:
        photos = self._task.photos
        return [photos[i] for i in np.random.default_rng(0).permutation(photos.split()[1])[:most]]
