"""Jobs on a cluster: handed to Ray's Jobs API, named by their job folder, begun again from what is stored there.

What travels is the job folder's place. Credentials never do: the cluster's nodes have their own, in their environment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from jobs.cluster import refused
from jobs.ledger import FOLDER, Job
from jobs.recipe import Recipe
from jobs.records import write_json
from jobs.request import Only, Request, default_colouring, job_of
from jobs.shares import Shares
from model.registry import SUFFIX
from pipeline.errors import EngineError, InputError, ReelcolorError
from pipeline.limits import Limits
from pipeline.storage import Place, is_local, local_path, place, write_bytes

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
REQUEST = "request.json"  # in the job folder
PACKAGES = ("pipeline", "model", "jobs")  # all there is of reelcolor
_STOP_SECONDS = 30  # that a driver is given to end its workers and tidy up
_POLL = 2.0  # seconds
_YOUNG = 60.0  # seconds that a cluster which was just started may take until it accepts jobs
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A job that a cluster has taken: its folder, and the run's name among the cluster's jobs."""

    job: Job
    submission: str
    address: str


def submit(request: Request, address: str | None, env: str) -> Submitted:
    """Store the request in its job folder and have the cluster run it.

    Raises InputError where an input's URL holds credentials, or there is no source tree to send along; EngineError
    where the model or the cluster is not there.
    """
    inputs = tuple(_absolute(source) for source in request.inputs)
    for source in inputs:
        place(source)  # which refuses credentials
    _sent_along(env)  # which refuses what cannot be sent
    model = request.recipe.model
    recipe = dataclasses.replace(request.recipe, model=_absolute(model) if model.endswith(SUFFIX) else model)
    request = dataclasses.replace(request, inputs=inputs, outdir=request.outdir.absolute(), recipe=recipe)
    job = job_of(request, default_colouring(request.recipe))
    client = connect(address)
    stored = {"inputs": inputs, "recipe": request.recipe.as_dict(), "overwrite": request.overwrite}
    shares = request.shares or Shares()
    asked = {"gpus": shares.gpus, "cpus": shares.cpus, "most": shares.most}
    where = {"address": address or DEFAULT_ADDRESS, "env": env}
    return _send(client, job, "all", stored | {"shares": asked} | where)


def begin_again(job: Job, only: Only, address: str | None) -> Submitted:
    """Have the cluster go on with a job that is stored; raises InputError where it is not."""
    stored = _stored(job)
    if address is not None:
        stored["address"] = address
    return _send(connect(stored["address"]), job, only, stored)


def last_submission(job: Job) -> Submitted:
    """The run of this job that was submitted last; raises InputError where none was."""
    stored = _stored(job)
    return Submitted(job, str(stored["submission"]), str(stored["address"]))


def stored_request(job: Job, only: Only) -> Request:
    """The request of a job folder, for a driver on the cluster; raises InputError where there is none."""
    stored = _stored(job)
    try:
        recipe = stored["recipe"]
        fps = Fraction(recipe["fps"]) if recipe["fps"] else None
        made = Recipe(**(recipe | {"fps": fps, "limits": Limits(**recipe["limits"])}))
        shares = Shares("auto", **stored["shares"])
        return Request(tuple(stored["inputs"]), job.outdir, made, None, bool(stored["overwrite"]), False, shares, only)
    except (TypeError, KeyError) as e:
        raise InputError(f"{job.folder}: another version of reelcolor submitted it ({e}); submit it again") from e


def connect(address: str | None) -> Any:
    """A client of the cluster's Jobs API; raises EngineError where none answers, or it refuses the token."""
    where = address or DEFAULT_ADDRESS
    if re.search(r"://[^/]*@", where):
        raise InputError("the cluster's address must not hold credentials; set RAY_AUTH_TOKEN instead")
    try:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(where)
    except ImportError as e:
        raise EngineError(f"submitting needs Ray's job client: pip install 'reelcolor[cluster]' ({e})") from e
    except Exception as e:  # Ray raises all sorts
        raise EngineError(refused(where, e)) from e


def ask(address: str | None, what: str, *arguments: Any) -> Any:
    """One question to the Jobs API, by its client's method; raises EngineError."""
    client = connect(address)
    try:
        return getattr(client, what)(*arguments)
    except Exception as e:  # as above
        if "does not exist" in str(e):
            raise EngineError(f"{address or DEFAULT_ADDRESS}: the cluster does not know {arguments[0]}") from e
        raise EngineError(refused(address or DEFAULT_ADDRESS, e)) from e


