"""Programs that a process of a template cannot run as a new interpreter would: a new interpreter takes over then."""

from __future__ import annotations

import os
import sys
from _signal import SIGPIPE, SIGXFSZ

from ..wire.program_reports import COERCED, LOCALES
from ..wire.signals import default_actions
from .command_line import have_same_effect, own

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from ..template.template import Template
    from .command_line import Command

# Variables that the interpreter, the C library or the dynamic linker reads only at the start of a process.
# C code that a module loads (the second line) reads them past os.environ, or the start of a process by a .pth file.
PREFIXES = (
    b"PYTHON", b"LD_", b"MALLOC_", b"GLIBC_TUNABLES", b"LC_", b"LANG",
    b"OMP_", b"OPENBLAS_", b"MKL_", b"NUMEXPR_", b"BLIS_", b"COVERAGE_", b"SETUPTOOLS_",
)  # fmt: skip
MODULE_SUFFIXES = (".py", ".pyc", ".so")


def reason(template: Template, command: Command) -> str:
    """Return why this process cannot run a program as a new interpreter would; empty if it can. Raises OSError."""
    if sys.flags.inspect or os.environ.get("PYTHONINSPECT"):
        return "PYTHONINSPECT is set"
    if command.line[0] != sys.executable:
        return f"the template runs another interpreter, {sys.executable!r}"
    if not have_same_effect(own(), command.options):
        return f"the template has the options {own()}, and the command has {list(command.options)}"
    start = template.start_environment
    coerced = _coerced(start)
    changed = sorted(_start_variables(start) ^ _start_variables({**os.environb, **coerced}))
    if changed:
        return f"{os.fsdecode(changed[0][0])} differs from the template's"
    if template.start_directory != _directory() and _has_relative_places():
        return "PYTHONPATH is relative to another directory"
    return next(_shadowed(command), "")


def set_coerced(template: Template) -> None:
    """Set what a new interpreter sets that starts without a locale.

    A process that a new interpreter takes over must not: that would not be in UTF-8 mode then.
    """
    os.environb.update(_coerced(template.start_environment))


def _coerced(start: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the variables that a new interpreter would set, if it started without a locale and became as this one: in
    UTF-8 mode.
    """
    has_none = os.environb.keys().isdisjoint(LOCALES)
    return COERCED if has_none and COERCED.items() <= start.items() and sys.flags.utf8_mode else {}


def _start_variables(environment: dict[bytes, bytes] | os._Environ[bytes]) -> set[tuple[bytes, bytes]]:
    return {(name, value) for name, value in environment.items() if name.startswith(PREFIXES)}


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def _has_relative_places() -> bool:
    if sys.flags.ignore_environment:
        return False
    return not all(map(os.path.isabs, (os.environ.get("PYTHONPATH") or "/").split(os.pathsep)))


def _shadowed(command: Command) -> Iterator[str]:
    """Yield a reason for each loaded module that the program would find elsewhere: beside its script, for instance."""
    if sys.flags.safe_path:
        return
    place = command.target if os.path.isdir(command.target) and not command.kind else command.first_place() or "."
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                name = entry.name.partition(".")[0]
                module = sys.modules.get(name)
                if module is not None and _is_module(entry) and _is_elsewhere(module, place):
                    yield f"{entry.path} hides the module {name} that the template has loaded"
    except OSError:  # a file, or a directory that cannot be read
        return


def _is_module(entry: os.DirEntry[str]) -> bool:
    if entry.name.endswith(MODULE_SUFFIXES):
        return True
    return entry.is_dir() and any(os.path.exists(f"{entry.path}/__init__{suffix}") for suffix in MODULE_SUFFIXES)


def _is_elsewhere(module: object, place: str) -> bool:
    """Return whether a loaded module comes from another place, and not from a part of the interpreter."""
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if spec is None or origin in (None, "built-in", "frozen") or spec.name == "encodings":
        return False
    home = os.path.dirname(origin)
    if spec.submodule_search_locations is not None:
        home = os.path.dirname(home)
    try:
        return not os.path.samefile(home, place)
    except OSError:
        return True


def begin_anew(command: Command) -> NoReturn:
    """Replace this process with a new interpreter that runs the program, or that says why it cannot be run."""
    default_actions((SIGPIPE, SIGXFSZ))
    try:
        os.execve(command.line[0], [*command.line], os.environ)
    except OSError as error:
        os.write(2, os.fsencode(f"anyfork: the program needs an interpreter, {command.line[0]!r}, and {error}\n"))
    os._exit(127)
