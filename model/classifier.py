"""Any ONNX image classifier, run by OpenVINO, and the right answers to hold it to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.silent import openvino as ov
from pipeline.errors import EngineError, InputError
from pipeline.storage import open_input

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's sRGB, as classifiers are trained
_SIDE = 224  # pixels, where the graph leaves its size open


class Classifier:
    """sRGB (h, w, 3) in 0..1 to the index of the likeliest class; thread-safe.

    The graph has one float32 input, (N, 3, h, w) or (N, h, w, 3), of RGB normalised by ImageNet's mean and deviation,
    224 × 224 where its size is open; its first output has one score a class. The picture is cropped about its centre to
    the input's shape, then resized. Raises InputError where there is no such file, EngineError for another graph.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected an ONNX classifier")
        try:
            graph = ov.Core().read_model(path)
            self._channels_last, self._size = _fixed(graph, path)
            self._compiled = ov.Core().compile_model(graph, "CPU")
        except RuntimeError as e:
            raise EngineError(f"{path}: not an ONNX graph that OpenVINO runs: {_first_line(e)}") from e
        self._path = path
        self.classes = int(self._scores(np.zeros((32, 32, 3))).size)

    def __call__(self, rgb: NDArray[Any]) -> int:
        """The index of the class with the highest score."""
        return int(self._scores(rgb).argmax())

    def _scores(self, rgb: NDArray[Any]) -> NDArray[np.float32]:
        picture = (_cropped(rgb, *self._size) - _MEAN) / _DEVIATION
        batch = (picture if self._channels_last else picture.transpose(2, 0, 1))[None].astype(np.float32)
        try:
            result = self._compiled.create_infer_request().infer([batch])
        except RuntimeError as e:
            raise EngineError(f"{self._path}: cannot be run: {_first_line(e)}") from e
        return np.asarray(result[0], np.float32).ravel()


def read_labels(path: Path) -> dict[str, int]:
    """Right classes from a text file, one a line: the name of a picture's file or folder, a comma, an index.

    Raises InputError for a line of another form.
    """
    with open_input(str(path)) as f:
        lines = f.read().decode("utf-8-sig", "replace").splitlines()
    labels = {}
    for number, line in enumerate(lines, 1):
        name, _, index = line.rpartition(",")
        if not name or not index.strip().isdecimal():
            raise InputError(f"{path}, line {number}: expected a name, a comma and the index of a class")
        labels[name.strip()] = int(index)
    return labels


def label_of(labels: Mapping[str, int], name: str, folder: str) -> int | None:
    """The class of a picture: that of its file's name, else of its folder's; None where neither is known."""
    return labels.get(name, labels.get(folder))


def _fixed(graph: Any, path: Path) -> tuple[bool, tuple[int, int]]:
    """Make the graph's input one picture of one size; returns whether channels come last, and (h, w)."""
    inputs = graph.inputs
    shape = inputs[0].partial_shape if len(inputs) == 1 and inputs[0].element_type == ov.Type.f32 else None
    if shape is None or shape.rank.is_dynamic or len(shape) != 4:
        raise EngineError(f"{path}: expected one input of float32 (N, 3, h, w), got {[str(i) for i in inputs]}")
    sides = [side.get_length() if side.is_static else None for side in shape]
    channels_last = sides[3] == 3 and sides[1] != 3
    if (sides[3] if channels_last else sides[1]) not in (3, None):
        raise EngineError(f"{path}: expected pictures of three channels, got an input of {shape}")
    h, w = (side or _SIDE for side in (sides[1:3] if channels_last else sides[2:]))
    graph.reshape([1, h, w, 3] if channels_last else [1, 3, h, w])
    return channels_last, (h, w)


def _cropped(rgb: NDArray[Any], h: int, w: int) -> NDArray[Any]:
    """The centre of a picture at the aspect and size (h, w)."""
    scale = min(rgb.shape[0] / h, rgb.shape[1] / w)
    rows, columns = round(h * scale), round(w * scale)
    top, left = (rgb.shape[0] - rows) // 2, (rgb.shape[1] - columns) // 2
    centre = rgb[top : top + rows, left : left + columns]
    return np.asarray(cv2.resize(centre, (w, h), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR))


def _first_line(e: Exception) -> str:
    return " ".join(str(e).split())[:200]
