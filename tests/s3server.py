"""An S3 server on this machine: moto behind a layer that counts requests and refuses, or cuts short, some of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fakes import content

from jobs import lease
from pipeline import stores
from pipeline.stores import StorePath

SECRET = "wJalrXUtnFEMI/K7MDENG+unmistakable"
ERROR = "<?xml version='1.0'?><Error><Code>{0}</Code><Message>{1}</Message></Error>"


class Server:
    """With a chance of `faults`, a request is refused or cut short."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self._chance = random.Random(1)
        self.faults = 0.0
        self.failed = 0
        self.requests: list[tuple[str, str, str]] = []  # method, path, query
        self.sent = 0  # bytes of bodies

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]))
        if "Credential=WRONG" in environ.get("HTTP_AUTHORIZATION", ""):
            return refuse(start, "403 Forbidden", "InvalidAccessKeyId", "The key you provided is not known")
        if self._chance.random() < self.faults:
            self.failed += 1
            if self.failed % 2 or "HTTP_RANGE" not in environ:
                return refuse(start, "503 Slow Down", "SlowDown", "Please reduce your request rate.")
            start("200 OK", [("Content-Length", "1000000")])
            return [b"cut off"]
        chunks = list(self._app(environ, start))
        self.sent += sum(map(len, chunks))
        return chunks


def refuse(start: Callable[..., Any], status: str, code: str, message: str) -> list[bytes]:
    body = ERROR.format(code, message).encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


@contextmanager
def serving() -> Iterator[tuple[Server, str]]:
    """The server, and its address."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any, **__: Any) -> None:
            pass

    application = Server()
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield application, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def bucket(application: Server, address: str) -> Iterator[Server]:
    """With an empty bucket named `reels`, and what its clients need in the environment."""
    settings = {"ACCESS_KEY_ID": "AKIARIGHT", "SECRET_ACCESS_KEY": SECRET, "DEFAULT_REGION": "us-east-1"}
    settings |= {"ENDPOINT_URL": address, "EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(f"AWS_{name}", value)
        for name in ("AWS_CA_BUNDLE", "AWS_PROFILE", "HTTP_PROXY", "http_proxy"):
            patch.delenv(name, raising=False)
        patch.setattr(stores, "_FIRST_DELAY", 0.01)
        patch.setattr(lease, "_SETTLING", 0.0)
        forget_clients()
        stores.attempt("s3://reels", "cannot be made", lambda fs, path: fs.mkdir(path))
        application.requests.clear()
        application.sent = 0
        yield application
        application.faults = 0.0
        stores.attempt("s3://reels", "cannot be removed", lambda fs, path: fs.rm(path, recursive=True))
        forget_clients()


def forget_clients() -> None:
    """Have the next client read the environment anew."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def put(path: Path, url: str) -> str:
    StorePath(url).upload(path)
    return url


def fetched(url: str, folder: Path) -> Any:
    """`content` of a video on the store."""
    copy = folder / url.rpartition("/")[2]
    copy.write_bytes(StorePath(url).read_bytes())
    return content(copy)
