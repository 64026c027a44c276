"""What Ray says of the death of a worker, in our words."""

from __future__ import annotations

from typing import Any

import pytest
from ray import exceptions

from jobs import pool
from jobs.hands import WorkerDied
from jobs.rayhand import death

# As Ray 2.60 wrote it when its memory monitor ended a worker; the rest is left out.
MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.2, ID: \
2b5532b30d85c136643f9466cc2f199f92ad40cf9f90bea1ad8ddc79) was 4.56GB used / 23.54GB limit (0.193604)
OOM kill reason: Memory usage 4843200512B exceeded threshold of 4840451584B (19.1% of 25276510208B limit)"""


@pytest.mark.parametrize(
    ("error", "said", "facts"),
    [
        (exceptions.OutOfMemoryError(MEMORY), "out of memory: 4.56GB of 23.54GB were used on 127.0.0.2", (False, True)),
        (exceptions.OutOfMemoryError("in other words"), "out of memory", (False, True)),
        (exceptions.NodeDiedError("the node is dead"), "its machine is gone", (True, False)),
        (exceptions.RayActorError(error_msg="x because its node has died."), "its machine is gone", (True, False)),
        (exceptions.RayActorError(error_msg="connection error code 2"), "killed or crashed", (False, False)),
        (exceptions.RuntimeEnvSetupError("no pip\nthere"), "RuntimeEnvSetupError: Failed", (False, False)),
        (ModuleNotFoundError("No module named 'jobs'"), "ModuleNotFoundError: No module named 'jobs'", (False, False)),
    ],
)
def test_causes(error: Any, said: str, facts: tuple[bool, bool]) -> None:
    found = death(error)
    assert str(found).startswith(said)
    assert "\n" not in str(found)
    assert (found.with_node, found.of_memory) == facts


def test_a_kill_is_put_down_to_memory_where_the_kernel_has_killed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = WorkerDied("killed or crashed")
    explain = pool._explained(pool._oom_kills())
    assert explain(killed) is killed
    more = pool._oom_kills() + 1
    monkeypatch.setattr(pool, "_oom_kills", lambda: more)
    assert explain(killed).of_memory
    assert "as memory ran out" in str(explain(killed))
