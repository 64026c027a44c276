"""A training step recorded as a CUDA graph does what the step does, on a GPU in disguise and on a real one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from test_train import recipe

from model import gradients as module
from model.data import in_memory
from model.gradients import RecordedGradients, gradients, gradients_of
from model.group import Group
from model.schedule import Order
from model.task import Task, fresh_state, make_task
from model.train import step

SIZES = (32, 32, 64, 64, 32)


def made_task() -> Task:
    rng = np.random.default_rng(0)
    return make_task(recipe(), in_memory([rng.integers(0, 256, (96, 96, 3)).astype(np.uint8) for _ in range(12)]))


def both(task: Task, recorded: Callable[[Task, torch.nn.Module], RecordedGradients]) -> list[tuple[float, float]]:
    """Losses of some steps from the same weights on, plain and recorded; what the steps leave must be alike, too."""
    one, other = (fresh_state(task, None) for _ in range(2))
    ways = (one, partial(gradients, task, one.network.train())), (other, recorded(task, other.network.train()))
    losses = []
    for number, size in enumerate(SIZES):
        order = Order(number, 0.5, size, 4)
        crops = task.draw(order)
        losses.append(tuple(step(task, state, way, crops, order, Group()) for state, way in ways))
    for (name, plain), replayed in zip(
        one.network.state_dict().items(), other.network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(replayed, plain, rtol=1e-2, atol=1e-3, msg=lambda said, name=name: f"{name}: {said}")
    return losses


class FakeGraph:
    """Repeats what was run while it was recorded, as a CUDA graph does: on the tensors that it was given then."""

    made = 0

    def __init__(self) -> None:
        FakeGraph.made += 1

    def replay(self) -> None:
        self.loss.copy_(self.work())


@pytest.fixture
def disguised(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA as far as a recording needs it, on the CPU."""

    class Beside:
        def wait_stream(self, _other: Any) -> None:
            """As there is one queue only."""

    def watched(*given: Any) -> torch.Tensor:
        loss = gradients(*given)
        if recording:
            recording[0].work, recording[0].loss = partial(gradients, *given), loss
        return loss

    @contextlib.contextmanager
    def graph(one: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"  # as another thread cuts the next crops meanwhile
        recording.append(one)
        yield
        recording.clear()

    recording: list[Any] = []
    FakeGraph.made = 0
    monkeypatch.setattr(module, "gradients", watched)
    monkeypatch.setattr(torch.cuda, "Stream", Beside)
    monkeypatch.setattr(torch.cuda, "current_stream", Beside)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)


@pytest.mark.usefixtures("disguised")
def test_a_recorded_step_is_the_step() -> None:
    losses = both(made_task(), RecordedGradients)
    assert [recorded for _, recorded in losses] == [plain for plain, _ in losses]
    assert FakeGraph.made == 3  # one for each change of size


def test_on_the_cpu_nothing_is_recorded() -> None:
    task = made_task()
    assert not isinstance(gradients_of(task, fresh_state(task, None).network, alone=True), RecordedGradients)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no NVIDIA GPU")
def test_on_a_gpu_a_recorded_step_is_the_step() -> None:
    task = made_task()

    def recorded(task: Task, network: torch.nn.Module) -> RecordedGradients:
        way = gradients_of(task, network, alone=True)
        assert isinstance(way, RecordedGradients)
        return way

    for plain, replayed in both(task, recorded):
        assert replayed == pytest.approx(plain, rel=1e-3)
