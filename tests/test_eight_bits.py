"""Graphs in 8 bits: where the pairs stand, what they compute, how near that is, by ONNX Runtime and by equations."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from skimage import color, data, transform

from model.engines.eight_bits import FormName, eight_bit_graph
from model.engines.golden import golden_frames, reference
from model.engines.ranges import Ranges, ranges_of
from model.engines.selftest import LIMITS, differences
from model.exported import cached_onnx
from model.weights import Model
from pipeline.errors import EngineError

FORMS: list[FormName] = ["cpu", "int8", "fp8"]


def graphs(model: Model, form: FormName) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The exported graph that a form is made from, and what is made of it."""
    exported = cached_onnx(model, "fp32" if form == "cpu" else "fp16")
    made = onnx.load_from_string(eight_bit_graph(exported, ranges_of(model), form))
    onnx.checker.check_model(made, full_check=True)
    return onnx.load_from_string(exported), made


def colours(graph: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """By ONNX Runtime as the graph says, without what it has for speed, which knows no FP8."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize("form", FORMS)
def test_pairs_stand_before_both_inputs_of_all_convolutions_but_few_and_nowhere_else(
    default: Model, form: FormName
) -> None:
    before, after = graphs(default, form)
    makers = {name: node for node in after.graph.node for name in node.output}
    tensors = {
        t.name: numpy_helper.to_array(t) for t in after.graph.initializer if t.data_type != TensorProto.FLOAT8E4M3FN
    }
    kinds = {t.name: t.data_type for t in after.graph.initializer}
    exact = []
    for node in (n for n in after.graph.node if n.op_type == "Conv"):
        ends = [makers[name].op_type if name in makers else "" for name in node.input[:2]]
        assert ends == ["DequantizeLinear"] * 2 or "DequantizeLinear" not in ends
        if "DequantizeLinear" not in ends:
            exact.append(node.input[1].removeprefix("network.").removeprefix("network."))
            continue
        for i, name in enumerate(node.input[:2]):
            dequantise = makers[name]
            quantise = makers[dequantise.input[0]]
            assert quantise.op_type == "QuantizeLinear"
            assert list(quantise.input[1:]) == list(dequantise.input[1:])
            scale, zero = dequantise.input[1:]
            assert tensors[scale].dtype == (np.float32 if form == "cpu" else np.float16)
            weights_of_int8 = i == 1 and form != "fp8"
            assert tensors[scale].shape == (
                (tensors[node.input[1].removesuffix("_dequantised")].shape[0],) if weights_of_int8 else ()
            )
            assert (
                kinds[zero]
                == {
                    "cpu": TensorProto.INT8 if i else TensorProto.UINT8,
                    "int8": TensorProto.INT8,
                    "fp8": TensorProto.FLOAT8E4M3FN,
                }[form]
            )
            if form == "int8" or weights_of_int8:
                assert not tensors[zero].any()
    assert exact == ["stem.0.weight"] + ["head.weight"] * (form != "cpu")
    others = [node for node in after.graph.node if node.op_type not in ("Conv", "QuantizeLinear", "DequantizeLinear")]
    assert others == [node for node in before.graph.node if node.op_type != "Conv"]


@pytest.mark.parametrize("form", FORMS)
def test_eight_bits_are_near_the_network_in_float32(default: Model, form: FormName) -> None:
    """On golden frames, and on photographs that neither training nor calibration has seen."""
    _, graph = graphs(default, form)
    shown = [transform.resize(p, (96, 128), anti_aliasing=True) for p in (data.coffee(), data.chelsea())]
    photographs = np.stack([color.rgb2lab(p)[..., 0] for p in shown]).astype(np.float32)[:, None]
    pictures = np.concatenate([golden_frames(96, 128), photographs])
    temperature = np.array(default.temperature, np.float32)
    found = colours(graph, {"lightness": pictures, "temperature": temperature})
    difference = differences(pictures, reference(default, default.temperature, pictures), found)
    limits = LIMITS["fp8" if form == "fp8" else "int8"]
    assert 0.02 < difference.mean() <= limits.mean, "it does compute in 8 bits"
    assert np.percentile(difference, 99) <= limits.p99


def two_convolutions(dtype: type) -> onnx.ModelProto:
    """A graph of 16 channels: a, and b that gives the output."""
    rng = np.random.default_rng(0)
    weights = {f"network.{name}.weight": rng.normal(0, 0.2, (16, 16, 3, 3)).astype(dtype) for name in "ab"}
    nodes = [
        helper.make_node("Conv", ["lightness", "network.a.weight"], ["middle"], name="a", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["middle", "network.b.weight"], ["ab"], name="b", pads=[1, 1, 1, 1]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    source, target = (helper.make_tensor_value_info(name, kind, ["n", 16, "h", "w"]) for name in ("lightness", "ab"))
    held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "two", [source], [target], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def rounded(x: np.ndarray, form: FormName, low: float, high: float) -> np.ndarray:
    """x as a form's activations have it, by the equations of ONNX's QuantizeLinear and DequantizeLinear, opset 20."""
    if form == "cpu":
        scale = np.float32((high - low) / 255)
        zero = np.rint(-low / scale)
        return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale
    most = max(-low, high)
    if form == "int8":
        scale = np.float32(np.float16(most / 127))
        return np.clip(np.rint(x / scale), -128, 127) * scale
    scale = np.float32(np.float16(most / 448))
    return np.clip(x / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale


def rounded_weights(w: np.ndarray, form: FormName) -> np.ndarray:
    if form == "fp8":
        scale = np.float32(np.float16(np.abs(w).max() / 448))
        return (w / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
    scale = np.abs(w).max((1, 2, 3), keepdims=True) / (63 if form == "cpu" else 127)
    scale = scale if form == "cpu" else scale.astype(np.float16).astype(np.float32)
    return np.clip(np.rint(w / scale), -128, 127) * scale


@pytest.mark.parametrize("form", FORMS)
def test_the_codes_are_those_of_the_equations(form: FormName) -> None:
    dtype = np.float32 if form == "cpu" else np.float16
    exported = two_convolutions(dtype)
    low, high = -1.5, 2.5
    ranges = Ranges("", {"a": (low, high), "b": (0.0, 0.0)})
    made = onnx.load_from_string(eight_bit_graph(exported.SerializeToString(), ranges, form))
    x = np.random.default_rng(1).normal(0, 1.2, (2, 16, 8, 8)).astype(dtype)
    assert x.min() < low, "some lie outside"
    assert x.max() > high
    first, second = (numpy_helper.to_array(t).astype(np.float32) for t in exported.graph.initializer)
    inputs = rounded(x.astype(np.float32), form, low, high)
    middle = F.conv2d(torch.from_numpy(inputs), torch.from_numpy(rounded_weights(first, form)), padding=1)
    expected = F.conv2d(middle, torch.from_numpy(second), padding=1).numpy()
    found = colours(made, {"lightness": x}).astype(np.float32)
    exact = colours(exported, {"lightness": x}).astype(np.float32)
    error = np.abs(found - expected).max()
    assert error < (1e-4 if form == "cpu" else 0.03), "float16 in between"
    assert np.abs(found - exact).max() > 10 * error


def test_what_saw_nothing_but_zeros_is_left() -> None:
    exported = two_convolutions(np.float32).SerializeToString()
    nothing = eight_bit_graph(exported, Ranges("", {"a": (0.0, 0.0), "b": (0.0, 0.0)}), "cpu")
    assert {node.op_type for node in onnx.load_from_string(nothing).graph.node} == {"Conv"}


def test_ranges_of_another_network_are_refused(default: Model) -> None:
    ranges = ranges_of(default)
    fewer = replace(ranges, of={name: pair for name, pair in ranges.of.items() if name != "encoder.1.1.second"})
    with pytest.raises(EngineError, match=r"say nothing of the convolution encoder\.1\.1\.second; make them anew"):
        eight_bit_graph(cached_onnx(default), fewer, "cpu")
