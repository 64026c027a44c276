"""Network and post-processing as one module, and as one ONNX graph."""

from __future__ import annotations

import logging
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.bins import annealed_mean
from model.lowering import LOWER, lowered
from model.precision import GraphPrecision
from model.spaces import UNIT, to_ab
from model.weights import Model
from pipeline.errors import EngineError
from pipeline.infer import NETWORK_MULTIPLE

_OPSETS = {"fp16": 20, "bf16": 22}  # 19 is the first whose Q/DQ pairs take float16, 22 whose Conv takes bfloat16


class Graph(nn.Module):
    """What an engine runs: (L* (N, 1, h, w), temperature ()) → ab (N, 2, h/s, w/s), s the network's scale."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self._space = model.bins.space
        self._classifies = len(model.bins) > 0
        self.register_buffer("centers", torch.from_numpy(model.bins.centers))

    def forward(self, lightness: Tensor, temperature: Tensor) -> Tensor:
        """The annealed mean of the network's distribution, or its own chroma, in CIE ab."""
        output = self.network(lightness)
        if self._classifies:
            chroma = annealed_mean(output, self.get_buffer("centers"), temperature)
        else:
            chroma = output.clamp(-1, 1) * UNIT[self._space]
        return to_ab(self._space, F.avg_pool2d(lightness, self.network.scale), chroma)


def to_onnx(model: Model, precision: GraphPrecision = "fp32") -> bytes:
    """The graph as ONNX: `lightness` (batch, 1, h, w), h and w multiples of 32, and `temperature` () to `ab`.

    A regression makes no use of `temperature`. precision: of the network's weights and activations; inputs, outputs and
    what follows the network are float32. Raises EngineError where the network cannot be exported.
    """
    if precision != "fp32":
        model = lowered(model, LOWER[precision])
    batch = torch.export.Dim("batch")
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    example = (torch.full((2, 1, 4 * NETWORK_MULTIPLE, 3 * NETWORK_MULTIPLE), 50.0), torch.tensor(model.temperature))
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
            opset_version=_OPSETS.get(precision),
            dynamic_shapes={
                "lightness": {0: batch, 2: NETWORK_MULTIPLE * rows, 3: NETWORK_MULTIPLE * columns},
                "temperature": {},
            },
        )
    if program is None:
        raise EngineError(f"{model.name}: the network could not be exported to ONNX")
    return bytes(program.model_proto.SerializeToString())
