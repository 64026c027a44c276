"""Ray on a cluster that is there already: workers on every node that has room, and on those that join."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jobs.hands import Hand
from jobs.pool import environment, ray_prints, start_ray
from jobs.rayhand import RayHand
from jobs.shares import Shares
from jobs.text import one_line, size
from jobs.worker import Opener
from pipeline.errors import EngineError

_LOOK = 2.0  # seconds between looks at the nodes
_PATIENCE = 5.0  # seconds for a head to answer
_SILENT = 20.0  # seconds that it may be silent, as when it is started anew; Ray ends the process after 60
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # of Ray's gRPC; costs it next to nothing
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@contextlib.contextmanager
def cluster_ray(shares: Shares, note: Callable[[str], None], debug: bool = False) -> Iterator[Cluster]:
    """Connect to a running cluster; raises EngineError where there is none or it does not know our token."""
    with environment(_SETTINGS), ray_prints(debug):
        import ray

        head = shares.address
        try:
            head = head_of(head)
            knock(head)
            level = logging.INFO if debug else logging.CRITICAL
            start_ray(address=shares.address, namespace="reelcolor", log_to_driver=debug, logging_level=level)
        except Exception as e:  # Ray raises all sorts
            ray.shutdown()
            raise EngineError(refused(head, e)) from e
        try:
            yield Cluster(shares, note, debug, head)
        finally:
            ray.shutdown()


class Cluster:
    """A cluster, connected to: starts workers on it."""

    def __init__(self, shares: Shares, note: Callable[[str], None], debug: bool, head: str) -> None:
        self._shares, self._note, self._debug, self._head = shares, note, debug, head
        self._pinned: list[tuple[RayHand, str]] = []
        self._looked = float("-inf")
        self._heard = time.monotonic()
        self._silent = False
        self._nodes: dict[str, Mapping[str, float]] = {}
        self._full = False

    def wanted(self) -> int:
        """How many workers there should be: as many as there is room for, or as were asked for; one at least.

        No more while the head is silent: to ask for one would take until it answers.
        """
        self._looked = float("-inf")
        nodes = self._look().values()
        if self._shares.most is None:  # else an autoscaler may find a node that is large enough
            self._content(self._shares.within(nodes))
        room = sum(sum(self._shares.slots(node)) for node in nodes)
        if self._silent:
            return 0
        if not room and not self._full:
            self._note(f"no node of the cluster has room for a worker ({self._shares.asked}); waiting for one that has")
        self._full = not room
        return self._shares.most or max(1, room)

    def _content(self, less: Shares) -> None:
        """Do with so much memory, rather than wait for ever."""
        if less.memory < self._shares.memory:
            least, most = size(self._shares.memory), size(less.memory)
            self._note(
                f"the largest frames may take {least} of memory and no node has more than {most}; workers get that"
            )
            self._shares = less

    def hire(self, opener: Opener) -> Hand:
        """Ask for a worker. Without room it waits for a node, and an autoscaler sees that it does."""
        nodes = self._look()
        slots = {name: self._shares.slots(node) for name, node in nodes.items()}
        with_gpu = any(gpu for gpu, _ in slots.values())
        options: dict[str, Any] = {"num_cpus": self._shares.cpus, "scheduling_strategy": "SPREAD"}
        options |= {"memory": self._shares.memory} if self._shares.memory else {}
        if self._shares.gpus is not None or not with_gpu:
            return RayHand(self.check, opener, self._debug, options | {"num_gpus": self._shares.gpus or 0})
        # A mixed cluster: workers without a GPU must not take processors from those that have one.
        self._pinned = [(hand, name) for hand, name in self._pinned if not hand.closed]
        taken = [name for _, name in self._pinned]
        bare = next((name for name, (_, cpu) in slots.items() if cpu > taken.count(name)), None)
        if bare is None:
            return RayHand(self.check, opener, self._debug, options | {"num_gpus": 1})
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = {"num_gpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(bare, soft=False)}
        hand = RayHand(self.check, opener, self._debug, options | there)
        self._pinned.append((hand, bare))
        return hand

    def check(self) -> None:
        """Raise EngineError where the head is gone: Ray's own calls would wait a minute, then end this process."""
        self._look()

    def _look(self) -> dict[str, Mapping[str, float]]:
        """Node → resources, of those alive."""
        import ray

        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            try:
                knock(self._head)
            except Exception as e:  # whatever it is, it may pass
                self._silent = True
                if now - self._heard > _SILENT:
                    gone = "the cluster's head is gone; once there is one, run the same command again to go on"
                    raise EngineError(f"{self._head}: {gone}") from e
                return self._nodes
            self._heard, self._silent = now, False
            nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
            self._nodes = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
        return self._nodes


def head_of(address: str) -> str:
    """HOST:PORT of the cluster that an address means; raises where "auto" finds none."""
    from ray._private.services import canonicalize_bootstrap_address

    there = address.removeprefix("ray://")
    return there if there != address else str(canonicalize_bootstrap_address(address))


def knock(head: str) -> None:
    """Return if something that takes our token answers there; raises ConnectionError, or what Ray says of the token."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    with init_grpc_channel(head, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_ALIVE)(b"", timeout=_PATIENCE)
        except grpc.RpcError as e:
            call: Any = e
            if call.code() is grpc.StatusCode.UNIMPLEMENTED:
                return  # as at ray:// addresses
            raise ConnectionError(f"{call.code().name}: {call.details()}") from e


def refused(address: str, e: Exception) -> str:
    """Why a cluster cannot be used, in one line."""
    text = one_line(str(e))
    if "authentication" in (type(e).__name__ + text).lower() or "token" in text.lower():
        asked = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the cluster's own"
        return f"{address}: the cluster refuses the token that is given, or asks for one; {asked}"
    return f"{address}: no cluster answers there ({text[:200]}); check that address, and that the head runs"
