"""The public names that are loaded at their first use, and remedies for names that do not exist."""

from __future__ import annotations

import sys
from _thread import RLock

PACKAGE = "anyfork"
WHERE = {
    "CHANNEL": "_anyfork_child.wire.frames",
    "DEVNULL": "._processes.attributes",
    "Descriptor": "_anyfork_child.values.decode",
    "PIPE": "._processes.attributes",
    "Process": "._blocking.process",
    "STDOUT": "._processes.attributes",
    "Template": "._blocking.template",
    "Advice": "._blocking.advice",
    "Audit": "._programs.program_copy.audit",
    "OpenDescriptor": "._programs.program_copy.audit",
    "PoolStats": "._pools.stats",
    "ProcessMemory": "._system.process_memory",
    "RemoteTemplate": "._blocking.remote",
    "Stream": "._blocking.worker",
    "Warm": "._blocking.warm",
    "WarmReport": "._blocking.warm",
    "UnsafeForkWarning": "._programs.program_copy.fork_here",
    "Worker": "._blocking.worker",
    "FilledCache": "._blocking.advice",
    "LateImport": "._blocking.advice",
    "LatePattern": "._blocking.advice",
    "advise": "._blocking.advice",
    "audit": "._programs.program_copy.audit",
    "call": "._blocking.call",
    "Executor": "._executor.executor",
    "emit": "_anyfork_child.wire.emitter",
    "fork_here": "._programs.program_copy.fork_here",
    "get_context": ".context",
    "retire": "_anyfork_child.wire.emitter",
    "observe": "._pools.observation",
    "wait": "._blocking.process",
}
MODULES = ("aio", "context", "subprocess")  # their contents may be used after ``import anyfork``
INSTEAD = {
    "Pool": "use anyfork.Executor, or anyfork.aio.Pool in an event loop",
    "ProcessPoolExecutor": "use anyfork.Executor",
    "early": "write `import anyfork.early`, before all other imports of the program",
    "frozen": "write `import anyfork.frozen` in the main program",
    "joblib": "write `import anyfork.joblib`",
    "map": "use the map of anyfork.Executor or of anyfork.Worker",
    "run": "use anyfork.call, or anyfork.Template().run",
    "start": "use anyfork.Template().start",
    "submit": "use the submit of anyfork.Executor",
}
PATIENCE = 5.0  # seconds to wait for another thread, which a fork of this program may have left behind

_loading = RLock()


def __getattr__(name: str) -> object:
    """Load a public name at its first use, because most programs do not need it."""
    package = sys.modules[PACKAGE]
    if name in MODULES:
        return _load(f"{PACKAGE}.{name}")
    if name not in WHERE:
        remedy = f": {INSTEAD[name]}" if name in INSTEAD else ""
        raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}{remedy}", name=name, obj=package)
    where = WHERE[name]
    found = getattr(_load(PACKAGE + where if where.startswith(".") else where), name)
    if isinstance(found, type):
        found.__module__ = PACKAGE
    setattr(package, name, found)
    return found


def _load(module: str) -> object:
    """Import a module, one thread after the other: dataclasses use as much of typing as another thread has imported."""
    from _anyfork_child.wire.own_imports import import_own  # only now: it raises an error on a system without fork

    taken = _loading.acquire(timeout=PATIENCE)
    try:
        return import_own(module)
    finally:
        if taken:
            _loading.release()


def __dir__() -> list[str]:
    return [*{**vars(sys.modules[PACKAGE]), **WHERE}, *MODULES]
