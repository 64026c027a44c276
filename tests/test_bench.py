"""The bench: shares and ratios come from the measured limits, and a tiny one from end to end."""

from __future__ import annotations

import errno
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import openvino
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from PIL import Image

from jobs import bench as jobs_bench
from jobs.bench import Request, Told, bench, engine_document, video_document
from jobs.bench_report import in_words
from jobs.cli import main
from jobs.film import Film, decode, encode, make_film, transcode
from model import bench as model_bench
from model.bench import Bench, Run, bench_model, cpu_bench
from model.engines import has_tensorrt
from model.engines.golden import golden_frames
from model.rounds import Case, in_rounds, median, ratio, timed
from model.weights import Model
from pipeline.errors import EngineError

SMALL = Film(0.4, 64, 48)


class FakeClock:
    """Time that passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float) -> float:
        self.now += seconds
        return seconds


def test_cases_take_turns_for_as_long_as_there_is_time() -> None:
    clock, order = FakeClock(), []

    def case(name: str, seconds: float) -> Case:
        def run() -> float:
            order.append(name)
            return clock.takes(seconds)

        return Case(name, 10, run)

    rounds = in_rounds([case("a", 1.0), case("b", 4.0)], 17, clock)
    assert order == ["a", "b"] * 3  # a fourth round would end at 20 s
    assert rounds == [{"a": 10.0, "b": 2.5}] * 3
    assert len(in_rounds([case("a", 1.0)], 0, clock)) == 1


def test_no_round_is_begun_that_would_be_late_by_the_longest_so_far() -> None:
    clock, lengths = FakeClock(), iter([1.0, 6.0, 2.0, 2.0])
    assert len(in_rounds([Case("a", 1, lambda: clock.takes(next(lengths)))], 12, clock)) == 2


@pytest.mark.parametrize(
    ("seconds", "rounds", "late"), [(100.0, 3, False), (97.0, 2, False), (25.0, 1, True), (0.0, 1, True)]
)
def test_the_whole_bench_ends_in_time_or_after_one_round_which_is_said_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Model, seconds: float, rounds: int, late: bool
) -> None:
    """What prepares it counts, too."""
    clock, said, measured = FakeClock(), [], []

    def takes(seconds: float) -> None:
        clock.takes(seconds)
        measured.append(seconds)

    def prepared(*_: object) -> Bench:
        clock.takes(8.0)
        cases = [Case("fp32", 1, timed(lambda: takes(10.0), clock), 10.0)]
        cases += [Case(name, 1, timed(lambda: takes(10.0), clock), 10.0) for name in ("copy", "limit")]
        return Bench(cases, [Run("fp32", 1, "key", "fp32", "fp32")], {"fp32": "limit"})

    class Ear(Told):
        def say(self, line: str) -> None:
            assert not measured, "it is said before"
            said.append(line)

    usual = in_rounds
    monkeypatch.setattr(jobs_bench.time, "perf_counter", clock)
    monkeypatch.setattr(model_bench, "bench_model", lambda _name: model)
    monkeypatch.setattr(model_bench, "cpu_bench", prepared)
    monkeypatch.setattr("model.rounds.in_rounds", lambda cases, left, done: usual(cases, left, clock, done))
    document = bench(Request(tmp_path, device="cpu", only="engines", seconds=seconds, size=64), Ear())
    assert (document["rounds"], document["seconds"]) == (rounds, 8 + 30 * rounds)
    assert document["seconds"] <= max(seconds, 8 + 30)
    assert said == ([f"engines: measured once, which takes about 30 s; {max(0, seconds - 8):.0f} s are left"] * late)
    assert f"{document['seconds']:.0f} s of {seconds:.0f} s" in in_words(document)


def test_quick_cases_are_repeated_within_their_turn() -> None:
    clock = FakeClock()
    rounds = in_rounds([Case("a", 1, timed(lambda: clock.takes(0.01), clock))], 0, clock)
    assert rounds[0]["a"] == pytest.approx(100)
    assert clock.now > 0.3


def test_ratios_are_of_the_same_round() -> None:
    rounds = [{"a": 10.0, "b": 20.0}, {"a": 1.0, "b": 2.0}, {"a": 4.0, "b": 40.0}]  # the machine was busy in the second
    assert (median(rounds, "a"), ratio(rounds, "a", "b")) == (4.0, 0.5)


def test_shares_are_of_the_measured_limit() -> None:
    cases = [Case(n, 1, lambda: 1.0) for n in ("fp32", "fp32 bare", "int8", "int8 bare", "limit", "copy", "OpenCV DNN")]
    runs = [Run("fp32", 16, "e/f32", "fp32", "fp32 bare"), Run("int8", 16, "e/i8", "int8", "int8 bare")]
    runs.append(Run("int8", 16, "f/i8", "int8", "int8 bare", "another"))  # without float32 to compare with
    found = Bench(cases, runs, {"fp32": "limit", "int8": "limit"}, ["bf16: none"])
    rates = {
        "fp32": 10.0,
        "fp32 bare": 8.0,
        "int8": 30.0,
        "int8 bare": 30.0,
        "limit": 100e9,
        "copy": 5e9,
        "OpenCV DNN": 2.0,
    }
    document = engine_document(found, [rates], flops=2_000_000_000)
    one, other, lonely = document["engines"]
    assert (lonely["engine"], lonely["of_fp32"]) == ("another", None)
    assert (one["of_limit"], one["of_bare"], one["of_fp32"]) == pytest.approx((0.2, 1.25, 1.0))
    assert (other["of_limit"], other["of_bare"], other["of_fp32"]) == pytest.approx((0.6, 1.0, 3.0))  # at that batch
    assert document["opencv_dnn"] == {"fps": 2.0, "engine_over_it": 5.0}
    assert document["limits"] == {"gflops": {"fp32": 100.0, "int8": 100.0}, "copy_gb_per_s": 5.0}
    assert document["left_out"] == ["bf16: none"]


def test_the_ratio_is_time_by_time() -> None:
    rates = {"decode": 200.0, "encode": 40.0, "transcode": 30.0, "colorize": 25.0}
    document = video_document(SMALL, [rates])
    assert document["ratio"] == pytest.approx(1.2)
    assert (document["decode_fps"], document["film"]["frames"]) == (200.0, 10)


def test_the_bare_loop_and_the_engine_compute_the_same_graph(model: Model) -> None:
    with ExitStack() as stack:
        found = cpu_bench(model, 64, 1, stack)
        assert {run.precision for run in found.runs} >= {"fp32"}
        assert all(case.run() > 0 for case in found.cases)
        names = {case.name for case in found.cases}
        assert names >= {run.case for run in found.runs} | {run.bare for run in found.runs} | {"copy"}
        assert set(found.ceilings) == {run.precision for run in found.runs}


def test_opencv_is_given_picture_and_temperature(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a graph that OpenCV runs: lightness times temperature."""
    inputs = [("lightness", [1, 1, 32, 32]), ("temperature", [1, 1, 1, 1])]
    made = helper.make_graph(
        [helper.make_node("Mul", ["lightness", "temperature"], ["ab"])],
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("ab", TensorProto.FLOAT, [1, 1, 32, 32])],
    )
    graph = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    monkeypatch.setattr("model.exported.cached_onnx", lambda _: graph.SerializeToString())
    picture = golden_frames(32, 32)[:1]
    np.testing.assert_allclose(model_bench._opencv(model, picture, 1)(), picture * 0.38, rtol=1e-6)


