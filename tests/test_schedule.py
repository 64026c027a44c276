"""The course of training as functions of progress, and the orders that steps come in."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from model.schedule import Order, Stage, TrainingConfig, orders

STAGES = (Stage(0.0, 96, 48), Stage(0.6, 128, 32), Stage(0.85, 160, 20))
CONFIG = TrainingConfig(epochs=3, stages=STAGES, learning_rate=3e-3, warmup=0.01)


def test_the_rate_warms_up_and_ends_at_nothing() -> None:
    rates = [CONFIG.rate(p) for p in np.linspace(0, 1, 201)]
    assert max(rates) == pytest.approx(3e-3, rel=0.01)
    assert rates[0] < 0.1 * 3e-3
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert all(a >= b for a, b in itertools.pairwise(rates[3:]))
    assert CONFIG.rate(0.5) == pytest.approx(1.5e-3)
    assert CONFIG.rate(0.25) == pytest.approx(3e-3 * (1 + math.sqrt(0.5)) / 2)


def test_a_constant_rate_stays() -> None:
    config = dataclasses.replace(CONFIG, decay="constant", warmup=0.0)
    assert {config.rate(p) for p in (0, 0.3, 1)} == {3e-3}


def test_stages_begin_where_they_say() -> None:
    stages = [CONFIG.stage(p).size for p in (0, 0.59, 0.6, 0.84, 0.85, 1.01)]
    assert stages == [96, 96, 128, 128, 160, 160]


def taken(config: TrainingConfig, pictures: int, step: int = 0, samples: int = 0, workers: int = 1) -> list[Order]:
    assert config.epochs is not None
    total = config.epochs * pictures
    return list(orders(config, lambda seen: seen / total, step, samples, workers))


def test_orders_see_every_picture_as_often_as_there_are_epochs() -> None:
    made = taken(CONFIG, 1000)
    assert [order.step for order in made] == list(range(len(made)))
    assert 0 <= sum(order.batch for order in made) - 3000 < 20
    assert {(order.size, order.batch) for order in made} == {(96, 48), (128, 32), (160, 20)}
    assert all(STAGES[0].begin <= order.progress < 1 for order in made)


@pytest.mark.parametrize("at", [1, 17, 36, 37, 38, 50])
def test_orders_after_a_stop_are_those_that_would_have_come(at: int) -> None:
    made = taken(CONFIG, 1000)
    samples = sum(order.batch for order in made[:at])
    assert taken(CONFIG, 1000, at, samples) == made[at:]


def test_two_workers_take_half_the_steps() -> None:
    config = dataclasses.replace(CONFIG, stages=(Stage(0.0, 32, 10),))
    assert len(taken(config, 100)) == 30
    assert len(taken(config, 100, workers=2)) == 15


def test_evaluations_follow_the_budget() -> None:
    assert [CONFIG.evaluations(p) for p in (0, 0.3, 0.34, 0.7, 0.99)] == [0, 0, 1, 2, 2]
    minutes = TrainingConfig(minutes=60, evaluate_minutes=10)
    assert [minutes.evaluations(p) for p in (0.1, 0.17, 0.5)] == [0, 1, 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"minutes": 3.0}, "either minutes or epochs"),
        ({"epochs": None}, "either minutes or epochs"),
        ({"epochs": -1.0}, "epochs above 0"),
        ({"learning_rate": math.nan}, "learning_rate above 0"),
        ({"average": 1.0}, "average of 0 to 1"),
        ({"betas": (0.9,)}, "two betas"),
        ({"stages": ()}, "begin at 0"),
        ({"stages": (Stage(0.5, 96, 4),)}, "begin at 0"),
        ({"stages": (Stage(0.0, 96, 4), Stage(0.0, 64, 4))}, "rising order"),
    ],
)
def test_nonsense_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]


def test_a_stage_has_a_place_a_size_and_a_batch() -> None:
    for wrong in ((1.0, 96, 4), (-0.1, 96, 4), (0.0, 16, 4), (0.0, 96, 0)):
        with pytest.raises(ValueError, match="expected 0 <= begin"):
            Stage(*wrong)
