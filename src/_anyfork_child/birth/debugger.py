"""The debugger of the owner, debugpy, which follows into its processes.

The debugger runs in threads, which a template must not have. So a template only stores its settings, and the process
connects once it is no longer a template, before its function is entered.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_debugger: tuple[str, str, str, Mapping[str, Any]] | None = None


def follow(directory: str, protocol: str, mode: str, settings: Mapping[str, Any]) -> None:
    """Store the settings of a debugger whose modules are in ``directory``, for ``connect``.

    The process connects when a function takes it over.
    """
    global _debugger
    _debugger = directory, protocol, mode, settings


def connect() -> None:
    """Connect to the debugger, if there is one, and wait until its client has set its breakpoints.

    Runs in the process.
    """
    global _debugger
    if _debugger is None:
        return
    (directory, protocol, mode, settings), _debugger = _debugger, None
    sys.path.insert(0, directory)
    try:
        import pydevd  # the core of debugpy, which debugpy itself loads into the interpreters that it follows into

        pydevd.config(protocol, mode)
        pydevd.settrace(suspend=False, trace_only_current_thread=False, patch_multiprocessing=True, **settings)
    except Exception as error:  # the debugger has ended, or is another version: the process runs without it
        print(
            f"anyfork: the debugger cannot follow into this process: {type(error).__name__}: {error}", file=sys.stderr
        )
    finally:
        sys.path.remove(directory)
