"""A debugger that the owner runs under, and that follows into its processes: debugpy.

It lives in threads, which a template must not have. So what is told of it is kept, and the process connects when it has
stopped being a template, before its function is entered.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_debugger: tuple[str, str, str, Mapping[str, Any]] | None = None


def follow(directory: str, protocol: str, mode: str, settings: Mapping[str, Any]) -> None:
    """Connect to this debugger, whose modules are in a directory, when a function takes this process over."""
    global _debugger
    _debugger = directory, protocol, mode, settings


def connect() -> None:
    """Runs in the process. Waits until the client, if there is one, has set its breakpoints."""
    global _debugger
    if _debugger is None:
        return
    (directory, protocol, mode, settings), _debugger = _debugger, None
    sys.path.insert(0, directory)
    try:
        import pydevd  # what debugpy is around, and what it puts into the interpreters that it follows into itself

        pydevd.config(protocol, mode)
        pydevd.settrace(suspend=False, trace_only_current_thread=False, patch_multiprocessing=True, **settings)
    except Exception as error:  # it has ended meanwhile, or is another version: the process runs without it
        print(
            f"anyfork: the debugger cannot follow into this process: {type(error).__name__}: {error}", file=sys.stderr
        )
    finally:
        sys.path.remove(directory)
