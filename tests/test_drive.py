"""The drive in simulated time: order, retries, deaths of workers and who is blamed, engines that differ, stragglers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from simulated import FakeTask, Heard, World, drive, reel

from jobs.failures import Failure
from jobs.hands import Census, WorkerDied
from pipeline.errors import EngineError


def keys(tasks: list[FakeTask]) -> list[str]:
    return sorted(task.key for task in tasks)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_everything_is_done_once(workers: int) -> None:
    world = World()
    heard = drive(world, Heard([*reel("a", 7), *reel("b", 4)]), workers)
    assert sorted(heard.made) == keys([*reel("a", 7), *reel("b", 4)])
    assert len(world.sent) == 11
    assert all(hand.most <= 2 for hand in world.hands)
    assert not heard.failures


def test_what_an_engine_says_is_passed_on() -> None:
    assert drive(World(lines=["compiling", "compiling"]), Heard(reel("a", 1))).lines == ["compiling", "compiling"]


def test_nothing_to_do_starts_nothing() -> None:
    world = World()
    drive(world, Heard([]), 3)
    assert not world.hands


def test_what_becomes_possible_goes_first() -> None:
    heard = Heard([*reel("a", 1), *reel("b", 6)])
    heard.follow["a/0"] = FakeTask("a", 99, needs_engine=False)
    drive(World(), heard)
    assert heard.made.index("a/99") == 2


def test_reels_of_long_tasks_go_first_and_each_is_finished_before_the_next() -> None:
    heard = drive(World(), Heard([*reel("short", 3), *reel("long", 3, weight=9), *reel("middling", 3, weight=2)]))
    assert [name for name, _ in heard.bound] == ["long", "middling", "short"]
    assert [key.partition("/")[0] for key in heard.made] == ["long"] * 3 + ["middling"] * 3 + ["short"] * 3


# --- failures and deaths


def test_a_deadly_segment_costs_its_reel_and_nothing_else() -> None:
    world = World(deadly={"b/1"})
    heard = drive(world, Heard([*reel("a", 3), *reel("b", 4), *reel("c", 3)]), 2)
    assert {key for key in heard.made if key[0] in "ac"} == set(keys([*reel("a", 3), *reel("c", 3)]))
    assert list(heard.failures) == ["b"]
    assert heard.failures["b"].kind == "worker"
    assert "b/1 ends the worker that does it (killed), twice" in heard.failures["b"].message
    assert sum(task.key == "b/1" for _, task, _ in world.sent) == 2


def test_what_is_given_up_is_no_retry() -> None:
    heard = drive(World(deadly={"a/0"}), Heard([*reel("a", 1, weight=2), *reel("b", 9)]))
    assert list(heard.failures) == ["a"]
    assert len(heard.made) == 9
    assert heard.census.retries == 2, "a/0 and b/0, which died with it"


def test_a_poison_reel_among_twenty() -> None:
    reels = [task for n in range(20) for task in reel(f"r{n:02}", 5)]
    world = World(deadly={"r07/2"})
    heard = drive(world, Heard(reels), 4)
    assert list(heard.failures) == ["r07"]
    assert {key for key in heard.made if not key.startswith("r07")} == {
        task.key for task in reels if task.reel_id != "r07"
    }


def test_suspects_are_tried_alone() -> None:
    world = World(deadly={"a/1"}, seconds=lambda task, _: 1.0 + task.index / 10)
    drive(world, Heard([*reel("a", 2), *reel("b", 2)]))
    deaths = [names for names in world.attempts if "a/1" in names]
    assert deaths[-1] == ("a/1",)
    assert sum(task.key == "a/1" for _, task, _ in world.sent) == 2


def test_one_death_is_forgiven() -> None:
    heard = drive(World(once={"a/0"}), Heard(reel("a", 3)))
    assert sorted(heard.made) == ["a/0", "a/1", "a/2"]
    assert not heard.failures
    assert "a worker died (killed) during a/0, a/1; another takes over" in heard.notes
    assert heard.census.retries == 2
    assert heard.census.batch == 8, "of the second worker, as the first is gone"


def test_memory_that_is_not_enough_has_a_class_and_advice() -> None:
    """Others that lose their worker to it, even when tried alone, do not pay for it."""
    world = World(hungry={"b/1"}, seconds=lambda task, _: 0.9 if task.key == "b/1" else 1.0)
    heard = drive(world, Heard([*reel("a", 9), *reel("b", 4), *reel("c", 9), *reel("d", 3)]), 3)
    assert {key for key in heard.made if key[0] != "b"} == set(keys([*reel("a", 9), *reel("c", 9), *reel("d", 3)]))
    assert heard.failures["b"].kind == "memory"
    assert "b/1 ends the worker that does it (no memory), three times now; the reel is" in heard.failures["b"].message
    assert "fewer workers a machine" in heard.failures["b"].message
    assert len(heard.failures) == 1


def test_what_finds_no_memory_beside_another_is_tried_alone() -> None:
    world = World(outcomes={"a/0": [Failure("memory", "out of memory")]})
    heard = drive(world, Heard(reel("a", 6)))
    assert sorted(heard.made) == keys(reel("a", 6))
    assert ("a/0",) in world.attempts
    failure = Failure("memory", "out of memory")
    heard = drive(World(outcomes={"a/0": [failure, failure]}), Heard(reel("a", 6)))
    assert heard.failures == {"a": failure}


def test_what_will_pass_is_tried_twice() -> None:
    failure = Failure("internal", "odd")
    heard = drive(World(outcomes={"a/0": [failure]}), Heard(reel("a", 2)))
    assert sorted(heard.made) == ["a/0", "a/1"]
    heard = drive(World(outcomes={"a/0": [failure, failure]}), Heard(reel("a", 2)))
    assert heard.failures == {"a": failure}


def test_storage_is_given_time_then_the_reel_is_left_out() -> None:
    """Waits double, with jitter; the others go on meanwhile."""
    failure = Failure("storage", "503 slow down")
    world = World(outcomes={"a/0": [failure] * 5})
    heard = drive(world, Heard([*reel("a", 1), *reel("b", 3)]))
    times = [when for when, task, _ in world.sent if task.key == "a/0"]
    waits = [later - earlier - 1.0 for earlier, later in pairwise(times)]
    assert len(waits) == 5
    assert all(0.49 <= wait / 2**n <= 1.76 for n, wait in enumerate(waits)), waits
    assert heard.made[-1] == "a/0"
    attempts = [task.attempt for _, task, _ in world.sent if task.key == "a/0"]
    assert attempts == [0, 1, 2, 3, 4, 5]
    heard = drive(World(outcomes={"a/0": [failure] * 6}), Heard([*reel("a", 1), *reel("b", 3)]))
    assert heard.failures == {"a": failure}
    assert sorted(heard.made) == ["b/0", "b/1", "b/2"]


def test_a_worker_without_room_rests_while_another_has_some() -> None:
    world = World(full={0})
    heard = drive(world, Heard(reel("r", 100)), workers=2)
    assert len(heard.made) == 100
    assert not heard.failures
    assert [note for note in heard.notes if "its disk is full" in note]
    tried = sorted({when for when, _, hand in world.sent if hand.number == 0})
    assert 1 < len(tried) < 5
    assert all(b - a >= 30 for a, b in pairwise(tried))


def test_a_disk_that_is_full_for_all_costs_the_reel() -> None:
    world = World(full={0, 1})
    heard = drive(world, Heard(reel("r", 3)), workers=2)
    assert heard.failures["r"].message == "no space left"
    assert world.time.now() < 300


def test_retries_are_not_all_at_the_same_moment() -> None:
    failure = Failure("storage", "503 slow down")
    tasks = reel("a", 20)
    world = World(outcomes={task.key: [failure] for task in tasks})
    drive(world, Heard(tasks), 20)
    again = {when for when, task, _ in world.sent if task.attempt}
    assert len(again) > 10


@pytest.mark.parametrize("kind", ["input", "engine", "verification"])
def test_what_will_not_pass_is_tried_once(kind: Any) -> None:
    world = World(outcomes={"a/0": [Failure(kind, "no")]})
    heard = drive(world, Heard([*reel("a", 9), *reel("b", 1)]))
    assert list(heard.failures) == ["a"]
    assert heard.made.count("b/0") == 1
    assert len(heard.made) < 5, "the rest of a failed reel is dropped"


def test_one_engine_error_not_one_a_segment() -> None:
    heard = Heard(reel("a", 5))
    with pytest.raises(EngineError, match="weights are damaged"):
        drive(World(openings=[Failure("engine", "weights are damaged")] * 2), heard, 2)
    assert not heard.failures


def test_workers_that_die_at_birth_are_not_started_for_ever() -> None:
    world = World(openings=[WorkerDied("out of memory")] * 50)
    with pytest.raises(EngineError, match=r"workers die while they open the engine: out of memory"):
        drive(world, Heard(reel("a", 5)), 2)
    assert len(world.hands) < 6


def test_one_worker_that_cannot_open_is_done_without() -> None:
    heard = drive(World(openings=["key", Failure("engine", "no memory")]), Heard(reel("a", 4)), 2)
    assert len(heard.made) == 4
    assert heard.notes == ["one worker less: no memory"]


def test_where_the_last_worker_is_lost_one_that_could_not_open_is_tried_again() -> None:
    """It may be all there will ever be: to wait for a better one could take for ever."""
    world = World(openings=["key", Failure("engine", "no memory"), "key"])
    world.time.at(5.5, lambda: world.hands[0].die(with_node=True))
    heard = drive(world, Heard(reel("a", 20)), lambda: 2 if world.time.now() < 5.5 else 1)
    assert len(heard.made) == 20
    world = World(openings=["key", Failure("engine", "no memory"), Failure("engine", "no memory")])
    world.time.at(5.5, lambda: world.hands[0].die(with_node=True))
    with pytest.raises(EngineError, match="no memory"):
        drive(world, Heard(reel("a", 20)), lambda: 2 if world.time.now() < 5.5 else 1)


def test_interruption_closes_every_worker() -> None:
    class Impatient(Heard):
        def tick(self, _written: Mapping[str, int], _census: Census) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(World(), Impatient(reel("a", 9)), 3)


# --- machines that come and go, and are not alike


def test_a_reel_comes_from_one_engine() -> None:
    """Two fast workers and a slow one of another kind: all work, and no reel is shared between the kinds."""
    world = World(openings=["gpu", "gpu", "cpu"], seconds=lambda _, hand: 10.0 if hand.number == 2 else 1.0)
    tasks = [task for n in range(8) for task in reel(f"r{n}", 6)]
    heard = drive(world, Heard(tasks), 3)
    assert sorted(heard.made) == keys(tasks)
    assert Counter(name for name, _ in heard.bound).most_common(1)[0][1] == 1
    owners: dict[str, set[bool]] = {}
    for _, task, hand in world.sent:
        owners.setdefault(task.reel_id, set()).add(hand.number == 2)
    assert all(len(kinds) == 1 for kinds in owners.values())
    assert sum(kinds == {True} for kinds in owners.values()) >= 1


def test_a_reel_goes_on_with_the_engine_that_began_it() -> None:
    world = World(openings=["cpu", (5.0, "gpu")])
    heard = drive(world, Heard([*reel("a", 4), *reel("b", 9)], engines={"a": "gpu"}), 2)
    assert dict(heard.bound) == {"a": "gpu", "b": "cpu"}
    assert all(hand.number == 1 for _, task, hand in world.sent if task.reel_id == "a")


def test_a_reel_whose_engine_is_nowhere_is_begun_anew() -> None:
    heard = drive(World(), Heard(reel("a", 4), engines={"a": "yesterday's"}))
    assert heard.bound == [("a", "key")]
    assert len(heard.made) == 4


def test_a_lost_machine_costs_retries_and_blames_nobody() -> None:
    """Both its workers go; what they did is done by those that are left, even if it happens again and again."""
    world = World()
    tasks = [task for n in range(6) for task in reel(f"r{n}", 10)]
    for when in (2.5, 4.5, 6.5):

        def lose() -> None:
            for hand in [hand for hand in world.hands if not hand.closed][:2]:
                hand.die(with_node=True)

        world.time.at(when, lose)
    heard = drive(world, Heard(tasks), 4)
    assert sorted(heard.made) == keys(tasks)
    assert not heard.failures
    assert len(world.hands) == 10
    assert len(world.sent) == 60 + 12
    assert max(task.attempt for _, task, _ in world.sent) >= 1


def test_the_last_worker_of_an_engine_goes_for_good() -> None:
    """Its reel is begun anew by the others, once it is clear that it does not come back."""
    world = World(openings=["gpu", "cpu", (1e9, "gpu")])
    heard = Heard([*reel("a", 30), *reel("b", 30)])
    world.time.at(5.5, lambda: world.hands[0].die(with_node=True))
    drive(world, heard, 2)
    assert heard.bound == [("a", "gpu"), ("b", "cpu"), ("a", "cpu")]
    assert {heard.makers[task.key] for task in heard.reels["a"]} == {"cpu"}
    begun_anew = min(when for when, task, hand in world.sent if task.reel_id == "a" and hand.number == 1)
    assert begun_anew > 5.5 + 60


def test_workers_join_while_it_runs() -> None:
    world = World()
    drive(world, Heard(reel("a", 100)), lambda: 2 if world.time.now() < 10 else 8)
    assert len(world.hands) == 8
    assert world.time.now() < 20


def test_a_worker_that_gets_no_machine_holds_nothing_up() -> None:
    world = World(openings=["key", (1e9, "key")])
    heard = drive(world, Heard(reel("a", 10)), 2)
    assert len(heard.made) == 10
    assert heard.census.waiting == 1


def test_workers_with_nothing_left_to_do_are_given_back() -> None:
    """So that an autoscaler can have their nodes: all but one of each engine, and those that have no machine yet."""
    world = World(openings=["cpu", "cpu", "cpu", "cpu", "gpu", (1e9, "cpu")])
    world.seconds = lambda task, _: 400.0 if task.key == "a/0" else 10.0
    heard = Heard([*reel("a", 1), *(task for n in range(8) for task in reel(f"b{n}", 1))])
    closed: list[tuple[int, int]] = []
    for when in (50.0, 300.0):
        world.time.at(when, lambda: closed.append((sum(hand.closed for hand in world.hands), len(world.hands))))
    drive(world, heard, 6)
    assert len(heard.made) == 9
    assert closed == [(0, 6), (2, 6)], "two have the long task, the second because it takes long"


# --- stragglers


def test_a_straggler_is_done_twice_and_the_first_result_counts() -> None:
    world = World(seconds=lambda task, _: 1e6 if task.key == "a/9" and task.attempt == 0 else 1.0)
    heard = drive(world, Heard(reel("a", 10)), 3)
    assert sorted(heard.made) == keys(reel("a", 10))
    copies = [(task.attempt, hand.number) for _, task, hand in world.sent if task.key == "a/9"]
    assert [attempt for attempt, _ in copies] == [0, 1]
    assert len({number for _, number in copies}) == 2
    assert world.time.now() < 60, "it does not wait for the slow one"
    assert heard.census.doubled == 1


def test_heavy_tasks_are_given_longer() -> None:
    tasks = [*reel("a", 10), FakeTask("a", 10, weight=50)]
    world = World(seconds=lambda task, _: 1.0 * task.weight)
    drive(world, Heard(tasks), 2)
    assert len(world.sent) == 11


def test_a_straggler_is_done_twice_though_workers_of_other_engines_are_idle() -> None:
    world = World(openings=["gpu", "gpu", "cpu"])
    world.seconds = lambda task, _: 1e3 if task.key == "a/9" and task.attempt == 0 else 1.0
    heard = drive(world, Heard([*reel("a", 10), *reel("b", 2)]), 3)
    assert len(heard.made) == 12
    assert world.time.now() < 60


def test_a_straggler_is_not_given_to_another_engine() -> None:
    world = World(openings=["gpu", "cpu"], seconds=lambda task, _: 200.0 if task.key == "a/9" else 1.0)
    heard = drive(world, Heard(reel("a", 10)), 2)
    assert len(world.sent) == 10
    assert heard.bound == [("a", "gpu")]


def test_the_failure_of_one_copy_is_not_that_of_the_task() -> None:
    world = World(
        outcomes={"a/9": [Failure("input", "odd")]},
        seconds=lambda task, _: 40.0 if task.key == "a/9" and task.attempt == 0 else 1.0,
    )
    heard = drive(world, Heard(reel("a", 10)), 2)
    assert sorted(heard.made) == keys(reel("a", 10))
    assert not heard.failures


def test_a_task_started_as_a_copy_outlives_the_first_worker() -> None:
    world = World(seconds=lambda task, _: (1e6, 30.0)[task.attempt] if task.key == "a/9" else 1.0)

    def end_the_slow_one() -> None:
        next(hand for _, task, hand in world.sent if task.key == "a/9" and not task.attempt).die()

    world.time.at(20.0, end_the_slow_one)
    heard = drive(world, Heard(reel("a", 10)), 2)
    assert sorted(heard.made) == keys(reel("a", 10))
    assert [task.attempt for _, task, _ in world.sent if task.key == "a/9"] == [0, 1]
