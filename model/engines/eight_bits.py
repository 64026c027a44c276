"""Graphs in 8 bits: a pair of Q and DQ before each input of a convolution of the exported graph, and nothing else.

An engine computes in 8 bits what stands between such pairs, and adds up in 32. The logits and all that follows keep
their precision, as 8 bits are too few for small probabilities, and would hold T to what it was in the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.engines.ranges import Ranges
from pipeline.errors import EngineError

_INPUTS = 16  # of a convolution, or a multiple: with fewer little is won, and lightness itself would be made coarse
_SMALLEST_SCALE = 2.0**-14  # float16 loses digits below


@dataclass(frozen=True)
class _Form:
    """How values become 8 bits. unsigned: activations are 0 to 255, zero wherever the range has it; else as weights."""

    kind: int  # ONNX's type of weights
    greatest: float
    by_channel: bool  # weights have a scale for each output channel
    outputs: int  # of a convolution, or a multiple: what kernels want
    unsigned: bool = False


FormName = Literal["cpu", "int8", "fp8"]
_FORMS: dict[FormName, _Form] = {
    # what x86 multiplies; without VNNI it adds two products in 16 bits, which hold 2·255·63, not 2·255·127
    "cpu": _Form(TensorProto.INT8, 63, by_channel=True, outputs=1, unsigned=True),
    # what TensorRT takes ("Explicit Quantization", its guide)
    "int8": _Form(TensorProto.INT8, 127, by_channel=True, outputs=16),
    "fp8": _Form(TensorProto.FLOAT8E4M3FN, 448, by_channel=False, outputs=16),
}


def eight_bit_graph(graph: bytes, ranges: Ranges, form: FormName) -> bytes:
    """A graph of `to_onnx` with its convolutions in 8 bits: for the CPU from float32, for TensorRT from float16.

    Left as they are: convolutions with few channels, and those that were given nothing but zeros. Raises EngineError
    where the ranges are of another network.
    """
    made, chosen = onnx.load_from_string(graph), _FORMS[form]
    weights = {each.name: each for each in made.graph.initializer}
    nodes: list[Any] = []
    for node in made.graph.node:
        if node.op_type == "Conv":
            values = numpy_helper.to_array(weights[node.input[1]])
            low, high = _range_of(node.input[1], ranges)
            if low < high and not (values.shape[0] % chosen.outputs or values.shape[1] % _INPUTS):
                node.input[0] = _paired(made, nodes, node.input[0], _of_activation(low, high, chosen, values.dtype))
                node.input[1] = _paired(made, nodes, node.input[1], _of_weights(values, chosen))
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(copies)
    return bytes(made.SerializeToString())


@dataclass(frozen=True)
class _Codes:
    """value = scale · (code - zero), codes of ONNX's type `kind`."""

    scale: NDArray[np.floating]
    zero: int
    kind: int


def _of_activation(low: float, high: float, form: _Form, dtype: np.dtype[Any]) -> _Codes:
    if not form.unsigned:
        return _Codes(_scale(np.array(max(-low, high) / form.greatest), dtype), 0, form.kind)
    scale = _scale(np.array((high - low) / 255), dtype)
    return _Codes(scale, round(-low / float(scale)), TensorProto.UINT8)


def _of_weights(values: NDArray[np.floating], form: _Form) -> _Codes:
    """values: (outputs, inputs, kh, kw)."""
    largest = np.abs(values.astype(np.float32)).max((1, 2, 3) if form.by_channel else None)
    return _Codes(_scale(np.asarray(largest / form.greatest), values.dtype), 0, form.kind)


def _scale(exact: NDArray[np.floating], dtype: np.dtype[Any]) -> NDArray[np.floating]:
    return np.asarray(np.maximum(exact, _SMALLEST_SCALE).astype(dtype))


def _paired(made: Any, nodes: list[Any], value: str, codes: _Codes) -> str:
    """The name of a value after Q and DQ, which are appended to nodes, their scales to the graph, unless they exist."""
    scale, zero, code, result = (f"{value}_{suffix}" for suffix in ("scale", "zero", "quantised", "dequantised"))
    if not any(node.output[0] == result for node in nodes):
        zeros = np.full(codes.scale.size, codes.zero)
        made.graph.initializer.append(numpy_helper.from_array(codes.scale, scale))
        made.graph.initializer.append(helper.make_tensor(zero, codes.kind, codes.scale.shape, zeros))
        for op, source, target in (("QuantizeLinear", value, code), ("DequantizeLinear", code, result)):
            nodes.append(helper.make_node(op, [source, scale, zero], [target], target, axis=0))
    return result


def _range_of(weight: str, ranges: Ranges) -> tuple[float, float]:
    """By the name of a convolution's weight: `network.MODULE.weight`, with another `network.` where it is lowered."""
    module = weight.removeprefix("network.").removeprefix("network.").removesuffix(".weight")
    try:
        return ranges.of[module]
    except KeyError as e:
        raise EngineError(f"the ranges for 8 bits say nothing of the convolution {module}; make them anew") from e
