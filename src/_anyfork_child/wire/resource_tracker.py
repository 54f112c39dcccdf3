"""The resource tracker of multiprocessing in processes: the tracker of their owner, if the owner has one.

A tracker removes leftover shared memory and semaphores when all its users have ended. A tracker of a process's own
would remove, at the end of that process, resources that the process has only opened. So a template gets its owner's
tracker as soon as there is one, and its forks inherit it. A process that was started before then does not track
resources that it only opens.

This loads no module of multiprocessing: the tracker's module is adapted when it is imported.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

MODULE = "multiprocessing.resource_tracker"
OPENED = "SharedMemory.__init__"  # the caller that registers shared memory, even if it only opens it

_shared: tuple[int, os.stat_result] | None = None  # the owner's tracker: a descriptor, and its status for comparison
_created: set[tuple[str, str]] = set()  # the resources that a tracker of this process's own knows


def use(fd: int) -> None:
    """Use the owner's tracker, which reads from this pipe, in this process and in all its forks."""
    global _shared
    if _shared is not None and _shared[0] != fd and _is_there(*_shared):
        os.close(_shared[0])
    _shared = fd, os.fstat(fd)
    if MODULE in sys.modules:
        _meet(sys.modules[MODULE])


def release() -> None:
    """Let this process have a tracker of its own, and use it as multiprocessing does."""
    global _shared
    if Finder in sys.meta_path:
        sys.meta_path.remove(Finder)
    module: Any = sys.modules.get(MODULE)
    if module is not None:
        tracker = module._resource_tracker
        tracker._fd = tracker._pid = None
        module.register, module.unregister = tracker.register, tracker.unregister
    if _shared is not None and _is_there(*_shared):
        os.close(_shared[0])
    _shared = None


def meet() -> None:
    """Adapt the module of the tracker when it is imported, or now if it is loaded."""
    if MODULE in sys.modules:
        _meet(sys.modules[MODULE])
    else:
        sys.meta_path.insert(0, Finder)


class Finder:
    """A finder that finds the module of the tracker once, by the other finders, and has it adapted after its import."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find a module, as every finder does; only the module of the tracker."""
        if name != MODULE:
            return None
        sys.meta_path.remove(cls)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _meet(module)

        loader.exec_module = exec_module
        return spec


def _is_there(fd: int, what: os.stat_result) -> bool:
    """Return whether the descriptor is still the same open file, which user code may have closed or replaced."""
    try:
        return os.path.samestat(os.fstat(fd), what)
    except OSError:
        return False


def _keep_in_forks(module: Any) -> None:
    """Keep CPython 3.14.10 and newer from closing the pipe in processes that this thread forks.

    CPython closes the pipe in plain forks, and not in those of multiprocessing.
    """
    intent = getattr(module, "_fork_intent", None)
    if intent is not None:
        intent.preserve_fd = True


def _meet(module: Any) -> None:
    tracker = module._resource_tracker
    if _shared is not None and _is_there(*_shared):
        tracker._fd, tracker._pid = _shared[0], None
        _keep_in_forks(module)
    if module.register.__module__ == __name__:
        return
    register, unregister = module.register, module.unregister

    def register_created(name: str, rtype: str) -> None:
        """Track a resource, except one that is only opened while the owner's tracker is not known."""
        if _shared is None:
            caller = sys._getframe(1)
            if caller.f_code.co_qualname == OPENED and not caller.f_locals.get("create"):
                return
            _created.add((name, rtype))
        register(name, rtype)

    def unregister_created(name: str, rtype: str) -> None:
        """Stop tracking a resource, if it was tracked."""
        if _shared is not None or (name, rtype) in _created:
            unregister(name, rtype)

    module.register, module.unregister = register_created, unregister_created
