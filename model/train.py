"""Training of the U-Net: classification of ab bins, on a schedule of wall-clock time.

Progress is the share of the time budget that has passed, not a count of steps: the learning rate reaches its end on
time on any machine, however busy. A run that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.bins import SoftCodes, gamut_bins, rebalancing, smoothed_prior, soft_codes
from model.checkpoint import State, load_checkpoint, save_checkpoint
from model.data import Photos, age, film_lightness, lab, linear_light, random_crops
from model.losses import classification_loss
from model.networks.unet import UNet, UNetConfig

_log = logging.getLogger(__name__)
_PREFETCH = 3  # batches cropped ahead
_PRIOR_PHOTOS = 6000  # sampled for the prior
_CLIP = 5.0  # norm of the gradient


@dataclass(frozen=True)
class TrainConfig:
    """The recipe. `stages`: (share of the budget at which it begins, crop size, batch size)."""

    minutes: float
    stages: tuple[tuple[float, int, int], ...] = ((0.0, 96, 48), (0.6, 128, 32), (0.85, 160, 20))
    learning_rate: float = 3e-3
    warmup: float = 0.01  # share of the budget
    weight_decay: float = 0.02
    uniform: float = 0.7  # λ of the rebalancing; with the paper's 0.5, grey weighs 46 times less than rare colours
    average: float = 0.999  # decay of the moving average of the weights
    seed: int = 0
    checkpoint_minutes: float = 4.0

    def progress(self, begun: float) -> float:
        """Share of the budget spent since `begun`, a time of the monotonic clock."""
        return (time.monotonic() - begun) / (self.minutes * 60)

    def stage(self, progress: float) -> tuple[int, int]:
        """(crop size, batch size) at a progress of 0..1."""
        return [(size, batch) for begin, size, batch in self.stages if begin <= progress][-1]

    def rate(self, progress: float) -> float:
        """Learning rate at a progress of 0..1: linear warm-up, then a half cosine down to 0."""
        if progress < self.warmup:
            return self.learning_rate * (0.05 + 0.95 * progress / self.warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True)
class Objective:
    """Soft codes of the truth, and the weight of each bin (Q,)."""

    codes: SoftCodes
    rebalance: Tensor

    def loss(self, logits: Tensor, ab: Tensor) -> Tensor:
        """Logits (N, Q, h/4, w/4) against the true ab (N, 2, h, w), averaged over cells of 4×4."""
        indices, shares = self.codes(F.avg_pool2d(ab, 4))
        return classification_loss(logits.float(), indices, shares, self.rebalance)


def fit(photos: Photos, folder: Path, config: TrainConfig, network: UNetConfig | None = None) -> Path:
    """Train until the budget is spent; returns the last checkpoint, `folder`/last.safetensors.

    A checkpoint already in `folder` is continued. Held-out photographs are left alone. Runs on CUDA where there is a
    GPU, else on the CPU, in bfloat16 with float32 weights and loss.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, _ = photos.split()
    bins = gamut_bins()
    codes = soft_codes(bins)
    prior = smoothed_prior(bin_counts(photos, train, codes, len(bins), np.random.default_rng(config.seed)), bins)
    weights = rebalancing(prior, config.uniform)
    state = _start(network or UNetConfig(bins=len(bins)), prior * weights, device, config)
    path = folder / "last.safetensors"
    if path.exists():
        load_checkpoint(state, path)
        _log.info("continuing from step %d, %.1f minutes", state.step, state.seconds / 60)
    tables = {"bins": torch.from_numpy(bins), "prior": torch.from_numpy(prior)}

    def save() -> None:
        save_checkpoint(state, path, tables, asdict(config))

    objective = Objective(codes.to(device), torch.from_numpy(weights).float().to(device))
    begun = time.monotonic() - state.seconds
    with _prefetched(photos, train, config, state.step, begun) as batches:
        _loop(state, batches, objective, config, begun, save)
    save()
    return path


