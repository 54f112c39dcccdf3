"""The steps that prepare a template: each runs user code in it, and a failure names the step and its object."""

from __future__ import annotations

import os
import sys

from ..values.decode import DescriptorsLostError, Payload
from ..wire.failure import Failure, failure_of
from ..wire.frames import EXECUTE, INIT, PRELOAD, PREPARE
from ..wire.gpu_devices import GpuDevices
from ..wire.own_imports import import_own, is_standard_library
from ..wire.platform import LAZY_IMPORTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _initialise(payload: Payload) -> None:
    """Set the program's module path, arguments and mode of lazy imports in this template.

    None in the path stands for the standard library. If the program has named this interpreter and has another one, the
    packages that are installed with this one come next, and then those of the program, also of its PYTHONPATH.
    """
    for name in ("socket", "resource"):  # every template needs them (os.wait4 the latter), and the path may hide them
        import_own(name)
    path, sys.argv[:], lazy_imports, home = payload.load()
    at = path.index(None) if None in path else len(path)
    before, behind = path[:at], [entry for entry in path[at:] if entry is not None]
    if home not in (None, (sys.prefix, sys.hexversion >> 16)):
        own = [entry for entry in _own_packages() if entry not in path]
        behind = [*own, *filter(_is_for_packages, before), *behind]
        before = [entry for entry in before if not _is_for_packages(entry)]
    sys.path[:] = [*before, *filter(is_standard_library, sys.path), *behind]
    if lazy_imports is not None and LAZY_IMPORTS:
        from .lazy_imports import set_mode

        set_mode(*lazy_imports)


def _is_for_packages(entry: str) -> bool:
    """Return whether installers put packages into this place, as into site-packages and dist-packages."""
    return entry.endswith("-packages")


def _own_packages() -> list[str]:
    """Return the places that this interpreter has put on its path behind the standard library, until now."""
    given = {os.path.normpath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    package = sys.modules[__name__.partition(".")[0]]
    given.add(os.path.dirname(package.__path__[0]))
    last = max((number for number, entry in enumerate(sys.path) if is_standard_library(entry)), default=-1)
    return [entry for entry in sys.path[last + 1 :] if entry not in given]


def _preload(payload: Payload) -> None:
    names = payload.load()
    devices = GpuDevices()
    for name in names:
        try:
            __import__(name)
        except BaseException as error:  # a module may raise anything while it is imported
            raise _failure("preload", name, error) from error
        devices.check(f"the import of {name}")
    if LAZY_IMPORTS:
        from .lazy_imports import resolve_lazy_imports

        resolve_lazy_imports(names)


def _execute(payload: Payload) -> None:
    try:
        code, *args = payload.load()
    except BaseException as error:
        raise _failure("execute", "its arguments", error) from error
    main = sys.modules["__main__"].__dict__
    name = f"<execute {len(_sources) + 1}>"
    _sources[name] = code
    main["args"] = tuple(args)
    devices = GpuDevices()
    try:
        exec(compile(code, name, "exec"), main)
    except BaseException as error:
        _show_sources()
        raise _failure("execute", name, error) from error
    devices.check("the code given to execute")


def _prepare(payload: Payload) -> None:
    try:
        function, *args = payload.load_call()
    except BaseException as error:
        raise _failure("prepare", "its arguments", error) from error
    devices = GpuDevices()
    try:
        function(*args)
    except BaseException as error:
        raise _failure("prepare", function_name(function), error) from error
    devices.check(f"prepare({function_name(function)})")


def _failure(step: str, subject: str, error: BaseException) -> Failure:
    """Return the failure of a step by any exception of user code but SystemExit, which is raised again.

    Some are no Exception: panics of libraries in Rust, cancellations of asyncio, outcomes of pytest.
    """
    if isinstance(error, SystemExit):
        raise error
    return failure_of(step, subject, error)


_sources: dict[str, str] = {}  # the executed code, for the lines of a traceback


def _show_sources() -> None:
    import linecache  # only now: it is large, and most templates never fail

    for name, code in _sources.items():
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)


def function_name(function: Callable[..., object] | str) -> str:
    """Return the name of a function for titles and messages, whatever its attributes are."""
    try:
        if isinstance(function, str):
            return function
        if type(function).__qualname__ == "partial":  # functools need not be loaded
            inner = function.func  # type: ignore[attr-defined]
            return function_name(function.args[1] if getattr(inner, "__name__", "") == "run_async" else inner)  # type: ignore[attr-defined]
        module = getattr(function, "__module__", None)
        name = getattr(function, "__qualname__", None) or type(function).__name__
        return f"{module}:{name}" if module else f"{name}"
    except Exception:  # an object that is called may do anything when it is asked for an attribute
        return type(function).__name__


STEPS: dict[int, Callable[[Payload], None]] = {
    INIT: _initialise,
    PRELOAD: _preload,
    EXECUTE: _execute,
    PREPARE: _prepare,
}


def run_step(kind: int, payload: Payload) -> None:
    """Run one step. Raises Failure, and SystemExit of the user's code."""
    if payload.lost:
        payload.close()
        raise Failure("descriptors", "prepare", DescriptorsLostError())
    try:
        STEPS[kind](payload)
    except Failure:
        raise
    except Exception as error:  # the payload is malformed
        raise failure_of("protocol", "", error) from error
