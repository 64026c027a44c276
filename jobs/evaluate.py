"""`reelcolor evaluate`: models and baselines on the same pictures, as a document, a table and a sheet to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.chosen import Chosen, bootstrap_replicates, bootstrap_units, choose
from jobs.scores import in_markdown
from pipeline.errors import InputError
from pipeline.storage import make_folder, write_bytes
from pipeline.version import VERSION

if TYPE_CHECKING:
    from model.data import Photos
    from model.evaluate import Judge, Predict, Replicates
    from model.measures import ClassWeights, Interval
    from model.weights import Model

BASELINES = ("gray", "random")
_TRUTH = "truth"  # the row of the true colours
_ON_SHEET = 16  # pictures


@dataclass(frozen=True)
class Request:
    """What to measure on what. temperatures: () for each model's own. size²: pixels that pictures are measured at.

    split: what training kept on one side, see `model.sources.SourceConfig`.
    """

    models: tuple[str, ...]
    data: tuple[str, ...]
    output: Path
    baselines: tuple[str, ...] = BASELINES
    classifier: Path | None = None
    labels: Path | None = None
    held_out: bool = True
    temperatures: tuple[float, ...] = ()
    size: int = 192
    count: int | None = None
    split: Literal["picture", "folder"] = "picture"


def evaluate(request: Request, done: Callable[[int, int], None]) -> dict[str, Any]:
    """Measure, write results.json, results.md and sheet.png into the output folder, and return the document.

    done: told how many pictures of how many have been measured. Raises InputError for data without pictures to measure
    on, or labels that fit none of them; EngineError for a model or classifier; StorageError for the folder.
    """
    from model.cache import cache_folder
    from model.data import open_photos
    from model.sources import SourceConfig
    from model.weights import load_model

    make_folder(request.output)
    models = {name: load_model(name) for name in dict.fromkeys(request.models)}
    classifier, labels = _classifier(request)
    sources = [SourceConfig(path, split=request.split) for path in request.data]
    photos = open_photos(sources, cache_folder() / "photos", _short_edge(request.size))
    chosen = choose(photos, request.held_out, request.count)
    weights, weighted_by = class_weights(list(models.values()), photos)
    with ExitStack() as stack:
        methods, rows = _methods(request, models, chosen, stack)
        found = _compared(request, methods, chosen, weights, _judge(classifier, labels, chosen), done)
        _draw(request, methods, chosen)
    document = _document(request, chosen, weighted_by, rows, found)
    write_bytes(request.output / "results.json", (json.dumps(document, indent=1) + "\n").encode())
    write_bytes(request.output / "results.md", in_markdown(document).encode(errors="backslashreplace"))
    return document


def class_weights(models: Sequence[Model], photos: Photos) -> tuple[ClassWeights, str]:
    """The weights of the rebalanced AuC, the same for all, and whose prior they are.

    The first model's that has a prior over bins of a*, b*; a uniform one is none. Else that of the data to train on.
    """
    from model.bins import gamut_bins
    from model.measures import ClassWeights
    from model.prior import estimate_prior

    for model in models:
        prior = model.prior
        if model.bins.space == "lab" and len(prior) and 0 < prior.min() < prior.max():
            return ClassWeights(model.bins.centers, prior), f"prior of {model.name}, {len(prior)} bins"
    bins = gamut_bins()
    estimated = estimate_prior(photos, photos.split()[0], bins)
    return ClassWeights(bins.centers, estimated), f"prior of the data, {len(bins)} bins"


def _short_edge(size: int) -> int:
    """Of the photographs, so that one of 4:3 has about the area asked for; the trainer's, where that will do."""
    from model.data import SHORT_EDGE

    return max(SHORT_EDGE, size * 5 // 6)


def _classifier(request: Request) -> tuple[Any, dict[str, int] | None]:
    if request.classifier is None:
        return None, None
    from model.classifier import Classifier, read_labels

    classifier = Classifier(request.classifier)
    labels = read_labels(request.labels) if request.labels else None
    if labels and max(labels.values()) >= classifier.classes:
        largest = max(labels.values())
        raise InputError(f"{request.labels}: class {largest}, but {request.classifier} has {classifier.classes}")
    return classifier, labels


def _judge(classifier: Any, labels: dict[str, int] | None, chosen: Chosen) -> Judge | None:
    from model.classifier import label_of
    from model.evaluate import Judge

    if classifier is None:
        return None
    if labels is None:
        return Judge(classifier)
    places = zip(chosen.of(chosen.photos.names), chosen.of(chosen.photos.folders), strict=True)
    right = [label_of(labels, Path(name).name, folder) for name, folder in places]
    if not any(label is not None for label in right):
        raise InputError("the labels name none of the pictures, nor a folder of theirs; see evaluate --help")
    return Judge(classifier, right)


def _methods(
    request: Request, models: dict[str, Model], chosen: Chosen, stack: ExitStack
) -> tuple[dict[str, Predict], list[dict[str, Any]]]:
    """Ways to colour, by the name of their row, and what to say of each row."""
    import numpy as np

    from model.baselines import BorrowedColour, all_grey
    from model.engines import open_engine

    photos = chosen.photos
    lenders = Chosen(photos, photos.split()[0] if request.held_out else np.arange(len(photos)))
    baselines: dict[str, Predict] = {"gray": all_grey, "random": BorrowedColour(lenders)}
    methods = {name: baselines[name] for name in request.baselines}
    rows: list[dict[str, Any]] = [{"name": name, "kind": "baseline"} for name in methods]
    for name, model, temperature in _ways(models, request.temperatures):
        methods[name] = stack.enter_context(open_engine(model, temperature=temperature, precision="fp32"))
        about = {"network": model.metadata.get("network"), "sha256": model.sha256, "temperature": temperature}
        rows.append({"name": name, "kind": "model", **about})
    return methods, rows


def _ways(models: dict[str, Model], temperatures: Sequence[float]) -> Iterator[tuple[str, Model, float | None]]:
    """(name of the row, model, T); a regression has one row, as T means nothing to it."""
    names = [model.name for model in models.values()]
    for argument, model in models.items():
        name = argument if names.count(model.name) > 1 or model.name in (_TRUTH, *BASELINES) else model.name
        if not len(model.bins):
            yield name, model, None
        elif not temperatures:
            yield name, model, model.temperature
        else:
            yield from ((f"{name} T={t:g}", model, t) for t in temperatures)


def _compared(
    request: Request,
    methods: dict[str, Predict],
    chosen: Chosen,
    weights: ClassWeights,
    judge: Judge | None,
    done: Callable[[int, int], None],
) -> dict[str, Any]:
    """For each row, its measures with intervals, and their differences from gray where that was measured."""
    from model.evaluate import compare, intervals

    found = compare(
        {_TRUTH: None, **methods},
        chosen,
        weights,
        area=request.size**2,
        units=bootstrap_units(chosen)[0],
        judge=judge,
        replicates=bootstrap_replicates(chosen),
        done=lambda count: done(count, len(chosen)),
    )
    gray = found.get("gray")
    return {
        name: {
            "values": _plain(intervals(values)),
            "against_gray": _plain(_apart(values, gray)) if gray and name not in (_TRUTH, "gray") else {},
        }
        for name, values in found.items()
    }


def _apart(values: Replicates, gray: Replicates) -> dict[str, Interval]:
    """Differences from gray; colourfulness's from the truth would come twice."""
    from model.evaluate import intervals

    differences = intervals(values, gray)
    return {name: found for name, found in differences.items() if name != "colourfulness_difference"}


def _plain(measured: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(found) for name, found in measured.items()}


def _draw(request: Request, methods: dict[str, Predict], chosen: Chosen) -> None:
    from model.baselines import all_grey
    from model.evaluate import pictured
    from model.sheets import draw_sheet

    drawn = {"gray": all_grey} | {name: way for name, way in methods.items() if name not in BASELINES}
    pictures = (chosen[i] for i in range(min(_ON_SHEET, len(chosen))))
    draw_sheet(request.output / "sheet.png", [_TRUTH, *drawn], pictured(drawn, pictures, request.size**2))


def _document(
    request: Request, chosen: Chosen, weighted_by: str, rows: list[dict[str, Any]], found: dict[str, Any]
) -> dict[str, Any]:
    from model.tally import MEASURES

    measured = {name for row in found.values() for name in row["values"]}
    return {
        "data": list(request.data),
        "sources": chosen.photos.report.lines(),
        "pictures": len(chosen),
        "held_out": request.held_out,
        "size": request.size,
        "weights": weighted_by,
        "bootstrap": {"replicates": bootstrap_replicates(chosen), "drawn": bootstrap_units(chosen)[1]},
        "classifier": str(request.classifier) if request.classifier else None,
        "labels": str(request.labels) if request.labels else None,
        "measures": {name: words for name, words in MEASURES.items() if name in measured},
        "rows": [{**row, **found[row["name"]]} for row in ({"name": _TRUTH, "kind": _TRUTH}, *rows)],
        "version": VERSION,
    }
