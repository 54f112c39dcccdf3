"""The resource tracker of this program's multiprocessing, shared with templates. None is started just to be shared."""

from __future__ import annotations

import atexit
import os
import stat
import sys

from _anyfork_child.wire.frames import TRACK, Frame
from _anyfork_child.wire.resource_tracker import MODULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .link import Link


def share_tracker(template: Link) -> None:
    """Give a template the tracker, once, if this program has one by now: the template's forks use it too."""
    module: Any = sys.modules.get(MODULE)
    if module is None or template.remote:
        return
    tracker = module._resource_tracker
    known = tracker._fd, tracker._pid
    if tracker._fd is not None and template.tracker != known:
        template.tracker = known
        if _is_pipe(tracker._fd):
            atexit.unregister(_leave_tracker)  # one registration is enough
            atexit.register(_leave_tracker)
            template.send(Frame(TRACK, 0, b"", (tracker._fd,)))


def _leave_tracker() -> None:
    """Keep the end of the program from waiting for the tracker, which newer versions of CPython do.

    The tracker ends when no process holds its pipe any more. A process that still runs holds it, and ends after this
    program.
    """
    module: Any = sys.modules.get(MODULE)
    if module is not None:
        module._resource_tracker._pid = None


def _is_pipe(fd: int) -> bool:
    """Return whether the descriptor still is the tracker's pipe, and was not closed or replaced by the program."""
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False
