"""What engines say reaches the user once, and the ledger, wherever the engine is."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Fallback, records, run, statuses

from jobs.hearing import heard
from jobs.recipe import PRECISIONS, Recipe
from jobs.request import default_colouring
from jobs.worker import IN_FLIGHT


def test_every_message_of_the_models_is_heard_in_one_line_while_it_is_listened_for() -> None:
    lines: list[str] = []
    logger = logging.getLogger("model.engines.some")
    with heard(lines.append):
        logger.info("compiling:\n  %d of %d", 3, 8)
        logger.debug("nothing to say")
        speaker = threading.Thread(target=logger.warning, args=["from a thread"])
        speaker.start()
        speaker.join()
        logging.getLogger("other").warning("not ours")
    logger.warning("too late")
    assert lines == ["compiling: 3 of 8", "from a thread"]
    assert logging.getLogger("model").level == logging.NOTSET


@pytest.mark.parametrize("workers", [None, 2], ids=["in this process", "on two workers"])
def test_a_fallback_is_said_once_and_kept_in_the_ledger(
    film: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, workers: int | None
) -> None:
    if workers is None:
        monkeypatch.setattr("jobs.run.Run._work_on_ray", lambda self, _segments: self._work_here(engine=True))
    assert statuses(run(film, out=tmp_path, kind="fallback", workers=workers)) == ["done"]
    assert capsys.readouterr().err.count(Fallback.notes[0]) == 1
    kept = [json.loads(path.read_text())["notes"] for path in records(tmp_path)]
    assert kept == [list(Fallback.notes)] * 6


def test_the_recipes_precision_is_the_engines_and_it_has_a_stream_for_each_segment_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    package = tmp_path / "film.safetensors"
    package.write_bytes(b"weights")
    monkeypatch.setattr("model.registry.locate", lambda _: SimpleNamespace(path=str(package)))
    monkeypatch.setattr("model.engines.open_engine", lambda _, **given: asked.append(given) or nullcontext())
    for precision in PRECISIONS:
        colouring = default_colouring(Recipe(model="film", precision=precision))
        monkeypatch.setattr("model.outline.outlined", lambda _, c=colouring: SimpleNamespace(sha256=c.weights))
        with colouring.open():
            pass
    assert [given["precision"] for given in asked] == list(PRECISIONS)
    assert {given["threads"] for given in asked} == {IN_FLIGHT}
