"""The hooks of os.register_at_fork in a template, and the choice of those that a fork of the compiled part runs.

With ``threading``, ``logging`` and ``concurrent.futures`` loaded, the hooks of the standard library cost a new process
150 page faults, and most of them only make locks anew that a thread might hold. A template has one thread. So hooks
that are known to do nothing else are left out, as long as their locks are free. All others run as after os.fork.
"""

from __future__ import annotations

import gc
import sys
from os import fork, register_at_fork
from sys import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Hook = Callable[[], object]
    Lists = tuple[list[Hook], list[Hook], list[Hook]]  # before, after in the parent, after in the child


def find_lists() -> Lists | None:
    """Return the lists in which the interpreter holds its hooks, or None if they cannot be found.

    Takes a time that grows with the number of objects, so an exec'ed template calls it at its start.
    """

    def before() -> None: ...

    def in_parent() -> None: ...

    def in_child() -> None: ...

    markers = (before, in_parent, in_child)
    register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
    lists = [found for found in gc.get_referrers(*markers) if type(found) is list and found[-1] in markers]
    found = {one.pop().__name__: one for one in lists}
    if len(found) != len(lists) or len(found) != len(markers):
        return None
    return found["before"], found["in_parent"], found["in_child"]


def choose_fork(fast: ModuleType, lists: Lists) -> Callable[[], int]:
    """Return the function by which this template forks: that of the compiled part, unless something forbids it."""
    if getattr(sys, "is_stack_trampoline_active", bool)() or "gevent.monkey" in modules or "eventlet" in modules:
        return fork
    fast.reseeds(None, ())
    chosen = tuple(tuple(hook for hook in hooks if not _is_needless(fast, hook)) for hooks in lists)
    fast.choose_hooks(lists, chosen, fork, _renewed_thread())
    return fast.fork  # type: ignore[no-any-return]  # it has no types


def _is_needless(fast: ModuleType, hook: Hook) -> bool:
    """Return whether a hook is one of the standard library that a process with one thread can do without."""
    place = getattr(hook, "__module__", None)
    if place == "threading":
        return _threading_is_quiet(hook)
    if place == "logging":
        return _logging_is_quiet(hook)
    if place == "asyncio.events":
        return _asyncio_is_quiet(hook)
    if place == "random":
        return _random_is_plain(fast, hook)
    return is_of_executor(hook)


def _random_is_plain(fast: ModuleType, hook: Any) -> bool:
    """Return whether a hook is ``seed`` of the global generator, and the compiled part does the same in a fork."""
    random: Any = modules["random"]
    generator = random._inst
    return (
        hook == generator.seed
        and type(generator) is random.Random
        and hook.__func__ is vars(random.Random).get("seed")
        and generator.gauss_next is None
        and fast.reseeds(generator, generator.getstate()[1])
    )


def _threading_is_quiet(hook: Hook) -> bool:
    threading: Any = modules["threading"]
    return (
        hook is threading._after_fork
        and [*threading._active.values()] == [threading._main_thread]
        and not threading._limbo
        and {*threading._dangling} == {threading._main_thread}  # ended threads that somebody may still join
        and not threading._active_limbo_lock._is_owned()
    )


def _renewed_thread() -> Any:
    """Return the main thread if its native id is renewed by the hook of threading, as by later Pythons; else None."""
    threading: Any = modules.get("threading")
    renew = threading and getattr(threading.Thread, "_after_fork", None)  # since Python 3.13
    return threading._main_thread if renew and "_set_native_id" in renew.__code__.co_names else None


def _logging_is_quiet(hook: Hook) -> bool:
    logging: Any = modules["logging"]
    names = ("_acquireLock", "_releaseLock", "_prepareFork", "_afterFork", "_after_at_fork_child_reinit_locks")
    return (
        any(hook is vars(logging).get(name) for name in names)
        and not logging._lock._is_owned()
        and all(_has_free_lock(logging, handler) for handler in [*logging._at_fork_reinit_lock_weakset])
    )


def _has_free_lock(logging: Any, handler: Any) -> bool:
    """Return whether a logging handler has the usual lock, which is free, and the usual way to make it anew."""
    if type(handler)._at_fork_reinit is not logging.Handler._at_fork_reinit:
        return False
    return type(handler.lock) is type(logging._lock) and not handler.lock._is_owned()


def _asyncio_is_quiet(hook: Hook) -> bool:
    events: Any = modules["asyncio.events"]
    # The wakeup descriptor is reset by another function: see template.fork_check.
    return hook is events.on_fork and events._event_loop_policy is None and events._get_running_loop() is None


def is_of_executor(hook: Hook) -> bool:
    """Return whether a hook is a method of the lock, or the queues, of ``concurrent.futures.thread``."""
    executor: Any = modules.get("concurrent.futures.thread")
    if executor is None:
        return False
    owner = getattr(hook, "__self__", None)
    if owner is executor._global_shutdown_lock:
        return not owner.locked()
    return owner is executor._threads_queues and not owner
