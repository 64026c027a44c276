"""OpenVINO, without its reports of use.

By itself, importing it forks a process that writes to Google Analytics, may hold up the end of the program where
there is no network, and ends with a trace of ours. It does without the package that does so where it is missing, as it
is from here on. OpenVINO's converter, which it imports only to have it at hand, is not used here.
"""

from __future__ import annotations

import sys

for _name in ("openvino_telemetry", "openvino.tools.ovc"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # None: importing it raises ImportError

import openvino as openvino  # noqa: E402, PLC0414