def test_a_precision_that_cannot_be_had_is_left_out_with_the_reason(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("the ranges are of another network")

    monkeypatch.setattr(model_bench, "_ranges", refuse)
    monkeypatch.setattr(model_bench, "_COPIED", 1 << 10)
    monkeypatch.setattr(model_bench, "_SIDE", 64)
    with ExitStack() as stack:
        found = cpu_bench(model, 64, 1, stack)
    assert "int8: the ranges are of another network" in found.left_out
    assert {run.precision for run in found.runs} == set(found.ceilings) >= {"fp32"}
    assert "int8" not in found.ceilings


def test_a_networks_name_is_that_network_with_random_weights() -> None:
    one, again = bench_model("unet"), bench_model("unet")
    assert one.sha256 == again.sha256 != bench_model("default").sha256
    assert one.metadata["network"] == "unet"
    assert np.array_equal(one.network.head.weight.numpy(), again.network.head.weight.numpy())


def test_encode_only_and_the_transcode_do_the_same_work(tmp_path: Path) -> None:
    source = tmp_path / "film.mp4"
    make_film(source, SMALL)
    frames = decode(source, keep=100)
    assert len(frames) == SMALL.frames == 10
    encode(frames, source, tmp_path / "encoded.mp4")
    assert transcode(source, tmp_path / "plain.mp4") > 0
    one, other = (decode(tmp_path / name, keep=100) for name in ("encoded.mp4", "plain.mp4"))
    for mine, theirs in zip(one, other, strict=True):
        assert np.array_equal(mine.to_ndarray(), theirs.to_ndarray())


def test_a_tiny_bench_from_end_to_end(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_bench, "bench_model", lambda _name: model)
    monkeypatch.setattr(model_bench, "_SIDE", 64)
    monkeypatch.setattr(model_bench, "_COPIED", 1 << 16)
    request = Request(tmp_path / "out", device="cpu", seconds=0, size=64, film=SMALL)
    document = bench(request)
    assert json.loads((tmp_path / "out/bench.json").read_text()) == json.loads(json.dumps(document))
    assert {"fps", "bare_fps", "of_bare", "of_limit", "of_fp32", "key"} <= document["engines"][0].keys()
    assert document["limits"]["gflops"]["fp32"] > 0
    assert document["video"]["colorize_fps"] > 0
    with Image.open(tmp_path / "out/bench.png") as picture:
        assert picture.size > (600, 300)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
    words = in_words(document)
    assert "of the limit" in words
    assert "times the plain transcode" in words
    assert words.count("one round") == 2


def test_an_interrupt_waits_for_what_openvino_has_begun(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that outlives Python takes the process down with it."""
    begun: list[openvino.InferRequest] = []
    start = openvino.InferRequest.start_async

    def interrupted(self: openvino.InferRequest, *arguments: object, **settings: object) -> None:
        if len(begun) == 2:
            raise KeyboardInterrupt
        begun.append(self)
        start(self, *arguments, **settings)

    bare = model_bench._bare(model, "fp32", 64, 2)
    monkeypatch.setattr(openvino.InferRequest, "start_async", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bare(np.zeros((5, 1, 64, 64), np.float32))
    assert [request.wait_for(0) for request in begun] == [True, True]


def test_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["bench", "--model", "none-such", "--only", "engines", "-o", str(tmp_path / "o")])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "none-such" in result.output
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineError, match="finds no NVIDIA GPU"):
        jobs_bench.bench(Request(tmp_path / "o", device="cuda", only="engines"))
    assert not (tmp_path / "o").exists()


def test_a_folder_that_cannot_be_written_is_one_line_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_bench, "_engines", lambda *_: pytest.fail("measures"))
    (tmp_path / "file").write_text("in the way")
    for place, words in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "o", "Not a directory")):
        result = CliRunner().invoke(main, ["bench", "--only", "engines", "-o", str(place)])
        assert result.exit_code == 1
        assert " ".join(result.output.split()) == f"Error: {place}: cannot be written: {words}"


def test_no_room_for_the_film_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs_bench, "make_film", full)
    result = CliRunner().invoke(main, ["bench", "--only", "video", "-o", str(tmp_path / "o")])
    assert result.exit_code == 1
    assert " ".join(result.output.split()).startswith(f"Error: {tempfile.gettempdir()}: no space left")
    assert not (tmp_path / "o").exists()


@pytest.mark.gpu
def test_the_bench_of_a_gpu(tmp_path: Path) -> None:
    document = bench(Request(tmp_path, model="unet", device="cuda", only="engines", seconds=0, size=64))
    of_torch = [e for e in document["engines"] if e["engine"] == "PyTorch"]
    assert {e["precision"] for e in of_torch} == {"fp32", "fp16", "bf16"}
    assert all(0 < e["of_limit"] < 1 for e in of_torch)
    assert len(document["engines"]) > len(of_torch) or not has_tensorrt()
