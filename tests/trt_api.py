"""TensorRT's real Python API without TensorRT, and a reader that holds a source file against it.

The bindings (wheel tensorrt-cu13-bindings) load once their three libraries are there: stubs with the undefined
symbols will do. What each function takes and returns is read from the docstrings that pybind11 writes.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SYMBOLS = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
    "nvonnxparser": (
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
    ),
}
_SIGNATURE = re.compile(r"^(?:\d+\. )?\w*\((.*)\) -> (.+)$", re.MULTILINE)


def tensorrt(folder: Path) -> ModuleType:
    """TensorRT itself where it is installed, else its bindings over stubs made in `folder`; skips without either."""
    try:
        return importlib.import_module("tensorrt")
    except ImportError:
        pass
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to make the stub libraries with")
    try:
        major = version("tensorrt-cu13-bindings").split(".")[0]
    except PackageNotFoundError:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    for name, symbols in SYMBOLS.items():
        library = f"lib{name}.so.{major}"
        code = "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols)
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-x", "c", "-", "-o", str(folder / library)]
        subprocess.run(command, input=code.encode(), check=True)
        ctypes.CDLL(str(folder / library), mode=ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_bindings")


@dataclass(frozen=True)
class Signature:
    """Of one overload: parameter names without self, how many of them must be given, and the returned class."""

    names: tuple[str, ...]
    required: int
    returns: str

    def takes(self, call: ast.Call) -> bool:
        """Whether a call fits."""
        keywords = [k.arg for k in call.keywords]
        given = set(self.names[: len(call.args)]) | set(keywords)
        return (
            len(call.args) <= len(self.names)
            and set(keywords) <= set(self.names[len(call.args) :])
            and set(self.names[: self.required]) <= given
        )


def signatures(doc: str | None) -> list[Signature]:
    """Of all overloads in a docstring of pybind11."""
    found = []
    for parameters, returns in _SIGNATURE.findall(doc or ""):
        parts = [p for p in _split(parameters) if not p.startswith(("self:", "arg0:"))]
        if "*args" not in parts:
            names = tuple(p.split(":")[0].strip() for p in parts)
            found.append(Signature(names, sum(" = " not in p for p in parts), _class_name(returns)))
    return found


def _split(parameters: str) -> list[str]:
    """At the commas outside brackets."""
    parts, depth = [""], 0
    for c in parameters:
        depth += (c in "[(<") - (c in "])>")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts if p.strip()]


def _class_name(returns: str) -> str:
    return {"nvonnxparser::IParserError": "ParserError"}.get(returns.strip(), returns.strip().split(".")[-1])


@dataclass
class Reader(ast.NodeVisitor):
    """Follows the objects of `trt` through a file: `uses` are the members that exist, `problems` what does not."""

    trt: Any
    uses: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)  # of variables and of self's attributes

    def read(self, source: str) -> Reader:
        self.visit(ast.parse(source))
        return self

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for argument in node.args.args:
            if argument.annotation is not None:
                self._annotated(ast.Name(argument.arg), argument.annotation)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            if kind := self._class(base):
                self._overrides(node, kind)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self._annotated(node.target, node.annotation)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        if len(node.targets) == 1 and (kind := self._kind(node.value)):
            self.kinds[ast.unparse(node.targets[0])] = kind

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self._owner(node.value)
        if owner is not None:
            self._used(f"{owner[0]}.{node.attr}".lstrip("."), hasattr(owner[1], node.attr), node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if fitting := self._called(node):
            self._used(f"{ast.unparse(node.func)}()", any(s.takes(node) for s in fitting), node)

    def _used(self, name: str, exists: bool, node: ast.expr) -> None:
        if exists:
            self.uses.add(name)
        else:
            self.problems.append(f"line {node.lineno}: {name}: {ast.unparse(node)}")

    def _annotated(self, target: ast.expr, annotation: ast.expr) -> None:
        for part in ast.walk(annotation):
            if kind := self._class(part):
                self.kinds[ast.unparse(target)] = kind

    def _class(self, node: ast.AST) -> str | None:
        """The name of a class of trt, as in `trt.Builder`."""
        text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        found = text.startswith("trt.") and isinstance(getattr(self.trt, text[4:], None), type)
        return text[4:] if found else None

    def _owner(self, node: ast.expr) -> tuple[str, Any] | None:
        """What an attribute is looked up in: the module, a class, or the class of an object."""
        text = ast.unparse(node)
        if text == "trt":
            return "", self.trt
        if text.startswith("trt.") and "(" not in text:
            value = self.trt
            for name in text[4:].split("."):
                value = getattr(value, name, None)
            return text[4:], value
        kind = self._kind(node)
        return (kind, getattr(self.trt, kind)) if kind else None

    def _called(self, node: ast.Call) -> list[Signature]:
        if (kind := self._class(node.func)) is not None:
            return signatures(getattr(self.trt, kind).__init__.__doc__)
        if isinstance(node.func, ast.Attribute) and (owner := self._owner(node.func.value)):
            return signatures(getattr(getattr(owner[1], node.func.attr, None), "__doc__", None))
        return []

    def _kind(self, node: ast.expr) -> str | None:
        """The class of an expression's value, where it is one of trt."""
        if isinstance(node, ast.Call):
            found = self._class(node.func) or next((s.returns for s in self._called(node)), "")
            return found if isinstance(getattr(self.trt, found, None), type) else None
        return self.kinds.get(ast.unparse(node))

    def _overrides(self, node: ast.ClassDef, kind: str) -> None:
        """Functions that TensorRT calls take what it gives."""
        for function in node.body:
            if isinstance(function, ast.FunctionDef) and not function.name.startswith("__"):
                names = tuple(a.arg for a in function.args.args[1:])
                place = ast.Name(str(names), lineno=function.lineno)
                for wanted in signatures(getattr(getattr(self.trt, kind), function.name, object).__doc__):
                    self._used(f"{kind}.{function.name}", names == wanted.names, place)
