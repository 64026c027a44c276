"""Several training workers through Ray Train, on this machine or on a cluster: processes in a group of torch's."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jobs.pool import local_ray, start_ray
from pipeline import errors
from pipeline.errors import EngineError, ReelcolorError

_POLL = 0.5  # seconds between looks at what the workers tell
_PATIENCE = 10.0  # seconds until a cluster's head must answer
_STOPPING = 60.0  # seconds that workers get to save what they have

Tell = Callable[[Any], bool]  # of a worker: takes news to the caller, and returns whether it is to stop
Work = Callable[[Tell], None]


def work_together(
    work: Work, workers: int, address: str | None, folder: Path, listen: Callable[[Any], None], debug: bool = False
) -> None:
    """Run `work` in so many processes, between which torch.distributed is set up, until all have ended.

    work: pickled; on a cluster, whose nodes must have this program and see the same files, it runs there. folder:
    for Ray's own notes. listen: called here with what the workers tell. Where a worker raises one of our errors, it is
    raised here; where one dies, EngineError. On KeyboardInterrupt the workers are first told to stop.
    """
    with _ray(address, workers, debug):
        import ray

        post: Any = ray.remote(num_cpus=0)(_Post).remote()
        ended: list[BaseException | None] = []
        failures: list[ReelcolorError] = []
        thread = threading.Thread(target=lambda: ended.append(_outcome(work, workers, folder, post)), daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_POLL)
                failures += _deliver(post, listen)
        except KeyboardInterrupt:
            ray.get(post.stop.remote())
            thread.join(_STOPPING)
            raise
        failures += _deliver(post, listen)
        if failures:
            raise failures[0]
        if ended[0] is not None:
            raise EngineError(f"a training worker has ended: {_short(ended[0])}; go on with --resume") from ended[0]


class _Post:
    """An actor between the workers and the caller."""

    def __init__(self) -> None:
        self._news: list[Any] = []
        self._stopping = False

    def tell(self, news: Any) -> bool:
        self._news.append(news)
        return self._stopping

    def collect(self) -> list[Any]:
        news, self._news = self._news, []
        return news

    def stop(self) -> None:
        self._stopping = True


def _deliver(post: Any, listen: Callable[[Any], None]) -> list[ReelcolorError]:
    """Pass on what has been told since the last time; returns the errors among it."""
    import ray

    failures = []
    for news in ray.get(post.collect.remote()):
        if isinstance(news, _Failure):
            failures.append(news.error())
        else:
            listen(news)
    return failures


class _Failure:
    """One of our errors on its way from a worker."""

    def __init__(self, error: ReelcolorError) -> None:
        self._kind, self._text = type(error).__name__, str(error)

    def error(self) -> ReelcolorError:
        """The same again."""
        kind: type[ReelcolorError] = getattr(errors, self._kind)
        return kind(self._text)


def _outcome(work: Work, workers: int, folder: Path, post: Any) -> BaseException | None:
    """Run Ray Train to its end; returns what it raised."""
    import torch
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = torch.cuda.is_available()
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # relative paths of a recipe are the caller's
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"work": work, "post": post, "threads": _threads(workers)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(
            name="training", storage_path=str(folder.absolute()), failure_config=FailureConfig(max_failures=0)
        ),
    )
    try:
        trainer.fit()
    except Exception as e:  # Ray raises all sorts
        return e
    return None


def _worker(config: dict[str, Any]) -> None:
    """What each process does."""
    import ray
    import torch

    torch.set_num_threads(config["threads"])
    post = config["post"]
    try:
        config["work"](lambda news: ray.get(post.tell.remote(news)))
    except KeyboardInterrupt:  # asked to stop, and everything is saved; an error ends the other workers at once
        raise RuntimeError("stopped") from None
    except ReelcolorError as e:
        ray.get(post.tell.remote(_Failure(e)))
        raise


def _threads(workers: int) -> int:
    return max(1, len(os.sched_getaffinity(0)) // workers)


def _short(e: BaseException) -> str:
    """The last line of Ray's many."""
    return str(e).strip().splitlines()[-1][:300] if str(e).strip() else type(e).__name__


def _check_reachable(address: str) -> None:
    """Raise EngineError at once where nothing listens: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        raise EngineError(f"{address}: expected ray://HOST:PORT or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, OverflowError) as e:
        raise EngineError(f"{address}: no Ray cluster answers there: {e}") from e


@contextlib.contextmanager
def _ray(address: str | None, workers: int, debug: bool) -> Iterator[None]:
    if address is None:
        with local_ray(workers, debug):
            yield
        return
    _check_reachable(address)
    import ray

    try:
        start_ray(address=address, log_to_driver=debug, logging_level=logging.INFO if debug else logging.CRITICAL)
    except Exception as e:  # Ray raises all sorts
        raise EngineError(f"{address}: no Ray cluster answers there: {_short(e)}") from e
    try:
        yield
    finally:
        ray.shutdown()
