"""An exception that is a dataclass: in a module of its own, because importing dataclasses takes longer than most tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class RecordError(Exception):
    code: int = 7
