"""Jobs on a cluster, as far as they can be tried without one: shares, what is stored, how jobs stand, deployment."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from fakes import WEIGHTS, colouring, records, run, statuses

from jobs import entry
from jobs.cli import main
from jobs.console import Console
from jobs.hands import Census
from jobs.journal import SUBMISSION, Standing
from jobs.ledger import FOLDER, Job
from jobs.metrics import COUNTERS, GAUGES, Meters
from jobs.recipe import Recipe
from jobs.request import Colouring, Request
from jobs.run import colorize
from jobs.shares import Shares
from jobs.status import all_jobs, in_words, job_status
from jobs.submitting import begin_again, connect, find_job, last_submission, stored_request, submit
from pipeline.errors import EngineError, InputError, StorageError

DEPLOY = Path(__file__).parents[1] / "deploy"


@pytest.mark.parametrize(
    ("shares", "node", "slots"),
    [
        (Shares(), {"CPU": 8.0}, (0, 4)),
        (Shares(), {"CPU": 8.0, "GPU": 2.0}, (2, 0)),
        (Shares(), {"CPU": 3.0, "GPU": 2.0}, (1, 0)),
        (Shares(gpus=0.5), {"CPU": 64.0, "GPU": 2.0}, (4, 0)),
        (Shares(gpus=0.5), {"CPU": 64.0}, (0, 0)),
        (Shares(gpus=0), {"CPU": 8.0, "GPU": 2.0}, (0, 4)),
        (Shares(cpus=0.1), {"CPU": 1.0}, (0, 10)),
        (Shares(), {}, (0, 0)),
        (Shares(memory=3 << 30), {"CPU": 8.0, "memory": 10 << 30}, (0, 3)),
        (Shares(memory=3 << 30), {"CPU": 64.0, "GPU": 8.0, "memory": 16 << 30}, (5, 0)),
        (Shares(memory=3 << 30), {"CPU": 8.0, "memory": 2 << 30}, (0, 0)),
    ],
)
def test_how_many_workers_a_node_has_room_for(shares: Shares, node: dict[str, float], slots: tuple[int, int]) -> None:
    assert shares.slots(node) == slots


def test_frames_too_large_for_every_node_do_not_keep_the_others_waiting() -> None:
    nodes = [{"CPU": 8.0, "memory": 10e9}, {"CPU": 4.0, "memory": 16e9}, {"CPU": 1.0, "memory": 64e9}]
    asked = Shares(memory=20 * 10**9)
    assert not any(any(asked.slots(node)) for node in nodes)
    given = asked.within(nodes)
    assert given == Shares(memory=16 * 10**9), "the third has no processors for a worker"
    assert [given.slots(node) for node in nodes] == [(0, 0), (0, 1), (0, 0)]
    assert Shares(memory=9 * 10**9).within(nodes).memory == 9 * 10**9
    assert asked.within(nodes[2:]) == asked.within([]) == asked


# --- how a job stands


def job_in(out: Path) -> Job:
    (folder,) = (path for path in (out / FOLDER).iterdir() if path.is_dir())
    return find_job(folder.name, str(out))


@pytest.mark.usefixtures("no_ray")
def test_a_failed_reel_is_named_with_segment_class_and_log(flash: Path, film: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"this is not a video" * 100)
    assert statuses(run(flash, bad, film, out=tmp_path / "out", kind="failing")) == ["failed", "failed", "done"]
    status = job_status(job_in(tmp_path / "out"))
    assert status["state"] == "failed"
    assert {state: n for state, n in status["reels"].items() if n} == {"failed": 2, "done": 1}
    found = {Path(entry["input"]).name: entry for entry in status["failures"]}
    assert found["flash.mkv"]["class"] == found["bad.mp4"]["class"] == "input"
    assert found["flash.mkv"]["error"] == f"{flash}: too bright"
    assert re.search(r"segment \d of 6", found["flash.mkv"]["segment"])
    assert "fakes.py:" in found["flash.mkv"]["log"]
    words = in_words(status)
    assert f"failed [input] {flash}: too bright" in words
    assert found["flash.mkv"]["segment"] in words
    assert [job["state"] for job in all_jobs(tmp_path / "out")] == ["failed"]


@pytest.mark.usefixtures("no_ray")
def test_what_is_made_good_is_no_failure_any_more(flash: Path, tmp_path: Path) -> None:
    run(flash, out=tmp_path, kind="failing")
    assert job_status(job_in(tmp_path))["failures"]
    run(flash, out=tmp_path)
    status = job_status(job_in(tmp_path))
    assert (status["state"], status["failures"]) == ("done", [])
    assert status["segments"]["done"] == len(records(tmp_path))
    assert status["frames"]["done"] == 60


@pytest.mark.usefixtures("no_ray")
def test_resume_leaves_failures_alone_and_retry_does_them_only(
    flash: Path, film: Path, reference: Any, tmp_path: Path
) -> None:
    late = tmp_path / "late.mkv"
    inputs = tuple(map(str, (flash, film, late)))

    def again(only: Any, kind: str = "fake") -> list[str]:
        request = Request(inputs, tmp_path / "out", Recipe(segment_seconds=1.0, preset="ultrafast"), only=only)
        return statuses(colorize(request, Console(), colouring(kind)))

    assert again("all", "failing") == ["failed", "done", "failed"]
    late.write_bytes(film.read_bytes())
    (tmp_path / "out/film.mkv").unlink()
    assert again("unfinished") == ["failed", "done", "done"]
    assert not (tmp_path / "out/flash.mkv").exists()
    (tmp_path / "out/film.mkv").unlink()
    assert again("failed") == ["done", "failed", "skipped"]
    assert not (tmp_path / "out/film.mkv").exists(), "it had not failed"


def test_a_run_that_fell_silent_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    job = find_job("0123456789ab", str(tmp_path))
    assert job_status(job)["state"] == "submitted"
    (folder / "run.json").write_text(json.dumps({"state": "running", "heard": "2020-01-01T00:00:00+00:00"}))
    assert job_status(job)["state"] == "lost"
    assert "`reelcolor jobs resume` goes on with it" in in_words(job_status(job))
    (folder / "run.json").write_text("{")
    assert job_status(job)["state"] == "submitted"


def test_jobs_are_found_by_folder_or_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give -o OUTDIR"):
        find_job("0123456789ab", None)
    with pytest.raises(InputError, match="there is no such job"):
        find_job(str(tmp_path / FOLDER / "0123456789ab"), None)
    (tmp_path / FOLDER / "0123456789ab").mkdir(parents=True)
    (tmp_path / FOLDER / "0123456789ab/plan.json").write_text("{}")
    assert find_job(str(tmp_path / FOLDER / "0123456789ab"), None).outdir == tmp_path
    printed = CliRunner().invoke(main, ["jobs", "status", "0123456789ab", "-o", str(tmp_path), "--json"])
    assert json.loads(printed.output)["state"] == "submitted"


def test_where_there_are_no_jobs_that_is_said(tmp_path: Path) -> None:
    for command in (["list"], ["clean", "--all"]):
        assert CliRunner().invoke(main, ["jobs", *command, "-o", str(tmp_path)]).output == f"no jobs in {tmp_path}\n"


# --- what is sent and stored


class Client:
    """Ray's job client, as far as it is used."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.errors: list[str] = []

    def submit_job(self, **job: Any) -> str:
        if self.errors:
            raise RuntimeError(self.errors.pop(0))
        self.sent.append(job)
        return str(job["submission_id"])


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setattr("jobs.submitting.connect", lambda _address: client)
    monkeypatch.setattr("jobs.submitting.default_colouring", lambda _recipe: Colouring(colouring().open, WEIGHTS))
    return client


