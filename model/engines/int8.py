"""INT8 on the CPU: the graph with Q/DQ pairs, quantised after training by NNCF from pictures like those to come.

It is an ONNX file that says which weights it is of. One is shipped for the default; those made here are in the cache,
and come first. Opening it takes neither NNCF nor PyTorch's exporter.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.cache import cache_folder
from model.engines.golden import golden_frames
from model.engines.mixed import Inputs, dearest, makers_of
from model.exported import cached_onnx
from model.registry import PRETRAINED
from model.sealed import UnfitError, keep, unsealed
from model.silent import quantiser
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from model.outline import Subject

_log = logging.getLogger(__name__)
SUFFIX = ".int8.onnx"
_ROUGHLY, _JUDGED = 100, 32  # pictures to find out with which convolutions are to stay in float32
_UPRIGHT = (224, 160)  # (h, w) of the golden frames that it is seen on, too: 8 bits do worst on those
_WEIGHTS = "weights"  # the graph's note of the SHA-256 of the model package that it is of


def can_quantise() -> bool:
    """Whether NNCF and ONNX Runtime are installed; they are optional, and only needed to make an INT8 graph."""
    return all(importlib.util.find_spec(name) for name in ("nncf", "onnxruntime"))


def int8_graph(model: Subject) -> tuple[bytes, str]:
    """The INT8 graph as ONNX and the first digits of its SHA-256: the one made here, else the one that is shipped.

    Raises EngineError where there is none, or the one shipped is damaged or of other weights.
    """
    try:
        graph = unsealed(_path(model), _header(model))
    except FileNotFoundError:
        graph = _shipped(model, PRETRAINED)
    except UnfitError as e:
        _log.warning("%s: %s; it is left aside", _path(model), e)
        graph = _shipped(model, PRETRAINED)
    return graph, hashlib.sha256(graph).hexdigest()[:8]


def keep_int8(model: Subject, graph: bytes) -> None:
    """Put an INT8 graph into the cache, in place of an earlier one."""
    keep(_path(model), _header(model), graph)


def forget_int8(model: Subject) -> None:
    """Take it out again, so that the one that is shipped counts."""
    _path(model).unlink(missing_ok=True)


def quantised(model: Subject, pictures: NDArray[np.float32]) -> bytes:
    """The INT8 graph of a model as ONNX.

    pictures: (N, 1, h, w) L* 0..100, some hundred of what is to be coloured, h and w multiples of 32. Convolutions
    become INT8 but for the few whose 8 bits cost most (see `dearest`). From the logits on all stays in float32, as 8
    bits are too few for small probabilities, and would hold T to what it was. Weights are symmetric, activations not,
    and range from the least to the greatest ever seen, as film has more contrast than photographs. Raises EngineError
    where NNCF is missing.
    """
    if not can_quantise():
        raise EngineError("INT8 graphs are made by NNCF and ONNX Runtime; pip install nncf onnxruntime")
    import onnx

    data = cached_onnx(model)
    graph = onnx.load_from_string(data)
    one_by_one = list(_inputs(graph, model.temperature, pictures[:, None]))
    judged = [*_inputs(graph, model.temperature, pictures[None, :_JUDGED])]
    judged += _inputs(graph, model.temperature, golden_frames(*_UPRIGHT)[None])
    exact = _after_the_logits(graph)
    exact += dearest(graph, _quantised(data, one_by_one[:_ROUGHLY], exact), judged)
    made = _quantised(data, one_by_one, exact)
    notes = {_WEIGHTS: model.sha256, "made_by": f"nncf {quantiser().__version__}", "float32": ", ".join(exact)}
    onnx.helper.set_model_props(made, notes)
    return bytes(made.SerializeToString())


def _quantised(graph: bytes, inputs: Sequence[Inputs], exact: Sequence[str]) -> Any:
    """A graph in INT8 but for the nodes of these names, calibrated on inputs, as an ONNX model."""
    import onnx

    nncf = quantiser()
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):  # NNCF draws its progress there
        return nncf.quantize(
            onnx.load_from_string(graph),
            nncf.Dataset(list(inputs)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(names=list(exact)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )


def _shipped(model: Subject, folder: Path) -> bytes:
    """The graph shipped for a model of this name, if it is of these weights, which is noted once it is known."""
    remedy = f"make one with reelcolor compile {model.name} --precision int8 --calibrate PHOTOGRAPHS"
    path = folder / f"{model.name}{SUFFIX}"
    try:
        graph = path.read_bytes()
    except FileNotFoundError as e:
        raise EngineError(f"{model.name}: no INT8 graph on this machine; {remedy}") from e
    except OSError as e:
        raise EngineError(f"{path}: cannot be read; {remedy}") from e
    note, header = _path(model).with_suffix(".shipped"), _header(model) | {"graph": hashlib.sha256(graph).hexdigest()}
    with contextlib.suppress(FileNotFoundError, UnfitError):
        unsealed(note, header)
        return graph
    import onnx
    from google.protobuf.message import DecodeError

    try:
        notes = {each.key: each.value for each in onnx.load_from_string(graph).metadata_props}
    except DecodeError as e:
        raise EngineError(f"{path}: cannot be read as ONNX; {remedy}") from e
    if notes.get(_WEIGHTS) != model.sha256:
        of = notes.get(_WEIGHTS, "unknown")[:12]
        raise EngineError(f"{path}: is of the weights {of}, not of {model.sha256[:12]}; {remedy}")
    keep(note, header, b"")
    return graph


def _after_the_logits(graph: Any) -> list[str]:
    """Names of all that is computed from the logits, up to the annealed mean."""
    makers = makers_of(graph)
    reached, names = set(), []
    for softmax in (node for node in graph.graph.node if node.op_type == "Softmax"):
        before = makers[softmax.input[0]]
        while before.op_type != "Conv":
            before = makers[before.input[0]]
        reached.add(before.output[0])
    for node in graph.graph.node:  # each after those that it needs
        if not reached.isdisjoint(node.input):
            names.append(node.name)
            reached.update(node.output)
    return names


def _inputs(graph: Any, temperature: float, batches: NDArray[np.float32]) -> Iterator[Inputs]:
    """batches: (any number, N, 1, h, w) L*."""
    has_temperature = "temperature" in [each.name for each in graph.graph.input]
    fixed = {"temperature": np.array(temperature, np.float32)} if has_temperature else {}
    return ({"lightness": batch} | fixed for batch in batches)


def _path(model: Subject) -> Path:
    return cache_folder() / f"{model.sha256}.int8"


def _header(model: Subject) -> dict[str, Any]:
    """What the INT8 graph is of. It stays valid when PyTorch, which exports the graph, or OpenVINO is updated."""
    return {"weights": model.sha256, "form": "onnx"}
