"""Where what can be made or fetched again is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/reelcolor, by default ~/.cache/reelcolor: exported graphs and fetched model packages."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "reelcolor"
