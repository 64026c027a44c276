"""A Ray cluster on loopback whose nodes a test may kill: every node is `ray start --block` in a process of its own.

Nodes have addresses of their own, 127.0.0.2 and on: 127.0.0.1 is what Ray takes for a wish to be told the outward one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

FAKE_HEAD_NODE_ID = "f" * 51 + "00000"  # as Ray's provider has it
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
    python: str = sys.executable
    autoscaling: Mapping[str, Any] | None = None  # of the head
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

    def start(self, cpus: int = 2, seconds: float = 120.0, **more: str) -> psutil.Process:
        """One node more, with more in its environment; the first is the head. Returns once it has joined."""
        head = not self.nodes
        where = ["--head", f"--port={self.port}"] if head else [f"--address={self.gcs}"]
        if head:
            where += [f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1", f"--temp-dir={self.folder}/r"]
            where += [f"--metrics-export-port={self.metrics}"]
            where += self._autoscaler()
        common = [f"--node-ip-address=127.0.0.{len(self.nodes) + 2}", f"--num-cpus={cpus}", "--num-gpus=0", "--block"]
        command = [
            *(self.python, "-c", "from ray.scripts.scripts import main; main()", "start"),
            *where,
            *common,
            "--object-store-memory=80000000",
            "--dashboard-agent-listen-port=0",  # not the usual one, which others on this machine may have
        ]
        log = (self.folder / f"node{len(self.nodes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                command, env=self.environment | more, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        self.started.append(process)
        node = psutil.Process(process.pid)
        self.nodes.append(node)
        end = time.monotonic() + seconds
        while self.alive() < sum(n.is_running() and n.status() != "zombie" for n in self.nodes):
            assert time.monotonic() < end, Path(log.name).read_text("utf-8", "replace")
            time.sleep(0.5)
            assert process.poll() is None, Path(log.name).read_text("utf-8", "replace")
        return node

    def _autoscaler(self) -> list[str]:
        if self.autoscaling is None:
            return []
        provider = {"provider": {**self.autoscaling["provider"], "gcs_address": self.gcs}}
        file = self.folder / "autoscaling.json"
        file.write_text(json.dumps({**self.autoscaling, **provider}))
        return [f"--autoscaling-config={file}"]

    def alive(self) -> int:
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


def without_reelcolor(folder: Path) -> str:
    """A Python with all that reelcolor needs; in the place of its own packages are some that cannot be imported."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "reelcolor" not in path.name:
            (site / path.name).symlink_to(path)
    for package in ("pipeline", "model", "jobs"):
        (site / package).mkdir()
        (site / package / "__init__.py").write_text("raise ImportError('this is what is installed')")
    return str(folder / "bin/python")


def autoscaling(most: int, cpus: int, idle_minutes: float) -> dict[str, Any]:
    """A head's configuration for Ray's provider of nodes that are processes of this machine, `most` of them."""
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    worker = {"resources": {"CPU": cpus, "object_store_memory": 80_000_000, "memory": 4 << 30}}
    return {
        "cluster_name": "tests",
        "max_workers": most,
        "provider": {
            "type": "external",  # as the defaults of "fake_multinode" are not in Ray's wheel
            "module": "provider.Provider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": worker | {"node_config": {}, "min_workers": 0, "max_workers": most},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_minutes,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    } | {f"{name}_commands": [] for name in lists}


@contextmanager
def cluster(
    *cpus: int, python: str = sys.executable, autoscaling: Mapping[str, Any] | None = None, **more: str
) -> Iterator[Nodes]:
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
        "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": tempfile.gettempdir(),
    }
    if autoscaling is not None:
        settings |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
        settings |= {f"RAY_{name}": FAKE_HEAD_NODE_ID for name in ("CLOUD_INSTANCE_ID", "OVERRIDE_NODE_ID_FOR_TESTING")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    nodes = Nodes(folder, kept | settings | more, python, autoscaling)
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
