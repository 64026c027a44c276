"""Training recipes: TOML files, each a table per concern, read into frozen dataclasses that check themselves.

    base = "default"                    # a model package to begin with; its network, where there is no [network]
    [network]    name = "unet", and the keys of its config
    [bins]       see BinsConfig         [objective]  see losses.ObjectiveConfig    [data]  see DataConfig
    [training]   see schedule.TrainingConfig         [package]  see PackageConfig

A key may be written with - or _. One that does not exist is an error that names the nearest.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from model.data import SHORT_EDGE
from model.losses import ObjectiveConfig
from model.networks import NETWORKS
from model.schedule import TrainingConfig
from model.sources import SourceConfig
from pipeline.errors import RecipeError
from pipeline.infer import NETWORK_MULTIPLE

RECIPES = Path(__file__).parent / "recipes"
_CROPS = {"eccv16": 8}  # the sides of its crops are multiples of this
_SET_BY_THE_TRAINER = ("bins", "head", "space")  # keys of a network's config that follow from [bins] and [objective]

Config = TypeVar("Config")


@dataclass(frozen=True)
class BinsConfig:
    """The colours that classification chooses from, and the space of chroma that regression predicts.

    gamut: the 313 of Zhang et al. 2016 in CIE ab. frequent: the `count` most frequent cells of the grid in YUV, found
    from the photographs (Billaut et al. 2018).
    """

    kind: Literal["gamut", "frequent"] = "gamut"
    count: int = 32

    def __post_init__(self) -> None:
        if not 2 <= self.count <= 4096:
            raise ValueError(f"expected a count of 2 to 4096 bins, got {self.count}")

    @property
    def space(self) -> Literal["lab", "yuv"]:
        """Colour space of the chroma."""
        return "lab" if self.kind == "gamut" else "yuv"


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures are, and how they are shown.

    short_edge: pixels that pictures are reduced to. augmentation: `plain` crops and mirrors; `film` also shows half of
    them as old film, and some with film's sensitivity to colour; `colorunet` is that of Billaut et al. 2018.
    """

    sources: tuple[SourceConfig, ...] = ()
    short_edge: int = SHORT_EDGE
    augmentation: Literal["plain", "film", "colorunet"] = "film"

    def __post_init__(self) -> None:
        if not 32 <= self.short_edge <= 4096:
            raise ValueError(f"expected a short-edge of 32 to 4096 pixels, got {self.short_edge}")


@dataclass(frozen=True)
class PackageConfig:
    """What the model package is given. temperature: of the annealed mean. taken_back: see `bins.prior_shift`."""

    temperature: float = 0.38
    taken_back: float = 0.0

    def __post_init__(self) -> None:
        if not (0.01 <= self.temperature <= 2 and 0 <= self.taken_back <= 1):
            raise ValueError(f"expected a temperature of 0.01 to 2 and taken-back of 0 to 1, got {self}")


