"""Training: a plain loop over steps, with checkpoints, evaluations and reports.

What a step sees follows from the seed and its number alone, so a run that was killed goes on from its last checkpoint
with the losses that it would have had: exactly so where the budget is epochs (see `model.schedule`), on the same kind
of processor with the same number of threads.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.checkpoint import State, load_checkpoint, save_checkpoint
from model.data import Photos
from model.group import Group
from model.held_out import HeldOut
from model.packing import averaged, save_package
from model.prefetch import ahead
from model.progress import History, Report
from model.recipe import TrainRecipe
from model.schedule import Order, orders
from model.task import Task, fresh_state, make_task
from model.weights import Model, load_model
from pipeline.errors import EngineError, RecipeError

Listener = Callable[[Report], None]
LAST, BEST = "last.safetensors", "best.safetensors"
_ROW = 20  # steps between the rows of metrics.csv
_RECENT = 20  # steps over which the speed is measured


def fit(
    recipe: TrainRecipe,
    photos: Photos,
    out: Path,
    *,
    base: Model | None = None,
    resume: bool = False,
    report: Listener = lambda _: None,
    stop: threading.Event | None = None,
) -> Path:
    """Train until the budget is spent or patience is at its end; returns the model package, `out`/NAME.safetensors.

    Written to `out`: last.safetensors, which `resume` goes on from; best.safetensors, a model package of the averaged
    weights that had the lowest held-out loss so far; metrics.csv and loss.png; samples-STEP.png at every evaluation.
    report: called after each step. stop: once set, all is saved and KeyboardInterrupt raised. Every process of
    a torch.distributed group calls this alike; the batches are then of each.

    Raises RecipeError where `out` has a run and `resume` is not asked for, where it has another run, or where the base
    does not fit; EngineError where the loss is no longer a number; StorageError. The last checkpoint survives all.
    """
    group = Group()
    if (out / LAST).exists() and not resume:
        raise RecipeError(f"{out} has a run already; --resume goes on with it, another -o begins a new one")
    task = make_task(recipe, photos)
    state = fresh_state(task, base)
    identity = _identity(task, base, group)
    if (out / LAST).exists():
        load_checkpoint(state, out / LAST, identity)
    run = _Run(task, state, group, out, base, report, identity)
    run.train(stop or threading.Event())
    return run.finish()


def gradients(task: Task, network: nn.Module, lightness: Tensor, chroma: Tensor) -> Tensor:
    """Leave the gradient of the loss in the network's parameters, and return the loss."""
    network.zero_grad(set_to_none=True)
    loss = task.loss(network, lightness, chroma)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def step(task: Task, state: State, network: nn.Module, rgb: Tensor, order: Order, group: Group) -> float:
    """One step of the optimizer on crops (N, h, w, 3) uint8; returns the loss, a mean over the workers.

    Raises EngineError, before any weight is changed, where the loss or its gradient is not finite.
    """
    training = task.recipe.training
    lightness, chroma = task.inputs(rgb, order.step, group.rank)
    mean = group.mean(gradients(task, network, lightness, chroma))
    clipped = torch.nn.utils.clip_grad_norm_(state.network.parameters(), training.clip)
    told: list[float] = torch.stack([mean, clipped]).tolist()  # one wait for the device
    loss, norm = told
    if not math.isfinite(loss + norm):
        raise EngineError(
            f"the loss is {loss} and its gradient {norm} at step {order.step}; the checkpoint before it is kept: lower "
            "training.learning-rate and begin again in another folder"
        )
    for parameters in state.optimizer.param_groups:
        parameters["lr"] = training.rate(order.progress)
    state.optimizer.step()
    state.step = order.step + 1
    state.samples += len(rgb) * group.size
    state.update_average(min(training.average, (1 + state.step) / (10 + state.step)))
    state.smooth = loss if math.isnan(state.smooth) else 0.98 * state.smooth + 0.02 * loss
    return loss


def _identity(task: Task, base: Model | None, group: Group) -> dict[str, Any]:
    """What may not change when a run goes on; its budget may."""
    recipe = task.recipe.document()
    for budget in ("minutes", "epochs", "checkpoint_minutes"):
        del recipe["training"][budget]
    for source in recipe["data"]["sources"]:
        del source["path"]  # the pictures count, not where they lie
    base_hash = base.sha256 if base else None
    return {"recipe": recipe, "pictures": task.fingerprint(), "base": base_hash, "workers": group.size}