def _loop(
    state: State,
    batches: Iterator[Tensor],
    objective: Objective,
    config: TrainConfig,
    begun: float,
    save: Callable[[], None],
) -> None:
    saved, smooth = time.monotonic(), math.nan
    while (progress := config.progress(begun)) < 1:
        loss = _step(state, next(batches), objective, config, progress)
        smooth = loss if math.isnan(smooth) else 0.99 * smooth + 0.01 * loss
        state.seconds = time.monotonic() - begun
        if state.step % 100 == 0:
            report = (state.step, state.samples, state.seconds / 60, config.rate(progress), smooth)
            _log.info("step %d  samples %d  minutes %.1f  rate %.5f  loss %.4f", *report)
        if time.monotonic() - saved > config.checkpoint_minutes * 60:
            saved = time.monotonic()
            save()


def bin_counts(
    photos: Photos, indices: NDArray[np.int64], codes: SoftCodes, bins: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """How much of the photographs' area falls to each bin (Q,), softly encoded, over at most 6,000 of them."""
    chosen = rng.permutation(indices)[:_PRIOR_PHOTOS]
    counts = torch.zeros(bins, dtype=torch.float64)
    for part in np.array_split(chosen, math.ceil(len(chosen) / 64)):
        _, ab = lab(linear_light(random_crops(photos, part, 64, rng)))
        picked, shares = codes(F.avg_pool2d(ab, 4))
        counts.index_add_(0, picked.flatten(), shares.flatten().double())
    return counts.numpy()


def _start(network: UNetConfig, marginal: NDArray[np.float64], device: torch.device, config: TrainConfig) -> State:
    """A fresh network whose head begins with the marginal distribution of the rebalanced colours."""
    torch.manual_seed(config.seed)
    net = UNet(network)
    net.head.bias = torch.nn.Parameter(torch.from_numpy(np.log(marginal)).float())
    net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kernels = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, config.learning_rate)
    return State(net, {name: t.clone() for name, t in net.state_dict().items()}, optimizer)


def _step(state: State, rgb: Tensor, objective: Objective, config: TrainConfig, progress: float) -> float:
    device = objective.rebalance.device
    random = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
    rgb = rgb.to(device)
    linear = linear_light(rgb)
    _, ab = lab(linear)
    lightness = age(film_lightness(linear, rgb, random), random).contiguous(memory_format=torch.channels_last)
    state.network.train()
    with torch.autocast(device.type, torch.bfloat16):
        logits = state.network(lightness)
    loss = objective.loss(logits, ab)
    for group in state.optimizer.param_groups:
        group["lr"] = config.rate(progress)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), _CLIP)
    state.optimizer.step()
    state.step += 1
    state.samples += len(rgb)
    update_average(state, min(config.average, (1 + state.step) / (10 + state.step)))
    return loss.item()


@torch.no_grad()
def update_average(state: State, decay: float) -> None:
    """average ← decay · average + (1 - decay) · weights, and the same for batch statistics."""
    for name, value in state.network.state_dict().items():
        if value.is_floating_point():
            state.average[name].lerp_(value, 1 - decay)
        else:
            state.average[name].copy_(value)


@contextmanager
def _prefetched(
    photos: Photos, indices: NDArray[np.int64], config: TrainConfig, first: int, begun: float
) -> Iterator[Iterator[Tensor]]:
    """Batches cropped ahead on a thread; what one holds depends on the seed, its step and its stage alone."""
    ready: queue.Queue[Tensor | BaseException] = queue.Queue(_PREFETCH)
    stop = threading.Event()

    def put(item: Tensor | BaseException) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                pass

    def produce() -> None:
        step = first
        try:
            while not stop.is_set():
                size, batch = config.stage(config.progress(begun))
                rng = np.random.default_rng((config.seed, step))
                put(random_crops(photos, rng.choice(indices, batch, replace=len(indices) < batch), size, rng))
                step += 1
        except BaseException as e:  # raised again where the batch is taken
            put(e)

    def batches() -> Iterator[Tensor]:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=produce, name="crops", daemon=True)
    thread.start()
    try:
        yield batches()
    finally:
        stop.set()
        thread.join()
