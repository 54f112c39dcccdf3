"""The execution of a program: the module ``__main__`` that is made for it, and the code that runs there."""

from __future__ import annotations

import builtins
import os
import sys
from _frozen_importlib import BuiltinImporter
from functools import partial
from types import ModuleType

from .command_line import CODE, MODULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from .command_line import Command

_kept: list[object] = []  # the template's own __main__, whose functions need its globals


class CannotRunError(Exception):
    """Raised before the program has run, when a new interpreter must run it; the text says why."""


def renew() -> dict[str, object]:
    """Put a new module in the place of ``__main__``, as a new interpreter has it; return its names."""
    old = sys.modules["__main__"]
    _kept.append(old)
    main = ModuleType("__main__")
    space = vars(main)
    space["__loader__"] = BuiltinImporter
    if sys.version_info < (3, 14):
        space["__annotations__"] = {}
    space["__builtins__"] = builtins
    sys.modules["__main__"] = main
    if sys.modules.get("__mp_main__") is old:  # multiprocessing's other name for it
        sys.modules["__mp_main__"] = main
    return space


def load(command: Command) -> Callable[[], object]:
    """Return the program as a function without a frame of its own. Raises CannotRunError."""
    if command.kind == MODULE:
        return _module(command.target)
    if command.kind == CODE:
        return _code(command.target)
    return _archive(command) or _script(command)


def _module(name: str) -> Callable[[], object]:
    from runpy import _run_module_as_main  # type: ignore[attr-defined]  # what the interpreter itself calls

    renew()
    for loaded in (name, f"{name}.__main__"):  # the program runs it as __main__; runpy warns of a second one
        if loaded in sys.modules and not hasattr(sys.modules[loaded], "__path__"):
            del sys.modules[loaded]
    sys.audit("cpython.run_module", name)
    return partial(_run_module_as_main, name)


def _archive(command: Command) -> Callable[[], object] | None:
    """Return a program in a directory or an archive, None if the path is that of a plain file."""
    from runpy import _run_module_as_main  # type: ignore[attr-defined]  # as above

    place = command.file
    if not any(_accepts(hook, place) for hook in sys.path_hooks):
        return None
    if sys.flags.safe_path:
        sys.path.insert(0, place)
    else:
        sys.path[0] = place
    renew()
    return partial(_run_module_as_main, "__main__", False)


def _accepts(hook: Callable[[str], object], place: str) -> bool:
    try:
        hook(place)
    except ImportError:
        return False
    return True


def _script(command: Command) -> Callable[[], object]:
    from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

    file = command.file
    if os.path.exists(file) and not os.path.isfile(file):
        raise CannotRunError(f"{file} is no regular file, which can be read only once")
    try:
        with open(file, "rb") as opened:
            source = opened.read()
    except OSError as error:
        raise CannotRunError(f"the script cannot be read: {error}") from error
    if file.endswith(".pyc") or source[:2] == MAGIC_NUMBER[:2]:
        raise CannotRunError(f"{file} is a compiled file")
    code = _compiled(source, file)
    space = renew()
    space["__file__"] = file
    if sys.version_info < (3, 15):
        space["__cached__"] = None
    space["__loader__"] = SourceFileLoader("__main__", file)
    return partial(exec, code, space)


def _code(source: str) -> Callable[[], object]:
    if sys.version_info >= (3, 14):
        from textwrap import dedent

        source = dedent(source)
    code = _compiled(source, "<string>")
    if sys.version_info >= (3, 13):
        import linecache

        register = linecache._register_code  # type: ignore[attr-defined]  # it exists since 3.13
        by_code = hasattr(linecache, "_interactive_cache")  # not in the first releases of 3.13
        register(code if by_code else "<string>", source, "<string>")
    space = renew()
    sys.audit("cpython.run_command", source)
    return partial(exec, code, space)


def _compiled(source: str | bytes, file: str) -> CodeType:
    try:
        return compile(source, file, "exec", dont_inherit=True)
    except Exception as error:
        raise CannotRunError(f"the program does not compile: {error}") from error