def wait(submitted: Submitted) -> str:
    """The end of a run, as the Jobs API calls it: SUCCEEDED, FAILED or STOPPED."""
    while (state := str(ask(submitted.address, "get_job_status", submitted.submission))) not in _ENDED:
        time.sleep(_POLL)
    return state


def log_lines(address: str, submission: str, follow: bool) -> Iterator[str]:
    """What a run has printed, in pieces; `follow`: and prints until it ends."""
    printed = 0
    while True:
        ended = str(ask(address, "get_job_status", submission)) in _ENDED
        text = str(ask(address, "get_job_logs", submission))
        yield text[printed:]
        printed = len(text)
        if ended or not follow:
            return
        time.sleep(_POLL)


def find_job(name: str, output: str | None) -> Job:
    """The job folder meant: OUTDIR/.reelcolor/NAME, in one piece or as -o OUTDIR and NAME; raises InputError."""
    outdir, found, job_id = name.rstrip("/").rpartition(f"/{FOLDER}/")
    if not found:
        if output is None:
            raise InputError(f"{name}: where is it? give -o OUTDIR, or the whole OUTDIR/{FOLDER}/{name}")
        outdir, job_id = output, name
    job = Job(place(outdir).absolute(), job_id)
    if not ((job.folder / REQUEST).exists() or (job.folder / "plan.json").exists()):
        raise InputError(f"{job.folder}: there is no such job; `reelcolor jobs list -o OUTDIR` names those there are")
    return job


def _send(client: Any, job: Job, only: Only, stored: Mapping[str, Any]) -> Submitted:
    submission = f"reelcolor-{job.folder.name}-{secrets.token_hex(3)}"
    words = ["python", "-m", "jobs.entry", str(job.outdir), job.folder.name, only, submission]
    runtime: dict[str, Any] = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS)}}
    runtime |= _sent_along(str(stored["env"]))
    file = job.folder / REQUEST
    before = file.read_bytes() if file.exists() else None
    write_json(file, {**stored, "submission": submission})
    try:
        _hand_over(client, entrypoint=shlex.join(words), submission_id=submission, runtime_env=runtime)
    except Exception as e:  # Ray raises all sorts
        if before is None:
            file.unlink(missing_ok=True)
        else:
            write_bytes(file, before)
        raise EngineError(refused(str(stored["address"]), e)) from e
    return Submitted(job, submission, str(stored["address"]))


def _hand_over(client: Any, **job: Any) -> None:
    """Have the cluster take the job, as soon as it takes any."""
    end = time.monotonic() + _YOUNG
    while True:
        try:
            with _quietly():
                client.submit_job(**job)
            return
        except Exception as e:  # as above
            if "No available agent" not in str(e) or time.monotonic() > end:
                raise
            time.sleep(_POLL)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what Ray logs of its packing, unless --debug has asked for it."""
    before = logging.root.manager.disable
    if not logging.root.isEnabledFor(logging.INFO):
        logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _sent_along(env: str) -> dict[str, Any]:
    """What of this source tree goes with the job: its packages, whatever else lies beside them."""
    if env == "image":
        return {}
    tree = Path(__file__).parents[1]
    if not (tree / "setup.py").is_file():
        raise InputError(
            f"--env working-dir sends a source tree along, and this reelcolor is installed, in {tree}; "
            "run it from a checkout (pip install -e), or install it on the nodes and leave the option away"
        )
    return {"working_dir": str(tree), "excludes": ["/*", "!/.", *(f"!/{name}" for name in PACKAGES), "__pycache__"]}


def _stored(job: Job) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((job.folder / REQUEST).read_bytes())
    except (FileNotFoundError, ValueError) as e:
        raise InputError(f"{job.folder}: holds no request that could be run again; it was not submitted") from e
    except ReelcolorError as e:
        raise InputError(str(e)) from e
    return found


def _absolute(source: str) -> str:
    return str(local_path(source).absolute()) if is_local(source) else source


def folder_of(outdir: Place) -> Place:
    """Where OUTDIR's job folders are."""
    return outdir.absolute() / FOLDER
