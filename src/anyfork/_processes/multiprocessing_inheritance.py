"""The inheritance of a process of the multiprocessing context: bytes and descriptors from its owner.

multiprocessing lets locks, queues and shared memory travel to new processes only. It asks the Popen object that is
starting one how descriptors travel; here they are arguments like any other.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler

from _anyfork_child.values.decode import Descriptor
from _anyfork_child.values.encode import Encoded, encode
from _anyfork_child.values.functions_by_value import ANY, Receiver
from _anyfork_child.values.multiprocessing_context import REDUCERS

from .._system.import_path import is_importable, later_places, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any


class Inheriting:
    """A stand-in for a Popen object that is starting a process."""

    DupFd = Descriptor

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        """Return the argument for DupFd."""
        return fd


def encode_inherited(values: Sequence[object], imports_main: bool = False) -> Encoded:
    """Pickle values for a process of the context, which may import ``__main__``. Raises what their pickling raises."""
    ordinary = Receiver(is_importable, place_of=place_of, places=later_places, imports_main=imports_main)
    with inheriting(ordinary.started_with(ANY)) as receiver:
        return encode(values, receiver)


@contextmanager
def inheriting(receiver: Receiver) -> Iterator[Receiver]:
    """Let locks, queues and shared memory travel to a new process, which is this receiver."""
    registered: dict[type, Any] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]  # read as it is used
    outer = context.get_spawning_popen()
    context.set_spawning_popen(Inheriting)  # type: ignore[arg-type]  # it has all attributes that are used
    try:
        yield Receiver(
            receiver.has,
            receiver.main,
            {**registered, **REDUCERS, **_locks()},
            receiver.remote,
            receiver.place_of,
            receiver.places,
            receiver.imports_main,
            receiver.initializer,
        )
    finally:
        context.set_spawning_popen(outer)


def _locks() -> dict[type, Any]:
    """Return the function that checks each kind of lock."""
    synchronize: Any = sys.modules.get("multiprocessing.synchronize")
    if synchronize is None:
        return {}
    kinds = (synchronize.Lock, synchronize.RLock, synchronize.Semaphore, synchronize.BoundedSemaphore)
    return dict.fromkeys(kinds, _check_lock)


def _check_lock(lock: Any) -> None:
    """Refuse a lock of the start method fork. It has no name by which another process finds it; CPython 3.11.2 sends
    its address, and the other process crashes.
    """
    if lock._semlock.name is None:
        kind = type(lock).__name__
        raise RuntimeError(
            f"a {kind} of a fork context cannot travel to a process of a template: one of that process's context can, "
            f"as anyfork.get_context().{kind}() makes it"
        )
