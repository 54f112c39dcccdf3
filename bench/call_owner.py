"""The owner program of a contender of ``calls``: as owner, with one worker that answers."""

from __future__ import annotations

import sys
from operator import neg

from .callers import KINDS
from .owner import own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Be the owner that the command line describes: descriptor of the socket, kind."""
    fd, kind = sys.argv[1:]
    own(fd, lambda: _checked(kind), lambda caller, measure, amount: getattr(caller, measure)(amount))


def _checked(kind: str) -> Any:
    caller = KINDS[kind]()
    if caller.call(neg, 1) != -1:
        raise RuntimeError(f"{kind} gives wrong answers")
    return caller
