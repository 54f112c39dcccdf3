"""The owner program of a contender of ``calls``: as owner, with one worker that answers."""

from __future__ import annotations

import os
import sys
from operator import neg

from .callers import KINDS
from .owner import serve


def main() -> None:
    """Be the owner that the command line describes: descriptor of the socket, kind."""
    fd, kind = sys.argv[1:]
    os.set_inheritable(int(fd), False)
    with open(int(fd), "r+b", buffering=0) as control:
        try:
            caller = KINDS[kind]()
        except ImportError as error:
            control.write(f"unavailable {error}\n".encode())
            return
        if caller.call(neg, 1) != -1:
            raise RuntimeError(f"{kind} gives wrong answers")
        serve(control, lambda measure, seconds: getattr(caller, measure)(seconds))
        caller.close()
