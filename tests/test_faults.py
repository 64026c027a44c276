"""Processes that die: the driver, a worker, Ray itself; what is left behind, and what the next run makes of it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import psutil
import pytest
from fakes import SIZE, content, no_leftovers, records
from media import write

from jobs import janitor, pool
from jobs.ledger import FOLDER


def start(*inputs: Path, out: Path, **settings: Any) -> subprocess.Popen[str]:
    """A driver in a process of its own."""
    options = {"inputs": [str(path) for path in inputs], "out": str(out)} | settings
    command = [sys.executable, fakes.__file__, json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def offspring(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for(condition: Callable[[], object], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def kill_driver(
    film: Path, out: Path, moment: Callable[[Path], bool], delay: float = 0.0
) -> tuple[list[psutil.Process], set[Path]]:
    """SIGKILL a driver at a moment; the processes that it had, and its Ray's folders."""
    driver = start(film, out=out, delay=0.3, workers=1)
    wait_for(lambda: moment(out) or driver.poll() is not None)
    time.sleep(delay)
    processes = offspring(driver.pid)
    folders = ray_folders(processes)
    driver.kill()
    driver.communicate()
    return processes, folders


def test_a_killed_driver_leaves_nothing_running_and_resumes(film: Path, reference: Any, tmp_path: Path) -> None:
    processes, folders = kill_driver(film, tmp_path, lambda out: len(records(out)) >= 2)
    assert processes, "two segments were done, so Ray was running"
    assert folders
    wait_for(lambda: not alive(processes) and not any(folder.exists() for folder in folders), 30.0)
    done = len(records(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in records(tmp_path)[: done - 1]}
    driver = start(film, out=tmp_path)
    printed, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    assert json.loads(printed)["reels"][0]["status"] == "done"
    assert content(tmp_path / "film.mkv") == reference
    assert before == {path: path.stat().st_mtime_ns for path in before}, "finished segments are not done again"
    assert no_leftovers(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_driver_killed_at_any_moment(film: Path, reference: Any, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    count, delay = chance.randrange(6), chance.random()
    kill_driver(film, tmp_path, lambda out: len(records(out)) >= count and (out / FOLDER).exists(), delay)
    driver = start(film, out=tmp_path)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    assert content(tmp_path / "film.mkv") == reference
    assert no_leftovers(tmp_path)


def ray_folders(processes: list[psutil.Process]) -> set[Path]:
    """The folders that a driver's Ray keeps its files in."""
    lines = [" ".join(p.cmdline()) for p in alive(processes)]
    return {Path(found[1]) for line in lines if (found := re.search(rf"=(\S*/{pool._PREFIX}\w+)/r/", line))}


def workers_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return [p for p in alive(offspring(driver.pid)) if "ray::Worker" in " ".join(p.cmdline())]


def test_a_killed_worker_costs_a_retry(film: Path, reference: Any, tmp_path: Path) -> None:
    driver = start(film, out=tmp_path, delay=0.3, workers=1)
    wait_for(lambda: records(tmp_path) or driver.poll() is not None)
    workers_of(driver)[0].kill()
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    assert "a worker died" in errors
    assert content(tmp_path / "film.mkv") == reference


def test_a_deadly_segment_is_named_and_costs_one_reel(flash: Path, film: Path, reference: Any, tmp_path: Path) -> None:
    driver = start(flash, film, out=tmp_path, kind="deadly", workers=1)
    printed, errors = driver.communicate(timeout=120)
    assert driver.returncode == 1, errors
    bad, good = json.loads(printed)["reels"]
    assert re.search(
        r"flash\.mkv: segment \d of \d .* ends the worker that does it \(killed or crashed\), twice", bad["error"]
    )
    assert (bad["status"], good["status"]) == ("failed", "done")
    assert content(tmp_path / "film.mkv") == reference


@pytest.fixture
def narrow() -> Iterator[Path]:
    """A control group whose processes may take two gigabytes together."""
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    (name,) = [line.split(":")[2] for line in groups if line.split(":")[1] == "memory"] or [None]
    group = Path(f"/sys/fs/cgroup/memory{name}") / f"reelcolor-{os.getpid()}"
    try:
        if name is None:
            raise OSError("no memory control group, version 1")
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(2 << 30))
    except OSError as e:
        pytest.skip(f"cannot limit memory here: {e}")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), 30.0)
    group.rmdir()


