"""`reelcolor models`: what model packages there are, what they say of themselves, and whether they are sound."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.text import one_line, size
from pipeline.errors import EngineError
from pipeline.storage import is_local, local_path

if TYPE_CHECKING:
    from model.registry import Package
    from model.weights import Model

_TEMPERATURE = (
    "divides the logits before the softmax (annealed mean, Zhang et al. 2016, equation 5): towards 0 each place gets "
    "its likeliest colour, which may change abruptly from place to place; at 1 the mean of all its colours"
)
_NO_TEMPERATURE = "has no effect: the network gives colour itself, not a distribution of colours"
_ORIGINS = {"shipped": "shipped", "folder": "REELCOLOR_MODELS", "registry": "registry", "file": "file"}


def list_all() -> list[dict[str, Any]]:
    """Every model by name, nothing fetched; `problem` where its package is not sound."""
    from model.registry import known

    return [_listed(package) for package in known().values()]


def show(name: str) -> dict[str, Any]:
    """What a package says of itself; raises EngineError where it is not to be had or damaged."""
    from model.complexity import complexity
    from model.registry import locate
    from model.spaces import SPACES
    from model.weights import read_package

    package = locate(name)
    model = read_package(package)
    training = _json(model, "training")
    meaning = _TEMPERATURE if len(model.bins) else _NO_TEMPERATURE
    return {
        **_described(package, model),
        "config": _json(model, "config"),
        "parameters": _parameters(model),
        "flops_256": complexity(model.network).flops,
        "bins": len(model.bins),
        "scale": model.network.scale,
        "space": SPACES[model.bins.space],
        "temperature": model.temperature,
        "temperature_means": training.get("temperature", meaning),
        "training": training,
        "metrics": _json(model, "metrics"),
        "version": model.metadata.get("version", "unknown"),
    }


def verify(name: str) -> dict[str, Any]:
    """Check hash, tensors and the engine's answer; `problems` is empty where all are as they should be.

    Raises EngineError where there is no such model, or it cannot be fetched.
    """
    from model.engines import open_engine
    from model.registry import known, locate
    from model.weights import read_package

    package = locate(name)
    entry = known()[package.name].entry if package.origin == "shipped" else package.entry
    sha256 = parameters = key = problem = None
    try:
        model = read_package(package)
        sha256, parameters = model.sha256, _parameters(model)
        with open_engine(model) as engine:
            key = engine.key
        if entry and entry.sha256 != sha256:
            raise EngineError(f"{package.path}: its SHA-256 is {sha256}, the registry's is {entry.sha256}")
    except EngineError as e:
        problem = str(e)
    return {
        "name": package.name,
        "path": package.path,
        "sha256": sha256,
        "registered_sha256": entry.sha256 if entry else None,
        "parameters": parameters,
        "engine": key,
        "problems": [problem] if problem else [],
    }


def import_model(file: Path, network: str, output: Path) -> dict[str, Any]:
    """Write published weights as a package and show it; raises EngineError or StorageError where that cannot be."""
    from model.published import import_published

    import_published(file, network, output)
    return show(str(output))


def list_in_words(listed: list[dict[str, Any]]) -> str:
    """A table of models."""
    rows = [("name", "from", "network", "size", "SHA-256")]
    for d in listed:
        length = "to be fetched" if d["bytes"] is None else size(d["bytes"])
        rows.append((d["name"], _ORIGINS[d["origin"]], d["network"] or "", length, d["sha256"] or "damaged"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"PROBLEM: {d['problem']}" for d in listed if d["problem"])])


def show_in_words(d: dict[str, Any]) -> str:
    """A package for reading."""
    facts = {
        "file": d["path"] + (f", {size(d['bytes'])}" if d["bytes"] is not None else ""),
        "from": _ORIGINS[d["origin"]],
        "SHA-256": d["sha256"],
        "network": f"{d['network']}, {d['parameters'] / 1e6:.2f} million weights",
        "work": f"{d['flops_256'] / 1e9:.2f} GFLOP for a picture of 256×256",
        "output": f"{d['bins']} bins of colour" if d["bins"] else "colour itself (a regression), no bins",
        "resolution": "that of the input" if d["scale"] == 1 else f"1/{d['scale']} of the input's",
        "config": ", ".join(f"{k} {v}" for k, v in d["config"].items()),
        "space": d["space"],
        "temperature": f"{d['temperature']:g}; T {d['temperature_means']}",
        "training": {k: v for k, v in d["training"].items() if k != "temperature"} or "nothing on record",
        "metrics": d["metrics"] or "nothing on record",
        "written by": f"reelcolor {d['version']}",
    }
    return "\n".join([d["name"], *_outline(facts, "  ")])


def verify_in_words(d: dict[str, Any]) -> str:
    """A check for reading."""
    lines = [d["path"]]
    if d["sha256"]:
        against = {None: "none on record to hold it to", d["sha256"]: "as registered"}
        lines += [f"  SHA-256 {d['sha256']}, {against.get(d['registered_sha256'], 'not as registered')}"]
        lines += [f"  {d['parameters']} weights, all finite"]
    if d["engine"]:
        lines += [f"  {d['engine']} agrees with the reference"]
    lines += [f"PROBLEM: {problem}" for problem in d["problems"]]
    return "\n".join([*lines, "not sound" if d["problems"] else "sound"])


def _listed(package: Package) -> dict[str, Any]:
    from model.weights import read_package

    urls = list(package.entry.urls) if package.entry else []
    nothing = {"name": package.name, "origin": package.origin, "path": package.path, "bytes": None, "network": None}
    if not package.here and package.entry:
        return {**nothing, "sha256": package.entry.sha256, "urls": urls, "problem": None}
    try:
        return {**_described(package, read_package(package)), "urls": urls, "problem": None}
    except EngineError as e:
        return {**nothing, "bytes": _bytes(package), "sha256": None, "urls": urls, "problem": str(e)}


def _described(package: Package, model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "origin": package.origin,
        "path": package.path,
        "bytes": _bytes(package),
        "sha256": model.sha256,
        "network": model.metadata["network"],
    }


def _bytes(package: Package) -> int | None:
    return local_path(package.path).stat().st_size if is_local(package.path) else None


def _parameters(model: Model) -> int:
    return sum(p.numel() for p in model.network.parameters())


def _json(model: Model, key: str) -> dict[str, Any]:
    """An object of the metadata; what is not JSON is shown as it is."""
    text = model.metadata.get(key, "{}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    return found if isinstance(found, dict) else {"text": found}


def _outline(facts: Mapping[str, Any], indent: str) -> Iterator[str]:
    """Names and values, one a line, objects within objects further in."""
    width = max((len(str(k)) for k in facts), default=0)
    for key, value in facts.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}"
            yield from _outline(value, indent + "  ")
        else:
            yield f"{indent}{str(key).ljust(width)}  {one_line(str(value))}"
