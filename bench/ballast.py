"""Objects to load before processes are started: so many megabytes as the environment says."""

from __future__ import annotations

import os

MEGABYTES = "BENCH_BALLAST"  # the variable
BYTES_A_DICTIONARY = 300  # of those below, with what they hold

_COUNT = int(os.environ.get(MEGABYTES, "0")) * 1_000_000 // BYTES_A_DICTIONARY
made = [{"number": i, "name": str(i), "half": i / 2} for i in range(_COUNT)]
