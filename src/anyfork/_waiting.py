"""How the blocking face waits: by poll, with a deadline, and with many threads on one process.

Of the threads that wait for the same descriptor one polls it, and reads what comes; the others wait for their turn. It
may read what they wait for, and then nothing more would come.
"""

from __future__ import annotations

import _thread
from select import POLLIN, POLLOUT
from sys import _getframe, modules
from time import monotonic

from ._delivery import pending
from ._polling import new_poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Sequence

    from ._dialogue import Dialogue, Result
    from ._ends import Source
    from ._link import Link

RETRY = 10  # milliseconds between attempts when the kernel's limit of descriptors in flight is reached


def run(dialogue: Dialogue[Result]) -> Result:
    """Go through a dialogue, waiting for all that it needs. Raises what it raises."""
    try:
        need = next(dialogue)
        while True:
            need = dialogue.send(_wait(*need))
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # StopIteration does not know its type


def warn_in_loop() -> None:
    """Warn of a blocking wait in a running event loop of asyncio, where that is in its debug mode."""
    events = modules.get("asyncio.events")
    running = getattr(events, "_get_running_loop", None)  # another thread may be importing it
    loop = running and running()
    if loop is None or not loop.get_debug():
        return
    import warnings

    level, frame = 1, _getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "anyfork":
        level, frame = level + 1, frame.f_back
    text = "anyfork blocks the running event loop until this is done: use anyfork.aio, or a thread (asyncio.to_thread)"
    warnings.warn(text, RuntimeWarning, stacklevel=level)


def _wait(link: Link, done: Callable[[], bool], source: Callable[[], Source | None], timeout: float | None) -> bool:
    """Read the source whenever it is readable, until it is done; False when the timeout, in seconds, is over before."""
    if timeout != 0.0 and "asyncio" in modules:
        warn_in_loop()
    deadline = None if timeout is None else monotonic() + timeout
    while True:
        pollable = link.flush_line()
        with link.lock:
            if done():
                return True
            watched = source()
            fd = -1 if watched is None else watched[0]
            turn = _take_turn(link, fd)
            link.waiters += 1
        ready: Sequence[int] = ()
        left = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            if turn is None:
                ready = _poll(link, fd, left, pollable)
            else:
                turn.acquire(timeout=_turn_timeout(left))
        finally:
            with link.lock:
                link.waiters -= 1
                if watched is not None and fd in ready:
                    watched[1]()
                if turn is None:
                    _end_turn(link, fd)
                link.close_finished()
        if left == 0.0:
            return done()


def _take_turn(link: Link, fd: int) -> LockType | None:
    """Be the one thread that polls this descriptor: None. Or get a lock that is released when that one has read."""
    if link.turns is None:
        link.turns = {}
    if fd not in link.turns:
        link.turns[fd] = []
        return None
    turn = _thread.allocate_lock()  # looked up now, as in _polling
    turn.acquire()
    link.turns[fd].append(turn)
    return turn


def _end_turn(link: Link, fd: int) -> None:
    assert link.turns is not None
    for turn in link.turns.pop(fd):
        turn.release()


def _poll(link: Link, fd: int, left: float | None, pollable: bool) -> list[int]:
    poller = new_poll()
    if fd >= 0:
        poller.register(fd, POLLIN)
    for unsent in link.unsent():
        # Wake up, too, when a queue on the way to this process moves on.
        poller.register(unsent, POLLIN | POLLOUT if unsent == fd else POLLOUT)
    milliseconds = None if left is None else left * 1000
    if not pollable:
        milliseconds = RETRY if milliseconds is None else min(RETRY, milliseconds)
    return [number for number, _ in poller.poll(milliseconds)]


def _turn_timeout(left: float | None) -> float:
    """How long a thread waits for its turn, in seconds; -1 for ever. It also writes on what is not delivered."""
    if pending():
        return RETRY / 1000 if left is None else min(RETRY / 1000, left)
    return -1 if left is None else left
