"""Running a model: one Engine interface over torch and OpenVINO."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from model.cache import cache_folder
from model.engines.base import Engine
from model.weights import Model
from pipeline.errors import EngineError

EngineName = Literal["auto", "openvino", "openvino-bf16", "torch"]
_TOLERANCE = 0.5  # mean |Δab| from the reference that a compiled graph may have


def open_engine(
    model: Model, engine: EngineName = "auto", temperature: float | None = None, threads: int = 2
) -> Engine:
    """An engine for `model`, to be used as a context manager.

    `auto` is `openvino`, OpenVINO in float32 on the CPU. `openvino-bf16` takes 40 % less time on CPUs with bfloat16
    instructions, for a mean |Δab| of 0.1 (single cells differ by 1 to 2). `torch` is the reference.
    temperature: of the annealed mean; None takes the model's own. threads: how many pictures are computed at a time,
    one thread each. Raises EngineError where the engine cannot be made, or disagrees with the reference.
    """
    temperature = model.temperature if temperature is None else temperature
    if threads < 1:
        raise EngineError(f"expected at least one thread, got {threads}")
    if engine == "torch":
        from model.engines.torch import TorchEngine

        return TorchEngine(model, temperature, threads)
    if engine not in get_args(EngineName):
        raise EngineError(f"no engine {engine}; choose {', '.join(get_args(EngineName))}")
    from model.engines.openvino import OpenVINOEngine

    opened = OpenVINOEngine(model, temperature, threads, "bf16" if engine == "openvino-bf16" else "f32")
    try:
        self_test(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def self_test(engine: Engine) -> None:
    """Compare an engine with the network in PyTorch on one small picture; EngineError where they differ.

    Catches a stale or damaged cache, and a runtime that computes wrongly on this machine.
    """
    import torch

    from model.export import Graph

    picture = sample_picture()
    with torch.inference_mode():
        expected = Graph(engine.model)(torch.from_numpy(picture), torch.tensor(engine.temperature)).numpy()
    difference = float(np.abs(engine(picture) - expected).mean())
    if not difference < _TOLERANCE:
        raise EngineError(
            f"{engine.key}: differs from the reference by {difference:.2f} in ab; empty {cache_folder()} and try again"
        )


def sample_picture() -> NDArray[np.float32]:
    """L* (1, 1, 64, 96) of waves and an edge, for comparing two ways to compute the same colours."""
    y, x = np.mgrid[0:64, 0:96].astype(np.float32)
    picture: NDArray[np.float32] = (50 + 30 * np.sin(x / 9) * np.cos(y / 7) + 15 * (x > 48)).astype(np.float32)
    return picture[None, None]
