"""What the tests of whole runs share: two films, and what an undisturbed run makes of the first."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for tensors as small as these, threads wait longer than they work

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
import torch
from fakes import SIZE, content, run
from media import write
from tiny import tiny_unet

from jobs import pool
from jobs.run import Run
from model import export
from model.bins import gamut_bins
from model.precision import GraphPrecision
from model.weights import Model, load_model
from pipeline.storage import write_bytes

sys.modules.setdefault("openvino_telemetry", None)  # as model.silent does, for tests that import OpenVINO themselves

with pool.environment(pool._settings()):  # whether there are tokens, Ray reads when it is imported, once in a process
    import ray  # noqa: F401


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` are skipped, with the reason, where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU and PyTorch with CUDA")


@pytest.fixture(autouse=True)
def ordinary_schedule() -> Iterator[None]:
    """No test leaves a real-time thread, which would starve all others (see `pipeline.scheduling`)."""
    yield
    assert not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="session", autouse=True)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this run's processes, new in each run: the cache, for tests that name none, and the exported graphs.

    A graph takes seconds to export, so that each network is exported once, whatever it is called.
    """
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    usual = export.to_onnx

    def exported_once(model: Model, precision: GraphPrecision = "fp32") -> bytes:
        digest = hashlib.sha256(
            f"{model.network.config} {model.network} {model.bins.space} {model.temperature} {precision}".encode()
        )
        digest.update(model.bins.centers)
        for name, tensor in model.network.state_dict().items():
            if not name.endswith("num_batches_tracked"):  # which a package does not hold
                digest.update(name.encode())
                digest.update(tensor.numpy())
        path = folder / "graphs" / f"{digest.hexdigest()}.onnx"
        if not path.exists():
            write_bytes(path, usual(model, precision))
        return path.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(export, "to_onnx", exported_once)
        yield folder


@pytest.fixture(scope="session")
def model() -> Model:
    """A tiny network of random weights whose colours spread."""
    return Model("tiny", "ab" * 32, tiny_unet(), gamut_bins(), np.full(313, 1 / 313, np.float32), 0.38, {})


@pytest.fixture(scope="session")
def default() -> Model:
    """The network that is shipped."""
    return load_model("default")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of any size in this process, one task after the other."""
    monkeypatch.setattr(Run, "_work_on_ray", lambda self, _segments: self._work_here(engine=True))


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds in six segments."""
    return write(tmp_path_factory.mktemp("film") / "film.mkv", frames=60, gop=2, **SIZE)


@pytest.fixture(scope="session")
def flash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds, the fourth of them white: where the dangerous colorizers strike."""
    path = tmp_path_factory.mktemp("flash") / "flash.mkv"
    usual = media.picture
    with pytest.MonkeyPatch.context() as patch:
        white = np.full((48, 64), 230)
        patch.setattr(media, "picture", lambda n, *size: white if 30 <= n < 40 else usual(n, *size))
        return write(path, frames=60, gop=2, **SIZE)


@pytest.fixture(scope="session")
def reference(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an undisturbed run makes of the film: (pts, hash of the decoded planes)."""
    out = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_work_on_ray", lambda self, _segments: self._work_here(engine=True))
        assert run(film, out=out).exit_code == 0
    return content(out / "film.mkv")
