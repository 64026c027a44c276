"""The cases of `model.bench` on an NVIDIA GPU: PyTorch, and TensorRT where it is installed.

Limits, all of PyTorch's matrix product, and bare loops are timed by CUDA events.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from model.bench import Bench, Run
from model.engines import has_tensorrt
from model.engines.cuda import CudaEngine, colour, cuda_graph
from model.engines.golden import golden_frames
from model.precision import GraphPrecision, Precision
from model.rounds import timed
from model.weights import Model
from pipeline.errors import EngineError

BATCHES = (1, 8, 32, 64)
_COMPILED = 32  # pictures
_TYPES: dict[GraphPrecision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_SIDE = 8192  # of the matrices
_COPIED = 1 << 30  # bytes


def cuda_bench(model: Model, size: int, stack: ExitStack, done: Callable[[str], None] = lambda _name: None) -> Bench:
    """Everything on the GPU; the engines are closed with `stack`. `done` hears what is ready."""
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
            bench.runs.append(Run(precision, batch, engine.key, case, plain, "PyTorch"))
            done(f"preparing {precision} ×{batch}")
        left, right = (torch.randn(_SIDE, _SIDE, device=device).to(dtype) for _ in range(2))
        product = by_events(partial(torch.matmul, left, right))
        product()
        bench.ceilings[precision] = bench.add(f"{precision} limit", 2 * _SIDE**3, product)
    bench.ceilings |= {"int8": bench.ceilings["fp16"], "fp8": bench.ceilings["fp16"]}  # which 8 bits may pass
    if has_tensorrt():
        _add_tensorrt(bench, model, pictures[:_COMPILED], stack)
    one, other = (torch.empty(_COPIED, dtype=torch.uint8, device=device) for _ in range(2))
    bench.add("copy", 2 * _COPIED, by_events(partial(other.copy_, one)))
    return bench


def _add_tensorrt(bench: Bench, model: Model, pictures: NDArray[np.float32], stack: ExitStack) -> None:
    """Each precision at one batch, as each is compiled for minutes; the bare loop is what a lane does on the GPU."""
    from model.engines.tensorrt import TensorRTEngine

    batch, _, h, w = pictures.shape
    for precision in get_args(Precision):
        try:
            engine = stack.enter_context(TensorRTEngine(model, model.temperature, precision, batch=batch))
            engine(pictures)  # compiles
            (lane,) = engine.open_lanes(batch, h, w, 1)
        except EngineError as e:
            bench.left_out.append(str(e))
            continue
        name = f"TensorRT {precision} ×{batch}"
        case = bench.add(name, batch, timed(partial(engine, pictures)))
        plain = bench.add(f"{name} bare", batch, by_events(lane.enqueue, lane.stream))
        bench.runs.append(Run(precision, batch, engine.key, case, plain, "TensorRT"))


def by_events(work: Callable[[], object], stream: torch.cuda.Stream | None = None) -> Callable[[], float]:
    """`work` as a Case runs it, by the GPU's own clock; stream: that it works in, where it is not the current one."""

    def run() -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            begin.record()
            work()
            end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    return run
