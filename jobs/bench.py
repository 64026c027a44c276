"""`reelcolor bench`: how near everything is to what the machine can do."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.film import Film, colorize, decode, encode, make_film, transcode
from jobs.records import write_json
from pipeline.errors import EngineError
from pipeline.storage import is_full, make_folder, storage_error
from pipeline.version import VERSION

if TYPE_CHECKING:
    from model.bench import Bench
    from model.rounds import Case

Rounds = Sequence[dict[str, float]]
THREADS = 2  # as a worker's engine has
_ENCODED = 50  # frames at most, which are held in memory
_START, _OVER = 5.0, 1.3  # what colorizing takes, about: seconds to start, and times the plain transcode
_ENGINES = 1 / 3  # of the time, where the film is timed, too


@dataclass(frozen=True)
class Request:
    """What is asked for. model: a package or a network's name. seconds: for all, or one round where that takes more."""

    output: Path
    model: str = "default"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    only: Literal["engines", "video"] | None = None
    seconds: float = 120.0
    size: int = 256
    film: Film = field(default_factory=lambda: Film(4.0))


class Told:
    """Who hears how far the bench is: nobody."""

    def done(self, name: str) -> None:
        """A case has had its turn."""

    def say(self, line: str) -> None:
        """What to know before it goes on."""


def bench(request: Request, told: Told | None = None) -> dict[str, Any]:
    """Measure, write bench.json and bench.png to the output folder, and return the document.

    Raises EngineError where the model or the device is not to be had, StorageError where the folder cannot be written.
    """
    from jobs.bench_report import draw

    told, begin = told or Told(), time.perf_counter()
    with _folder_for(request.output):
        document = _measured_document(request, begin, told)
        write_json(request.output / "bench.json", document)
        draw(document, request.output / "bench.png")
    return document


@contextmanager
def _folder_for(output: Path) -> Iterator[None]:
    """The output folder, made before anything is measured, and not left behind where nothing could be."""
    existed = os.path.lexists(output)
    make_folder(output)
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):
                output.rmdir()
        raise


def _measured_document(request: Request, begin: float, told: Told) -> dict[str, Any]:
    document: dict[str, Any] = {"version": VERSION, "machine": machine(), "request": asdict(request)}
    document["request"]["output"] = str(request.output)
    if request.only != "video":
        share = _ENGINES if request.only is None else 1
        document |= _engines(request, begin + request.seconds * share, told)
    if request.only != "engines":
        document["video"] = _video(request, begin + request.seconds, told)
    document["seconds"] = time.perf_counter() - begin
    return document


def machine() -> dict[str, Any]:
    """What it was measured on."""
    import av
    import torch

    from model.silent import openvino

    about = Path("/proc/cpuinfo")
    lines = about.read_text("ascii", "replace").splitlines() if about.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {"torch": torch.__version__, "openvino": openvino.__version__, "av": av.__version__}
    cpu = names[0] if names else platform.machine()
    return {"cpu": cpu, "processors": len(os.sched_getaffinity(0)), "gpu": gpu, "versions": versions}


def _measured(what: str, cases: Sequence[Case], until: float, told: Told) -> Rounds:
    """The rounds that there is time for, at least one; says before it begins where that will be late."""
    from model.rounds import in_rounds, one_round

    left, least = max(0.0, until - time.perf_counter()), one_round(cases)
    if least > left:
        told.say(f"{what}: measured once, which takes about {least:.0f} s; {left:.0f} s are left")
    return in_rounds(cases, left, done=told.done)


