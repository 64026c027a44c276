"""`reelcolor train`: what it prints and writes, how it stops, and one clear line for whatever goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from pictures import scene

from jobs.training_cli import train
from model.weights import load_model

RECIPE = """
[network]
name = "unet"
widths = [16, 16, 16, 16, 16]
encoder = [0, 0, 0, 0]
decoder = [0, 0, 0]

[data]
short-edge = 64

[training]
epochs = 2
stages = [{ begin = 0.0, size = 32, batch = 8 }]
"""


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(24):
        cv2.imwrite(str(folder / f"{seed}.png"), scene(seed, 96, 128)[..., ::-1])
    return folder


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(train, [str(a) for a in arguments])


def failed(*arguments: Any) -> str:
    """The one line that a command fails with."""
    result = run(*arguments)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert lines[0] == result.stderr.splitlines()[-1]
    return lines[0]


def test_it_trains_and_says_what_came_of_it(tmp_path: Path, recipe: Path, photos: Path) -> None:
    result = run(recipe, "--data", photos, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made["model"] == str(tmp_path / "out" / "mine.safetensors")
    assert made["samples"] >= 2 * 19
    assert 0 < made["metrics"]["auc"] < 100
    assert "24 pictures" in result.stderr
    assert "held-out loss" in result.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"data.json", "data.png", "metrics.csv", "loss.png", "last.safetensors", "best.safetensors"} <= names
    assert json.loads((tmp_path / "out" / "data.json").read_text())["total"]["pictures"] == 24
    again = failed(recipe, "--data", photos, "-o", tmp_path / "out")
    assert "has a run already; --resume goes on with it" in again
    longer = run(recipe, "--data", photos, "-o", tmp_path / "out", "--resume", "--epochs", 3)
    assert longer.exit_code == 0
    assert "steps: " in longer.stdout
    base = tmp_path / "out" / "mine.safetensors"
    tuned = run(recipe, "--data", photos, "-o", tmp_path / "tuned", "--base", base, "--minutes", 0.01, "--json")
    assert tuned.exit_code == 0, tuned.output
    training = json.loads(load_model(json.loads(tuned.stdout)["model"]).metadata["training"])
    assert training["recipe"]["training"]["minutes"] == 0.01
    assert training["base"]["name"] == "mine"


def test_ctrl_c_keeps_the_best_and_says_how_to_go_on(tmp_path: Path, recipe: Path, photos: Path) -> None:
    out = tmp_path / "out"
    arguments = [str(recipe), "--data", str(photos), "-o", str(out), "--epochs", "100000"]
    code = "from jobs.training_cli import train; train()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"the best so far is {out}/best.safetensors; --resume goes on" in stderr
    assert "Traceback" not in stderr
    assert len(load_model(str(out / "best.safetensors")).bins) == 313
    assert (out / "last.safetensors").exists()


def test_bad_input_is_one_line(tmp_path: Path, recipe: Path, photos: Path) -> None:
    out = tmp_path / "out"
    assert "no such key training.epoch (did you mean 'epochs'?)" in failed(
        _changed(recipe, "epochs = 2", "epoch = 2"), "--data", photos, "-o", out
    )
    assert "no recipe 'underwatr' (did you mean 'underwater'?)" in failed("underwatr", "--data", photos, "-o", out)
    assert "names no pictures; add --data" in failed(recipe, "-o", out)
    assert "either minutes or epochs" in failed(recipe, "--data", photos, "-o", out, "--minutes", 1, "--epochs", 1)
    assert str(tmp_path / "none") in failed(recipe, "--data", tmp_path / "none", "-o", out)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\0" * 100)
    assert "broken.safetensors: not a complete safetensors file" in failed(
        recipe, "--data", photos, "-o", out, "--base", broken
    )
    assert "cannot be the base" in failed(recipe, "--data", photos, "-o", out, "--base", "default")
    assert not (out / "last.safetensors").exists()


@pytest.mark.parametrize(("count", "grey"), [(0, False), (1, False), (5, True)])
def test_data_that_cannot_be_learnt_from(tmp_path: Path, recipe: Path, count: int, grey: bool) -> None:
    """An empty folder, one picture, all grey."""
    folder = tmp_path / "few"
    folder.mkdir()
    for seed in range(count):
        picture = scene(seed, 96, 128)[..., ::-1]
        shown = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2) if grey else picture
        cv2.imwrite(str(folder / f"{seed}.png"), shown.astype(np.uint8))
    message = failed(recipe, "--data", folder, "-o", tmp_path / "out")
    assert "few" in message
    assert ("grey" if grey else "picture") in message


def _changed(recipe: Path, old: str, new: str) -> Path:
    assert old in RECIPE
    other = recipe.with_name("changed.toml")
    other.write_text(RECIPE.replace(old, new))
    return other
