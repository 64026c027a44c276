"""Measures of colour against the truth, after Zhang, Isola, Efros 2016, §3.1, and the baselines to read them by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.bins import GRID
from model.data import Photos
from model.engines import open_engine
from model.weights import Model
from pipeline.color import lab_to_rgb, rgb_to_lab
from pipeline.infer import NETWORK_AREA, network_size
from pipeline.quality import colourfulness

Floats = NDArray[np.floating[Any]]
Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # a Colorizer, or a baseline like one

LONGEST = 150  # ab distance at which the threshold sweep ends


@dataclass(frozen=True)
class Metrics:
    """Over a set of pictures, every pixel counted alike; AuC in per cent.

    auc: raw accuracy, area under the curve. auc_rebalanced: the same with each pixel weighted by 1/p̃ of its true bin.
    psnr: mean over pictures, dB, in sRGB. chroma, chroma_true: mean of sqrt(a² + b²), found and true.
    colourfulness, colourfulness_true: mean over pictures of Hasler and Süsstrunk's measure.
    """

    pictures: int
    auc: float
    auc_rebalanced: float
    psnr: float
    chroma: float
    chroma_true: float
    colourfulness: float
    colourfulness_true: float


def area_under_curve(errors: Floats, weights: Floats | None = None) -> float:
    """Share (0..1) of the weight with an error of at most t, averaged over t from 0 to 150.

    errors: ab distances, any shape. The curve is the share within thresholds 0, 1 … 150, the area is the trapezoid's,
    divided by 150 (Zhang et al. 2016, §3.1 and Deshpande et al. 2015).
    """
    bins = np.clip(np.ceil(errors.ravel()), 0, LONGEST + 1).astype(np.int64)
    mass = np.bincount(bins, None if weights is None else weights.ravel(), LONGEST + 2).astype(np.float64)
    curve = np.cumsum(mass)[: LONGEST + 1] / mass.sum()
    return float(np.trapezoid(curve) / LONGEST)


def class_weights(ab: Floats, bins: Floats, prior: Floats) -> NDArray[np.float64]:
    """1/p̃ of the nearest bin of each colour: equation 4 with λ = 0. ab (..., 2), bins (Q, 2); returns (...)."""
    low = bins.min(axis=0)
    table = np.full(((bins.max(axis=0) - low) / GRID + 1).astype(int), np.inf)
    table[tuple(((bins - low) / GRID).astype(int).T)] = np.asarray(prior, np.float64)
    cell = np.clip(np.rint((ab - low) / GRID).astype(int), 0, np.array(table.shape) - 1)
    return np.asarray(1 / table[cell[..., 0], cell[..., 1]])


def evaluate(
    predict: Predict, pictures: Iterable[NDArray[np.uint8]], bins: Floats, prior: Floats, area: int = NETWORK_AREA
) -> Metrics:
    """Colour the lightness of sRGB pictures (h, w, 3) at about `area` pixels and compare with their own colour.

    Predicted ab is enlarged bilinearly to the size of the network's input, at which the picture is compared.
    """
    errors, weights, rows = [], [], []
    for picture in pictures:
        h, w = network_size(picture.shape[1], picture.shape[0], area=area)
        true = rgb_to_lab(_resized(picture, h, w).astype(np.float32) / 255)
        found = coloured(predict, true[..., 0])
        errors.append(np.hypot(*np.moveaxis(found - true[..., 1:], -1, 0)).astype(np.float32))
        weights.append(class_weights(true[..., 1:], bins, prior))
        rgb, rgb_true = (np.clip(lab_to_rgb(np.dstack([true[..., 0], ab])), 0, 1) for ab in (found, true[..., 1:]))
        mse = max(float(((rgb - rgb_true) ** 2).mean()), 1e-10)
        chroma = (np.hypot(*np.moveaxis(ab, -1, 0)).mean() for ab in (found, true[..., 1:]))
        rows.append([-10 * np.log10(mse), *chroma, colourfulness(rgb), colourfulness(rgb_true)])
    every, weight = np.concatenate([e.ravel() for e in errors]), np.concatenate([w.ravel() for w in weights])
    raw, rebalanced = area_under_curve(every), area_under_curve(every, weight)
    return Metrics(len(rows), 100 * raw, 100 * rebalanced, *(float(v) for v in np.mean(rows, axis=0)))


def coloured(predict: Predict, lightness: Floats) -> NDArray[np.float32]:
    """ab (h, w, 2) of one picture's L* (h, w), both sides multiples of 32."""
    ab = predict(np.ascontiguousarray(lightness, np.float32)[None, None])[0].transpose(1, 2, 0)
    return np.asarray(cv2.resize(ab, lightness.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def all_grey(lightness: NDArray[np.float32]) -> NDArray[np.float32]:
    """The baseline of no colour at all."""
    n, _, h, w = lightness.shape
    return np.zeros((n, 2, h // 4, w // 4), np.float32)


class BorrowedColour:
    """The baseline "random" of Zhang et al.: each picture gets the ab of another, drawn from `pictures`."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], seed: int = 0) -> None:
        self._pictures = pictures
        self._rng = np.random.default_rng(seed)

    def __call__(self, lightness: NDArray[np.float32]) -> NDArray[np.float32]:
        """As a Colorizer."""
        n, _, h, w = lightness.shape
        drawn = [self._pictures[i] for i in self._rng.integers(0, len(self._pictures), size=(n,))]
        lab = [rgb_to_lab(_resized(p, h // 4, w // 4).astype(np.float32) / 255) for p in drawn]
        return np.stack([p[..., 1:].transpose(2, 0, 1) for p in lab]).astype(np.float32)


def _resized(picture: NDArray[np.uint8], h: int, w: int) -> NDArray[np.uint8]:
    smaller = h * w < picture.shape[0] * picture.shape[1]
    return np.asarray(cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC))


def sample_held_out(photos: Photos, count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """At most `count` of the photographs that were never trained on, drawn by `seed`."""
    _, test = photos.split()
    return [photos[i] for i in np.random.default_rng(seed).permutation(test)[:count]]


def held_out_report(
    model: Model,
    photos: Photos,
    count: int,
    temperatures: Sequence[float] = (0.38, 1.0),
    area: int = NETWORK_AREA,
) -> dict[str, Any]:
    """Metrics of a model on held-out photographs, at each temperature, and of the two baselines."""
    pictures = sample_held_out(photos, count)
    lenders = [photos[i] for i in photos.split()[0][:200]]
    bins, prior = model.bins.numpy(), model.prior.numpy()

    def measured(predict: Predict) -> dict[str, float]:
        found = asdict(evaluate(predict, pictures, bins, prior, area))
        return {name: round(value, 2) for name, value in found.items() if name != "pictures"}

    report: dict[str, Any] = {"pictures": len(pictures), "area": area}
    for temperature in temperatures:
        with open_engine(model, temperature=temperature) as engine:
            report[f"T={temperature:g}"] = measured(engine)
    report["grey"] = measured(all_grey)
    report["borrowed colour"] = measured(BorrowedColour(lenders))
    return report