@pytest.mark.slow
def test_a_segment_that_takes_all_memory_is_told_so(
    flash: Path, film: Path, reference: Any, tmp_path: Path, narrow: Path
) -> None:
    """The kernel's doing, which Ray cannot tell from any other kill."""
    driver = start(flash, film, out=tmp_path, kind="hungry", workers=1)
    (narrow / "cgroup.procs").write_text(str(driver.pid))
    printed, errors = driver.communicate(timeout=200)
    assert driver.returncode == 1, errors
    bad, good = json.loads(printed)["reels"]
    assert (
        "(ended by the kernel, as memory ran out), three times now; the reel is left out; fewer workers" in bad["error"]
    )
    assert (bad["status"], good["status"]) == ("failed", "done")
    (failed,) = tmp_path.glob(f"{FOLDER}/*/reels/*/failed.json")
    assert json.loads(failed.read_text())["class"] == "memory"
    assert content(tmp_path / "film.mkv") == reference


@pytest.mark.slow
@pytest.mark.parametrize("server", ["raylet", "gcs_server"])
def test_ray_itself_dies(film: Path, reference: Any, tmp_path: Path, server: str) -> None:
    driver = start(film, out=tmp_path, delay=0.3, workers=1)
    wait_for(lambda: records(tmp_path) or driver.poll() is not None)
    processes = offspring(driver.pid)
    next(p for p in processes if p.name() == server).kill()
    printed, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1
    assert "Ray has died" in json.loads(printed)["reels"][0]["error"]
    wait_for(lambda: not alive(processes), 15.0)
    driver = start(film, out=tmp_path)
    driver.communicate(timeout=120)
    assert content(tmp_path / "film.mkv") == reference


