"""A program that runs here, with processes from a template under the name forkserver.

That is its default start method, too: the program finds what it would find on Python 3.14 and newer.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

from _anyfork_child.values.multiprocessing_context import make_default

from ..context import install

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn


def run(arguments: Sequence[str], fail: Callable[[str], NoReturn]) -> None:
    """Run a program as its own main module. Raises what the program raises."""
    imports = [*arguments[:1]] == ["--import-main"]
    rest = [*arguments[imports:]]
    module = rest[1] if rest[:1] == ["-m"] and len(rest) > 1 else None
    if module is None and (not rest or rest[0].startswith("-")):
        fail("as-forkserver needs a script, or -m and a module")
    make_default(install("forkserver", main="import" if imports else None))
    main = ModuleType("__main__")
    main.__builtins__ = builtins  # type: ignore[attr-defined]  # as in any main module
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    if module is not None:
        _run_module(module, rest[2:])
    else:
        _run_script(rest[0], rest[1:], main, fail)


def _run_module(name: str, arguments: Sequence[str]) -> None:
    from runpy import _run_module_as_main  # type: ignore[attr-defined]  # what the interpreter itself calls

    sys.argv[:] = ["-m", *arguments]
    _begin_path_with(os.getcwd())
    _run_module_as_main(name)


def _run_script(path: str, arguments: Sequence[str], main: ModuleType, fail: Callable[[str], NoReturn]) -> None:
    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except OSError as error:
        fail(f"cannot read the script {path!r}: {error.strerror}")
    sys.argv[:] = [path, *arguments]
    _begin_path_with(os.path.dirname(os.path.realpath(path)))
    main.__file__ = path
    main.__loader__ = SourceFileLoader("__main__", path)
    exec(compile(source, path, "exec", dont_inherit=True), vars(main))


def _begin_path_with(directory: str) -> None:
    """Put a directory in the place of ours on the module path, as the interpreter begins the path of a program."""
    if not sys.flags.safe_path:
        sys.path[0] = directory
