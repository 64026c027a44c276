"""The cases of `model.bench` on an NVIDIA GPU, in PyTorch; limits and bare loop are timed by CUDA events.

Written for a machine that has one, and not run yet.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch

from model.bench import Bench, Run
from model.engines.cuda import CudaEngine, colour, cuda_graph
from model.engines.golden import golden_frames
from model.precision import GraphPrecision
from model.rounds import timed
from model.weights import Model

BATCHES = (1, 8, 32, 64)
_TYPES: dict[GraphPrecision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_SIDE = 8192  # of the matrices
_COPIED = 1 << 30  # bytes


def cuda_bench(model: Model, size: int, stack: ExitStack) -> Bench:
    """Everything on the GPU; the engines are closed with `stack`."""
    bench, device = Bench(), torch.device("cuda")
    pictures = np.tile(golden_frames(size, size), (BATCHES[-1] // 2, 1, 1, 1))
    for precision, dtype in _TYPES.items():
        graph = cuda_graph(model, precision, device)
        for batch in BATCHES:
            engine = stack.enter_context(CudaEngine(model, model.temperature, precision, batch=batch))
            engine(pictures[:batch])  # opens its lanes
            case = bench.add(f"{precision} ×{batch}", batch, timed(partial(engine, pictures[:batch])))
            source = torch.from_numpy(pictures[:batch]).to(device)
            scale = model.network.scale
            output = torch.empty((batch, 2, size // scale, size // scale), device=device)
            temperature = torch.tensor(model.temperature, device=device)
            loop = by_events(partial(colour, graph, source, temperature, output))
            loop()
            plain = bench.add(f"{precision} ×{batch} bare", batch, loop)
            bench.runs.append(Run(precision, batch, engine.key, case, plain))
        left, right = (torch.randn(_SIDE, _SIDE, device=device).to(dtype) for _ in range(2))
        product = by_events(partial(torch.matmul, left, right))
        product()
        bench.ceilings[precision] = bench.add(f"{precision} limit", 2 * _SIDE**3, product)
    one, other = (torch.empty(_COPIED, dtype=torch.uint8, device=device) for _ in range(2))
    bench.add("copy", 2 * _COPIED, by_events(partial(other.copy_, one)))
    return bench


def by_events(work: Callable[[], object]) -> Callable[[], float]:
    """`work` as a Case runs it, by the GPU's own clock."""

    def run() -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    return run
