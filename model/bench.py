"""What there is to time of a model on a device: the device's own limits, our engines, and the same graph without them.

On the CPU the limit is what OpenVINO reaches on one large matrix product, for int8 what PyTorch does.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from model.bins import gamut_bins
from model.engines.golden import golden_frames
from model.networks import NETWORKS
from model.precision import Precision
from model.rounds import Case, timed
from model.weights import Model, load_model
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from model.engines.ranges import Ranges

BATCHES = (1, 8)  # pictures handed to the engine at a time, on the CPU
_SIDE = 1536  # of the matrices
_COPIED = 128 << 20  # bytes, beyond any cache


@dataclass(frozen=True)
class Run:
    """One engine at one batch; `case` and `bare` name its case and that of the same graph without the engine.

    engine: its name where there are several on the device.
    """

    precision: Precision
    batch: int
    key: str
    case: str
    bare: str
    engine: str = ""


@dataclass
class Bench:
    """What can be timed. `ceilings`: precision → case, in operations a second; `left_out`: what cannot be, and why."""

    cases: list[Case] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    ceilings: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, amount: float, run: Callable[[], float], expected: float = 0.0) -> str:
        """Add a case; its name."""
        self.cases.append(Case(name, amount, run, expected))
        return name


def bench_model(name: str) -> Model:
    """A model package; or for a network's name the network with random weights, which take the same time."""
    if name not in NETWORKS:
        return load_model(name)
    config, network_type = NETWORKS[name]
    torch.manual_seed(0)
    network = network_type(config(bins=len(gamut_bins())))
    with torch.inference_mode(False), torch.no_grad():
        torch.nn.init.normal_(network.head.weight, std=1.0)
        network(torch.rand(2, 1, 64, 64) * 100)  # variances of batch normalisation, so that colours vary
    digest = hashlib.sha256(f"{name}, random weights, seed 0, torch {torch.__version__}".encode()).hexdigest()
    bins = gamut_bins()
    prior = np.full(len(bins), 1 / len(bins), np.float32)
    network = network.eval().requires_grad_(False)
    return Model(f"{name} (random weights)", digest, network, bins, prior, 0.38, {"network": name})


def cpu_bench(
    model: Model, size: int, threads: int, stack: ExitStack, done: Callable[[str], None] = lambda _name: None
) -> Bench:
    """Everything on the CPU with `threads` threads; the engines are closed with `stack`. `done` hears what is ready."""
    from model.engines.openvino import OpenVINOEngine, has_bf16

    bench = Bench()
    pictures = np.tile(golden_frames(size, size), (BATCHES[-1] // 2, 1, 1, 1))
    precisions: list[Precision] = ["fp32", "bf16", "int8"] if has_bf16() else ["fp32", "int8"]
    for precision in precisions:
        try:
            ranges = _ranges(model, pictures[:2]) if precision == "int8" else None
            engine = stack.enter_context(OpenVINOEngine(model, model.temperature, threads, precision, ranges))
            bare = _bare(model, precision, size, threads, ranges)
        except EngineError as e:
            bench.left_out.append(f"{precision}: {e}")
            continue
        for run in (engine, bare):
            run(pictures[:threads])
        one = timed(partial(engine, pictures[:1]))()
        for batch in BATCHES:
            expected = one * math.ceil(batch / threads)
            case = bench.add(f"{precision} ×{batch}", batch, timed(partial(engine, pictures[:batch])), expected)
            plain = bench.add(f"{precision} ×{batch} bare", batch, timed(partial(bare, pictures[:batch])), expected)
            bench.runs.append(Run(precision, batch, engine.key, case, plain))
        product = timed(_product(precision, threads))
        product()
        bench.ceilings[precision] = bench.add(f"{precision} limit", 2 * _SIDE**3, product)
        done(f"preparing {precision}")
    source, target = torch.ones(_COPIED, dtype=torch.uint8), torch.zeros(_COPIED, dtype=torch.uint8)
    bench.add("copy", 2 * _COPIED, timed(partial(target.copy_, source)))
    try:
        opencv = timed(_opencv(model, pictures[:1], threads))
        bench.add("OpenCV DNN", 1, opencv, opencv())
    except EngineError as e:
        bench.left_out.append(str(e))
    return bench


def _ranges(model: Model, pictures: NDArray[np.float32]) -> Ranges:
    """The model's own, or some for timing alone, which are not kept."""
    from model.engines.ranges import find_ranges, measured

    return find_ranges(model)[0] or measured(model, pictures)


def _bare(
    model: Model, precision: Precision, size: int, threads: int, ranges: Ranges | None = None
) -> Callable[[NDArray[np.float32]], None]:
    """A request of OpenVINO's for each thread, given pictures in turn, and nothing else."""
    from model.engines.eight_bits import eight_bit_graph
    from model.engines.openvino import cpu_settings
    from model.exported import cached_onnx
    from model.silent import openvino as ov

    core = ov.Core()
    onnx = cached_onnx(model)
    graph = core.read_model(onnx if ranges is None else eight_bit_graph(onnx, ranges, "cpu"))
    graph.reshape({"lightness": [1, 1, size, size]})
    compiled = core.compile_model(graph, "CPU", cpu_settings(precision, threads))
    requests = [compiled.create_infer_request() for _ in range(threads)]
    extra = {"temperature": np.array(model.temperature, np.float32)} if len(model.bins) else {}

    def run(pictures: NDArray[np.float32]) -> None:
        try:
            for n, picture in enumerate(pictures):
                request = requests[n % threads]
                if n >= threads:
                    request.wait()
                request.start_async({"lightness": picture[None], **extra}, share_inputs=True)
        finally:  # interrupted, too: a request must not outlive Python
            for request in requests[: len(pictures)]:
                request.wait()

    return run


def _product(precision: Precision, threads: int) -> Callable[[], object]:
    """The product of two square matrices by all threads."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((_SIDE, _SIDE), np.float32) for _ in range(2))
    if precision == "int8":
        torch.set_num_threads(threads)
        with warnings.catch_warnings():  # PyTorch means to do without its quantised tensors one day
            warnings.simplefilter("ignore", UserWarning)
            a = torch.quantize_per_tensor(torch.from_numpy(left), 0.05, 64, torch.quint8)
            b = torch.quantize_per_tensor(torch.from_numpy(right), 0.05, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(b, None)
        return partial(torch.ops.quantized.linear, a, packed, 1.0, 64)
    from model.engines.openvino import cpu_settings
    from model.silent import openvino as ov

    ops = ov.opset13
    parameter = ops.parameter([_SIDE, _SIDE], np.float32)
    graph = ov.Model([ops.matmul(parameter, ops.constant(right), False, False)], [parameter])
    settings = cpu_settings(precision, threads) | {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    return partial(request.infer, [left], share_inputs=True)


def _opencv(model: Model, picture: NDArray[np.float32], threads: int) -> Callable[[], object]:
    """One picture by OpenCV's DNN module; raises EngineError where that cannot run the graph."""
    import cv2

    from model.exported import cached_onnx

    cv2.setNumThreads(threads)

    def run() -> object:
        net.setInput(picture, "lightness")
        if len(model.bins):
            net.setInput(np.array(model.temperature, np.float32), "temperature")
        return net.forward()

    try:
        net = cv2.dnn.readNetFromONNX(np.frombuffer(cached_onnx(model), np.uint8))
        run()
    except cv2.error as e:
        raise EngineError(f"OpenCV DNN cannot run this graph ({' '.join(str(e).split())[:160]})") from e
    return run
