"""The network of Zhang, Isola, Efros, "Colorful Image Colorization" (ECCV 2016, arXiv 1603.08511), Table 4.

Layers and parameter names are those of the authors' PyTorch release (richzhang/colorization, colorizers/eccv16.py),
`model1.0.weight` … `model8.6.bias`, so that its weights fit by name. The release's `model_out`, a 1×1 convolution
from probabilities to ab/110, is the table of bins of a model package, and its 4× upsampling is the pipeline's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from model.networks.sizes import checked_sizes, outputs


@dataclass(frozen=True)
class ECCV16Config:
    """The paper's sizes by default: 32.2 M parameters and 83.5 GFLOP for 256×256, a multiply-add counted as two.

    bins: Q, the classes of the head; 0 for a regression of chroma. width: channels of conv1; conv2 has 2, conv3 and
    conv8 4, the others 8 times it.
    """

    bins: int = 313
    width: int = 64

    def __post_init__(self) -> None:
        checked_sizes(self.bins, [self.width])


class ECCV16(nn.Module):
    """L* to logits: see `forward`. No pooling: conv1 to conv3 halve by stride, conv5 and conv6 see far by dilation."""

    scale = 4

    def __init__(self, config: ECCV16Config) -> None:
        super().__init__()
        self.config = config
        w = config.width
        self.model1 = _block(1, w, 2, stride=2)
        self.model2 = _block(w, 2 * w, 2, stride=2)
        self.model3 = _block(2 * w, 4 * w, 3, stride=2)
        self.model4 = _block(4 * w, 8 * w, 3)
        self.model5 = _block(8 * w, 8 * w, 3, dilation=2)
        self.model6 = _block(8 * w, 8 * w, 3, dilation=2)
        self.model7 = _block(8 * w, 8 * w, 3)
        self.model8 = nn.Sequential(
            nn.ConvTranspose2d(8 * w, 4 * w, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            *_conv_relu(4 * w, 4 * w),
            *_conv_relu(4 * w, 4 * w),
            nn.Conv2d(4 * w, outputs(config.bins), 1),
        )

    @property
    def head(self) -> nn.Conv2d:
        """The convolution that gives the output."""
        head = self.model8[-1]
        assert isinstance(head, nn.Conv2d)
        return head

    def forward(self, lightness: Tensor) -> Tensor:
        """lightness: (N, 1, h, w) CIE L* 0..100, h and w multiples of 8. Returns logits (N, bins, h/4, w/4).

        Without bins: chroma (N, 2, h/4, w/4) in the units of `model.spaces.UNIT`.
        """
        x = (lightness - 50) / 100
        for block in (self.model1, self.model2, self.model3, self.model4, self.model5, self.model6, self.model7):
            x = block(x)
        logits: Tensor = self.model8(x)
        return logits


def _block(inputs: int, outputs: int, depth: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """`depth` convolutions, the stride in the last, then one batch normalisation, after the ReLU."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += _conv_relu(inputs if i == 0 else outputs, outputs, stride if i == depth - 1 else 1, dilation)
    return nn.Sequential(*layers, nn.BatchNorm2d(outputs))


def _conv_relu(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation), nn.ReLU(inplace=True)
