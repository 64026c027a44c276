"""Sums over pictures: what each one adds, and the measures that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.measures import credit, delta_e_2000, ssim
from pipeline.color import lab_to_rgb
from pipeline.quality import colourfulness, psnr

Floats = NDArray[np.floating[Any]]

MEASURES = {
    "auc": "raw accuracy: area under the curve of the share of pixels within an ab distance of 0 to 150, %",
    "auc_rebalanced": "the same, each pixel weighted by 1/p̃ of its true colour's bin (equation 4, λ = 0), %",
    "psnr": "peak signal-to-noise ratio in sRGB, mean over pictures, dB; 100 at most",
    "ssim": "structural similarity in sRGB, mean over pictures",
    "delta_e": "CIEDE2000 colour difference, mean over pixels",
    "delta_e_p90": "CIEDE2000 colour difference that a tenth of the pixels exceeds",
    "colourfulness": "Hasler and Süsstrunk's colourfulness, mean over pictures",
    "colourfulness_difference": "colourfulness less that of the truth, mean over pictures",
    "chroma": "√(a² + b²), mean over pixels",
    "top1": "share of pictures in which the classifier sees the label or, without labels, what it sees in the truth, %",
}
OF_TRUTH = ("colourfulness", "chroma", "top1")  # those that need nothing to compare with
_BEST_PSNR = 100.0  # dB, of equal pictures
_STEP, _STEPS = 0.5, 256  # histogram of CIEDE2000 differences; the largest in sRGB is about 120
_OF_PIXELS = ("pixels", "credit", "weighted", "weight", "delta_e", "chroma")
_OF_PICTURES = ("pictures", "psnr", "ssim", "colourfulness", "less", "judged", "hits")
_SUMS = _OF_PIXELS + _OF_PICTURES
LENGTH = len(_SUMS) + _STEPS  # of what is added up


@dataclass(frozen=True)
class Truth:
    """A picture at the network's size: lab (h, w, 3), rgb (h, w, 3) sRGB in 0..1, weight (h, w) of each pixel."""

    lab: NDArray[np.float32]
    rgb: Floats
    weight: NDArray[np.float64]


def displayed(lab: Floats) -> Floats:
    """CIE Lab (..., 3) as sRGB in 0..1, clipped."""
    return np.clip(lab_to_rgb(lab), 0, 1)


def sums_of(truth: Truth, ab: Floats, hit: bool | None) -> NDArray[np.float64]:
    """What one picture in these colours ab (h, w, 2) adds, (LENGTH,): `_SUMS`, then the histogram of its differences.

    hit: whether a classifier named the picture rightly; None where that was not asked.
    """
    lab = np.dstack([truth.lab[..., 0], ab])
    rgb = displayed(lab)
    right_at = credit(np.hypot(*np.moveaxis(ab - truth.lab[..., 1:], -1, 0)))
    difference = delta_e_2000(truth.lab, lab)
    steps = np.minimum(difference.ravel() / _STEP, _STEPS - 1).astype(np.intp)
    colour = colourfulness(rgb)
    values = {
        "pictures": 1,
        "pixels": right_at.size,
        "credit": right_at.sum(),
        "weighted": (right_at * truth.weight).sum(),
        "weight": truth.weight.sum(),
        "psnr": min(psnr(rgb, truth.rgb, 1.0), _BEST_PSNR),
        "ssim": ssim(rgb, truth.rgb),
        "delta_e": difference.sum(dtype=np.float64),
        "colourfulness": colour,
        "less": colour - colourfulness(truth.rgb),
        "chroma": np.hypot(*np.moveaxis(ab, -1, 0)).sum(dtype=np.float64),
        "judged": hit is not None,
        "hits": bool(hit),
    }
    return np.concatenate([[values[name] for name in _SUMS], np.bincount(steps, minlength=_STEPS)])


def measures_of(totals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """`MEASURES` of each row of sums (rows, LENGTH); NaN where it is empty, no `top1` where nothing was judged."""
    column = dict(zip(_SUMS, totals.T, strict=False))
    with np.errstate(invalid="ignore", divide="ignore"):
        per_picture = {name: column[name] / column["pictures"] for name in ("psnr", "ssim", "colourfulness", "less")}
        found = {
            "auc": 100 * column["credit"] / column["pixels"],
            "auc_rebalanced": 100 * column["weighted"] / column["weight"],
            "psnr": per_picture["psnr"],
            "ssim": per_picture["ssim"],
            "delta_e": column["delta_e"] / column["pixels"],
            "delta_e_p90": _quantile(totals[:, len(_SUMS) :], 0.9) * _STEP,
            "colourfulness": per_picture["colourfulness"],
            "colourfulness_difference": per_picture["less"],
            "chroma": column["chroma"] / column["pixels"],
            "top1": 100 * column["hits"] / column["judged"],
        }
    return found if column["judged"][0] else {name: values for name, values in found.items() if name != "top1"}


def _quantile(histograms: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Where each histogram (rows, steps) reaches a share of its mass, in steps, counting evenly within one."""
    reached = np.cumsum(histograms, axis=1) / histograms.sum(axis=1, keepdims=True)
    step = np.argmax(reached >= share, axis=1)
    rows = np.arange(len(histograms))
    before = np.where(step > 0, reached[rows, step - 1], 0)
    return np.asarray(step + (share - before) / (reached[rows, step] - before))
