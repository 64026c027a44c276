"""The state of a run on disk: whole, the right run's, or refused; and the one before is never lost."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.checkpoint import State, load_checkpoint, save_checkpoint
from pipeline.errors import InputError, RecipeError

IDENTITY = {"recipe": {"training": {"seed": 3}, "name": "x"}, "base": None}


on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no NVIDIA GPU")]


def made(device: str = "cpu", fused: bool = False) -> State:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).to(device)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    return State(net, average, torch.optim.AdamW(net.parameters(), 0.1, fused=fused))


def step(state: State) -> float:
    state.optimizer.zero_grad()
    pictures = torch.linspace(-1, 1, 200).reshape(2, 1, 10, 10).to(state.average["0.weight"])
    loss = state.network(pictures).square().mean()
    loss.backward()
    state.optimizer.step()
    state.step += 1
    state.update_average(0.5)
    return loss.item()


@pytest.mark.parametrize(("device", "fused"), [("cpu", False), ("cpu", True), pytest.param("cuda", True, marks=on_gpu)])
def test_everything_comes_back(tmp_path: Path, device: str, fused: bool) -> None:
    state, restored = made(device, fused), made(device, fused)
    step(state)
    state.seconds, state.smooth, state.best, state.waited, state.samples = 1.5, 0.25, 0.1 + 0.2, 2, 7
    save_checkpoint(state, tmp_path / "c.safetensors", IDENTITY)
    load_checkpoint(restored, tmp_path / "c.safetensors", IDENTITY)
    counters = (restored.step, restored.seconds, restored.smooth, restored.best, restored.waited, restored.samples)
    assert counters == (1, 1.5, 0.25, 0.1 + 0.2, 2, 7)
    assert [step(state) for _ in range(3)] == [step(restored) for _ in range(3)]  # momentum counts from here on
    for a, b in ((state.network.state_dict(), restored.network.state_dict()), (state.average, restored.average)):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_fresh_state_comes_back_with_its_infinities(tmp_path: Path) -> None:
    restored = made()
    save_checkpoint(made(), tmp_path / "c.safetensors", IDENTITY)
    load_checkpoint(restored, tmp_path / "c.safetensors", IDENTITY)
    assert math.isnan(restored.smooth)
    assert restored.best == math.inf


def test_average_is_exponential() -> None:
    state = made()
    state.average = {name: torch.zeros_like(value) for name, value in state.average.items()}
    value = state.network.state_dict()["0.weight"].clone()
    for n in range(1, 4):
        state.update_average(0.9)
        torch.testing.assert_close(state.average["0.weight"], value * (1 - 0.9**n))
    state.network.train()(torch.zeros(1, 1, 5, 5))
    state.update_average(0.9)
    assert state.average["1.num_batches_tracked"] == 1


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({**IDENTITY, "base": "abc"}, r"base None, not abc"),
        ({"recipe": {"training": {"seed": 4}, "name": "x"}, "base": None}, r"recipe\.training\.seed 3, not 4"),
    ],
)
def test_another_run_is_named(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    save_checkpoint(made(), tmp_path / "c.safetensors", IDENTITY)
    with pytest.raises(RecipeError, match=words):
        load_checkpoint(made(), tmp_path / "c.safetensors", other)


@pytest.mark.parametrize("content", [b"", b"\x10" * 40, b"whole"])
def test_a_damaged_one_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(made(), path, IDENTITY)
    path.write_bytes(path.read_bytes()[:-100] if content == b"whole" else content)
    with pytest.raises(InputError, match=r"last\.safetensors: not a whole checkpoint"):
        load_checkpoint(made(), path, IDENTITY)


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from model.checkpoint import State, save_checkpoint
from pipeline.errors import StorageError
net = torch.nn.Linear(100, 100)
average = {name: value.clone() for name, value in net.state_dict().items()}
state = State(net, average, torch.optim.AdamW(net.parameters()))
path = Path(sys.argv[1])
save_checkpoint(state, path, {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
state.step = 1
try:
    save_checkpoint(state, path, {})
except StorageError as e:
    print(e)
"""


def test_a_full_disk_leaves_the_one_before(tmp_path: Path) -> None:
    """A limit on the size of files fails writes as a full disk does."""
    path = tmp_path / "last.safetensors"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "the checkpoint before it is intact" in done.stdout
    assert done.stdout.count("\n") == 1
    net = nn.Linear(100, 100)
    state = State(net, {k: v.clone() for k, v in net.state_dict().items()}, torch.optim.AdamW(net.parameters()))
    load_checkpoint(state, path, {})
    assert state.step == 0
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]
