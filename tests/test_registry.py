"""Names of models: which file each leads to, what is fetched is what was meant, and what to do where it is not."""

from __future__ import annotations

import hashlib
import http.server
import json
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from model import registry
from model.bins import Bins
from model.networks.unet import UNet, UNetConfig
from model.registry import known, locate
from model.weights import load_model, save_model
from pipeline.errors import EngineError

TINY = UNetConfig(bins=3, widths=(4, 4, 4, 4, 4), encoder=(0, 0, 0, 0), decoder=(0, 0, 0))


def write_package(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    bins, prior = Bins("lab", np.array([[0, 0], [50, 0], [0, 50]])), np.full(3, 1 / 3)
    save_model(path, network=UNet(TINY), bins=bins, prior=prior, temperature=0.5, training={}, metrics={})
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def register(folder: Path, name: str, digest: str, *urls: str) -> None:
    with (folder / "registry.toml").open("a") as f:
        f.write(f'[{name}]\nsha256 = "{digest}"\nurls = {json.dumps(urls)}\n')


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$REELCOLOR_MODELS, with nothing shipped and an empty cache."""
    for variable, name in (("REELCOLOR_MODELS", "models"), ("XDG_CACHE_HOME", "cache")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(registry, "PRETRAINED", tmp_path / "shipped")
    return tmp_path / "models"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return write_package(tmp_path / "elsewhere" / "file.safetensors")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    root = str(tmp_path / "elsewhere")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Quiet(*a, directory=root)) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_shipped_comes_before_the_folder_and_the_folder_before_what_must_be_fetched(
    folder: Path, tmp_path: Path, elsewhere: Path
) -> None:
    register(folder, "film", sha256(elsewhere), elsewhere.as_uri())
    assert (known()["film"].origin, known()["film"].here) == ("registry", False)
    own = write_package(folder / "film.safetensors")
    assert (locate("film").origin, locate("film").path) == ("folder", str(own))
    shipped = write_package(tmp_path / "shipped" / "film.safetensors")
    assert (locate("film").origin, locate("film").path) == ("shipped", str(shipped))
    assert list(known()) == ["film"]
    assert known()["film"].path == str(shipped)


def test_a_path_is_taken_as_it_is(elsewhere: Path) -> None:
    assert locate(str(elsewhere)).origin == "file"
    assert load_model(elsewhere.as_uri()).sha256 == sha256(elsewhere)
    assert load_model(str(elsewhere)).name == "file"


@pytest.mark.parametrize("way", ["file", "http", "path"])
def test_a_registered_package_is_fetched_once_and_kept(
    folder: Path, elsewhere: Path, server: http.server.ThreadingHTTPServer, way: str
) -> None:
    url = {
        "file": elsewhere.as_uri(),
        "http": f"http://127.0.0.1:{server.server_port}/file.safetensors",
        "path": str(elsewhere),
    }
    register(folder, "film", sha256(elsewhere), url[way])
    model = load_model("film")
    assert (model.name, model.sha256) == ("film", sha256(elsewhere))
    assert len(server.asked) == (way == "http")
    elsewhere.unlink()
    assert load_model("film").sha256 == model.sha256
    assert known()["film"].here


def test_what_was_damaged_in_the_cache_is_fetched_again(folder: Path, elsewhere: Path) -> None:
    register(folder, "film", sha256(elsewhere), elsewhere.as_uri())
    kept = Path(locate("film").path)
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert locate("film").path == str(kept)
    assert sha256(kept) == sha256(elsewhere)


def test_mirrors_are_tried_in_turn(
    folder: Path, elsewhere: Path, server: http.server.ThreadingHTTPServer, tmp_path: Path
) -> None:
    other = write_package(tmp_path / "elsewhere" / "other.safetensors", seed=1)
    root = f"http://127.0.0.1:{server.server_port}"
    urls = [f"{root}/gone.safetensors", other.as_uri(), f"{root}/file.safetensors"]
    register(folder, "film", sha256(elsewhere), *urls)
    assert load_model("film").sha256 == sha256(elsewhere)
    assert len(list((tmp_path / "cache/reelcolor/models").glob("*.safetensors"))) == 1


def test_where_nothing_can_be_fetched_the_error_says_how_to_do_it_by_hand(
    folder: Path, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_package(tmp_path / "elsewhere" / "other.safetensors", seed=1)
    closed = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    closed.server_close()
    urls = [f"http://127.0.0.1:{closed.server_port}/x", other.as_uri(), "file:///nowhere/x", "nonsense://x/y"]
    register(folder, "film", sha256(elsewhere), *urls)
    with pytest.raises(EngineError) as e:
        load_model("film")
    message = str(e.value)
    assert "\n" not in message
    for told in (*urls, sha256(elsewhere), sha256(other), str(folder / "film.safetensors")):
        assert told in message
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]

    (folder / "film.safetensors").write_bytes(elsewhere.read_bytes())  # as told
    assert load_model("film").sha256 == sha256(elsewhere)

    (folder / "film.safetensors").unlink()
    moved = folder.rename(tmp_path / "shipped2")
    monkeypatch.setattr(registry, "PRETRAINED", moved)
    monkeypatch.delenv("REELCOLOR_MODELS")
    with pytest.raises(EngineError) as e:
        load_model("film")
    place = Path(str(e.value).rpartition("put it at ")[2])
    place.write_bytes(elsewhere.read_bytes())
    assert load_model("film").sha256 == sha256(elsewhere)


def test_a_file_in_the_folder_that_is_not_the_registered_one_is_refused(folder: Path, elsewhere: Path) -> None:
    register(folder, "film", sha256(elsewhere))
    other = write_package(folder / "film.safetensors", seed=1)
    with pytest.raises(EngineError, match=f"{sha256(other)}.*{sha256(elsewhere)}"):
        load_model("film")


def fetch(_: int) -> str:
    return locate("film").path


def test_processes_that_want_the_same_package_fetch_it_once(
    folder: Path, elsewhere: Path, server: http.server.ThreadingHTTPServer
) -> None:
    register(folder, "film", sha256(elsewhere), f"http://127.0.0.1:{server.server_port}/file.safetensors")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(fetch, range(4), chunksize=1)
    assert len(set(paths)) == 1
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[film", "cannot be read as TOML"),
        ("film = 1", "the keys sha256 and urls"),
        ("[film]\nsha256 = 'ab'\nurls = []", "64 hexadecimal digits"),
        ("[film]\nsha256 = 7\nurls = []", "64 hexadecimal digits"),
        (f"[film]\nsha256 = '{'a' * 64}'\nurls = 'x'", "list of addresses"),
        (f"[film]\nsha256 = '{'a' * 64}'\nurls = [\"a\\nb\"]", "list of addresses"),
        (f"[film]\nsha256 = '{'a' * 64}'\nurls = []\nmirror = 'x'", "and no others"),
        (f"['../film']\nsha256 = '{'a' * 64}'\nurls = []", "a name of letters"),
        (b"\xff\xfe", "cannot be read as TOML"),
    ],
)
def test_a_malformed_registry_is_named(folder: Path, tmp_path: Path, text: str | bytes, reason: str) -> None:
    path = folder / "registry.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EngineError, match=reason) as e:
        locate("film")
    assert str(e.value).startswith(f"{path}: ")
    assert "\n" not in str(e.value)
    write_package(tmp_path / "shipped" / "default.safetensors")
    assert locate("default").origin == "shipped"  # needs no registry


def test_the_shipped_registry_names_win(folder: Path, tmp_path: Path) -> None:
    register(tmp_path / "shipped", "film", "a" * 64)
    register(folder, "film", "b" * 64)
    register(folder, "reel", "c" * 64)
    assert {n: p.entry.sha256[0] for n, p in known().items() if p.entry} == {"film": "a", "reel": "c"}


def test_an_unknown_name_lists_what_there_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(folder / "film.safetensors")
    register(folder, "reel", "c" * 64)
    with pytest.raises(EngineError, match="harbour: no such model; known: film, reel;"):
        locate("harbour")
    monkeypatch.setenv("REELCOLOR_MODELS", str(folder / "missing"))
    with pytest.raises(EngineError, match="missing, which is no folder"):
        locate("harbour")


def test_names_never_lead_out_of_the_folders(folder: Path) -> None:
    write_package(folder.parent / "outside.safetensors")
    for name in ("../outside", "..", "", ".", "/etc/passwd", "a\0b"):
        with pytest.raises(EngineError, match="no such model"):
            locate(name)
