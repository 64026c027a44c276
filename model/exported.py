"""The exported graph, kept in a cache: exporting it takes PyTorch, and seconds; reading it neither."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import TYPE_CHECKING

from model.cache import cache_folder, read_cached, write_cached
from model.precision import GraphPrecision

if TYPE_CHECKING:
    from model.outline import Subject

_GRAPH = 4  # raised when the exported graph changes, so that cached ones are not used
_DIGEST = hashlib.sha256().digest_size


def cached_onnx(model: Subject, precision: GraphPrecision = "fp32") -> bytes:
    """`to_onnx`, from the cache where it holds this model's graph intact; where it cannot be written, without it."""
    path = cache_folder() / f"{model.sha256}-{precision}-{_GRAPH}-torch{version('torch')}.onnx"
    try:
        data = read_cached(path)
    except OSError:
        data = b""
    if len(data) > _DIGEST and hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
        return data[_DIGEST:]
    from model.export import to_onnx

    graph = to_onnx(model.whole(), precision)
    write_cached(path, hashlib.sha256(graph).digest() + graph)
    return graph
