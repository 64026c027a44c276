"""The plan cache: built once, whoever asks, and never loaded where it is not the plan that is wanted."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from model.engines.plans import (
    Machine,
    PlanKey,
    cached_plan,
    plan_folder,
    timing_cache,
)
from model.sealed import UnfitError, keep, unsealed
from pipeline.errors import EngineError, OutOfMemoryError

HERE = Machine("11.4.0.106", "580.159.04", "NVIDIA H200", "9.0")
KEY = PlanKey("ab" * 32, "cd" * 32, 0.38, 16, 160, 224, "fp16", HERE)
PLAN = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return plan_folder()


class Compiler:
    """Counts what it builds."""

    def __init__(self, plan: bytes = PLAN) -> None:
        self.plan = plan
        self.built = 0

    def __call__(self) -> bytes:
        self.built += 1
        return self.plan


def fetch(compiler: Compiler, key: PlanKey = KEY) -> bytes:
    return cached_plan(key, compiler, bytes)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_plan_is_built_once_and_then_read(caplog: pytest.LogCaptureFixture) -> None:
    compiler = Compiler()
    assert [fetch(compiler) for _ in range(3)] == [PLAN] * 3
    assert compiler.built == 1
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights", "ef" * 32),
        ("temperature", 0.4),
        ("batch", 8),
        ("height", 192),
        ("width", 192),
        ("precision", "fp32"),
    ],
)
def test_another_plan_has_another_name(field: str, value: Any) -> None:
    other = dataclasses.replace(KEY, **{field: value})
    assert other.path != KEY.path
    compiler = Compiler()
    fetch(compiler)
    fetch(compiler, other)
    assert compiler.built == 2


@pytest.mark.parametrize(("field", "value"), [("gpu", "NVIDIA L4"), ("capability", "8.9")])
def test_another_gpu_has_another_name(field: str, value: str) -> None:
    other = dataclasses.replace(KEY, machine=dataclasses.replace(HERE, **{field: value}))
    assert other.path != KEY.path
    assert timing_cache(other.machine) != timing_cache(HERE)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("compiler", "11.5.0", "is of compiler 11.4.0.106, not 11.5.0"),
        ("driver", "590.1", "is of driver 580.159.04, not 590.1"),
    ],
)
def test_a_stale_plan_is_rebuilt_in_its_place_with_one_line_saying_why(
    field: str, value: str, words: str, caplog: pytest.LogCaptureFixture, cache: Path
) -> None:
    fetch(Compiler())
    updated = dataclasses.replace(KEY, machine=dataclasses.replace(HERE, **{field: value}))
    compiler = Compiler(b"newer")
    assert [fetch(compiler, updated) for _ in range(2)] == [b"newer"] * 2
    assert compiler.built == 1
    assert warnings(caplog) == [f"{KEY.path}: {words}; it is compiled anew"]
    assert len(list(cache.glob("*.plan"))) == 1


def test_a_plan_of_another_graph_is_rebuilt(caplog: pytest.LogCaptureFixture) -> None:
    fetch(Compiler())
    compiler = Compiler(b"newer")
    assert fetch(compiler, dataclasses.replace(KEY, graph="ef" * 32)) == b"newer"
    assert "is of graph" in warnings(caplog)[0]


def test_a_plan_brought_here_from_elsewhere_is_rebuilt(caplog: pytest.LogCaptureFixture) -> None:
    foreign = dataclasses.replace(KEY, machine=dataclasses.replace(HERE, gpu="NVIDIA L4", capability="8.9"))
    fetch(Compiler(b"foreign"), foreign)
    foreign.path.rename(KEY.path)
    assert fetch(Compiler()) == PLAN
    assert "is of capability 8.9, not 9.0, is of gpu NVIDIA L4, not NVIDIA H200" in warnings(caplog)[0]


@pytest.mark.parametrize("where", [0, 16, 17, 48, 49, 52, 53, 100, 200, -1])
def test_a_changed_byte_anywhere_is_noticed(where: int) -> None:
    fetch(Compiler())
    data = bytearray(KEY.path.read_bytes())
    data[where] ^= 1
    KEY.path.write_bytes(data)
    compiler = Compiler()
    assert fetch(compiler) == PLAN
    assert compiler.built == 1
    assert unsealed(KEY.path, KEY.header()) == PLAN


@pytest.mark.parametrize("length", [0, 5, 17, 30, 49, 51, 60, 400, 5000])
def test_a_truncated_plan_is_never_loaded(length: int) -> None:
    fetch(Compiler())
    KEY.path.write_bytes(KEY.path.read_bytes()[:length])
    loaded: list[bytes] = []
    cached_plan(KEY, Compiler(), loaded.append)
    assert loaded == [PLAN]


def test_bytes_added_at_the_end_are_noticed() -> None:
    keep(KEY.path, KEY.header(), PLAN)
    KEY.path.write_bytes(KEY.path.read_bytes() + b"x")
    with pytest.raises(UnfitError, match="truncated or was changed"):
        unsealed(KEY.path, KEY.header())


def test_a_folder_in_its_place_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    KEY.path.mkdir(parents=True)
    assert fetch(Compiler()) == PLAN
    assert "cannot be read" in warnings(caplog)[0]


def test_a_plan_that_the_runtime_refuses_is_rebuilt(caplog: pytest.LogCaptureFixture) -> None:
    fetch(Compiler(b"old"))

    def load(plan: bytes) -> bytes:
        if plan == b"old":
            raise EngineError("cannot be deserialised")
        return plan

    assert cached_plan(KEY, Compiler(b"new"), load) == b"new"
    assert "cannot be deserialised; it is compiled anew" in warnings(caplog)[0]
    assert unsealed(KEY.path, KEY.header()) == b"new"


def test_a_plan_that_fails_when_just_built_is_not_kept() -> None:
    def load(_: bytes) -> bytes:
        raise EngineError("returned NaN")

    compiler = Compiler()
    for built in (1, 2):
        with pytest.raises(EngineError, match="returned NaN"):
            cached_plan(KEY, compiler, load)
        assert compiler.built == built
    assert not KEY.path.exists()


def test_memory_running_out_does_not_cost_the_plan() -> None:
    fetch(Compiler())

    def load(_: bytes) -> bytes:
        raise OutOfMemoryError("no room")

    compiler = Compiler()
    with pytest.raises(OutOfMemoryError):
        cached_plan(KEY, compiler, load)
    assert compiler.built == 0
    assert fetch(compiler) == PLAN
    assert compiler.built == 0


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    compiler = Compiler()
    assert [fetch(compiler) for _ in range(2)] == [PLAN] * 2
    assert compiler.built == 2
    assert "plans are compiled anew each time" in warnings(caplog)[0]


def _write(version: int) -> None:
    for _ in range(50):
        keep(KEY.path, KEY.header(), bytes([version]) * 100_000)


def test_a_reader_never_meets_half_a_file() -> None:
    """Whatever is there while several processes write it is whole, and one of theirs."""
    _write(0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        writing = pool.map_async(_write, [1, 2], chunksize=1)
        while not writing.ready():
            assert len(set(unsealed(KEY.path, KEY.header()))) == 1
        writing.get()
    assert unsealed(KEY.path, KEY.header())[0] in (1, 2)


def _compile_slowly(folder: str) -> bytes:
    def build() -> bytes:
        with (Path(folder) / "log").open("a") as f:
            f.write("built\n")
        time.sleep(0.3)
        return PLAN

    return cached_plan(KEY, build, bytes)


def test_many_processes_build_a_plan_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_compile_slowly, [str(tmp_path)] * 8, chunksize=1) == [PLAN] * 8
    assert (tmp_path / "log").read_text() == "built\n"
