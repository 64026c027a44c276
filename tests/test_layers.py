"""Who may import whom: pipeline ← model ← jobs; read from the syntax trees, so that no path is missed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "model", "jobs")
FRONT = {"click", "ray", "rich"}
MODEL_MAY_USE = {"color", "frames", "decode", "images", "storage", "errors", "infer", "quality"}
MODEL_MAY_USE |= {"version", "archives", "limits", "pictures", "probe", "profiles", "rendering", "shots"}  # reads data
HEAVY = {"torch", "openvino", "ray", "onnx", "onnxruntime", "cv2", "av", "fsspec", "rich", "PIL"}


@cache
def modules() -> dict[str, ast.Module]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text("utf-8")) for name, path in zip(names, paths, strict=True)}


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names that the import statements among `nodes` name; of `from a import b`, both a and a.b."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import_time(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run when the module is imported: not in functions, not under TYPE_CHECKING."""
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        yield node
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not typing_only:
            stack.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("pipeline", {"model", "jobs"} | FRONT), ("model", {"jobs"} | FRONT)],
)
def test_lower_layers_know_nothing_of_higher_ones(package: str, forbidden: set[str]) -> None:
    for name, tree in modules().items():
        if name.split(".")[0] == package:
            used = {top.split(".")[0] for top in imported(ast.walk(tree))}
            assert not used & forbidden, f"{name} imports {used & forbidden}"


def test_model_uses_the_pipelines_vocabulary_only() -> None:
    for name, tree in modules().items():
        if name.startswith("model"):
            used = {other.split(".")[1] for other in imported(ast.walk(tree)) if other.startswith("pipeline.")}
            assert used <= MODEL_MAY_USE, f"{name} imports pipeline.{used - MODEL_MAY_USE}"


def test_openvino_is_imported_silenced() -> None:
    for name, tree in modules().items():
        if name != "model.silent":
            used = {top.split(".")[0] for top in imported(ast.walk(tree))}
            assert not used & {"openvino", "openvino_telemetry"}, f"{name}: by way of model.silent, please"


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Its report begins with a number for this user, kept at home."""
    code = "import sys, model.silent; print(*(name for name, module in sys.modules.items() if module))"
    home = {k: v for k, v in os.environ.items() if k != "CI"} | {"HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, env=home)
    assert "openvino" in run.stdout.split()
    assert "openvino_telemetry" not in run.stdout.split()
    assert not list(tmp_path.iterdir())


def test_no_cycles() -> None:
    known = modules()
    graph = {name: {o for o in imported(at_import_time(tree)) if o in known} - {name} for name, tree in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        pytest.fail(" → ".join(e.args[1]))


def test_scripts_import_what_there_is() -> None:
    """Nothing else looks into them: they have no suffix, and run for minutes."""
    known = modules()
    texts = [path.read_text("utf-8") for path in sorted((ROOT / "scripts").iterdir()) if path.is_file()]
    trees = [ast.parse(text) for text in texts if text.startswith(("#!/usr/bin/env python", '"""'))]
    assert len(trees) > 5
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)):
        module = node.module or ""
        if module.split(".")[0] in PACKAGES:
            there = {getattr(n, "name", None) or getattr(n, "id", None) for n in ast.walk(known[module])}
            assert {alias.name for alias in node.names} <= there, f"{module} has not all of {ast.unparse(node)}"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["colorize", "--help"], ["probe", "--help"]])
def test_help_needs_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from jobs.cli import main
main({arguments!r}, standalone_mode=False)
print("LOADED", *sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    loaded = set(printed.split("LOADED")[1].split())
    assert not loaded & HEAVY


def test_the_readers_catch_what_they_are_for() -> None:
    tree = ast.parse("import torch\nif TYPE_CHECKING:\n    import ray\ndef f():\n    from jobs import cli\n")
    assert set(imported(ast.walk(tree))) == {"torch", "ray", "jobs", "jobs.cli"}
    assert set(imported(at_import_time(tree))) == {"torch"}
