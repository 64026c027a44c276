"""INT8 on the CPU: with ranges from pictures, and with those shipped, against PyTorch and on photographs never seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage import color, data, transform

from model.engines import open_engine, prove_engine
from model.engines.golden import golden_frames, reference
from model.engines.openvino import OpenVINOEngine, has_bf16
from model.engines.ranges import keep_ranges, measured, ranges_of
from model.engines.selftest import check_on, differences
from model.weights import Model, load_model
from pipeline.errors import EngineError
from pipeline.infer import network_sizes

pytestmark = pytest.mark.usefixtures("cache")


def photographs(h: int, w: int) -> np.ndarray:
    """L* (4, 1, h, w) of photographs that neither training nor calibration has seen."""
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    rows = [color.rgb2lab(transform.resize(p, (h, w), anti_aliasing=True))[..., 0] for p in pictures]
    return np.stack(rows).astype(np.float32)[:, None]


def test_int8_is_made_from_pictures_kept_and_opened(model: Model, tmp_path: Path) -> None:
    pictures = np.concatenate([golden_frames(64, 96), golden_frames(64, 96)[..., ::-1]])
    keep_ranges(model, measured(model, pictures))
    expected = reference(model, 0.38, pictures)
    found = []
    for _ in range(2):
        with OpenVINOEngine(model, 0.38, 2, "int8") as engine:
            assert f"/int8-{ranges_of(model).digest}/" in engine.key
            found.append(engine(pictures))
    difference = differences(pictures, expected, found[0]).mean()
    assert difference > 0.005, "it does compute in 8 bits"
    assert differences(pictures, expected, 0 * expected).mean() > 10 * difference
    np.testing.assert_array_equal(found[1], found[0])
    (kept,) = (tmp_path / "reelcolor" / "openvino").glob("*.blob")
    before = kept.read_bytes()
    keep_ranges(model, measured(model, pictures / 2))
    with OpenVINOEngine(model, 0.38, 2, "int8") as engine:
        assert not np.array_equal(engine(pictures), found[0]), "what was compiled with other ranges is not used"
    assert kept.read_bytes() != before


def test_without_ranges_it_says_how_to_make_one(model: Model) -> None:
    with pytest.raises(EngineError, match=r"reelcolor compile tiny\.safetensors --precision int8 --calibrate"):
        open_engine(model, "openvino", precision="int8")


@pytest.mark.parametrize(("h", "w"), [(160, 224), (256, 160)])
def test_int8_is_near_the_network_on_photographs_that_its_ranges_were_not_measured_on(
    default: Model, h: int, w: int
) -> None:
    pictures = photographs(h, w)
    engine, verdicts = prove_engine(default, "openvino", precision="int8", sizes=[(h, w)])
    with engine:
        assert [(v.precision, v.problem) for v in verdicts] == [("int8", "")]
        assert check_on(engine, pictures, "photographs").problem == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "fast"])
@pytest.mark.parametrize("temperature", ["coldest", None])
def test_int8_passes_at_every_size_that_pictures_are_computed_at(name: str, temperature: str | None) -> None:
    model = load_model(name)
    t = ranges_of(model).coldest if temperature else None
    engine, verdicts = prove_engine(model, "openvino", t, precision="int8", sizes=network_sizes())
    with engine:
        assert [(v.precision, v.problem) for v in verdicts] == [("int8", "")] * 19


def test_ranges_that_were_not_tried_at_a_temperature_are_tested_at_every_size_where_asked_for(model: Model) -> None:
    pictures = np.concatenate([golden_frames(64, 96), golden_frames(64, 96)[..., ::-1]])
    found = measured(model, pictures)
    for coldest, temperature, tests in ((0.5, 0.49, 20), (0.5, 0.5, 1)):
        keep_ranges(model, replace(found, coldest=coldest))
        heard: list[str] = []
        engine, verdicts = prove_engine(
            model, "openvino", temperature, precision="int8", sizes=[(32, 64)], done=heard.append
        )
        engine.close()
        eight = [v for v in verdicts if v.precision == "int8"]
        assert [(v.height, v.width) for v in eight] == [(32, 64), *network_sizes()][:tests]
        assert len(heard) == len(verdicts)
        assert heard[0] == f"int8 at 32x64, 1 of {tests},"
        assert {(v.height, v.width) for v in verdicts if v.precision != "int8"} <= {(32, 64)}


def test_int8_obeys_another_temperature_than_its_ranges_were_measured_with(default: Model) -> None:
    engine, (verdict,) = prove_engine(default, "openvino", 1.0, precision="int8", sizes=[(64, 96)])
    with engine:
        assert (verdict.precision, verdict.problem) == ("int8", "")


@pytest.mark.parametrize(
    ("name", "temperature", "precision"), [("default", 0.3, "int8"), ("fast", 0.2, "int8"), ("default", 0.29, None)]
)
def test_int8_is_what_the_cpu_takes_by_itself_unless_it_is_cold(
    name: str, temperature: float | None, precision: str | None
) -> None:
    with open_engine(load_model(name), "openvino", temperature) as engine:
        assert engine.precision == (precision or ("bf16" if has_bf16() else "fp32"))


def test_a_model_without_ranges_is_not_taken_in_int8(model: Model) -> None:
    with open_engine(model, "openvino") as engine:
        assert engine.precision != "int8"


def test_a_picture_does_not_depend_on_its_batch_in_int8(default: Model) -> None:
    pictures = photographs(64, 96)
    with open_engine(default, "openvino", precision="int8") as engine:
        together = engine(pictures)
        np.testing.assert_array_equal(together, np.concatenate([engine(p[None]) for p in pictures]))
