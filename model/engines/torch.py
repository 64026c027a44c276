"""The reference engine: PyTorch in float32 on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from model.engines.base import Engine, engine_error
from model.export import Graph

if TYPE_CHECKING:
    from model.outline import Subject


class TorchEngine(Engine):
    """Computes picture by picture, as convolution kernels are chosen, and so round, by batch size.

    `threads` sets PyTorch's number of threads, which is one for the whole process.
    """

    def __init__(self, model: Subject, temperature: float, threads: int) -> None:
        super().__init__(model, temperature)
        torch.set_num_threads(threads)
        self._graph = Graph(model.whole()).eval()
        self._temperature = torch.tensor(temperature)

    @property
    def runtime(self) -> str:
        """As Engine says."""
        return f"torch-{torch.__version__}/f32"

    def compute(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """As Engine says."""
        try:
            with torch.inference_mode():
                pictures = torch.from_numpy(lightness)
                return np.stack([self._graph(x[None], self._temperature)[0].numpy() for x in pictures])
        except (RuntimeError, MemoryError) as e:
            raise engine_error(self.key, e) from e
