"""What becomes of a task that has failed, or whose worker has died: it is done again, alone perhaps, or given up.

A worker's death is blamed on the tasks it had in flight. These are run again one at a time, so that the innocent finish
and the guilty one is known; a task that was in flight at two deaths, at the second alone, is given up. A machine that
is lost with its workers is nobody's fault; its tasks are run again like others, up to a limit. Where a machine has too
little memory, the worker that is ended need not be the one that takes it: there is a third time, one suspect at a time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.failures import Failure, FailureKind
from jobs.hands import WorkerDied
from jobs.tasks import Task

_RETRIES: Mapping[FailureKind, int] = {"internal": 1, "memory": 1, "storage": 5}  # of kinds of failure that may pass
_BACKOFF = 1.0  # seconds before the first retry after an error of storage; twice that before the next, and so on
_NODE_DEATHS = 5  # at which a task was in flight, after which it is a suspect
_MORE_MEMORY = "; fewer workers a machine (--cpus-per-worker, --workers) leave more memory to each"

# Who else may be at work meanwhile: anyone, nobody on the same worker, or no other suspect anywhere.
Company = Literal["any", "alone", "sole suspect"]


@dataclass(frozen=True)
class Retry:
    """A task is to be done once more: after so many seconds, and in what company."""

    delay: float = 0.0
    company: Company = "any"


class RetryPolicy:
    """Remembers the failures and deaths of every task and decides what follows: a retry, or the failure of its reel.

    `granted`: retries so far.
    """

    def __init__(self) -> None:
        self.granted = 0
        self._tries: Counter[tuple[str, FailureKind]] = Counter()
        self._lost: Counter[str] = Counter()  # times that a task was in flight when its machine went
        self._deaths: Counter[str] = Counter()

    def after_failure(self, task: Task, outcome: Failure) -> Retry | Failure:
        """Try again what may pass: later, and later still, where storage is at fault."""
        tries = self._tries[task.key, outcome.kind]
        if tries >= _RETRIES.get(outcome.kind, 0):
            return outcome
        self._tries[task.key, outcome.kind] += 1
        if outcome.kind == "storage":
            return self._retry(delay=_BACKOFF * 2**tries * random.uniform(0.5, 1.5))
        # Alone on its worker it may have enough memory.
        return self._retry(company="alone" if outcome.kind == "memory" else "any")

    def after_death(self, task: Task, death: WorkerDied, alone: bool) -> Retry | Failure:
        """Blame the task, unless the whole machine went; `alone`: nothing else was in flight on the worker."""
        self._lost[task.key] += death.with_node
        if death.with_node and self._lost[task.key] < _NODE_DEATHS:
            return self._retry()
        self._deaths[task.key] += 1
        deaths = self._deaths[task.key]
        if deaths <= (2 if death.of_memory else 1) or not alone:
            return self._retry(company="sole suspect" if death.of_memory and deaths > 1 else "alone")
        kind: FailureKind = "memory" if death.of_memory else "worker"
        times, remedy = ("three times", _MORE_MEMORY) if death.of_memory else ("twice", "")
        message = f"{task.name} ends the worker that does it ({death}), {times} now; the reel is left out{remedy}"
        return Failure(kind, message)

    def _retry(self, delay: float = 0.0, company: Company = "any") -> Retry:
        self.granted += 1
        return Retry(delay, company)
