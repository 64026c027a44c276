"""A Ray cluster on loopback whose nodes a test may kill: every node is `ray start --block` in a process of its own.

Nodes have addresses of their own, 127.0.0.2 and on: 127.0.0.1 is what Ray takes for a wish to be told the outward one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Nodes:
    """The head and the others. `environment` is what commands and drivers need to be let in."""

    folder: Path
    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    metrics: int = field(default_factory=free_port)
    nodes: list[psutil.Process] = field(default_factory=list)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def gcs(self) -> str:
        return f"127.0.0.2:{self.port}"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def start(self, cpus: int = 2, seconds: float = 120.0) -> psutil.Process:
        """One node more; the first is the head. Returns once it has joined."""
        head = not self.nodes
        where = ["--head", f"--port={self.port}"] if head else [f"--address={self.gcs}"]
        if head:
            where += [f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1", f"--temp-dir={self.folder}/r"]
            where += [f"--metrics-export-port={self.metrics}"]
        common = [f"--node-ip-address=127.0.0.{len(self.nodes) + 2}", f"--num-cpus={cpus}", "--num-gpus=0", "--block"]
        command = [
            *(sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"),
            *where,
            *common,
            "--object-store-memory=80000000",
        ]
        log = (self.folder / f"node{len(self.nodes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        self.started.append(process)
        node = psutil.Process(process.pid)
        self.nodes.append(node)
        end = time.monotonic() + seconds
        while self._alive() < sum(n.is_running() and n.status() != "zombie" for n in self.nodes):
            assert time.monotonic() < end, Path(log.name).read_text("utf-8", "replace")
            time.sleep(0.5)
            assert process.poll() is None, Path(log.name).read_text("utf-8", "replace")
        return node

    def _alive(self) -> int:
        """Nodes that have joined, by asking the head's state over HTTP."""
        import requests

        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        with suppress(requests.RequestException, ValueError, KeyError):
            answer = requests.get(
                f"{self.address}/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE",
                headers=token,
                timeout=5,
            )
            return len(answer.json()["data"]["result"]["result"])
        return 0

    def kill(self, node: psutil.Process) -> None:
        """As when the power goes: every process of the node at once."""
        for process in [node, *node.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """All that was started by this cluster's nodes and still runs: they have its token in their environment."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                ours = process.environ().get("RAY_AUTH_TOKEN") == self.environment["RAY_AUTH_TOKEN"]
                if ours and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                    found.append(process)
        return found


@contextmanager
def cluster(*cpus: int, **more: str) -> Iterator[Nodes]:
    """A cluster of as many nodes as there are arguments; ended by its own processes' ids."""
    folder = Path(tempfile.mkdtemp(prefix="rc-"))
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": tempfile.gettempdir(),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    nodes = Nodes(folder, kept | settings | more)
    try:
        for count in cpus:
            nodes.start(count)
        yield nodes
    finally:
        for node in nodes.nodes:
            with suppress(psutil.NoSuchProcess):
                nodes.kill(node)
        end = time.monotonic() + 15
        while (left := nodes.processes()) and time.monotonic() < end:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.3)
        for started in nodes.started:
            started.wait(10)
        shutil.rmtree(folder, ignore_errors=True)
