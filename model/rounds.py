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
    """One thing to time: `run` does `amount` of work (pictures, operations, bytes) and returns its seconds.

    What happens the first time only is done before. expected: about the seconds of one run.
    """

    name: str
    amount: float
    run: Callable[[], float]
    expected: float = 0.0


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
    """Amount a second of each case, by name, for every round: one, and others while they will end within `seconds`.

    `done` hears of each turn.
    """
    begin, longest = clock(), 0.0
    rounds: list[dict[str, float]] = []
    while not rounds or clock() - begin + longest <= seconds:
        at, rates = clock(), {}
        for case in cases:
            rates[case.name] = _rate(case)
            done(case.name)
        rounds.append(rates)
        longest = max(longest, clock() - at)
    return rounds


def one_round(cases: Sequence[Case]) -> float:
    """About the seconds that a round of these takes."""
    return sum(max(_TURN, case.expected) for case in cases)


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
