"""Network and post-processing as one ONNX graph, kept in a cache: exporting takes seconds, reading milliseconds."""

from __future__ import annotations

import hashlib
import logging
import warnings

import torch
from torch import Tensor, nn

from model.bins import annealed_mean
from model.cache import cache_folder
from model.networks.unet import STRIDE
from model.weights import Model
from pipeline.errors import EngineError, StorageError
from pipeline.storage import write_bytes

_log = logging.getLogger(__name__)
_GRAPH = 1  # raised when the exported graph changes, so that cached ones are not used
_DIGEST = hashlib.sha256().digest_size


class Graph(nn.Module):
    """What an engine runs: (L* (N, 1, h, w), temperature ()) → ab (N, 2, h/4, w/4)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.register_buffer("bins", model.bins)

    def forward(self, lightness: Tensor, temperature: Tensor) -> Tensor:
        """The annealed mean of the network's distribution."""
        return annealed_mean(self.network(lightness), self.get_buffer("bins"), temperature)


def to_onnx(model: Model) -> bytes:
    """The graph as ONNX: `lightness` (batch, 1, h, w), h and w multiples of 32, and `temperature` () to `ab`."""
    batch = torch.export.Dim("batch")
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    example = (torch.full((2, 1, 4 * STRIDE, 3 * STRIDE), 50.0), torch.tensor(model.temperature))
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # torchvision is not used
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch|copyreg|onnx")
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch|copyreg|onnx")
        program = torch.onnx.export(
            Graph(model).eval(),
            example,
            dynamo=True,
            verbose=False,
            input_names=["lightness", "temperature"],
            output_names=["ab"],
            dynamic_shapes={"lightness": {0: batch, 2: STRIDE * rows, 3: STRIDE * columns}, "temperature": {}},
        )
    if program is None:
        raise EngineError(f"{model.name}: the network could not be exported to ONNX")
    return bytes(program.model_proto.SerializeToString())


def cached_onnx(model: Model) -> bytes:
    """`to_onnx`, from the cache where it holds this model's graph intact; where it cannot be written, without it."""
    path = cache_folder() / f"{model.sha256}-{_GRAPH}-torch{torch.__version__}.onnx"
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if len(data) > _DIGEST and hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
        return data[_DIGEST:]
    graph = to_onnx(model)
    try:
        write_bytes(path, hashlib.sha256(graph).digest() + graph)
    except StorageError as e:
        _log.warning("%s; the network is exported anew each time", e)
    return graph
