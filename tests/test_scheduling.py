"""Encoders leave the processors to others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from reels import stream_info

from pipeline.codecs import EncoderSettings
from pipeline.encoders import open_encoder, resolve_encoder

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux's schedule")


def policies() -> set[int]:
    return {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}


@pytest.mark.parametrize("codec", ["av1", "h264", "hevc"])
def test_an_open_encoder_leaves_every_thread_its_policy(codec: str) -> None:
    spec = resolve_encoder(stream_info(width=64, height=64), EncoderSettings(codec))  # type: ignore[arg-type]
    encoder = open_encoder(spec)
    assert policies() == {os.SCHED_OTHER}
    del encoder