@dataclass
class _Run:
    """A run, with its clock and its files."""

    task: Task
    state: State
    group: Group
    out: Path
    base: Model | None
    report: Listener
    _identity: Mapping[str, Any]
    _last: Report | None = None
    _times: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def __post_init__(self) -> None:
        self._begun = time.monotonic() - self.state.seconds
        self._held_out = HeldOut(self.task)
        self._history = History(self.out, self.state.step)

    def train(self, stop: threading.Event) -> None:
        """The loop."""
        task, state, training = self.task, self.state, self.task.recipe.training
        network = self.group.join(state.network).train()
        coming = orders(training, self._agreed_progress, state.step, state.samples, self.group.size)
        saved = time.monotonic()
        for order, rgb in ahead(coming, lambda order: task.draw(order, self.group.rank)):
            if training.evaluations(order.progress) > state.evaluations:
                state.evaluations = training.evaluations(order.progress)
                self._evaluate()
            if training.patience and state.waited >= training.patience:
                break
            loss = step(task, state, network, rgb, order, self.group)
            self._tell(order, loss)
            if stop.is_set() or time.monotonic() - saved > training.checkpoint_minutes * 60:
                saved = time.monotonic()
                self._save()
            if stop.is_set():
                raise KeyboardInterrupt

    def finish(self) -> Path:
        """The last evaluation, and the package of the best weights."""
        if self.state.evaluated != self.state.step:
            self._evaluate()
        path = self.out / f"{self.task.recipe.name}.safetensors"
        if self.group.leads:
            best = load_model(str(self.out / BEST))
            metrics = {"held_out_loss": round(self.state.best, 5)} | self._held_out.metrics(best)
            save_package(path, best, self.task, self.state, self.base, metrics)
        return path

    def _progress(self, samples: int) -> float:
        """Share of the budget that is spent after so many samples, or by now."""
        training = self.task.recipe.training
        if training.epochs is not None:
            return samples / (training.epochs * self.task.epoch)
        assert training.minutes is not None
        return (time.monotonic() - self._begun) / (training.minutes * 60)

    def _agreed_progress(self, samples: int) -> float:
        return self.group.agreed(self._progress(samples))

    def _tell(self, order: Order, loss: float) -> None:
        """Report a step; one in twenty becomes a row of metrics.csv."""
        state, now = self.state, time.monotonic()
        state.seconds = now - self._begun
        self._times.append((now, state.samples))
        since, samples = self._times[0]
        progress = min(1.0, self._progress(state.samples))
        told = Report(
            step=state.step,
            samples=state.samples,
            progress=progress,
            seconds=state.seconds,
            remaining=state.seconds * (1 - progress) / progress,
            rate=self.task.recipe.training.rate(order.progress),
            loss=loss,
            smooth=state.smooth,
            speed=(state.samples - samples) / (now - since) if now > since else 0.0,
        )
        self._last = told
        if state.step % _ROW == 0:
            self._history.add(told)
        self.report(told)

    def _evaluate(self) -> None:
        """Measure the averaged weights; keep them where they are the best so far, and show what they do."""
        state = self.state
        loss = self.group.agreed(self._held_out.loss(state) if self.group.leads else 0.0)
        if not math.isfinite(loss):
            raise EngineError(f"the held-out loss is {loss} at step {state.step}; lower training.learning-rate")
        better = loss < state.best
        state.best, state.waited = min(loss, state.best), 0 if better else state.waited + 1
        state.evaluated = state.step
        if not self.group.leads:
            return
        model = averaged(self.task, state)
        if better:
            save_package(self.out / BEST, model, self.task, state, self.base, {"held_out_loss": round(loss, 5)})
        self._held_out.draw(model, self.out / f"samples-{state.step:07d}.png")
        if self._last is not None:
            measured = dataclasses.replace(self._last, held_out=loss)
            self._history.add(measured)
            self.report(measured)
        self._history.draw()
        self._save()

    def _save(self) -> None:
        if self.group.leads:
            save_checkpoint(self.state, self.out / LAST, self._identity)
            self._history.write()
