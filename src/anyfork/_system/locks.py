"""Locks and steps that survive interrupts: no exception of a signal handler leaves a lock held, or a step half done.

A signal handler may raise an exception between the acquisition of a lock and the block of ``with`` (CPython 3.14,
python/cpython#148874), and a tracer may raise one at the line of ``with`` on the way out. So, after an exception, the
functions here release the lock as often as it was acquired since they began. They do so twice: an interrupt may come in
the middle of the handling of another exception. They use no ``with``, which costs twice as much as two calls.

System calls whose results must not be lost are made once each. A handler or a destructor may make the same calls in the
middle of them: data that was sent or received must not be forgotten then, nor sent twice. No handler runs while a
function written in C runs: ``list.extend`` makes the call of a ``map`` and keeps its result in one step, and a ``map``
makes the call only once. So the interrupted caller and the one that has interrupted it may both go on with the same
list.
"""

from __future__ import annotations

from _operator import call, methodcaller
from _thread import RLock
from collections import deque
from functools import wraps
from itertools import chain
from os import close

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final, Protocol, TypeVar, TypeVarTuple

    class HasLock(Protocol):
        """An object with a lock of its own."""

        lock: RLock

    Owner = TypeVar("Owner", bound=HasLock)
    Args = TypeVarTuple("Args")
    Result = TypeVar("Result")


# How often this thread holds a lock. Python 3.11.2 can tell only whether it does.
# The method is looked up in each lock, because eventlet replaces existing locks when it patches a program.
held: Callable[[RLock], int] = methodcaller("_recursion_count" if hasattr(RLock, "_recursion_count") else "_is_owned")


def locked(
    method: Callable[[Owner, *Args], Result],
) -> Callable[[Owner, *Args], Result]:
    """Make a method run with the lock of its object held."""

    @wraps(method)
    def hold(self: Owner, /, *args: *Args) -> Result:
        lock = self.lock
        if lock._is_owned():  # type: ignore[attr-defined]  # missing in the type stubs
            return method(self, *args)
        try:  # as in do_locked, without the cost of its call
            try:
                lock.acquire()
                result = method(self, *args)
                lock.release()
            except BaseException:
                release_to(lock, 0)
                raise
        except BaseException:
            release_to(lock, 0)
            raise
        return result

    return hold


def do_locked(lock: RLock, action: Callable[..., Result], /, *args: Any, **options: Any) -> Result:
    """Call the action with the lock held, also inside another call of this thread that holds it."""
    if lock._is_owned():  # type: ignore[attr-defined]  # as in ``locked``
        return action(*args, **options)
    try:
        try:
            lock.acquire()
            result = action(*args, **options)
            lock.release()
        except BaseException:
            release_to(lock, 0)
            raise
    except BaseException:
        release_to(lock, 0)
        raise
    return result


def try_locked(lock: RLock, action: Callable[[], Any], wait: float = 0) -> bool:
    """Call the action with the lock held. Return False, with nothing done, if another thread holds the lock now.

    Wait so many seconds for the other thread.
    """
    if lock._is_owned():  # type: ignore[attr-defined]  # as in ``locked``
        action()
        return True
    try:
        try:
            if not lock.acquire(timeout=wait):
                return False
            action()
            lock.release()
        except BaseException:
            release_to(lock, 0)
            raise
    except BaseException:
        release_to(lock, 0)
        raise
    return True


def release_to(lock: RLock, before: int) -> None:
    """Release a lock until this thread holds it no more than ``before`` times."""
    while held(lock) > before:
        lock.release()


def in_one_go(*steps: Iterable[object]) -> None:
    """Run steps, which are ``map`` objects of functions written in C: all of them or none, despite interrupts."""
    deque(chain(*steps), 0)


def close_attribute(owner: object, name: str) -> None:
    """Close the descriptor that is an attribute of an object, whose class has -1: both in one step, and once."""
    exhaust(map(close, filter(is_descriptor, map(vars(owner).pop, (name,), (-1,)))))


is_descriptor = (-1).__lt__
exhaust = deque[object](maxlen=0).extend


def call_all(functions: Iterable[Callable[..., object]], arguments: Iterable[object]) -> None:
    """Call functions written in C with one argument each: all of them or none, despite interrupts."""
    exhaust(map(call, functions, arguments))


class Once(list["Any"]):
    """A sequence of calls: the list of the values that they have returned."""

    def call(self, number: int, step: map[Any]) -> None:
        """Make the call with this number, unless it was made. Raises its exception; the call may be made again then.

        ``step`` is the call, as a ``map`` of a function written in C. The number is how many results there were when
        its arguments were chosen.
        """
        steps: dict[Any, map[Any]] = vars(self)  # without a constructor in Python, which would double what one costs
        step = steps.setdefault(number, step)
        try:
            self.extend(step)
        finally:
            if len(self) <= number and steps.get(number) is step:
                steps.pop(number, None)

    def finish(self, steps: Iterable[None]) -> None:
        """Run the final steps, all in one go, unless that was done."""
        any(vars(self).setdefault(-1, steps))  # type: ignore[call-overload]  # no attribute: a number of its own


class Later:
    """The result of ``DecisionLock.do`` for an action that cannot be done now."""


LATER: Final = Later()


class DecisionLock:
    """The lock under which decisions are made. ``torn`` is True if an interrupt has stopped one in the middle.

    ``awaited`` tells whether the thread that has the lock may wait for this one, which then cannot wait for the lock.
    """

    __slots__ = ("_awaited", "_lock", "torn")

    def __init__(self, awaited: Callable[[], bool]) -> None:
        self._awaited = awaited
        self._lock = RLock()
        self.torn = False

    @property
    def held(self) -> bool:
        """True if this thread holds the lock: it was interrupted in the middle of a decision."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # missing in the type stubs

    def do(self, check: Callable[[], Result], action: Callable[..., Result], *args: Any) -> Result | Later:
        """Run the action under the lock, unless ``check`` returns a refusal. Return the refusal or the action's result.

        Return LATER, with nothing done, in the middle of another decision of this thread, or after one that was torn,
        and if the thread that decides now may wait for this one.
        """
        lock = self._lock
        if lock._is_owned():  # type: ignore[attr-defined]  # as in ``held``
            return LATER
        try:
            try:
                if not lock.acquire(blocking=False):
                    if self._awaited():
                        return LATER
                    lock.acquire()
                found: Result | Later | None = check()
                if found is None and self.torn:
                    found = LATER
                if found is None:
                    self.torn = True  # until it is done
                    found = action(*args)
                    self.torn = False
                lock.release()
            except BaseException:
                release_to(lock, 0)
                raise
        except BaseException:
            release_to(lock, 0)
            raise
        return found

    def look(self, action: Callable[..., Result], *args: Any) -> Result:
        """Read, under the lock, state that decisions change.

        If the thread that decides now may wait for this one, read without the lock: ``action`` has to allow that.
        """
        found: list[Result] = []
        if try_locked(self._lock, lambda: found.append(action(*args))):
            return found[0]
        return action(*args) if self._awaited() else do_locked(self._lock, action, *args)

    def __enter__(self) -> None:
        """Acquire the lock, in a thread where no interrupt comes."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
