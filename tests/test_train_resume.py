"""A run that was killed, or asked to stop, goes on with the losses that it would have had."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_train import losses, recipe, two_colours

from model.progress import Report
from model.train import fit
from model.weights import load_model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums round by how many threads there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


KILLED = """
import sys
from pathlib import Path
from test_train import recipe, two_colours
from model.train import fit
made = recipe(checkpoint_minutes=1e-9)
fit(made, two_colours(), Path(sys.argv[1]), resume=True, report=lambda r: print(r.step, repr(r.loss), flush=True))
"""


def test_after_a_kill_it_goes_on_with_the_losses_it_would_have_had(tmp_path: Path) -> None:
    """SIGKILL in the midst of a step, beyond the first evaluation and before the crops change their size."""
    whole = losses(recipe(checkpoint_minutes=1e-9), tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    environment["OMP_NUM_THREADS"] = "1"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line.split()[0]) >= 14:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    rest = losses(recipe(checkpoint_minutes=1e-9), tmp_path / "killed", resume=True)
    assert 5 <= len(rest) < len(whole)
    assert rest == whole[-len(rest) :]
    one, other = (load_model(str(tmp_path / name / "tiny.safetensors")) for name in ("whole", "killed"))
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True))
    with (tmp_path / "killed" / "metrics.csv").open(newline="") as f:
        steps = [int(row["step"]) for row in csv.DictReader(f)]
    assert steps == sorted(set(steps))


def test_asked_to_stop_it_saves_the_step_and_goes_on_from_there(tmp_path: Path) -> None:
    whole = losses(recipe(), tmp_path / "whole")
    stop, seen = threading.Event(), []

    def hear(report: Report) -> None:
        if report.held_out is None:
            seen.append(report.loss)
            if report.step == 20:
                stop.set()

    with pytest.raises(KeyboardInterrupt):
        fit(recipe(), two_colours(), tmp_path / "stopped", report=hear, stop=stop)
    assert load_model(str(tmp_path / "stopped" / "best.safetensors")).bins.centers.shape == (313, 2)
    assert seen + losses(recipe(), tmp_path / "stopped", resume=True) == whole
