"""Which convolutions of an INT8 graph are worth their float32: the few whose 8 bits cost most of the accuracy."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.silent import openvino as ov

_MOST = 1  # convolution: the default's INT8 then passes at every size, and still is 1.8 times as fast as float32
_WORTH = 0.95  # of the error, the most that may be left of it without a convolution's 8 bits, if it is to be worth it

Inputs = Mapping[str, NDArray[np.float32]]


def dearest(exact: Any, coarse: Any, judged: Sequence[Inputs]) -> list[str]:
    """Names of the few convolutions which, each alone in float32, bring the INT8 graph's output nearest to exact.

    exact, coarse: ONNX models whose convolutions have the same names. judged: inputs of both, each a batch of pictures,
    which count alike. By OpenVINO, as that is what computes the graph.
    """
    wanted = [_output(exact, inputs) for inputs in judged]

    def errors(graph: Any) -> NDArray[np.float64]:
        pairs = zip(wanted, judged, strict=True)
        return np.array([np.abs(_output(graph, inputs) - right).mean() for right, inputs in pairs])

    makers, whole = makers_of(coarse), errors(coarse)
    names = [n.name for n in coarse.graph.node if n.op_type == "Conv" and n.input[1] in makers]
    left = {name: float((errors(restored(coarse, exact, name)) / whole).mean()) for name in names}
    return [name for name in sorted(names, key=lambda name: left[name])[:_MOST] if left[name] <= _WORTH]


def restored(coarse: Any, exact: Any, name: str) -> Any:
    """The INT8 graph with a convolution as it was: its input before Q/DQ, its own weights and bias."""
    made, makers = copy.deepcopy(coarse), makers_of(coarse)
    (now,) = (node for node in made.graph.node if node.name == name)
    (then,) = (node for node in exact.graph.node if node.name == name)
    quantised = makers[makers[now.input[0]].input[0]]
    now.input[0] = quantised.input[0]
    for i in range(1, len(now.input)):
        (weights,) = (each for each in exact.graph.initializer if each.name == then.input[i])
        own = made.graph.initializer.add()
        own.CopyFrom(weights)
        own.name = f"{then.input[i]} of {name}"
        now.input[i] = own.name
    return made


def makers_of(graph: Any) -> dict[str, Any]:
    """The node that makes each value of an ONNX model, by the value's name."""
    return {name: node for node in graph.graph.node for name in node.output}


def _output(graph: Any, inputs: Inputs) -> NDArray[np.float32]:
    core = ov.Core()
    read = core.read_model(graph.SerializeToString())
    used = {name for each in read.inputs for name in each.names}  # a regression has no temperature
    given = {name: value for name, value in inputs.items() if name in used}
    read.reshape({name: list(value.shape) for name, value in given.items()})
    request = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return np.array(request.infer(given)[0], np.float32)
