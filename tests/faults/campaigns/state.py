"""What this program holds of the system, and what an operation has left behind: processes, descriptors, threads, locks."""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 8.0  # seconds for what is about to end, on a loaded machine
PACKAGES = ("anyfork", "_anyfork_child")
PLAIN, REENTRANT = _thread.LockType, _thread.RLock


@dataclass(frozen=True, slots=True)
class State:
    """What is there at one moment. Descriptors and processes are described; locks are those that somebody holds."""

    processes: dict[int, str]
    descriptors: dict[int, str]
    threads: frozenset[threading.Thread]
    locks: frozenset[int]


def current() -> State:
    """Look at this program."""
    held = frozenset(id(lock) for lock, _ in held_locks())
    return State(processes(), descriptors(), frozenset(threading.enumerate()), held)


def leftovers(before: State, patience: float = PATIENCE) -> list[str]:
    """Wait until nothing is left that was not there before; return what stays, as sentences."""
    end = time.monotonic() + patience
    pause = 0.0005
    while (left := _compare(before)) and time.monotonic() < end:
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
        gc.collect()
    return left


def _compare(before: State) -> list[str]:
    left = [f"process {pid} is left: {text}" for pid, text in processes().items() if pid not in before.processes]
    now = descriptors()
    if len(now) > len(before.descriptors):
        left += [f"descriptor {fd} is left: {text}" for fd, text in now.items() if fd not in before.descriptors]
    left += [f"thread {thread.name} is left" for thread in threading.enumerate() if thread not in before.threads]
    left += [f"a lock is held: {text}" for lock, text in held_locks() if id(lock) not in before.locks]
    return left


def descriptors() -> dict[int, str]:
    """Return what is open, by number, but for the descriptor that looks."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def numbers() -> frozenset[int]:
    """Return the numbers of all descriptors, as ``descriptors`` does, and quicker."""
    return frozenset(map(int, os.listdir("/proc/self/fd")))


def processes(pid: int | None = None) -> dict[int, str]:
    """Return the processes below this program, zombies included: state and command line by pid."""
    below: dict[int, str] = {}
    ahead = list(_children(pid or os.getpid()))
    while ahead:
        child = ahead.pop()
        with contextlib.suppress(OSError):
            below[child] = describe(child)
            ahead += _children(child)
    return below


def describe(pid: int) -> str:
    """Return the state and the command line of a process. Raises OSError for one that is gone."""
    with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline", "rb") as command:
        state = stat.read().rpartition(")")[2].split()[0]
        return f"{state} {command.read().replace(bytes(1), b' ').decode(errors='replace').strip()[:100]}"


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as listed:
                yield from map(int, listed.read().split())


def held_locks() -> Iterator[tuple[object, str]]:
    """Yield the locks that somebody holds: all re-entrant ones, and plain ones that our objects refer to."""
    held = [thing for thing in gc.get_objects() if type(thing) in (PLAIN, REENTRANT) and _is_held(thing)]
    for lock in held:
        if type(lock) is REENTRANT:
            yield lock, repr(lock)
        else:
            for holder in _holders(lock):
                yield lock, f"{lock!r} of {holder}"


def _is_held(lock: object) -> bool:
    return lock.locked() if type(lock) is PLAIN else repr(lock).startswith("<locked")  # type: ignore[attr-defined]


def _holders(lock: object) -> Iterator[str]:
    """Yield the kinds of our objects that have this lock as an attribute."""
    for referrer in gc.get_referrers(lock):
        owners = gc.get_referrers(referrer) if type(referrer) is dict else [referrer]
        for owner in owners:
            if type(owner).__module__.partition(".")[0] in PACKAGES and not isinstance(owner, threading.Thread):
                yield type(owner).__qualname__
