"""What a recipe makes of photographs: the bins and prior of their colours, a network to begin with, and its batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.augment import FIVE_FOLD, film_lightness, five_fold_crops
from model.bins import Bins, frequent_bins, gamut_bins, no_bins
from model.checkpoint import State
from model.crops import DevicePhotos, random_crops
from model.data import Photos
from model.losses import Objective, bin_weights, initial_bias, make_objective
from model.networks import NETWORKS, Network
from model.prior import estimate_prior, shipped_prior
from model.recipe import TrainRecipe
from model.schedule import Order
from model.spaces import Space, linear_light, rgb_to_space, yuv
from model.teacher import Teacher, make_teacher
from model.transfer import extended
from model.wear import age
from model.weights import Model, load_model
from pipeline.errors import RecipeError

_BF16 = ("avx512_bf16", "amx_bf16")  # what a CPU that computes in bfloat16 says of itself
_COUNTED = 2000  # pictures in which frequent colours are looked for


@dataclass(frozen=True)
class Task:
    """A recipe and its photographs, ready to train on.

    train: indices of the photographs to train on; chances: of each to be drawn, summing to 1. prior: (Q,). precision:
    of the forward pass. resident: the photographs in the device's memory, where it has one of its own. teacher: whom
    the network also learns from.
    """

    recipe: TrainRecipe
    photos: Photos
    train: NDArray[np.int64]
    chances: NDArray[np.float64]
    bins: Bins
    prior: NDArray[np.float64]
    objective: Objective
    device: torch.device
    precision: torch.dtype
    resident: DevicePhotos | None
    teacher: Teacher | None

    @property
    def epoch(self) -> int:
        """Samples in an epoch: each photograph once, in each of the ways that the augmentation shows it."""
        return len(self.train) * (len(FIVE_FOLD) if self.recipe.data.augmentation == "colorunet" else 1)

    def fingerprint(self) -> str:
        """Hex digest that tells these photographs from others, by names and sizes."""
        return hashlib.sha256(repr((self.photos.names, self.photos.sizes.tolist())).encode()).hexdigest()[:16]

    @property
    def space(self) -> Space:
        """Colour space of the network's chroma."""
        return self.bins.space

    def draw(self, order: Order, rank: int = 0) -> Tensor:
        """Crops (batch, size, size, 3) uint8 for a step of the worker `rank`; they follow from the seed and these."""
        rng = np.random.default_rng((self.recipe.training.seed, order.step, rank))
        few = len(self.train) < order.batch
        chosen = rng.choice(self.train, order.batch, replace=few, p=self.chances)
        if self.recipe.data.augmentation == "colorunet":
            kinds = rng.integers(0, len(FIVE_FOLD), order.batch)
            return five_fold_crops(self.photos, chosen, kinds, order.size, rng)
        if self.resident is not None:
            return self.resident.crops(chosen, order.size, rng)
        return random_crops(self.photos, chosen, order.size, rng)

    def inputs(self, rgb: Tensor, step: int, rank: int = 0) -> tuple[Tensor, Tensor]:
        """L* (N, 1, h, w) as the network is to see it, and true chroma (N, 2, h, w), of crops (N, h, w, 3) uint8."""
        rgb = rgb.to(self.device)
        lightness, chroma = rgb_to_space(self.space, rgb)
        if self.recipe.data.augmentation == "film":
            seed = (self.recipe.training.seed * 1009 + rank) * 1_000_003 + step
            random = torch.Generator(self.device).manual_seed(seed)
            lightness = age(film_lightness(linear_light(rgb), rgb, random), random)
        return lightness.contiguous(memory_format=torch.channels_last), chroma

    def loss(self, network: Callable[[Tensor], Tensor], lightness: Tensor, chroma: Tensor) -> Tensor:
        """The objective of a network, a scalar."""
        mixed = self.precision is torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            output = network(lightness)
            taught = self.teacher.loss(output, lightness) if self.teacher else None
        loss = self.objective.loss(output, chroma)
        return loss if taught is None else torch.lerp(loss, taught, self.recipe.objective.taught)


def make_task(recipe: TrainRecipe, photos: Photos) -> Task:
    """Count the colours of the photographs and choose the device: CUDA where there is a GPU, else the CPU.

    Raises what `load_model` and `make_teacher` raise.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, _ = photos.split()
    bins = _bins(recipe, photos, train)
    prior = estimate_prior(photos, train, bins, shipped_prior(bins)) if len(bins) else np.empty(0)
    return Task(
        recipe=recipe,
        photos=photos,
        train=train,
        chances=photos.sampling_probabilities(train),
        bins=bins,
        prior=prior,
        objective=make_objective(recipe.objective, bins, prior).to(device),
        device=device,
        precision=_precision(recipe.training.precision, device),
        resident=DevicePhotos(photos, device) if device.type == "cuda" else None,
        teacher=_teacher(recipe, bins, prior, device),
    )


def _teacher(recipe: TrainRecipe, bins: Bins, prior: NDArray[np.float64], device: torch.device) -> Teacher | None:
    objective = recipe.objective
    if objective.teacher is None:
        return None
    return make_teacher(load_model(objective.teacher), bins, bin_weights(objective, prior), device)


def _bins(recipe: TrainRecipe, photos: Photos, train: NDArray[np.int64]) -> Bins:
    if not recipe.objective.classifies:
        return no_bins(recipe.bins.space)
    if recipe.bins.kind == "gamut":
        return gamut_bins()
    chosen = np.random.default_rng(0).permutation(train)[:_COUNTED]
    pictures = (torch.from_numpy(photos[i][None]) for i in chosen)
    return frequent_bins((yuv(p)[1].permute(0, 2, 3, 1).numpy() for p in pictures), recipe.bins.count)


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a device that computes with it; elsewhere it would only be emulated."""
    able = device.type == "cuda" or any(torch.cpu.get_capabilities().get(feature) for feature in _BF16)
    return torch.bfloat16 if wanted == "bf16" or (wanted == "auto" and able) else torch.float32


def fresh_state(task: Task, base: Model | None) -> State:
    """A network from `base`, or a new one by the seed, with its moving average and optimizer.

    Raises RecipeError where base and recipe do not fit each other.
    """
    torch.manual_seed(task.recipe.training.seed)
    network: Any = _network(task, base).train().requires_grad_(True)
    network = network.to(task.device).to(memory_format=torch.channels_last)
    training = task.recipe.training
    kernels = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": training.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas, on_gpu = (training.betas[0], training.betas[1]), task.device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, training.learning_rate, betas, fused=on_gpu)
    return State(network, {name: t.clone() for name, t in network.state_dict().items()}, optimizer)


def _network(task: Task, base: Model | None) -> Network:
    chosen = dict(task.recipe.network or {})
    name = chosen.pop("name", None)
    bias = initial_bias(task.recipe.objective, task.prior)
    try:
        config = NETWORKS[name][0](bins=len(task.bins), **chosen) if name else None
    except ValueError as e:
        raise RecipeError(f"recipe {task.recipe.name}: [network]: {e}") from e
    if base is not None:
        return extended(base, task.bins, bias, config)
    if name is None:
        raise RecipeError(f"recipe {task.recipe.name} has no [network], and there is no base to take one from")
    network = NETWORKS[name][1](config)
    assert network.head.bias is not None
    with torch.no_grad():
        network.head.bias.copy_(bias)
    return network
