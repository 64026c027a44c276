"""Timing several things fairly on a machine that may be busy: in turns, round after round, so that ratios hold."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Clock = Callable[[], float]
_TURN = 0.3  # seconds that quick things are repeated for in each round


@dataclass(frozen=True)
class Case:
    """One thing to time: `run` does `amount` of work (pictures, operations, bytes) and returns its seconds."""

    name: str
    amount: float
    run: Callable[[], float]


def timed(work: Callable[[], object], clock: Clock = time.perf_counter) -> Callable[[], float]:
    """`work` as a Case runs it, by the clock on the wall."""

    def run() -> float:
        begin = clock()
        work()
        return clock() - begin

    return run


def in_rounds(
    cases: Sequence[Case],
    seconds: float,
    clock: Clock = time.perf_counter,
    done: Callable[[str], None] = lambda _name: None,
) -> list[dict[str, float]]:
    """Amount a second of each case, by name, for every round; at least one, none begun after `seconds`.

    Each case has run once before it is timed. `done` hears of each turn.
    """
    for case in cases:
        case.run()
        done(case.name)
    begin = clock()
    rounds: list[dict[str, float]] = []
    while not rounds or clock() - begin < seconds:
        rates = {}
        for case in cases:
            rates[case.name] = _rate(case)
            done(case.name)
        rounds.append(rates)
    return rounds


def _rate(case: Case) -> float:
    spent, calls = 0.0, 0
    while spent < _TURN:
        spent += case.run()
        calls += 1
    return calls * case.amount / spent


def median(rounds: Sequence[Mapping[str, float]], name: str) -> float:
    """The median rate of a case."""
    return statistics.median(rates[name] for rates in rounds)


def ratio(rounds: Sequence[Mapping[str, float]], name: str, to: str) -> float:
    """The median over the rounds of one rate by another of the same round."""
    return statistics.median(rates[name] / rates[to] for rates in rounds)
