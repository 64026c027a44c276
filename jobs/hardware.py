"""What `--hwaccel` finds on this machine, said once a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs.apart import Apart
from jobs.plan import encoder_settings
from jobs.recipe import Recipe
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from pipeline.codecs import Codec


def check_hwaccel(recipe: Recipe, apart: Apart, note: Callable[[str], None]) -> None:
    """Note what of the GPU's media engines does not work; raises EngineError where `cuda` asks for them.

    They are tried in the other process: whoever loads CUDA keeps it.
    """
    if recipe.hwaccel == "none":
        return
    missing = apart.call("--hwaccel", missing_engines, encoder_settings(recipe).codec)
    if missing and recipe.hwaccel == "cuda":
        raise EngineError(f"--hwaccel cuda: {', '.join(missing)}; --hwaccel auto takes software instead")
    if missing:
        note(f"--hwaccel auto: {', '.join(missing)}; software takes its place in what is begun now")


def missing_engines(codec: Codec) -> list[str]:
    """What cannot decode or encode on this machine, and why."""
    from pipeline.codecs import NVENC
    from pipeline.gpu import no_nvdec
    from pipeline.nvenc import no_nvenc

    tried = {"NVDEC": no_nvdec()} | ({NVENC[codec]: no_nvenc(codec)} if codec in NVENC else {})
    return [f"{name} does not work here ({why})" for name, why in tried.items() if why]
