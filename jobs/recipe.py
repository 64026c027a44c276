"""The recipe: everything the output depends on besides the input, from the command line and a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from pipeline.errors import RecipeError
from pipeline.frames import Look
from pipeline.limits import DEFAULT_LIMITS, Limits

PROFILES = ("access", "mezzanine", "preservation")
PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8", "fp8")  # of the engine; auto: the fastest that passes its test
HWACCELS = ("auto", "none", "cuda")
CODECS = ("h264", "hevc", "av1", "prores", "ffv1")
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.01, 2.0),
    "saturation": (0.0, 2.0),
    "segment_seconds": (1.0, 3600.0),
}
_DIGITS = 18  # of a limit
NOT_OF_THE_RECIPE = ("output", "workers", "recipe", "overwrite", "dry_run", "json", "debug")


@dataclass(frozen=True)
class Recipe:
    """One choice per field; None leaves it to the profile (codec, crf, preset), the model (temperature) or the source.

    precision `auto` leaves it to the machine: segments that machines of two kinds make of one reel are made anew.

    Raises RecipeError where a value makes no sense by itself; `plan.encoder_settings` holds crf and preset against it.
    """

    model: str = "default"
    profile: str = "access"
    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    hwaccel: str = "none"
    temperature: float | None = None
    precision: str = "auto"
    saturation: float = 1.0
    recolor: bool = False
    segment_seconds: float = 10.0
    fps: Fraction | None = None
    limits: Limits = DEFAULT_LIMITS
    scan_fps: ClassVar[Fraction] = Fraction(24)  # of numbered scans, where fps is None

    def __post_init__(self) -> None:
        _expect_one_of("profile", self.profile, PROFILES)
        _expect_one_of("precision", self.precision, PRECISIONS)
        if self.codec is not None:
            _expect_one_of("codec", self.codec, CODECS)
        _expect_one_of("hwaccel", self.hwaccel, HWACCELS)
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RecipeError(f"{option(name)} expects {low:g} to {high:g}, got {value:g}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise RecipeError(f"--fps expects more than 0 and at most 1000 frames a second, got {self.fps}")

    @property
    def look(self) -> Look:
        """What the pipeline needs to know of the picture."""
        return Look(saturation=self.saturation, recolor=self.recolor)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, in field order."""
        return dataclasses.asdict(self) | {"fps": str(self.fps) if self.fps else None}

    def digest(self) -> str:
        """Hex SHA-256 over every field."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


def make_recipe(file: Path | None, given: Mapping[str, Any]) -> Recipe:
    """The TOML file's keys, overridden by what was `given` on the command line (None: not given).

    Raises RecipeError with file, key and expectation.
    """
    values = read_recipe(file) if file else {}
    limits = values.get("limits", {}) | (given.get("limits") or {})
    values |= {name: value for name, value in given.items() if value is not None}
    return Recipe(**values | {"limits": dataclasses.replace(DEFAULT_LIMITS, **limits)})


def read_recipe(file: Path) -> dict[str, Any]:
    """Field name → value of a recipe file; keys are the options' names, with - or _."""
    try:
        document = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as e:
        raise RecipeError(f"{file}: cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise RecipeError(f"{file}: is not TOML: {e}") from e
    values: dict[str, Any] = {}
    for key, value in document.items():
        try:
            name = _field_name(key)
            if name in values:
                raise RecipeError(f"{key} is given twice")
            values[name] = _checked(name, value)
        except RecipeError as e:
            raise RecipeError(f"{file}: {e}") from e
    return values


def parse_fps(text: str) -> Fraction:
    """`25`, `24000/1001` or `23.976` → frames a second; decimals of the NTSC rates become n·1000/1001.

    Raises RecipeError.
    """
    try:
        fps = Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as e:
        raise RecipeError(f"--fps expects a rate such as 25, 23.976 or 24000/1001, got {text!r}") from e
    nominal = Fraction(round(fps) * 1000, 1001)
    return nominal if "." in text and abs(fps - nominal) < Fraction(1, 200) else fps


def parse_limits(texts: Iterable[str]) -> dict[str, int]:
    """`image-pixels=2000000000` and so on → field of Limits → number. Raises RecipeError."""
    limits: dict[str, int] = {}
    for text in texts:
        key, equals, number = text.partition("=")
        if not equals or not number.strip().isdecimal() or len(number) > _DIGITS:
            raise RecipeError(f"--limit expects KEY=NUMBER such as image-pixels=2000000000, got {text!r}")
        limits |= _checked_limits({key.strip(): int(number)})
    return limits


def option(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def _expect_one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RecipeError(
            f"{option(name)} expects one of {', '.join(choices)}; got {value!r}{_suggest(value, choices)}"
        )


def _field_name(key: str) -> str:
    names = [f.name for f in dataclasses.fields(Recipe)]
    name = key.replace("-", "_")
    if name in NOT_OF_THE_RECIPE:
        raise RecipeError(f"{key} says how to run, not what to make; give it on the command line")
    if name not in names:
        keys = [n.replace("_", "-") for n in names]
        raise RecipeError(f"no such key {key!r}{_suggest(key, keys)}; keys are {', '.join(keys)}")
    return name


def _checked_limits(table: Any) -> dict[str, int]:
    """Fields of Limits from a table of numbers, spelt with - or _; raises RecipeError."""
    names = [f.name for f in dataclasses.fields(Limits)]
    keys = [name.replace("_", "-") for name in names]
    if not isinstance(table, dict):
        raise RecipeError(f"limits expects a table such as [limits] with image-pixels = 2000000000, got {table!r}")
    limits: dict[str, int] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in names:
            raise RecipeError(f"no such limit {key!r}{_suggest(key, keys)}; limits are {', '.join(keys)}")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RecipeError(f"limit {key} expects a whole number from 1 on, got {value!r}")
        limits[name] = value
    return limits


def _checked(name: str, value: Any) -> Any:
    """A TOML value as the field's type; raises RecipeError on a value of another type."""
    if name == "limits":
        return _checked_limits(value)
    if name == "fps":
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise RecipeError(f"fps expects a number or a string such as '24000/1001', got {value!r}")
        return parse_fps(str(value))
    kinds: dict[str, tuple[type, str]] = {"bool": (bool, "true or false"), "str": (str, "a string")}
    annotation = next(f.type for f in dataclasses.fields(Recipe) if f.name == name)
    wanted = str(annotation).removesuffix(" | None")
    if wanted == "float":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RecipeError(f"{name.replace('_', '-')} expects a number, got {value!r}")
        try:
            return float(value)
        except OverflowError as e:
            raise RecipeError(f"{name.replace('_', '-')} expects a number, got a larger one than there is") from e
    kind, words = kinds[wanted]
    if not isinstance(value, kind):
        raise RecipeError(f"{name.replace('_', '-')} expects {words}, got {value!r}")
    return value


def _suggest(value: str, choices: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(value, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
