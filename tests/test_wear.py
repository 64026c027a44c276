"""Old film: every kind of wear shows, in range, and JPEG's is that of a real coder."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from model import wear
from model.wear import age

COUNT = 400
GREY = torch.full((COUNT, 1, 48, 64), 50.0)


def worn(lightness: Tensor, seed: int = 0) -> Tensor:
    return age(lightness, torch.Generator().manual_seed(seed))


def share(pictures: Tensor) -> float:
    """Of a flag for each picture."""
    return pictures.float().mean().item()


def test_half_of_the_pictures_are_left_as_they_are_and_all_stay_in_range() -> None:
    lightness = torch.rand(COUNT, 1, 16, 24, generator=torch.Generator().manual_seed(1)) * 100
    found = worn(lightness)
    assert found.min() >= 0
    assert found.max() <= 100
    same = (found == lightness).flatten(1).all(1)
    assert 0.4 < share(same) < 0.6
    assert torch.equal(found, worn(lightness))
    assert not torch.equal(found, worn(lightness, seed=1))


def test_exposure_fades_hardens_darkens_corners_and_adds_grain() -> None:
    ramp = torch.linspace(0, 100, 64).expand(COUNT, 1, 48, 64)
    found = worn(ramp)
    found = found[(found != ramp).flatten(1).any(1)]
    middle = found[..., 20:28, :].mean(2)[:, 0]
    contrast = (middle[:, 58:].mean(1) - middle[:, :6].mean(1)) / 90
    assert share(contrast < 0.8) > 0.2
    assert share(contrast > 0.98) > 0.05
    grain = (found[..., 1:, :] - found[..., :-1, :]).flatten(1).std(1)
    assert share(grain > 2) > 0.3
    grey = worn(GREY)[:, 0]
    corners = (grey[:, :4, :4].mean((1, 2)) + grey[:, -4:, -4:].mean((1, 2))) / 2
    assert share(grey[:, 20:28, 28:36].mean((1, 2)) - corners > 6) > 0.04


def test_scratches_stand_upright() -> None:
    columns, rows = worn(GREY)[:, 0].mean(1), worn(GREY)[:, 0].mean(2)
    upright, level = (lines.diff().abs().amax(1) > 5 for lines in (columns, rows))
    assert share(upright) > 0.03
    assert share(upright) > 3 * share(level)


def test_dust_is_small_and_strong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wear, "_SCRATCHES", 0)
    found = worn(GREY).flatten(1)
    far = (found - found.median(1, keepdim=True).values).abs() > 30
    dusty = far.any(1)
    assert 0.03 < share(dusty) < 0.3
    assert far[dusty].float().mean() < 0.05


@pytest.mark.parametrize("quality", [50, 10])
def test_jpeg_is_what_a_coder_makes(quality: int) -> None:
    smooth = np.random.default_rng(0).integers(0, 256, (12, 16), np.uint8)
    picture = cv2.resize(smooth, (64, 48), interpolation=cv2.INTER_CUBIC)
    coded = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)
    coarseness = torch.full((1, 1, 1, 1), {50: 1.0, 10: 5.0}[quality])
    found = wear._jpeg(torch.from_numpy(picture)[None, None] / 255, coarseness)[0, 0].clamp(0, 1).numpy() * 255
    lost = np.abs(picture.astype(float) - coded).mean()
    assert np.abs(found - coded).mean() < 0.15 * lost
