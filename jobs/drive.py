"""Tasks onto workers: who does what next, and what follows when a worker dies, its machine goes, or it takes too long.

Whether a task that went wrong is done again is for `retries.py` to say, which one takes too long for `stragglers.py`.

Workers may have different engines, and come and go. Near the end, when some have nothing to do, a straggler is given to
a second worker of the same engine, and the first result counts. Workers that stay without a task are given back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

from jobs.backlog import Backlog
from jobs.failures import Failure
from jobs.hands import Census, Hand, Inbox, Listener, WorkerDied
from jobs.retries import Retry, RetryPolicy
from jobs.stations import News, Station, dispensable
from jobs.stragglers import Pace
from jobs.tasks import Outcome, Task
from jobs.worker import IN_FLIGHT
from pipeline.errors import EngineError

TICK = 0.25  # seconds between progress reports
_ASKED = 0.02  # seconds a worker, likewise: many are asked less often
_OPENINGS = 3  # deaths of workers while they open the engine, after which no more are started
_REST = 30.0  # seconds that a worker whose disk is full is given nothing, where another has room
_PATIENCE = 60.0  # seconds that reels wait for a worker with their engine to come back
_LOOK = 1.0  # seconds between looks at how many workers there may be, and for what one with nothing to do could do


class Drive:
    """Runs tasks on as many workers as `wanted` says, that `hire` starts, until none is left."""

    def __init__(
        self,
        hire: Callable[[], Hand],
        wanted: Callable[[], int],
        listener: Listener,
        inbox: Inbox | None = None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._hire, self._wanted, self._listener, self._in_flight = hire, wanted, listener, in_flight
        self._inbox = inbox or Inbox()
        self._stations: dict[Station, None] = {}
        self._room: dict[Station, None] = {}  # stations that can take a task
        self._sole: Station | None = None  # that was given a suspect while no other had one
        self._backlog: Backlog
        self._copies: Counter[str] = Counter()  # flights of a task that has no result yet
        self._policy = RetryPolicy()
        self._pace = Pace()
        self._seen: dict[str, float] = {}  # engine → when a worker last had it
        self._stillborn = self._dismissed = self._doubled = 0
        self._told = self._staffed = float("-inf")
        self._look_again: dict[str, float] = {}  # engine → when its workers with nothing to do look for something again

    def run(self) -> None:
        """Do all tasks. Raises EngineError where no worker can open the engine."""
        loads, urgent = self._listener.begin()
        self._backlog = Backlog(loads, urgent, self._listener.tasks)
        try:
            while self._copies or self._backlog:
                self._staff()
                for news in self._inbox.take(self._pause()):
                    self._attend(news)
                self._backlog.wake(self._inbox.now())
                self._dispatch()
                self._give_back()
                self._tell()
        finally:
            for station in self._stations:
                station.hand.close()

    def _pause(self) -> float:
        """Seconds until something is to be done, whether or not there is news."""
        due = self._backlog.next_due
        return TICK if due is None else min(TICK, max(0.0, due - self._inbox.now()))

    def _staff(self) -> None:
        """Start the workers that are wanted and not there, while there is something for them to do."""
        now = self._inbox.now()
        if now - self._staffed < _LOOK or self._stillborn >= _OPENINGS or not self._backlog:
            return
        self._staffed = now
        wanted = self._wanted()
        for _ in range(max(wanted - self._dismissed, min(wanted, 1)) - len(self._stations)):
            hand = self._hire()
            station = Station(hand, hand.open(), now)
            self._stations[station] = None
            self._inbox.watch(station.opening, News(station))

    def _give_back(self) -> None:
        """Do without the workers that have had nothing to do for long, and for which nothing is left."""
        for station in [] if self._backlog else dispensable(self._stations, self._inbox.now()):
            self._remove(station)

    def _attend(self, news: News) -> None:
        """Take in what has happened at one station."""
        station = news.station
        if station not in self._stations:
            return
        try:
            if news.flight is None:
                self._opened(station, station.opening.result())
            elif news.flight in station.flights:
                self._land(station, news.flight)
        except WorkerDied as e:
            self._died(station, e)

    def _opened(self, station: Station, key: str | Failure) -> None:
        if isinstance(key, Failure):
            self._dismiss(station, key.message)
            return
        station.key, station.idle_since = key, self._inbox.now()
        self._room[station] = None
        self._listener.opened(key)

    def _dismiss(self, station: Station, reason: str) -> None:
        """Do without this worker."""
        self._remove(station)
        self._dismissed += 1
        if not self._stations:
            raise EngineError(reason)
        self._listener.note(f"one worker less: {reason}")

    def _remove(self, station: Station) -> None:
        del self._stations[station]
        self._room.pop(station, None)
        station.hand.close()
        if station.key is not None:
            self._seen[station.key] = self._inbox.now()
        self._staffed = float("-inf")

    def _land(self, station: Station, flight: Future[Outcome]) -> None:
        """Take in the outcome of a task; raises WorkerDied in its place."""
        outcome = flight.result()
        task, begun = station.flights.pop(flight)
        station.idle_since = self._inbox.now()
        station.alone = station.alone and bool(station.flights)
        if not station.alone:
            self._room[station] = None
        if task.key not in self._copies:
            return  # the other copy was first, or the reel has failed
        if not isinstance(outcome, Failure):
            del self._copies[task.key]
            self._pace.measure(str(station.key), task, self._inbox.now() - begun)
            self._backlog.follow(self._listener.succeeded(task, outcome))
        elif self._last_copy(task):
            if outcome.no_room and self._spare(station):
                self._backlog.again(task.again())
            else:
                self._missed(task, outcome)

    def _spare(self, full: Station) -> bool:
        """Let a worker whose disk is full rest, if another could do its work."""
        now = self._inbox.now()
        if not any(other.key == full.key and other.rests_until <= now for other in self._stations if other is not full):
            return False
        if full.rests_until <= now:
            self._listener.note(f"a worker rests for {_REST:.0f} s, as its disk is full; others go on")
        full.rests_until = now + _REST
        return True

    def _last_copy(self, task: Task) -> bool:
        """One flight of the task less; whether it was the last."""
        self._copies[task.key] -= 1
        if self._copies[task.key]:
            return False
        del self._copies[task.key]
        return True

    def _missed(self, task: Task, outcome: Failure) -> None:
        verdict = self._policy.after_failure(task, outcome)
        if isinstance(verdict, Retry):
            self._listener.note(f"{task.name} is tried again: {outcome.message}")
        self._follow(task, verdict)

    def _follow(self, task: Task, verdict: Retry | Failure) -> None:
        """Do what the policy says of a task that went wrong."""
        if isinstance(verdict, Failure):
            self._give_up(task, verdict)
        elif verdict.delay:
            self._backlog.delay(task.again(), self._inbox.now() + verdict.delay)
        elif verdict.company == "any":
            self._backlog.again(task.again())
        else:
            self._backlog.suspect(task.again(), last=verdict.company == "sole suspect")

    def _give_up(self, task: Task, outcome: Failure) -> None:
        self._backlog.fail(task.reel_id)
        for station in self._stations:
            for other, _ in station.flights.values():
                if other.reel_id == task.reel_id:
                    self._copies.pop(other.key, None)
        self._listener.failed(task, outcome)

    def _died(self, station: Station, death: WorkerDied) -> None:
        """Take in what was done, and have the rest done again."""
        for flight in [f for f in station.flights if f.done() and f.exception() is None]:
            self._land(station, flight)
        self._remove(station)
        flying = [task for task, _ in station.flights.values() if task.key in self._copies and self._last_copy(task)]
        if station.key is None:
            self._stillborn += not death.with_node
        elif flying:
            names = ", ".join(task.name for task in flying)
            self._listener.note(f"a worker died ({death}) during {names}; another takes over")
        if self._stillborn >= _OPENINGS and not self._stations:
            raise EngineError(f"workers die while they open the engine: {death}; try fewer --workers")
        for task in flying:
            self._follow(task, self._policy.after_death(task, death, alone=len(flying) == 1))

    def _dispatch(self) -> None:
        """Give the free workers something to do: suspects alone, everything else where there is most room."""
        now = self._inbox.now()
        for load in range(self._in_flight):
            for station in [s for s in self._room if len(s.flights) == load and s.rests_until <= now]:
                self._occupy(station)

    def _occupy(self, station: Station) -> None:
        key = str(station.key)
        idle = not station.flights
        if idle and (suspect := self._suspect(key, station)):
            station.alone = True
            self._send(station, suspect)
            return
        task = self._backlog.take(key)
        now = self._inbox.now()
        if task is None and idle and now >= self._look_again.get(key, now):
            task = self._inherited(key, now) or self._slowest(station, now)
            self._look_again[key] = now + _LOOK if task is None else now
        if task is not None:
            self._send(station, task)

    def _suspect(self, key: str, station: Station) -> Task | None:
        """A suspect for this station, which has nothing to do; of those that must be tried one at a time the last."""
        if self._sole in self._stations and self._sole.alone:
            return None
        suspect = self._backlog.take_suspect(key)
        if suspect is None and self._backlog.has_last and not any(other.alone for other in self._stations):
            suspect = self._backlog.take_suspect(key, last=True)
            self._sole = station if suspect else None
        return suspect

    def _inherited(self, key: str, now: float) -> Task | None:
        """The first task of a reel whose engine has no worker any more, and is not about to get one."""
        keys = {station.key for station in self._stations}

        def spared(other: str) -> bool:
            coming = None in keys and now - self._seen.setdefault(other, now) < _PATIENCE
            return other in keys or coming

        return self._backlog.take(key) if self._backlog.inherit(key, spared) else None

    def _slowest(self, idle: Station, now: float) -> Task | None:
        """The task in flight elsewhere that takes the longest beyond what its weight lets expect, once more."""
        peers = [station for station in self._stations if station.key == idle.key and not station.alone]
        flights = [flight for peer in peers for flight in peer.flights.values() if self._copies[flight[0].key] == 1]
        worst = self._pace.straggler(str(idle.key), flights, now)
        if worst is None:
            return None
        self._doubled += 1
        self._listener.note(f"{worst.name} takes long; a second worker does it, too")
        return worst.again()

    def _send(self, station: Station, task: Task) -> None:
        self._listener.started(task)
        flight: Future[Outcome]
        try:
            flight = station.hand.submit(task)
        except WorkerDied as e:
            flight = Future()
            flight.set_exception(e)
        station.flights[flight] = task, self._inbox.now()
        self._copies[task.key] += 1
        if station.alone or len(station.flights) >= self._in_flight:
            self._room.pop(station, None)
        self._inbox.watch(flight, News(station, flight))

    def _tell(self) -> None:
        now = self._inbox.now()
        if now - self._told < max(TICK, _ASKED * len(self._stations)):
            return
        self._told = now
        written: Counter[str] = Counter()
        pulses = [station.hand.progress() for station in self._stations]
        for station, pulse in zip(self._stations, pulses, strict=True):
            written.update(pulse.written)
            for line in station.hand.said():
                self._listener.heard(line)
        self._listener.tick(written, self._census(min((pulse.batch for pulse in pulses if pulse.batch), default=0)))

    def _census(self, batch: int) -> Census:
        ready = [station for station in self._stations if station.key is not None]
        flying = sum(len(station.flights) for station in ready)
        waiting = len(self._stations) - len(ready)
        return Census(len(ready), waiting, flying, self._backlog.delayed, self._policy.granted, self._doubled, batch)