def test_a_request_survives_storage_and_no_secret_is_in_it(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "s3cr3t-of-store", "RAY_AUTH_TOKEN": "t0ken" * 8}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    recipe = Recipe(profile="preservation", saturation=0.5)
    request = Request(
        ("s3://archive/reels", "films"), tmp_path, recipe, shares=Shares("auto", 0.5, 3, 7), overwrite=True
    )
    sent = submit(request, "http://head:8265", "image")
    again = stored_request(sent.job, "failed")
    assert (again.inputs, again.recipe, again.shares, again.overwrite, again.only) == (
        ("s3://archive/reels", str(Path("films").absolute())),
        recipe,
        request.shares,
        True,
        "failed",
    )
    begin_again(sent.job, "unfinished", None)
    words = [shlex.split(job["entrypoint"]) for job in client.sent]
    assert [w[:6] for w in words] == [
        ["python", "-m", "jobs.entry", str(tmp_path), sent.job.folder.name, only] for only in ("all", "unfinished")
    ]
    everything = str(client.sent) + "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert not [value for value in secrets.values() if value in everything]


def test_what_is_sent_along_are_our_packages_and_nothing_else(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray itself packs it."""
    from ray._private.runtime_env.packaging import create_package

    tree = tmp_path / "tree"
    inside = {"jobs/run.py", "model/networks/unet.py", "model/pretrained/default.safetensors", "pipeline/reel.py"}
    beside = {"setup.py", "films/a.mkv", ".venv/x.py", ".git/HEAD", "tests/jobs/a.py", "jobs/__pycache__/run.pyc"}
    for name in inside | beside:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    monkeypatch.setattr("jobs.submitting.__file__", str(tree / "jobs/submitting.py"))
    submit(Request(("a.mkv",), tmp_path / "out"), None, "working-dir")
    environment = client.sent[0]["runtime_env"]
    assert environment["working_dir"] == str(tree)
    create_package(str(tree), tmp_path / "sent.zip", include_gitignore=True, excludes=environment["excludes"])
    with zipfile.ZipFile(tmp_path / "sent.zip") as packed:
        assert {name for name in packed.namelist() if not name.endswith("/")} == inside
    (tree / "setup.py").unlink()
    with pytest.raises(InputError, match=r"is installed, in .*; run it from a checkout"):
        submit(Request(("a.mkv",), tmp_path / "out"), None, "working-dir")
    assert len(client.sent) == 1


@pytest.mark.usefixtures("client")
def test_another_model_on_the_cluster_is_refused_and_status_says_so(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver finds the shipped model, where the submitting machine had one of other weights."""
    monkeypatch.setenv(SUBMISSION, "")  # which the driver sets
    sent = submit(Request((str(film),), tmp_path), None, "image")
    assert in_words(job_status(sent.job)).endswith("submitted; its driver has not begun")
    assert entry.main(str(tmp_path), sent.job.folder.name, "all", sent.submission) == 1
    words = in_words(job_status(sent.job))
    assert words.startswith(f"{sent.job.folder.name}: failed\n  stopped: default: the model of this name is another")
    assert [path.name for path in (tmp_path / FOLDER).iterdir() if path.is_dir()] == [sent.job.folder.name]
    begin_again(sent.job, "unfinished", None)
    assert job_status(sent.job)["state"] == "submitted", "not what became of the run before"


def test_a_model_that_is_a_file_is_found_from_wherever_the_driver_runs(client: Client, tmp_path: Path) -> None:
    recipe = Recipe(model="mine.safetensors")
    sent = submit(Request(("s3://archive/reels",), tmp_path, recipe), None, "image")
    assert stored_request(sent.job, "all").recipe.model == str(Path("mine.safetensors").absolute())
    assert client.sent


def test_a_job_that_the_cluster_does_not_take_is_none(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.submitting._POLL", 0.0)
    request = Request(("s3://archive/reels",), tmp_path)
    client.errors = ["503"]
    with pytest.raises(EngineError, match="503"):
        submit(request, None, "image")
    assert all_jobs(tmp_path) == []
    client.errors = ["status code 500: No available agent to submit job, please try again later."] * 3
    sent = submit(request, None, "image")
    client.errors = ["503"]
    with pytest.raises(EngineError, match="503"):
        begin_again(sent.job, "unfinished", None)
    assert last_submission(sent.job) == sent


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored["recipe"].update({"of-tomorrow": 1}),
        lambda stored: stored["recipe"].pop("limits"),
        lambda stored: stored["shares"].update({"of-tomorrow": 1}),
        lambda stored: stored.pop("shares"),
    ],
)
def test_a_request_of_another_version_is_refused(client: Client, tmp_path: Path, change: Callable[[Any], Any]) -> None:
    sent = submit(Request(("s3://archive/reels",), tmp_path), None, "image")
    stored = json.loads((sent.job.folder / "request.json").read_text())
    change(stored)
    (sent.job.folder / "request.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="another version of reelcolor submitted it"):
        stored_request(sent.job, "all")
    assert client.sent


def test_credentials_in_a_url_are_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="credentials"):
        submit(Request(("s3://key:secret@archive/reels",), tmp_path), None, "image")
    assert not client.sent
    with pytest.raises(InputError, match="must not hold credentials"):
        connect("http://user:secret@head:8265")


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """In a process of its own: Ray reads its token once, and other tests start Ray with theirs."""
    words = ["submit", "a.mkv", "-o", str(tmp_path / "out"), "--address", "http://127.0.0.1:9"]
    command = [sys.executable, "-c", "from jobs.cli import main; main()", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: http://127.0.0.1:9: no cluster answers there"), done.stderr
    assert not (tmp_path / "out").exists()


# --- metrics and deployment


def test_metrics_count_up_and_carry_their_labels() -> None:
    made: dict[str, list[tuple[float, tuple[tuple[str, str], ...]]]] = {}

    def kind(name: str, _text: str, tag_keys: tuple[str, ...]) -> Any:
        def put(value: float, tags: dict[str, str]) -> None:
            assert set(tags) <= set(tag_keys)
            made.setdefault(name, []).append((value, tuple(sorted(tags.items()))))

        return SimpleNamespace(set=put, inc=put)

    meters = Meters("job7", SimpleNamespace(Gauge=kind, Counter=kind))
    standing = Standing(
        segments=10, segments_done=4, frames=100, frames_done=40, fps=8.5, census=Census(2, 1, 3, 1, 5, batch=8)
    )
    standing.reels["under way"] = 2
    meters.show(standing)
    standing.frames_done = 55
    meters.show(standing)
    assert set(made) == (set(GAUGES) | set(COUNTERS)) - {"reelcolor_doubled_total"}
    assert made["reelcolor_frames_total"] == [(40, (("job", "job7"),)), (15, (("job", "job7"),))]
    states = {dict(tags)["state"]: value for value, tags in made["reelcolor_segments"]}
    assert states == {"done": 4, "in_flight": 3, "delayed": 1, "queued": 2}
    assert made["reelcolor_queue_depth"][0][0] == 2
    assert made["reelcolor_engine_batch"][0][0] == 8
    assert made["reelcolor_retries_total"] == [(5, (("job", "job7"),))]


@pytest.mark.timeout(60)
def test_work_on_a_cluster_that_is_not_there_is_refused_at_once(film: Path, tmp_path: Path) -> None:
    """Ray itself would try for two minutes. In a process of its own, as Ray reads the token once in each."""
    words = ["colorize", str(film), "-o", str(tmp_path / "out"), "--address", "127.0.0.1:9"]
    command = [sys.executable, "-c", "from jobs.cli import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert ":9: no cluster answers there (UNAVAILABLE: " in done.stderr  # by its outward address


def test_the_manifest_is_whole_and_its_command_is_one_of_ours() -> None:
    manifest = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text("utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    spec = manifest["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for container in [c for group in groups for c in group["template"]["spec"]["containers"]]:
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]
        assert container["envFrom"] == [{"secretRef": {"name": "reelcolor"}}]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    program, name, *words = shlex.split(manifest["spec"]["entrypoint"])
    assert (program, name) == ("reelcolor", "colorize")
    context = main.commands["colorize"].make_context(name, words)
    assert isinstance(context, click.Context)
    assert context.params["address"] == "auto"
    assert context.params["max_workers"] == spec["workerGroupSpecs"][0]["maxReplicas"]
    assert spec["rayVersion"] == version("ray")


def test_the_image_names_what_it_installs() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert "NOT BUILT" in text
    assert "[cluster]" in text
    assert "-c /opt/reelcolor/constraints.txt" in text
