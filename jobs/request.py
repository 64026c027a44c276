"""A `colorize` command, parsed: what to do, and the engine to do it with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.inputs import Item
from jobs.ledger import Job
from jobs.plan import encoder_settings, short_hash
from jobs.recipe import Recipe
from jobs.shares import Shares
from jobs.worker import IN_FLIGHT, Opener
from pipeline.errors import EngineError, InputError
from pipeline.storage import Place, check_folder, is_local, local_path, place, sha256_file

if TYPE_CHECKING:
    from pipeline.infer import Colorizer


@dataclass(frozen=True)
class Colouring:
    """The engine to colour with: how a worker opens it, and the SHA-256 of its weights."""

    open: Opener
    weights: str


Only = Literal["all", "unfinished", "failed"]  # reels: those that have not failed before, or those that have


@dataclass(frozen=True)
class Request:
    """What is asked for; raises RecipeError where the codec does not have the quality or the preset."""

    inputs: tuple[str, ...]
    outdir: Place
    recipe: Recipe = field(default_factory=Recipe)
    workers: int | None = None
    overwrite: bool = False
    debug: bool = False
    shares: Shares | None = None  # of a cluster's nodes; None: work on this machine
    only: Only = "all"

    def __post_init__(self) -> None:
        for url in self.inputs:
            place(url)  # refused where it holds credentials, before it is shown or written down anywhere
        encoder_settings(self.recipe)


@contextmanager
def open_colorizer(model: str, weights: str, temperature: float | None, precision: str = "auto") -> Iterator[Colorizer]:
    """The model's engine on this machine; raises EngineError, also where its weights are not those planned with."""
    from model.engines import open_engine
    from model.outline import outlined

    loaded = outlined(model)
    if loaded.sha256 != weights:
        raise EngineError(f"{model}: changed since the run began; run the same command again")
    given: Any = {"temperature": temperature, "precision": precision}
    with open_engine(loaded, threads=IN_FLIGHT, **given) as engine:
        yield engine


def default_colouring(recipe: Recipe) -> Colouring:
    """The recipe's model, hashed but not loaded; raises EngineError where there is none."""
    from model.registry import locate

    try:
        weights = sha256_file(locate(recipe.model).path)
    except InputError as e:
        raise EngineError(str(e)) from e
    opener = partial(open_colorizer, recipe.model, weights, recipe.temperature, recipe.precision)
    return Colouring(opener, weights)


def job_of(request: Request, colouring: Colouring) -> Job:
    """The job folder of a command: the same for the same inputs, recipe and weights.

    Raises StorageError where OUTDIR is no folder that can be written to.
    """
    if isinstance(request.outdir, Path):
        check_folder(request.outdir)
    inputs = [str(local_path(i).absolute()) if is_local(i) else i for i in request.inputs]
    return Job(request.outdir.absolute(), short_hash(*inputs, request.recipe.digest(), colouring.weights))


def sources_of(items: Iterable[Item]) -> Iterator[str]:
    """Every file that is read."""
    for item in items:
        yield from (f"{item.path}/{name}" for name in item.files) if item.files else (item.path,)