def test_ctrl_c_stops_cleanly_and_nothing_was_open_to_others(film: Path, tmp_path: Path) -> None:
    driver = start(film, out=tmp_path, delay=2.0, workers=1)  # far from done at its first record
    wait_for(lambda: records(tmp_path) or driver.poll() is not None)
    processes = offspring(driver.pid)
    sockets = [c for p in alive(processes) for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    tokens = [p.environ().get("RAY_AUTH_TOKEN", "") for p in workers_of(driver)]
    folders = ray_folders(processes)
    modes = {folder.stat().st_mode & 0o777 for folder in folders}
    driver.send_signal(signal.SIGTERM)  # which Ray would have for itself
    printed, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "run the same command again" in json.loads(printed)["reels"][0]["error"]
    wait_for(lambda: not alive(processes), 15.0)
    assert not list(tmp_path.rglob("*.mkv"))
    assert not any(folder.exists() for folder in folders)
    assert {c.laddr.ip.removeprefix("::ffff:") for c in sockets} == {"127.0.0.1"}
    assert [len(token) for token in tokens] == [64]
    assert modes == {0o700}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six reels of four segments, no two alike."""
    folder = tmp_path_factory.mktemp("films")
    for n in range(6):
        write(folder / f"film{n}.mkv", frames=34 + n, gop=2, **SIZE)
    return folder


def colorize(films: Path, out: Path) -> subprocess.Popen[str]:
    """The command itself, in a process group of its own, as a shell has it."""
    words = [
        "colorize",
        str(films),
        "-o",
        str(out),
        "--workers",
        "2",
        "--segment-seconds",
        "1",
        "--preset",
        "ultrafast",
    ]
    command = [sys.executable, "-c", "from jobs.cli import main; main()", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def contents(out: Path) -> dict[str, Any]:
    """What films under their names hold; half-written ones have another, which begins with a dot."""
    return {path.name: content(path) for path in sorted(out.glob("[!.]*.mkv"))}


@pytest.fixture(scope="module")
def coloured(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("coloured")
    undisturbed = colorize(films, out)
    _, errors = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, errors
    return contents(out)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_ctrl_c_at_any_moment(films: Path, coloured: dict[str, Any], tmp_path: Path, seed: int) -> None:
    """The terminal tells the whole process group; every other time the user is impatient and presses twice."""
    chance = random.Random(seed)
    count, delay, twice = chance.randrange(20), chance.uniform(0.0, 1.0), seed % 2 == 1
    run = colorize(films, tmp_path)
    wait_for(lambda: run.poll() is not None or (len(records(tmp_path)) >= count and (tmp_path / FOLDER).exists()))
    time.sleep(delay)
    processes = offspring(run.pid)
    folders = ray_folders(processes)
    for _ in range(1 + twice):
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGINT)
            time.sleep(chance.uniform(0.0, 1.0))
    _, errors = run.communicate(timeout=60)
    assert "Traceback" not in errors
    if run.returncode != 0 or "6 done" not in errors:  # else it was done before it was told
        assert run.returncode == 130, errors
        assert twice or " of 6 done; run the same command again to go on from here" in errors
    wait_for(lambda: not alive(processes) and not any(folder.exists() for folder in folders), 30.0)
    made = contents(tmp_path)
    assert made == {name: coloured[name] for name in made}, "what has its name is whole"
    if not twice:
        kept = {json.loads(path.read_text())["file"]["path"] for path in records(tmp_path)}
        assert {p.name for p in tmp_path.rglob("*") if p.suffix == ".seg" or ".part" in p.name} <= kept
    again = colorize(films, tmp_path)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert contents(tmp_path) == coloured
    assert no_leftovers(tmp_path)


def test_ray_leaves_sigterm_and_the_command_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import utils

    meanwhile = []

    def init() -> None:
        utils.set_sigterm_handler(lambda *_: sys.exit(15))
        meanwhile.extend([signal.getsignal(signal.SIGTERM), utils.get_entrypoint_name()])
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as its C++ does

    monkeypatch.setattr(ray, "init", init)
    before = signal.signal(signal.SIGTERM, ours := lambda *_: None)
    try:
        pool.start_ray()
        assert [*meanwhile, signal.getsignal(signal.SIGTERM)] == [ours, "reelcolor", ours]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_rays_processes_keep_their_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without these some of them do not start."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    with pool.environment(pool._settings()):
        told = subprocess.run(
            [sys.executable, "-c", "import sys; print(sys.flags.optimize)"], check=True, capture_output=True
        )
    assert told.stdout == b"0\n"


def test_ray_that_is_interrupted_as_it_starts_is_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its threads crash the process as that ends."""
    import ray

    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    calls: list[str] = []
    monkeypatch.setattr(pool, "start_ray", interrupted)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shut down"))
    with pytest.raises(KeyboardInterrupt), pool.local_ray(1):
        pass
    assert calls == ["shut down"]


@pytest.mark.parametrize(("nohup", "expected"), [("SIG_DFL", "stopped"), ("SIG_IGN", "went on")])
def test_a_terminal_that_closes_stops_a_run_unless_it_is_not_to(nohup: str, expected: str) -> None:
    """In a process of its own, which a signal that nobody takes would end."""
    script = f"""
import signal
from jobs.command import stoppable
signal.signal(signal.SIGHUP, signal.{nohup})
try:
    with stoppable():
        signal.raise_signal(signal.SIGHUP)
    print("went on")
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


def test_a_janitor_that_was_killed_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with janitor.janitor(folder):
        (child,) = (p for p in pool._children() if str(folder).encode() in Path(f"/proc/{p}/cmdline").read_bytes())
        os.kill(child, signal.SIGKILL)
    assert not folder.exists()


def test_the_janitor_finds_what_was_just_started_too(tmp_path: Path) -> None:
    """Of Ray's agents, which make the folder anew when they come to open their logs in it."""
    idle = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    with (tmp_path / "log").open("w") as log:
        names = subprocess.Popen([*idle, f"--logs={tmp_path}/logs"])
        opens = subprocess.Popen(idle, stdout=log)
        neither = subprocess.Popen([*idle, str(tmp_path)])
    try:
        wait_for(lambda: set(janitor.users_of(str(tmp_path), but=os.getpid())) == {names.pid, opens.pid})
        assert neither.poll() is None
    finally:
        for process in (names, opens, neither):
            process.kill()
            process.wait()
