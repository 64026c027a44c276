"""INT8 on the CPU: the exported graph, quantised after training by NNCF from pictures like those to come.

Kept in the cache, one a model, so that it is made once and opened anywhere on the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from model.cache import cache_folder
from model.engines.plans import UnfitError, keep, unsealed
from model.export import cached_onnx
from model.weights import Model
from pipeline.errors import EngineError

_LENGTH = 8


def can_quantise() -> bool:
    """Whether NNCF is installed; it is optional, and only needed to make an INT8 graph."""
    return importlib.util.find_spec("nncf") is not None


def int8_graph(model: Model) -> tuple[ov.Model, str]:
    """The INT8 graph from the cache, and the first digits of its SHA-256; raises EngineError where there is none."""
    try:
        data = unsealed(_path(model), _header(model))
    except (FileNotFoundError, UnfitError) as e:
        raise EngineError(
            f"{model.name}: no INT8 graph on this machine; make one with "
            f"reelcolor compile {model.name} --precision int8 --calibrate PHOTOGRAPHS"
        ) from e
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    weights = ov.Tensor(np.frombuffer(data[end:], np.uint8))
    return ov.Core().read_model(data[_LENGTH:end], weights), hashlib.sha256(data).hexdigest()[:8]


def quantise(model: Model, pictures: NDArray[np.float32]) -> None:
    """Make the INT8 graph of a model and keep it in the cache, in place of an earlier one.

    pictures: (N, 1, h, w) L* 0..100, some hundred of what is to be coloured, h and w multiples of 32. Convolutions
    become INT8 but for the annealed mean, as 8 bits are too few for small probabilities; weights are symmetric,
    activations not, and range from the least to the greatest ever seen, as film has more contrast than photographs.
    Raises EngineError where NNCF is missing.
    """
    if not can_quantise():
        raise EngineError("INT8 graphs are made by NNCF, which is not installed; pip install nncf")
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    dataset = nncf.Dataset(list(_inputs(model, pictures)))
    graph = ov.Core().read_model(cached_onnx(model))
    with contextlib.redirect_stdout(sys.stderr):  # NNCF draws its progress there
        made = nncf.quantize(
            graph,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pictures),
            ignored_scope=nncf.IgnoredScope(names=_means(graph)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )
    keep(_path(model), _header(model), _serialised(made))


def _means(graph: ov.Model) -> list[str]:
    """Names of the convolutions of probabilities."""
    sources = {
        op.get_friendly_name(): [i.get_source_output().get_node().get_type_name() for i in op.inputs()]
        for op in graph.get_ordered_ops()
        if op.get_type_name() == "Convolution"
    }
    return [name for name, types in sources.items() if "Softmax" in types]


def _inputs(model: Model, pictures: NDArray[np.float32]) -> Iterator[dict[str, NDArray[np.float32]]]:
    fixed = {"temperature": np.array(model.temperature, np.float32)} if len(model.bins) else {}
    return ({"lightness": picture[None]} | fixed for picture in pictures)


def _serialised(graph: ov.Model) -> bytes:
    """OpenVINO's two files, .xml and .bin, as one."""
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder, "graph.xml")
        ov.save_model(graph, xml, compress_to_fp16=False)
        text = xml.read_bytes()
        return len(text).to_bytes(_LENGTH, "little") + text + xml.with_suffix(".bin").read_bytes()


def _path(model: Model) -> Path:
    return cache_folder() / f"{model.sha256}.int8"


def _header(model: Model) -> dict[str, Any]:
    """What the INT8 graph is of. It stays valid when PyTorch, which exports the graph, is updated."""
    return {"weights": model.sha256, "openvino": ov.__version__}
