"""What 8 bits are to span: measured against NumPy, kept, shipped, refused."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.engines import prove_engine
from model.engines import ranges as module
from model.engines.ranges import SUFFIX, Ranges, find_ranges, keep_ranges, measured, ranges_of
from model.registry import PRETRAINED
from model.registry import SUFFIX as PACKAGE
from model.sealed import keep
from model.weights import Model, load_model
from pipeline.errors import EngineError, StorageError

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


def test_a_file_says_all_and_gives_it_back(model: Model) -> None:
    ranges = Ranges(model.sha256, {"stem.0": (-0.5, 0.5), "head": (0.0, 8.919)}, 0.38)
    read = json.loads(ranges.to_json())
    assert read["ranges"] == {"stem.0": [-0.5, 0.5], "head": [0.0, 8.919]}
    assert (read["weights"], read["coldest"]) == (model.sha256, 0.38)
    keep_ranges(model, ranges)
    assert find_ranges(model) == (ranges, ())
    wider = dataclasses.replace(ranges, of=ranges.of | {"head": (0.0, 9.0)})
    assert len({ranges.digest, wider.digest, ranges.check, wider.check}) == 4
    assert dataclasses.replace(ranges, coldest=None).digest == ranges.digest, "no colour depends on it"


@pytest.mark.parametrize("name", ["default", "fast"])
def test_the_ranges_shipped_are_of_the_weights_shipped(name: str) -> None:
    """Where this fails after a change of the weights: scripts/calibrate."""
    model = load_model(name)
    names = {each for each, module in model.network.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert set(ranges_of(model).of) == names


REMEDY = "; INT8 is not used; measure them with reelcolor compile default --precision int8 --calibrate PHOTOGRAPHS"


def edited(old: str, new: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "of other weights": (
        lambda path: path.write_bytes(Ranges("7" * 64, {}).to_json()),
        "is of the weights 777777777777, not of {sha}",
    ),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:500]), "is damaged"),
    "tampered": (edited("[0.0, 1", "[0.0, 3"), "was changed"),
    "garbage": (lambda path: path.write_bytes(b"\xff" * 1000), "is damaged"),
    "no pair": (edited("[-0.5, 0.5]", "8"), "is damaged"),
    "a list": (lambda path: path.write_text('{"weights": "7", "check": "8", "ranges": [1, 2]}'), "is damaged"),
    "no check": (edited("check", "cheque"), "is damaged"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read (Is a directory)"),
}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def shipped_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped ranges of the default in a folder of the test's own, in place of those that are shipped."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name in (f"default{SUFFIX}", f"default{PACKAGE}"):
        shutil.copy(PRETRAINED / name, folder / name)
    monkeypatch.setattr(module, "PRETRAINED", folder)
    return folder / f"default{SUFFIX}"


@pytest.mark.parametrize("damage", DAMAGES)
def test_shipped_ranges_that_are_unfit_are_said_once_and_refused_where_8_bits_are_asked_for(
    default: Model, shipped_copy: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    change, words = DAMAGES[damage]
    change(shipped_copy)
    line = f"{shipped_copy}: {words.format(sha=default.sha256[:12])}{REMEDY}"
    assert find_ranges(default) == (None, (line,))
    with pytest.raises(EngineError) as e:
        prove_engine(default, "openvino", precision="int8", sizes=[(32, 32)])
    assert str(e.value) == line
    assert warnings(caplog) == []


def test_an_engine_without_8_bits_says_why(
    default: Model, shipped_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shipped_copy.write_bytes(shipped_copy.read_bytes()[:-20])
    for precision, said in (("fp32", 0), ("auto", 1)):
        engine, _ = prove_engine(default, "openvino", precision=precision, sizes=[(32, 32)])
        with engine:
            assert engine.precision != "int8"
            assert len(engine.notes) == said
            assert warnings(caplog) == list(engine.notes)
    assert warnings(caplog) == [f"{shipped_copy}: is damaged{REMEDY}"]


def test_no_ranges_at_all_are_nothing_to_speak_of_unless_asked_for(
    model: Model, default: Model, shipped_copy: Path
) -> None:
    assert find_ranges(model) == (None, ())
    with pytest.raises(EngineError, match=r"tiny: no ranges for 8 bits on this machine; .*compile tiny\.safetensors"):
        ranges_of(model)
    another = dataclasses.replace(default, sha256="8" * 64)
    assert find_ranges(another) == (None, ()), "those shipped are of another model of that name"
    shipped_copy.unlink()
    assert find_ranges(default) == (None, ())


def test_ranges_measured_here_come_first_and_those_shipped_stand_in_for_damaged_ones(
    default: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = ranges_of(default)
    here = dataclasses.replace(shipped, of=dict.fromkeys(shipped.of, (-1.0, 1.0)))
    keep_ranges(default, here)
    assert ranges_of(default) == here
    (path,) = (tmp_path / "reelcolor").glob("*.ranges")
    path.write_bytes(path.read_bytes()[:-1])
    engine, _ = prove_engine(default, "openvino", sizes=[(32, 32)])
    with engine:
        assert f"/int8-{shipped.digest}/" in engine.key
        (note,) = engine.notes
    assert note.startswith(f"{path}: is truncated or was changed; those shipped are used instead; measure them with ")
    assert warnings(caplog) == [note]


def test_ranges_of_a_form_before_are_made_anew_not_misread(default: Model, tmp_path: Path) -> None:
    old = {"weights": default.sha256, "form": "ranges"}
    keep(tmp_path / "reelcolor" / f"{default.sha256}.ranges", old, b"{}")
    found, (line,) = find_ranges(default)
    assert found == ranges_of(default)
    assert "is of form ranges, not ranges/2; those shipped are used instead" in line


def test_ranges_that_cannot_be_kept_are_an_error(model: Model, tmp_path: Path) -> None:
    (tmp_path / "reelcolor").write_text("no folder")
    with pytest.raises(StorageError, match="cannot be written"):
        keep_ranges(model, Ranges(model.sha256, {}))
