"""The start of a thread, which an exception of a signal handler cannot leave half done.

``Thread.start`` is Python code. After an exception in it, CPython may end the new thread before it calls its function,
or list a thread for ever that never runs. Only the main thread runs signal handlers, so another one calls ``start``.
"""

from __future__ import annotations

import threading

from .polling import patched_by
from .timeouts import call_until, inf


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. After an interrupt, it runs as well, or it was never begun.

    Raises RuntimeError if no thread can be started.
    """
    # Another thread would start no greenlet of this one, and would wait for a lock that this one was interrupted with.
    if patched_by() or threading._active_limbo_lock._is_owned():  # type: ignore[attr-defined]
        thread.start()
    else:
        call_until(inf, thread.start)
