"""Two workers through Ray Train: they do what one does with twice the batch, and their troubles reach the caller."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_train import recipe

from jobs import pool
from jobs.training_workers import Tell, work_together
from model.data import Photos, in_memory
from model.group import Group
from model.recipe import DataConfig
from model.schedule import Order
from model.task import Task, fresh_state, make_task
from model.train import gradients
from pipeline.errors import EngineError, InputError

# Ray Train imports Ray Data, which speaks so to itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"widths": (8, 16, 16, 16, 16), "encoder": (1, 0, 0, 1), "decoder": (0, 0, 0)},
    "eccv16": {"width": 2},
    "colorunet": {"widths": (4, 8)},
}
ORDER = Order(step=0, progress=0.0, size=32, batch=4)


def noise() -> Photos:
    """Pictures that differ, so that the two halves of a batch have other statistics."""
    random = torch.Generator().manual_seed(0)
    pictures = [torch.randint(0, 60 + 6 * i, (64, 64, 3), generator=random, dtype=torch.uint8) for i in range(30)]
    return in_memory([picture.numpy() for picture in pictures])


def task_for(name: str) -> Task:
    """No augmentation, so that nothing but the division of labour differs."""
    network = {"name": name, **NETWORKS[name]}
    return make_task(recipe(network=network, data=DataConfig(augmentation="plain"), precision="fp32"), noise())


def after_one_backward_pass(task: Task, rgb: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
    """Gradients and statistics, in float64: deep networks make much of how float32 rounds."""
    state = fresh_state(task, None)
    network = group.join(state.network.double()).train()
    gradients(task, network, *(x.double() for x in task.inputs(rgb, 0)))
    found = {f"gradient {name}": p.grad for name, p in state.network.named_parameters() if p.grad is not None}
    return found | {f"buffer {name}": b for name, b in state.network.named_buffers()}


def share_of(folder: Path, tell: Tell) -> None:
    group = Group()
    tell(f"worker {group.rank} of {group.size}")
    for name in NETWORKS:
        task = task_for(name)
        found = after_one_backward_pass(task, task.draw(ORDER, group.rank), group)
        save_file({key: value.contiguous() for key, value in found.items()}, folder / f"{name}-{group.rank}")
    assert group.agreed(float(group.rank)) == 0
    assert group.mean(torch.tensor(float(group.rank))) == 0.5


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers find this file as the tests do."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_two_workers_have_the_gradients_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    heard: list[str] = []
    work_together(functools.partial(share_of, tmp_path), 2, None, tmp_path / "ray", heard.append)
    assert sorted(heard) == ["worker 0 of 2", "worker 1 of 2"]
    for name in NETWORKS:
        task = task_for(name)
        both = torch.cat([task.draw(ORDER, 0), task.draw(ORDER, 1)])
        assert not torch.equal(both[:4], both[4:])
        expected = after_one_backward_pass(task, both, Group())
        for rank in (0, 1):
            found = load_file(tmp_path / f"{name}-{rank}")
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                scale = value.float().abs().max().clamp_min(1e-6)
                assert (found[key] - value).float().abs().max() < 1e-4 * scale, f"{name} {key}"


def refuse(tell: Tell) -> None:
    if Group().rank == 0:
        raise InputError("reel.mkv: nothing to see")
    Group().mean(torch.zeros(1))  # waits for the other


def perish(tell: Tell) -> None:
    if Group().rank == 1:
        os._exit(3)
    Group().mean(torch.zeros(1))


@pytest.mark.slow
def test_errors_of_a_worker_are_the_callers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^reel\.mkv: nothing to see$"):
        work_together(refuse, 2, None, tmp_path / "a", print)
    with pytest.raises(EngineError, match=r"a training worker has ended: .*--resume"):
        work_together(perish, 2, None, tmp_path / "b", print)


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^ray://127\.0\.0\.1:1: no Ray cluster answers there: .*refused"):
        work_together(refuse, 2, "ray://127.0.0.1:1", tmp_path, print)
    with pytest.raises(EngineError, match=r"^nowhere: expected ray://HOST:PORT"):
        work_together(refuse, 2, "nowhere", tmp_path, print)


def meet(folder: Path, tell: Tell) -> None:
    import ray

    group = Group()
    (folder / str(group.rank)).write_text(ray.get_runtime_context().gcs_address)
    assert group.mean(torch.tensor(float(group.rank))) == 0.5
    tell(f"worker {group.rank} of {group.size}")


@pytest.mark.slow
def test_workers_meet_on_the_cluster_at_an_address(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import ray
    from ray.cluster_utils import Cluster

    heard: list[str] = []
    with pool.environment(pool._settings()):  # the token that Ray has been imported to ask for
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
        address = cluster.address
        try:
            work_together(functools.partial(meet, tmp_path), 2, address, tmp_path / "ray", heard.append)
            assert not ray.is_initialized()
        finally:
            cluster.shutdown()
    assert capfd.readouterr().out == ""
    assert sorted(heard) == ["worker 0 of 2", "worker 1 of 2"]
    assert {(tmp_path / rank).read_text() for rank in "01"} == {address}
