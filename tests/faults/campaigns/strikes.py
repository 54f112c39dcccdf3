"""Strikes at lines: something happens at the n-th line of anyfork that an operation executes in this thread.

``sys.settrace`` calls us before each line. What a trace function raises comes out of that line, as what a signal handler
raises does. Lines of finalizers are passed over: the interpreter drops what is raised there.
"""

from __future__ import annotations

import dis
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _anyfork_child
import anyfork

from . import state

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Self

ROOTS = tuple(str(Path(package.__file__).parent) + "/" for package in (anyfork, _anyfork_child))
UNINTERRUPTED = (dis.opmap["POP_EXCEPT"], dis.opmap["NOP"])
FINALIZERS = frozenset({"__del__", "delete_if_possible"})


class Interrupt(BaseException):
    """What is raised in the middle of an operation: nobody's class but ours."""


class LineStrike:
    """Does something at one line, counted from the beginning of a ``with`` block; the first has number 1.

    ``place`` says where that was, and is empty when there were fewer lines. ``fresh`` are descriptors that have come
    up since the line before it, so that nobody can have taken care of them yet.
    """

    def __init__(self, at: int, strike: Callable[[], None], concerned: Callable[[], bool] = lambda: True) -> None:
        self.at = at
        self.place = ""
        self.in_finalizer = False
        self.lines = 0
        self.fresh: frozenset[int] = frozenset()
        self._strike = strike
        self._concerned = concerned
        self._before: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        self._before = state.numbers()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, _event: str, _argument: object) -> Any:
        return self._traced if frame.f_code.co_filename.startswith(ROOTS) else None

    def _traced(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line" and not _is_uninterrupted(frame) and self._concerned():
            self.lines += 1
            if self.lines == self.at - 1:
                self._before = state.numbers()
            elif self.lines == self.at:
                self._reach(frame)
        return self._traced

    def _reach(self, frame: FrameType) -> None:
        self.place = place_of(frame)
        self.in_finalizer = any(code.co_name in FINALIZERS for code in _callers(frame))
        if self.in_finalizer:
            return
        self.fresh = state.numbers() - self._before
        sys.settrace(None)
        frame.f_trace = None
        self._strike()


def _is_uninterrupted(frame: FrameType) -> bool:
    """Return whether no signal handler runs before the next instruction.

    It may end the handling of an exception: the interpreter would keep that, with all its frames, if a trace function
    raised there. Or it may stand for a ``try:`` inside another one, which neither of them covers.
    """
    return frame.f_code.co_code[frame.f_lasti] in UNINTERRUPTED


def place_of(frame: FrameType) -> str:
    """Return file, function and line, as they are named in reports and in the table of limits."""
    path = frame.f_code.co_filename
    root = next(root for root in ROOTS if path.startswith(root))
    return f"{path.removeprefix(root)}:{frame.f_lineno} {frame.f_code.co_qualname}"


def _callers(frame: FrameType | None) -> list[CodeType]:
    codes = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    return codes
