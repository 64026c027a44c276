"""What the tests of whole runs share: two films, and what an undisturbed run makes of the first."""

from __future__ import annotations

import os
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

from jobs.run import Run
from model.bins import gamut_bins
from model.networks.unet import UNet, UNetConfig
from model.weights import Model

sys.modules.setdefault("openvino_telemetry", None)  # as model.silent does, for tests that import OpenVINO themselves


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` are skipped, with the reason, where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU and PyTorch with CUDA")


@pytest.fixture(autouse=True)
def ordinary_schedule() -> Iterator[None]:
    """No test leaves a real-time thread, which would starve all others (see `pipeline.scheduling`)."""
    yield
    assert not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="session")
def model() -> Model:
    """A tiny network of random weights whose colours spread."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(bins=313, widths=(8, 16, 16, 16, 16), encoder=(1, 0, 0, 1), decoder=(0, 0, 1)))
    for _ in range(3):
        net(torch.rand(4, 1, 64, 64) * 100)
    torch.nn.init.normal_(net.head.weight, std=1.0)
    net = net.eval().requires_grad_(False)
    return Model("tiny", "ab" * 32, net, gamut_bins(), np.full(313, 1 / 313, np.float32), 0.38, {})


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
