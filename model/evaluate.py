"""Ways to colour pictures, measured against the pictures' own colours, after Zhang, Isola, Efros 2016, §3.1.

Pictures are read one by one and only sums are kept: of each measure, and of each for every bootstrap replicate.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.baselines import Pictures
from model.measures import ClassWeights, Interval, interval, resampling
from model.tally import LENGTH, MEASURES, OF_TRUTH, Truth, displayed, measures_of, sums_of
from pipeline.color import colour_at_lightness, rgb_to_lab
from pipeline.infer import NETWORK_AREA, network_size

Floats = NDArray[np.floating[Any]]
Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # a Colorizer, or a baseline like one
Replicates = dict[str, NDArray[np.float64]]  # of each measure: the estimate, then its bootstrap replicates

REPLICATES = 1000  # of the bootstrap
_AT_A_TIME = 32  # pictures handed to the threads


def truth_of(picture: NDArray[np.uint8], weights: ClassWeights, area: int = NETWORK_AREA) -> Truth:
    """An sRGB picture (h, w, 3) of any size, resized to about `area` pixels, both sides multiples of 32."""
    lab = rgb_to_lab(resized(picture, area).astype(np.float32) / 255)
    return Truth(lab, displayed(lab), weights(lab[..., 1:]))


def resized(picture: NDArray[np.uint8], area: int = NETWORK_AREA) -> NDArray[np.uint8]:
    """A picture (h, w, 3) at the size of the network's input."""
    h, w = network_size(picture.shape[1], picture.shape[0], area=area)
    smaller = h * w < picture.shape[0] * picture.shape[1]
    return np.asarray(cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC))


def coloured(predict: Predict, lightness: Floats) -> NDArray[np.float32]:
    """ab (h, w, 2) of one picture's L* (h, w), both sides multiples of 32, enlarged bilinearly from the network's."""
    ab = predict(np.ascontiguousarray(lightness, np.float32)[None, None])[0].transpose(1, 2, 0)
    return np.asarray(cv2.resize(ab, lightness.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def shown(lightness: Floats, ab: Floats) -> NDArray[np.uint8]:
    """L* (h, w) and ab (h, w, 2) as sRGB (h, w, 3), lightness held: what a colorized picture looks like."""
    return np.rint(255 * colour_at_lightness(lightness, ab)).astype(np.uint8)


@dataclass(frozen=True)
class Judge:
    """Semantic interpretability (§3.1): what a classifier makes of a picture.

    classify: sRGB (h, w, 3) in 0..1 to the index of a class. labels: the right class of each picture, None where it is
    not known; without labels, what the classifier makes of the true colours counts as right.
    """

    classify: Callable[[Floats], int]
    labels: Sequence[int | None] | None = None


def evaluate(
    predict: Predict, pictures: Pictures, weights: ClassWeights, area: int = NETWORK_AREA, threads: int = 2
) -> dict[str, float]:
    """One way to colour, measured: name of the measure to its value, see `model.tally.MEASURES`."""
    found = compare({"": predict}, pictures, weights, area=area, replicates=0, threads=threads)[""]
    return {name: float(values[0]) for name, values in found.items()}


def compare(
    methods: Mapping[str, Predict | None],
    pictures: Pictures,
    weights: ClassWeights,
    *,
    area: int = NETWORK_AREA,
    units: Sequence[str] | None = None,
    judge: Judge | None = None,
    replicates: int = REPLICATES,
    threads: int = 2,
    done: Callable[[int], None] = lambda _: None,
) -> dict[str, Replicates]:
    """Colour the lightness of pictures in each way and measure; None stands for the true colours, without errors.

    pictures: sRGB (h, w, 3) uint8, with len and [i]. units: what the bootstrap draws, a name for each picture (see
    `resampling`); by default each picture is one. With one unit there are no replicates. done: told how many pictures
    have been measured. Returns the same replicates for all, so that differences between ways are paired.
    """
    units = [str(i) for i in range(len(pictures))] if units is None else units
    replicates = replicates if len(set(units)) > 1 else 0
    totals = {name: np.zeros((1 + replicates, LENGTH)) for name in methods}

    def sums(index: int) -> list[NDArray[np.float64]]:
        truth = truth_of(pictures[index], weights, area)
        right = _right_class(judge, truth, index)
        colours = (truth.lab[..., 1:] if way is None else coloured(way, truth.lab[..., 0]) for way in methods.values())
        return [sums_of(truth, ab, _hit(judge, truth, ab, right)) for ab in colours]

    with ThreadPoolExecutor(threads) as pool:
        for part in _parts(len(pictures)):
            for index, rows in zip(part, pool.map(sums, part), strict=True):
                counts = resampling(units[index], replicates)[:, None]
                for name, row in zip(methods, rows, strict=True):
                    totals[name] += counts * row
            done(part.stop)
    found = {name: measures_of(total) for name, total in totals.items()}
    return {name: _kept(values, OF_TRUTH if methods[name] is None else MEASURES) for name, values in found.items()}


def intervals(found: Replicates, against: Replicates | None = None) -> dict[str, Interval]:
    """Each measure with its 95 % interval; `against` another way, the paired difference."""
    return {name: interval(values - against[name] if against else values) for name, values in found.items()}


def pictured(
    methods: Mapping[str, Predict], pictures: Iterable[NDArray[np.uint8]], area: int = NETWORK_AREA
) -> list[list[NDArray[np.uint8]]]:
    """Rows of a sheet: each picture's truth, then what each way makes of it."""
    rows = []
    for picture in pictures:
        tile = resized(picture, area)
        lightness = rgb_to_lab(tile.astype(np.float32) / 255)[..., 0]
        rows.append([tile, *(shown(lightness, coloured(predict, lightness)) for predict in methods.values())])
    return rows


def _kept(values: Replicates, names: Container[str]) -> Replicates:
    return {name: value for name, value in values.items() if name in names}


def _parts(count: int) -> Iterable[range]:
    starts = range(0, count, _AT_A_TIME)
    return (range(i, min(i + _AT_A_TIME, count)) for i in starts)


def _right_class(judge: Judge | None, truth: Truth, index: int) -> int | None:
    if judge is None:
        return None
    return judge.classify(truth.rgb) if judge.labels is None else judge.labels[index]


def _hit(judge: Judge | None, truth: Truth, ab: Floats, right: int | None) -> bool | None:
    if judge is None or right is None:
        return None
    return judge.classify(displayed(np.dstack([truth.lab[..., 0], ab]))) == right
