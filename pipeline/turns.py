"""Work that threads do one after another, as they would wait for each other in the middle of it."""

from __future__ import annotations

import threading

# Thousands of NumPy operations of some ten microseconds a picture, each of which gives the interpreter lock away and
# waits for it: two pictures at once took as long as one after the other, and half as much processor time again.
SHORT_OPERATIONS = threading.Lock()
