"""What 8 bits are to span: measured against NumPy, kept, shipped, refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.engines import ranges as module
from model.engines.ranges import SUFFIX, Ranges, keep_ranges, measured, on_trial, ranges_of
from model.registry import PRETRAINED
from model.weights import Model, load_model
from pipeline.errors import EngineError

pytestmark = pytest.mark.usefixtures("cache")


def test_one_value_in_ten_thousand_lies_outside_on_either_side_of_ten_pictures(model: Model) -> None:
    rng = np.random.default_rng(0)
    pictures = (50 + 10 * rng.standard_normal((25, 1, 64, 96))).clip(0, 100).astype(np.float32)
    pictures[20:] = 50 + 2 * (pictures[20:] - 50)  # the last five have the widest range
    found = measured(model, pictures)
    given = (pictures - 50) / 100  # what the first convolution of the network is given
    sides = [np.sort(given[start : start + 10].ravel()) for start in (0, 10, 20)]
    outside = [int(len(each) * 1e-4) for each in sides]
    assert outside == [6, 6, 3]
    low, high = found.of["stem.0"]
    assert low == pytest.approx(min(each[k] for each, k in zip(sides, outside, strict=True)), rel=1e-3)
    assert high == pytest.approx(max(each[-1 - k] for each, k in zip(sides, outside, strict=True)), rel=1e-3)
    with torch.inference_mode():
        after = model.network.stem(torch.from_numpy(given[20:])).flatten().sort().values
    low, high = found.of["encoder.0.0.0"]
    assert low == 0, "after a ReLU"
    assert high >= float(after[-1 - int(len(after) * 1e-4)]) * 0.999


def test_all_convolutions_are_watched_and_no_longer_afterwards(model: Model) -> None:
    found = measured(model, np.full((3, 1, 32, 32), 50, np.float32))
    names = [name for name, each in model.network.named_modules() if isinstance(each, torch.nn.Conv2d)]
    assert sorted(found.of) == sorted(names)
    assert all(low <= 0 <= high for low, high in found.of.values())
    assert not any(each._forward_pre_hooks for each in model.network.modules())


def test_a_file_says_all_and_gives_it_back() -> None:
    ranges = Ranges("ab" * 32, {"stem.0": (-0.5, 0.5), "head": (0.0, 8.919)})
    read = json.loads(ranges.to_json())
    assert read == {"weights": "ab" * 32, "ranges": {"stem.0": [-0.5, 0.5], "head": [0.0, 8.919]}}
    wider = dataclasses.replace(ranges, of=ranges.of | {"head": (0.0, 9.0)})
    assert ranges.digest != wider.digest


@pytest.mark.parametrize("name", ["default", "fast"])
def test_the_ranges_shipped_are_of_the_weights_shipped(name: str) -> None:
    """Where this fails after a change of the weights: scripts/calibrate."""
    model = load_model(name)
    names = {each for each, module in model.network.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert set(ranges_of(model).of) == names


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: None, "is of the weights 7777777777.., not of {sha}; make them with reelcolor compile default"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "is damaged; make them"),
        (lambda path: path.write_bytes(b"\xff" * 1000), "is damaged; make them"),
        (lambda path: path.write_text('{"weights": 7, "ranges": {"head": 8}}'), "is damaged; make them"),
        (lambda path: path.write_text('{"weights": "7", "ranges": [1, 2]}'), "is damaged; make them"),
        (lambda path: path.unlink(), "default: no ranges for 8 bits on this machine; make them"),
    ],
    ids=["of other weights", "truncated", "garbage", "no pair", "a list", "gone"],
)
def test_shipped_ranges_that_do_not_fit_are_refused_in_one_line(
    default: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / f"default{SUFFIX}"
    text = (PRETRAINED / path.name).read_text("utf-8")
    path.write_text(text.replace(default.sha256, "7" * 64), "utf-8")
    change(path)
    monkeypatch.setattr(module, "PRETRAINED", tmp_path)
    with pytest.raises(EngineError, match=words.format(sha=default.sha256[:12])) as e:
        ranges_of(default)
    assert "\n" not in str(e.value)


def test_ranges_measured_here_come_first_and_damaged_ones_are_left_aside(
    default: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = ranges_of(default)
    here = dataclasses.replace(shipped, of=dict.fromkeys(shipped.of, (-1.0, 1.0)))
    keep_ranges(default, here)
    assert ranges_of(default) == here
    (path,) = (tmp_path / "reelcolor").glob("*.ranges")
    path.write_bytes(path.read_bytes()[:-1])
    assert ranges_of(default) == shipped
    assert "is truncated or was changed; it is left aside" in caplog.text


def test_ranges_on_trial_count_meanwhile_and_stay_if_accepted(default: Model) -> None:
    shipped = ranges_of(default)
    first, second = (dataclasses.replace(shipped, of=dict.fromkeys(shipped.of, (-w, w))) for w in (1.0, 2.0))
    with contextlib.suppress(EngineError), on_trial(default, first):
        assert ranges_of(default) == first
        raise EngineError("not proven")
    assert ranges_of(default) == shipped
    with on_trial(default, first) as accept:
        accept()
    assert ranges_of(default) == first
    with on_trial(default, second):
        assert ranges_of(default) == second
    assert ranges_of(default) == first, "a trial that fails costs nothing"
