"""A small real load: numpy and pandas, and some work with both."""

from __future__ import annotations

import numpy as np
import pandas as pd

ROWS = 20_000


def work() -> float:
    """Build a frame and group it; return a number that depends on all of it."""
    generator = np.random.default_rng(7)
    frame = pd.DataFrame({"key": np.arange(ROWS) % 100, "value": generator.random(ROWS)})
    return float(frame.groupby("key")["value"].mean().sum())