def _engines(request: Request, until: float, told: Told) -> dict[str, Any]:
    import torch

    from model.bench import bench_model, cpu_bench
    from model.complexity import complexity

    has_gpu = torch.cuda.is_available()
    begin = time.perf_counter()
    if request.device == "cuda" and not has_gpu:
        raise EngineError("PyTorch finds no NVIDIA GPU; choose the device cpu")
    device = "cuda" if has_gpu and request.device != "cpu" else "cpu"
    model = bench_model(request.model)
    flops = complexity(model.network, request.size, request.size).flops
    with ExitStack() as stack:
        if device == "cuda":
            from model.bench_cuda import cuda_bench

            found = cuda_bench(model, request.size, stack, told.done)
        else:
            found = cpu_bench(model, request.size, THREADS, stack, told.done)
        ready = time.perf_counter() - begin
        rounds = _measured("engines", found.cases, until, told)
    about = {"ready": ready, "name": model.name, "sha256": model.sha256, "gflop": flops / 1e9, "size": request.size}
    return {"device": device, "model": about} | engine_document(found, rounds, flops)


def engine_document(bench: Bench, rounds: Rounds, flops: int) -> dict[str, Any]:
    """What the rounds say of the engines; flops: of one picture."""
    from model.rounds import median, ratio

    names = {case.name for case in bench.cases}
    fp32 = {(run.engine, run.batch): run.case for run in bench.runs if run.precision == "fp32"}
    engines = []
    for run in bench.runs:
        limit, usual = bench.ceilings[run.precision], fp32.get((run.engine, run.batch))
        engines.append({
            "engine": run.engine,
            "precision": run.precision,
            "batch": run.batch,
            "key": run.key,
            "fps": median(rounds, run.case),
            "bare_fps": median(rounds, run.bare),
            "of_bare": ratio(rounds, run.case, run.bare),
            "of_limit": ratio(rounds, run.case, limit) * flops,
            "of_fp32": ratio(rounds, run.case, usual) if usual else None,
        })  # fmt: skip
    opencv = None
    if "OpenCV DNN" in names:
        engine = fp32[max(fp32)]
        opencv = {"fps": median(rounds, "OpenCV DNN"), "engine_over_it": ratio(rounds, engine, "OpenCV DNN")}
    limits = {precision: median(rounds, case) / 1e9 for precision, case in bench.ceilings.items()}
    return {
        "rounds": len(rounds),
        "limits": {"gflops": limits, "copy_gb_per_s": median(rounds, "copy") / 1e9},
        "engines": engines,
        "opencv_dnn": opencv,
        "left_out": bench.left_out,
    }


def _video(request: Request, until: float, told: Told) -> dict[str, Any]:
    from model.networks import NETWORKS

    model = "default" if request.model in NETWORKS else request.model
    try:
        with tempfile.TemporaryDirectory() as folder:
            rounds = _measured("video", _video_cases(request.film, model, Path(folder)), until, told)
    except OSError as e:
        if is_full(e.errno):
            raise storage_error(Path(tempfile.gettempdir()), e) from e
        raise
    return video_document(request.film, rounds) | {"model": model}


def _video_cases(film: Film, model: str, folder: Path) -> list[Case]:
    from model.rounds import Case, timed

    source = folder / "film.mp4"
    make_film(source, film)
    frames = decode(source, keep=_ENCODED)
    decoding = timed(partial(decode, source))
    encoding = timed(partial(encode, frames, source, folder / "encoded.mp4"))
    few = frames[: len(frames) // 4 + 1]
    quick, slow = decoding(), timed(partial(encode, few, source, folder / "trial.mp4"))() / len(few)
    both = quick + slow * film.frames
    return [
        Case("decode", film.frames, decoding, quick),
        Case("encode", len(frames), encoding, slow * len(frames)),
        Case("transcode", film.frames, partial(transcode, source, folder / "plain.mp4"), both),
        Case("colorize", film.frames, lambda: colorize(source, _folder(folder), model), _START + _OVER * both),
    ]


def _folder(within: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=within))


def video_document(film: Film, rounds: Rounds) -> dict[str, Any]:
    """What the rounds say of the film's way; ratio: time of colorizing by that of the transcode."""
    from model.rounds import median, ratio

    rates = {f"{name}_fps": median(rounds, name) for name in ("decode", "encode", "transcode", "colorize")}
    about = {"width": film.width, "height": film.height, "frames": film.frames}
    return {"film": about, "rounds": len(rounds), **rates, "ratio": ratio(rounds, "transcode", "colorize")}