@dataclass(frozen=True)
class TrainRecipe:
    """Everything that a trained network depends on besides the pictures.

    network: its name and the keys of its config; None to take the base's.
    """

    name: str
    network: Mapping[str, Any] | None
    base: str | None
    bins: BinsConfig
    objective: ObjectiveConfig
    data: DataConfig
    training: TrainingConfig
    package: PackageConfig

    def within(self, minutes: float | None, epochs: float | None) -> TrainRecipe:
        """The same with another budget, where one is given."""
        if minutes is None and epochs is None:
            return self
        try:
            return dataclasses.replace(
                self, training=dataclasses.replace(self.training, minutes=minutes, epochs=epochs)
            )
        except ValueError as e:
            raise RecipeError(f"{self.name}: {e}") from e

    def on(self, paths: Iterable[str]) -> TrainRecipe:
        """The same on these pictures, where there are any; raises RecipeError where there are none at all."""
        sources = tuple(SourceConfig(path) for path in paths) or self.data.sources
        if not sources:
            raise RecipeError(f"recipe {self.name} names no pictures; add --data PATH, or sources to its [data]")
        return dataclasses.replace(self, data=dataclasses.replace(self.data, sources=sources))

    def beginning_with(self, base: str | None) -> TrainRecipe:
        """The same with another base, where one is given; raises RecipeError where neither gives a network."""
        base = base or self.base
        if base is None and self.network is None:
            raise RecipeError(f"recipe {self.name} has no [network]; give it one, or --base MODEL to take its network")
        return dataclasses.replace(self, base=base)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with the program."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def load_recipe(name_or_path: str) -> TrainRecipe:
    """A recipe by name, or from a file; paths of its sources are relative to that file.

    Raises RecipeError with file, key and expectation.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in shipped():
            hint = _suggestion(name_or_path, shipped())
            raise RecipeError(
                f"no recipe {name_or_path!r}{hint}; there are {', '.join(shipped())}, and any FILE.toml of your own"
            )
        path = RECIPES / f"{name_or_path}.toml"
    try:
        return _recipe(path.stem, tomllib.loads(path.read_text("utf-8-sig")), path.parent)
    except OSError as e:
        raise RecipeError(f"{path}: cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise RecipeError(f"{path}: is not TOML: {e}") from e
    except RecipeError as e:
        raise RecipeError(f"{path}: {e}") from e


def _recipe(name: str, document: dict[str, Any], folder: Path) -> TrainRecipe:
    network = document.pop("network", None)
    sections = {f.name: f for f in dataclasses.fields(TrainRecipe) if f.name not in ("name", "network")}
    for key in document:
        if key not in sections:
            keys = ["network", *sections]
            raise RecipeError(f"no such key {key!r}{_suggestion(key, keys)}; keys are {', '.join(keys)}")
    hints = typing.get_type_hints(TrainRecipe)
    values = {key: _converted(document.get(key, {}), hints[key], key) for key in sections if key != "base"}
    base = _converted(document["base"], str, "base") if "base" in document else None
    data: DataConfig = values["data"]
    sources = tuple(dataclasses.replace(s, path=str(folder / s.path)) for s in data.sources)
    values["data"] = dataclasses.replace(data, sources=sources)
    recipe = TrainRecipe(name, None if network is None else _network(network), base, **values)
    multiple = _CROPS.get((recipe.network or {}).get("name", ""), NETWORK_MULTIPLE)
    for stage in recipe.training.stages:
        if stage.size % multiple:
            raise RecipeError(f"training.stages expects sizes in multiples of {multiple}, got {stage.size}")
    return recipe


def _network(table: Any) -> dict[str, Any]:
    """[network], checked against the config of the network it names."""
    name = _table(table, "network").get("name")
    if name not in NETWORKS:
        raise RecipeError(f"network.name expects one of {', '.join(NETWORKS)}; got {name!r}")
    config, _ = NETWORKS[name]
    hints = typing.get_type_hints(config)
    keys = [f.name for f in dataclasses.fields(config) if f.name not in _SET_BY_THE_TRAINER]
    given = {key: value for key, value in table.items() if key != "name"}
    return {"name": name} | {
        known: _converted(value, hints[known], f"network.{known}")
        for key, value in given.items()
        for known in [_known(key, keys, "network")]
    }


def _read(config: type[Config], table: Any, where: str) -> Config:
    """A dataclass from a TOML table."""
    hints = typing.get_type_hints(config)
    keys = [f.name for f in dataclasses.fields(config)]  # type: ignore[arg-type]
    values = {
        name: _converted(value, hints[name], f"{where}.{name}")
        for key, value in _table(table, where).items()
        for name in [_known(key, keys, where)]
    }
    try:
        return config(**values)
    except (TypeError, ValueError) as e:
        raise RecipeError(f"[{where}]: {e}") from e


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where} expects a table, got {value!r}")
    return value


def _known(key: str, names: list[str], where: str) -> str:
    name = key.replace("-", "_")
    if name not in names:
        keys = ", ".join(n.replace("_", "-") for n in names) or "none but its name"
        raise RecipeError(f"no such key {where}.{key}{_suggestion(name, names)}; keys are {keys}")
    return name


def _converted(value: Any, wanted: Any, where: str) -> Any:
    """A TOML value as a field's type; raises RecipeError on a value of another type."""
    if dataclasses.is_dataclass(wanted):
        return _read(typing.cast(type[Any], wanted), value, where)
    origin, choices = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        return _converted(value, next(c for c in choices if c is not type(None)), where)
    if origin is Literal:
        if value not in choices:
            raise RecipeError(f"{where} expects one of {', '.join(choices)}; got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where} expects a list, got {value!r}")
        return tuple(_converted(item, choices[0], f"{where}[{i}]") for i, item in enumerate(value))
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is not wanted:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
        raise RecipeError(f"{where} expects {words[wanted]}, got {value!r}")
    return value


def _suggestion(value: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(value, list(choices), n=1)
    return f" (did you mean {close[0].replace('_', '-')!r}?)" if close else ""
