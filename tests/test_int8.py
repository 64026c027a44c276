"""INT8: made from pictures, and the graph that is shipped, against PyTorch and on photographs never seen."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from skimage import color, data, transform

from model.bins import no_bins
from model.engines import int8, open_engine, prove_engine
from model.engines.golden import golden_frames, reference
from model.engines.int8 import SUFFIX, int8_graph, keep_int8
from model.engines.mixed import dearest, restored
from model.engines.openvino import OpenVINOEngine
from model.engines.selftest import LIMITS, check_on, differences
from model.networks.unet import UNet, UNetConfig
from model.registry import PRETRAINED
from model.weights import Model, load_model
from pipeline.errors import EngineError
from pipeline.infer import network_size

needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="NNCF, which is optional, is missing")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def default() -> Model:
    return load_model("default")


def photographs(h: int, w: int) -> np.ndarray:
    """L* (4, 1, h, w) of photographs that neither training nor calibration has seen."""
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    rows = [color.rgb2lab(transform.resize(p, (h, w), anti_aliasing=True))[..., 0] for p in pictures]
    return np.stack(rows).astype(np.float32)[:, None]


@needs_nncf
@pytest.mark.parametrize("head", ["classification", "regression"])
def test_int8_is_quantised_kept_and_opened(model: Model, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if head == "classification":  # to try each convolution takes time, and is done for the other
        monkeypatch.setattr(int8, "dearest", lambda *_: [])
    if head == "regression":
        torch.manual_seed(0)
        net = UNet(UNetConfig(bins=0, widths=(8, 16, 16, 16, 16), encoder=(0, 0, 0, 0), decoder=(0, 0, 0)))
        net(torch.rand(4, 1, 64, 64) * 100)
        model = Model("flat", "cd" * 32, net.eval().requires_grad_(False), no_bins("lab"), np.empty(0), 0.38, {})
    pictures = np.concatenate([golden_frames(64, 96), golden_frames(64, 96)[..., ::-1]])
    keep_int8(model, int8.quantised(model, pictures))
    expected = reference(model, 0.38, pictures)
    with OpenVINOEngine(model, 0.38, 2, "int8") as engine:
        assert "/int8-" in engine.key
        difference = differences(pictures, expected, engine(pictures)).mean()
    assert difference > 0.005, "it does compute in 8 bits"
    if head == "classification":  # 8 bits are too few for a regression of random weights
        assert differences(pictures, expected, 0 * expected).mean() > 2 * difference


def test_without_nncf_it_says_what_to_install(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match="pip install nncf onnxruntime"):
        int8.quantised(model, golden_frames(64, 96))


def test_without_an_int8_graph_it_says_how_to_make_one(model: Model) -> None:
    with pytest.raises(EngineError, match="reelcolor compile tiny --precision int8 --calibrate"):
        open_engine(model, "openvino", precision="int8")


def test_the_graph_shipped_is_of_the_weights_shipped_and_computes_in_eight_bits(default: Model) -> None:
    """Where this fails after a change of the weights: scripts/quantise_default."""
    graph, _ = int8_graph(default)
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    makers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    coarse = [
        n for n in convolutions if {makers[i].op_type for i in n.input[:2] if i in makers} == {"DequantizeLinear"}
    ]
    exact = [node.name for node in convolutions if node not in coarse]
    notes = {note.key: note.value for note in model.metadata_props}
    assert set(exact) == {name for name in notes["float32"].split(", ") if "onv" in name}
    assert len(exact) <= 1, "one that was worth it"
    (softmax,) = [node for node in model.graph.node if node.op_type == "Softmax"]
    division = makers[softmax.input[0]]
    assert [division.op_type, division.input[1]] == ["Div", "temperature"], "which is not quantised"
    weights = {t.name: t.data_type for t in model.graph.initializer}
    assert {weights[makers[n.input[1]].input[0]] for n in coarse} == {onnx.TensorProto.INT8}


@pytest.mark.parametrize(("h", "w"), [(160, 224), (256, 160)])
def test_the_graph_shipped_is_near_the_network_on_photographs_it_was_not_made_from(
    default: Model, h: int, w: int
) -> None:
    """By OpenVINO, which computes in 8 bits, and by ONNX Runtime, as the file says."""
    pictures = photographs(h, w)
    engine, verdicts = prove_engine(default, "openvino", precision="int8", sizes=[(h, w)])
    with engine:
        assert [(v.precision, v.problem) for v in verdicts] == [("int8", "")]
        assert check_on(engine, pictures, "photographs").problem == ""
    session = onnxruntime.InferenceSession(int8_graph(default)[0], providers=["CPUExecutionProvider"])
    found = session.run(["ab"], {"lightness": pictures, "temperature": np.array(default.temperature, np.float32)})[0]
    difference = differences(pictures, reference(default, default.temperature, pictures), found)
    assert 0.05 < difference.mean() <= LIMITS["int8"].mean
    assert np.percentile(difference, 99) <= LIMITS["int8"].p99


@pytest.mark.slow
def test_the_graph_shipped_passes_at_every_size_that_pictures_are_computed_at(default: Model) -> None:
    sizes = sorted({network_size(width, 400) for width in range(100, 1601, 2)})
    assert len(sizes) == 19
    engine, verdicts = prove_engine(default, "openvino", precision="int8", sizes=sizes)
    with engine:
        assert [(v.precision, v.problem) for v in verdicts] == [("int8", "")] * 19


def test_int8_obeys_another_temperature_than_it_was_made_with(default: Model) -> None:
    """The division by it is not quantised, as then no higher one could be had."""
    engine, (verdict,) = prove_engine(default, "openvino", 1.0, precision="int8", sizes=[(64, 96)])
    with engine:
        assert (verdict.precision, verdict.problem) == ("int8", "")


def two_convolutions(coarse: bool) -> onnx.ModelProto:
    """A chain of two, a and b; or the same with Q/DQ, fine for b, and for the weights of a in steps of a third."""
    rng = np.random.default_rng(0)
    held, nodes, given = [], [], "lightness"
    for name, shape, step in (("a", (4, 1, 3, 3), 1 / 3), ("b", (2, 4, 3, 3), 0.01)):
        value, weight = rng.normal(0, 0.3, shape), f"weight {name}"
        parts = {weight: value.astype(np.float32)}
        if coarse:
            whole = np.rint(value / step).clip(-127, 127).astype(np.int8)
            parts = {f"whole {name}": whole, f"step {name}": np.float32(step), f"zero {name}": np.int8(0)}
            parts |= {f"fine {name}": np.float32(0.05), f"middle {name}": np.uint8(128)}
            pair = [f"fine {name}", f"middle {name}"]
            nodes.append(helper.make_node("QuantizeLinear", [given, *pair], [f"quantised {name}"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"quantised {name}", *pair], [f"given {name}"]))
            nodes.append(helper.make_node("DequantizeLinear", list(parts)[:3], [weight]))
            given = f"given {name}"
        held += [numpy_helper.from_array(np.asarray(part), key) for key, part in parts.items()]
        nodes.append(helper.make_node("Conv", [given, weight], [f"out {name}"], name=name, pads=[1, 1, 1, 1]))
        given = f"out {name}"
    size = helper.make_tensor_value_info("lightness", onnx.TensorProto.FLOAT, ["n", 1, "h", "w"])
    out = helper.make_tensor_value_info("out b", onnx.TensorProto.FLOAT, ["n", 2, "h", "w"])
    unused = helper.make_tensor_value_info("temperature", onnx.TensorProto.FLOAT, [])  # as by a regression
    graph = helper.make_graph(nodes, "two", [size, unused], [out], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_the_convolution_that_costs_most_is_found_and_can_be_restored() -> None:
    exact, coarse = two_convolutions(False), two_convolutions(True)
    picture = {"lightness": np.random.default_rng(1).normal(0, 1, (2, 1, 16, 16)).astype(np.float32)}
    picture["temperature"] = np.array(0.38, np.float32)

    def colours(graph: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, picture)[0]

    before = np.abs(colours(coarse) - colours(exact)).mean()
    after = {name: np.abs(colours(restored(coarse, exact, name)) - colours(exact)).mean() for name in ("a", "b")}
    assert after["a"] < before / 3
    assert after["b"] > before * 0.9
    assert dearest(exact, coarse, [picture]) == ["a"]
    assert dearest(exact, exact, [picture]) == []


def test_a_picture_does_not_depend_on_its_batch_in_int8(default: Model) -> None:
    pictures = photographs(64, 96)
    with open_engine(default, "openvino", precision="int8") as engine:
        together = engine(pictures)
        np.testing.assert_array_equal(together, np.concatenate([engine(p[None]) for p in pictures]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: None, "is of the weights 7777777777.., not of {sha}; make one with reelcolor compile default"),
        (lambda path: path.write_bytes(path.read_bytes()[:100_000]), "cannot be read as ONNX; make one"),
        (lambda path: path.write_bytes(b"\xff" * 1000), "cannot be read as ONNX; make one"),
        (lambda path: path.unlink(), "default: no INT8 graph on this machine; make one"),
    ],
    ids=["of other weights", "truncated", "garbage", "gone"],
)
def test_a_shipped_graph_that_does_not_fit_is_refused_in_one_line(
    default: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / f"default{SUFFIX}"
    graph = onnx.load(PRETRAINED / path.name)
    onnx.helper.set_model_props(graph, {"weights": "7" * 64})
    onnx.save(graph, path)
    change(path)
    monkeypatch.setattr(int8, "PRETRAINED", tmp_path)
    with pytest.raises(EngineError, match=words.format(sha=default.sha256[:12])) as e:
        open_engine(default, "openvino", precision="int8")
    assert "\n" not in str(e.value)


def test_a_graph_made_here_comes_first_and_a_damaged_one_is_left_aside(
    default: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = int8_graph(default)
    keep_int8(default, b"made here")
    assert int8_graph(default)[0] == b"made here"
    (path,) = (tmp_path / "reelcolor").glob("*.int8")
    path.write_bytes(path.read_bytes()[:-1])
    assert int8_graph(default) == shipped
    assert "is truncated or was changed; it is left aside" in caplog.text
    other = dataclasses.replace(default, sha256="ef" * 32)
    keep_int8(other, b"other")
    assert int8_graph(other)[0] == b"other"


def test_the_shipped_graph_is_not_parsed_twice(default: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """To see what weights it is of takes ONNX, whose import takes a third of a second."""
    first = int8_graph(default)
    with monkeypatch.context() as patch:
        patch.setattr(onnx, "load_from_string", lambda _: pytest.fail("parsed again"))
        assert int8_graph(default) == first
    other = dataclasses.replace(default, sha256="ef" * 32)
    with pytest.raises(EngineError, match="is of the weights"):
        int8_graph(other)
