"""How vivid a packed network is to be: T and the share of the rebalancing that is taken back, chosen by measuring.

The held-out photographs are halved by hash. One half chooses; the other, which had no part in that, says how good the
outcome is, and whether it is better than what is shipped.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from model.baselines import Pictures
from model.bins import annealed_mean, prior_shift
from model.data import Photos
from model.evaluate import Replicates, truth_of
from model.measures import ClassWeights, Interval, credit, interval
from model.split import HELD_OUT
from model.tally import Floats, Truth, displayed
from model.transfer import rebalancing_of
from model.weights import Model, save_model
from pipeline.quality import colourfulness

RAW_LEAST, REBALANCED_LEAST = -1.0, 5.0  # AuC above that of grey, in points
COLOURFUL = 0.25  # a model's colourfulness may be so far from the truth's, as a share of it
_MARGIN = 0.03  # what the half that chooses keeps of that, as the other half will differ
_STEP = 2  # every second pixel each way is measured
_SIDE = 192  # pixels² a picture is measured at


@dataclass(frozen=True)
class Setting:
    """temperature: of the annealed mean. taken_back: share of the rebalancing, see `bins.prior_shift`."""

    temperature: float
    taken_back: float


SETTINGS = tuple(Setting(t, s) for t in (0.38, 0.5, 0.7) for s in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3))


@dataclass(frozen=True)
class Score:
    """Raw and rebalanced AuC less those of grey, in points; colourfulness as a share of the truth's."""

    raw: float
    rebalanced: float
    colourful: float

    def holds(self, margin: float = 0.0) -> bool:
        """Whether it is fit to be shipped, with so much of the tolerance of colourfulness to spare."""
        within = abs(self.colourful - 1) <= COLOURFUL - margin
        return self.raw >= RAW_LEAST and self.rebalanced >= REBALANCED_LEAST and within


def halves(photos: Photos, held_out: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of photographs that are held out, those to choose by and those to report on: by hash of the group's name."""
    of_hash = [hashlib.sha256(photos.groups[i].encode()).digest()[:8] for i in held_out]
    chooses = np.array([int.from_bytes(h, "big") // HELD_OUT % 2 == 0 for h in of_hash], bool)
    return held_out[chooses], held_out[~chooses]


def sweep(model: Model, settings: Sequence[Setting], pictures: Pictures, weights: ClassWeights) -> dict[Setting, Score]:
    """The scores of a classifying network for each setting; it runs once on every picture, in this thread."""
    trained, packed = rebalancing_of(model)
    shifts = [torch.from_numpy(prior_shift(trained, s.taken_back - packed)).float()[:, None, None] for s in settings]
    centers = torch.from_numpy(model.bins.centers)
    totals = np.zeros((len(settings) + 2, 5))
    for index in range(len(pictures)):
        truth = truth_of(pictures[index], weights, _SIDE**2)
        lightness, ab = truth.lab[..., 0], truth.lab[..., 1:]
        with torch.inference_mode():
            logits = model.network(torch.from_numpy(np.ascontiguousarray(lightness))[None, None])
            found = [
                annealed_mean(logits + shift, centers, setting.temperature)[0].permute(1, 2, 0).numpy()
                for shift, setting in zip(shifts, settings, strict=True)
            ]
        ways = [cv2.resize(each, lightness.shape[::-1], interpolation=cv2.INTER_LINEAR) for each in found]
        totals += [_sums(truth, np.asarray(way, np.float32)) for way in (np.zeros_like(ab), ab, *ways)]
    raw, rebalanced = (100 * totals[:, at] / totals[:, at + 1] for at in (0, 2))
    colourful = totals[:, 4] / totals[1, 4]
    scores = np.stack([raw - raw[0], rebalanced - rebalanced[0], colourful], axis=1)[2:]
    return {setting: Score(*map(float, row)) for setting, row in zip(settings, scores, strict=True)}


def choose(scores: Mapping[Setting, Score]) -> Setting:
    """The setting of the highest raw AuC, so the calmest, of those that hold; the most colourful where none does."""
    fit = [setting for setting, score in scores.items() if score.holds(_MARGIN)]
    if not fit:
        return min(scores, key=lambda setting: abs(scores[setting].colourful - 1))
    return max(fit, key=lambda setting: scores[setting].raw)


def better(candidate: Replicates, shipped: Replicates, gray: Replicates, truth: Replicates) -> tuple[bool, Interval]:
    """Whether a candidate is to replace what is shipped, and how much higher its rebalanced AuC is, with its interval.

    All four are of the same photographs, see `model.evaluate.compare`. It must be fit to be shipped, and either what
    is shipped is not, or the whole interval lies above 0.
    """
    ahead = interval(candidate["auc_rebalanced"] - shipped["auc_rebalanced"])
    surely = ahead.low is not None and ahead.low > 0
    return score_of(candidate, gray, truth).holds() and (surely or not score_of(shipped, gray, truth).holds()), ahead


def score_of(way: Replicates, gray: Replicates, truth: Replicates) -> Score:
    """The score of what `model.evaluate.compare` measured."""
    raw, rebalanced = (float(way[name][0] - gray[name][0]) for name in ("auc", "auc_rebalanced"))
    return Score(raw, rebalanced, float(way["colourfulness"][0] / truth["colourfulness"][0]))


def repack(model: Model, setting: Setting, path: Path, metrics: Mapping[str, Any]) -> None:
    """Write the model with another setting, which its package then says it has; raises StorageError."""
    trained, packed = rebalancing_of(model)
    network = copy.deepcopy(model.network)
    assert network.head.bias is not None
    with torch.no_grad():
        network.head.bias.add_(torch.from_numpy(prior_shift(trained, setting.taken_back - packed)).float())
    training = json.loads(model.metadata["training"])
    training["recipe"]["package"] = {"temperature": setting.temperature, "taken_back": setting.taken_back}
    save_model(
        path,
        network=network,
        bins=model.bins,
        prior=model.prior,
        temperature=setting.temperature,
        training=training,
        metrics=metrics,
    )


def _sums(truth: Truth, ab: Floats) -> list[float]:
    """Credit, pixels, weighted credit, weight and colourfulness of colours ab (h, w, 2)."""
    lab, ab, weight = (values[::_STEP, ::_STEP] for values in (truth.lab, ab, truth.weight))
    right = credit(np.hypot(*np.moveaxis(ab - lab[..., 1:], -1, 0)))
    colour = colourfulness(displayed(np.dstack([lab[..., 0], ab])))
    return [right.sum(), right.size, (right * weight).sum(), weight.sum(), colour]
