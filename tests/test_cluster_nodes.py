"""Real Ray nodes on loopback that are killed in the middle: what comes out is what an undisturbed run makes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import psutil
import pytest
from fakes import ENGINE, SIZE, content, no_leftovers, records, run
from media import write
from nodes import ROOT, Nodes, autoscaling, cluster, without_reelcolor

from jobs.ledger import FOLDER
from jobs.run import Run
from jobs.status import all_jobs
from jobs.submitting import PACKAGES
from pipeline.stores import StorePath

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
REELS = 12


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve reels of two seconds, no two alike."""
    folder = tmp_path_factory.mktemp("films")
    for n in range(REELS):
        write(folder / f"film{n:02}.mkv", frames=20 + n, gop=2, **SIZE)
    return folder


@pytest.fixture(scope="module")
def undisturbed(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_work_on_ray", lambda self, _segments: self._work_here(engine=True))
        assert run(films, out=out).exit_code == 0
    return contents(out)


def contents(out: Path) -> dict[str, Any]:
    return {path.name: content(path) for path in sorted(out.glob("*.mkv"))}


def driver(nodes: Nodes, *inputs: Path | str, out: Path | str, **settings: Any) -> subprocess.Popen[str]:
    """A driver with a fake network, on the cluster."""
    options = {"inputs": list(map(str, inputs)), "out": str(out), "address": nodes.gcs} | settings
    command = [sys.executable, fakes.__file__, json.dumps(options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=nodes.environment, start_new_session=True)


def wait_for(condition: Callable[[], object], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    return errors


def test_a_lost_node_costs_retries(films: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    with cluster(2, 2) as nodes:
        process = driver(nodes, films, out=tmp_path, delay=0.6)
        second = nodes.nodes[1]
        wait_for(lambda: _works(second))
        nodes.kill(second)
        nodes.start(2)
        errors = finish(process)
    assert "a worker died (" in errors
    assert contents(tmp_path) == undisturbed
    assert no_leftovers(tmp_path)


def test_a_lost_driver_and_a_lost_head_cost_what_was_in_flight(
    films: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with cluster(2, 2) as nodes:
        process = driver(nodes, films, out=tmp_path, delay=0.3)
        wait_for(lambda: len(records(tmp_path)) >= 3 or process.poll() is not None)
        process.kill()
        process.communicate()
        process = driver(
            nodes, films, out=tmp_path, delay=2.0
        )  # a worker elsewhere is not to finish before it is missed
        head = nodes.nodes[0]
        wait_for(lambda: (len(records(tmp_path)) >= 8 and _works(head)) or process.poll() is not None)
        nodes.kill(head)
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 1
        assert "the cluster's head is gone" in errors
        finished = [json.loads(path.read_text()) for path in tmp_path.glob(f"{FOLDER}/*/reels/*/done.json")]
        done = {(path := tmp_path / entry["output"]): path.stat().st_mtime_ns for entry in finished}
    with cluster(2, 2) as nodes:
        finish(driver(nodes, films, out=tmp_path))
    assert contents(tmp_path) == undisturbed
    assert no_leftovers(tmp_path)
    assert done == {path: path.stat().st_mtime_ns for path in done}, "finished reels are not done again"


def test_a_poison_reel_among_twenty(films: Path, flash: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    more = [write(tmp_path / f"more{n}.mkv", frames=5, **SIZE) for n in range(7)]
    out = tmp_path / "out"
    with cluster(4, 4) as nodes:
        process = driver(nodes, films, flash, *more, out=out, kind="deadly")
        printed, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    results = {Path(r["input"]).name: r for r in json.loads(printed)["reels"]}
    assert [name for name, r in results.items() if r["status"] != "done"] == ["flash.mkv"]
    assert "ends the worker that does it (killed or crashed), twice" in results["flash.mkv"]["error"]
    made = contents(out)
    assert {name: made[name] for name in undisturbed} == undisturbed
    (failed,) = out.glob(f"{FOLDER}/*/reels/*/failed.json")
    assert json.loads(failed.read_text())["class"] == "worker"


def test_twelve_reels_from_store_to_store_that_errs(films: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """Of every twenty requests the store refuses one, or breaks off in the middle of the answer."""
    for package in ("s3fs", "moto"):
        pytest.importorskip(package, reason="pip install -c constraints-s3.txt -e '.[s3,s3-test]'")
    from s3server import SECRET, bucket, fetched, put, serving

    with serving() as running, bucket(*running) as server, cluster(2, 2) as nodes:
        for film in films.iterdir():
            put(film, f"s3://reels/in/{film.name}")
        server.faults = 0.05
        process = driver(nodes, "s3://reels/in/", out="s3://reels/out", delay=0.3)
        wait_for(lambda: all(_works(node) for node in nodes.nodes) or process.poll() is not None)
        assert SECRET not in finish(process)
        assert server.failed > 20
        server.faults = 0.0
        made = [name for name in StorePath("s3://reels/out").files() if not name.startswith(FOLDER)]
        assert {name: fetched(f"s3://reels/out/{name}", tmp_path) for name in made} == undisturbed
        kept = list(StorePath(f"s3://reels/out/{FOLDER}").files())
        assert not [name for name in kept if name.endswith((".seg", "/lock")) or ".part" in name]


def command(nodes: Nodes, *words: object, code: int = 0, **environment: str) -> str:
    """What a command prints, through the Jobs API and with the network that is shipped."""
    program = [sys.executable, "-c", "from jobs.cli import main; main()"]
    done = subprocess.run(
        [*program, *map(str, words)],
        check=False, capture_output=True, text=True, env=nodes.environment | environment, cwd=nodes.folder, timeout=500,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_submitted_stopped_resumed_and_refused(tmp_path: Path) -> None:
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    for n in range(4):
        write(films / f"film{n}.mkv", frames=120, gop=2, **SIZE)
    (films / "bad.mp4").write_bytes(b"no video" * 100)
    recipe = ("--segment-seconds", 1, "--preset", "ultrafast")
    with cluster(2, 2) as nodes:
        refused = command(
            nodes, "submit", films, "-o", out, "--address", nodes.address, code=1, RAY_AUTH_TOKEN="ab" * 32
        )
        assert "refuses the token" in refused
        assert "Traceback" not in refused
        refused = command(nodes, "colorize", films, "-o", out, "--address", nodes.gcs, code=1, RAY_AUTH_TOKEN="ab" * 32)
        assert f"stopped: {nodes.gcs}: the cluster refuses the token" in refused
        sent = json.loads(command(nodes, "submit", films, "-o", out, "--address", nodes.address, *recipe, "--json"))
        job = sent["job"]
        before = {process.pid for process in nodes.processes()}
        wait_for(lambda: len(records(out)) >= 3)
        assert json.loads(command(nodes, "jobs", "status", job, "--json"))["state"] == "running"
        assert "is being stopped" in command(nodes, "jobs", "stop", job)
        wait_for(lambda: json.loads(command(nodes, "jobs", "status", job, "--json"))["state"] == "interrupted")
        workers = [p for p in nodes.processes() if _runs(p, "ray::Worker", "jobs.entry")]
        psutil.wait_procs(workers, timeout=30)
        assert not [p for p in nodes.processes() if _runs(p, "ray::Worker", "jobs.entry")]
        kept = {json.loads(path.read_text())["file"]["path"] for path in records(out)}
        assert {path.name for path in out.rglob("*") if path.suffix == ".seg" or ".part" in path.name} <= kept
        assert before
        command(nodes, "jobs", "resume", job)
        wait_for(lambda: json.loads(command(nodes, "jobs", "status", job, "--json"))["state"] in ("failed", "done"))
        status = json.loads(command(nodes, "jobs", "status", job, "--json"))
        finished = status["reels"].get("done", 0) + status["reels"].get("skipped", 0)  # before it was stopped
        assert (finished, status["reels"]["failed"]) == (4, 1)
        assert [(Path(e["input"]).name, e["class"]) for e in status["failures"]] == [("bad.mp4", "input")]
        write(films / "bad.mp4", frames=20, gop=2, **SIZE)
        command(nodes, "jobs", "retry", job)
        wait_for(lambda: json.loads(command(nodes, "jobs", "status", job, "--json"))["state"] == "done")
        assert "bad.mp4, 20 frames" in command(nodes, "jobs", "logs", job, "-f")
    assert sorted(path.name for path in out.glob("*.m*")) == ["bad.mp4", *(f"film{n}.mkv" for n in range(4))]
    assert no_leftovers(out)


def test_nodes_without_reelcolor_are_sent_this_source_tree(tmp_path: Path) -> None:
    """Its packages whole and nothing beside them, though films lie in it; nothing that is installed is imported."""
    tree = tmp_path / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", tree)
    (tree / "pipeline/version.py").write_text('VERSION = "0.1.0+sent"')
    (tree / "films").mkdir()
    film = write(tree / "films/film.mkv", frames=40, gop=2, **SIZE)
    for beside in (".venv/lib.py", ".git/HEAD", "jobs/__pycache__/run.pyc", "coloured/film.mkv", "tests/test_run.py"):
        (tree / beside).parent.mkdir(parents=True, exist_ok=True)
        (tree / beside).write_bytes(bytes(1 << 20))
    out, recipe = tmp_path / "out", ("--segment-seconds", 1, "--preset", "ultrafast")
    sent = {str(path.relative_to(tree)) for package in PACKAGES for path in (tree / package).rglob("*.*")}
    with cluster(2, 2, python=without_reelcolor(tmp_path / "bare"), PYTHONPATH="") as nodes:
        words = ("submit", film, "-o", out, "--address", nodes.address, "--env", "working-dir", "--wait", *recipe)
        said = command(nodes, *words, PYTHONPATH=str(tree))
        assert said.startswith("succeeded: "), "nor does Ray say anything"
        job = said.splitlines()[0].removeprefix("succeeded: ")
        assert len(records(out)) > 1
        got = {
            str(path.relative_to(folder))
            for folder in nodes.folder.glob("r/session_*/runtime_resources/working_dir_files/_ray_pkg_*")
            for path in folder.rglob("*.*")
            if path.is_file() and path.suffix != ".pyc"
        }
        assert got == {name for name in sent if not name.endswith(".pyc")}
        assert "40 frames" in command(nodes, "jobs", "logs", job, PYTHONPATH=str(tree))
    assert json.loads((Path(job) / "plan.json").read_text())["version"] == "0.1.0+sent"
    assert len(content(out / "film.mkv")[0]) == 40


def test_work_that_waits_starts_nodes_and_idle_ones_leave(
    films: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """The head has no processors: all is done on nodes that the autoscaler starts for it, fewer than were asked for."""
    with cluster(0, autoscaling=autoscaling(2, 2, 0.1)) as nodes:
        for out in (tmp_path / "first", tmp_path / "second"):
            assert nodes.alive() == 1
            process = driver(nodes, films, out=out, delay=0.3, most=5)
            wait_for(lambda process=process: nodes.alive() == 3 or process.poll() is not None)
            assert "no node of the cluster has room for a worker" in finish(process)
            assert contents(out) == undisturbed
            assert no_leftovers(out)
            wait_for(lambda: nodes.alive() == 1)


def test_reels_come_from_one_engine_each_though_nodes_differ_and_one_is_lost(
    films: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two engines goes for good in the middle of some reels: these are begun anew with the other."""
    expected = {"one": undisturbed}
    with monkeypatch.context() as patch:
        patch.setenv(ENGINE, "two")
        patch.setattr(Run, "_work_on_ray", lambda self, _segments: self._work_here(engine=True))
        assert run(films, out=tmp_path / "two", kind="local").exit_code == 0
    expected["two"] = contents(tmp_path / "two")
    assert expected["one"] != expected["two"]
    out = tmp_path / "out"
    with cluster(2) as nodes:
        other = nodes.start(2, **{ENGINE: "two"})
        process = driver(nodes, films, out=out, kind="local", delay=0.6)

        def midst() -> bool:
            """One reel of the other engine is done, and of one that is not there is a segment."""
            begun = Counter(path.parts[-3] for path in records(out) if json.loads(path.read_text())["engine"] == "two")
            done = {path.parts[-2] for path in out.glob(f"{FOLDER}/*/reels/*/done.json")}
            return bool(begun.keys() & done) and any(begun[reel] == 1 for reel in begun.keys() - done)

        wait_for(lambda: process.poll() is not None or midst())
        nodes.kill(other)
        errors = finish(process)
    assert "segments are done again: they were made with another engine" in errors
    made = contents(out)
    entries = [json.loads(path.read_text()) for path in out.glob(f"{FOLDER}/*/reels/*/done.json")]
    assert {entry["output"]: expected[entry["engine"]][entry["output"]] for entry in entries} == made
    assert {entry["engine"] for entry in entries} == {"one", "two"}
    assert no_leftovers(out)


def test_a_reel_that_takes_all_memory_costs_itself_and_status_says_why(
    films: Path, flash: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Ray's memory monitor, on as it is by default, with three gigabytes to go."""
    memory = psutil.virtual_memory()
    threshold = 1 - (memory.available - 3e9) / memory.total
    settings = {"RAY_memory_monitor_refresh_ms": "100", "RAY_memory_usage_threshold": f"{threshold:.4f}"}
    with cluster(4, **settings) as nodes:
        process = driver(nodes, flash, films, out=tmp_path, kind="hungry")
        printed, errors = process.communicate(timeout=600)
        assert process.returncode == 1, errors
    assert "a worker died (out of memory: " in errors
    results = {Path(r["input"]).name: r for r in json.loads(printed)["reels"]}
    assert [name for name, r in results.items() if r["status"] != "done"] == ["flash.mkv"]
    assert contents(tmp_path) == undisturbed
    (job,) = all_jobs(tmp_path)
    (failure,) = job["failures"]
    assert failure["class"] == "memory"
    assert re.search(
        r"segment \d of 6 .* ends the worker that does it \(out of memory: .* were used on 127", failure["error"]
    )


def _works(node: psutil.Process) -> bool:
    """Whether a worker on this node has something to do."""
    return any(_runs(process, "ray::Worker.perform") for process in node.children(recursive=True))


def _runs(process: psutil.Process, *names: str) -> bool:
    try:
        line = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return any(name in line for name in names)
