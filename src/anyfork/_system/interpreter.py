"""The interpreter that is started for this program, and its environment.

An interpreter that was asked for has priority: ``python=``, then ANYFORK_PYTHON. Otherwise it is the interpreter that
runs the program. The way to find that one depends on how the program is shipped:

1. ``sys.executable``, if that is the interpreter: it has the name of one, and this process runs no other executable.
2. Otherwise ``python3.X`` of the same version beside the standard library in use: below ``sys.prefix``,
   ``sys.base_prefix``, and in the directory that Python was built to be installed in. This is the case in a program
   that embeds Python, whose ``sys.executable`` is the program itself, empty, or any ``python3`` on the PATH.

A frozen program has no interpreter. It is executed itself, if its main program imports ``anyfork.frozen``.

No file is executed to find out what it is, because it might be the user's program.
"""

from __future__ import annotations

import os
import sys

from _anyfork_child.wire.platform import LAZY_IMPORTS

from .._errors import LaunchError
from .import_path import ORDINARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


# The parts that may surround the version in the file name of an interpreter.
NAMES = ("python", "pypy")
SUFFIXES = ("", "w", "d", "t", "td", "-dbg", "-intel64", "-wrapped")
VERSION = "{}.{}".format(*sys.version_info)
TOO_OLD = "anyfork: this is Python "  # printed before its version by an interpreter too old for a template
OTHER_PARTS = "anyfork: this has anyfork "  # printed before the version and place of another one than the program's
REMEDY = (
    "name an interpreter with python= or in ANYFORK_PYTHON, or make `import anyfork.early` the first import of the "
    "program, which needs none"
)


def find_python(python: str | os.PathLike[str] | None = None) -> str:
    """Return the interpreter to start: the one that was asked for, or that of this program. Raises LaunchError."""
    asked = ((python and os.fspath(python), "python="), (os.environ.get("ANYFORK_PYTHON"), "ANYFORK_PYTHON"))
    for candidate, source in asked:
        if candidate:
            if not _is_executable(candidate):
                raise LaunchError(
                    f"{source} is {candidate!r}, which is not an executable file; name an interpreter there"
                )
            return candidate
    return frozen_program() or _running_python()


# --- A program that is run by an interpreter ------------------------------------------------------------------------


def _running_python() -> str:
    executable = sys.executable or ""
    if is_python(executable) and not _is_embedded():
        return executable
    directories = _directories()
    name = f"python{VERSION}"
    candidates = [os.path.join(directory, name + getattr(sys, "abiflags", "")) for directory in directories]
    if sys.prefix != sys.base_prefix:  # a virtual environment names its interpreter without such letters
        candidates.insert(1, os.path.join(directories[0], name))
    for candidate in candidates:
        if _is_executable(candidate):
            return candidate
    raise LaunchError(f"{_why_not(executable)}, and no {name} is in {', '.join(directories)}: {REMEDY}")


def _why_not(executable: str) -> str:
    if not executable:
        return "sys.executable is empty"
    what = "not known to be the interpreter of this program" if _is_executable(executable) else "no executable file"
    return f"sys.executable is {executable!r}, which is {what}"


def is_python(path: str) -> bool:
    """Return whether an absolute path is an executable file that has the name of an interpreter, or links to one."""
    names = (os.path.basename(path), os.path.basename(os.path.realpath(path)))
    return os.path.isabs(path) and _is_executable(path) and any(map(_is_name, names))


def _is_name(name: str) -> bool:
    name = name.lower().removeprefix(".")
    return any(name.startswith(known) and name[len(known) :].strip("0123456789.") in SUFFIXES for known in NAMES)


def _is_executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _is_embedded() -> bool:
    """Return whether this process runs a program that is not an interpreter, as far as the system tells."""
    try:
        name = os.path.basename(os.readlink("/proc/self/exe")).removesuffix(" (deleted)")
    except OSError:  # no /proc
        return False
    return not (_is_name(name) or name.startswith(("ld-", "ld.")))  # or the dynamic linker, told what to run


def _directories() -> list[str]:
    """Return the directories where the interpreter of the standard library in use may be installed, each once."""
    import sysconfig  # only now: it is large, and few programs come here

    found = [os.path.join(prefix, "bin") for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix)]
    return list(dict.fromkeys([*found, sysconfig.get_config_var("BINDIR") or found[-1]]))


# --- A frozen program -------------------------------------------------------------------------------------------


def frozen_program() -> str:
    """Return the executable of a program that was built to need no interpreter; empty for any other program."""
    compiled = globals().get("__compiled__") or getattr(sys.modules.get("__main__"), "__compiled__", None)
    if getattr(compiled, "standalone", False):  # by Nuitka, whose sys.executable does not exist
        return getattr(compiled, "process_exe", "") or os.path.realpath("/proc/self/exe")
    return sys.executable if getattr(sys, "frozen", False) else ""  # by PyInstaller, cx_Freeze and others


def check_reentry() -> None:
    """Raise LaunchError if this frozen program, started again, would run anew instead of becoming a template."""
    if "anyfork.frozen" not in sys.modules:
        raise LaunchError(
            f"the frozen program {frozen_program()!r} is not an interpreter: make `import anyfork.frozen` the first "
            f"line of its main program, so that it can be executed as a template; or {REMEDY}"
        )


# These tell a one-file program of PyInstaller where it is unpacked; without them, it would unpack itself again.
UNPACKED = {name: value for name, value in os.environb.items() if name.startswith(b"_PYI_") and frozen_program()}


def executable_environment(asked: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """Return the environment of a fresh interpreter, for the environment that was asked for."""
    return {**UNPACKED, **asked} if UNPACKED else asked


# Options without a value, by their names in sys.flags; a flag's number is how often its option was given.
LETTERS = {
    "debug": "d",
    "dont_write_bytecode": "B",
    "no_site": "S",
    "verbose": "v",
    "bytes_warning": "b",
    "quiet": "q",
    "optimize": "O",
}
ISOLATION = {"ignore_environment": "E", "no_user_site": "s", "safe_path": "P"}  # all of them together are -I
# The warning options that an interpreter adds by itself.
IMPLIED = {"dev_mode": ("default",), "bytes_warning": ("default::BytesWarning", "error::BytesWarning")}


def options() -> list[str]:
    """Return the command line options: those of sys.flags, -W, -X, and features that were switched on since."""
    flags = sys.flags
    found = [f"-{letter * int(getattr(flags, name))}" for name, letter in LETTERS.items() if getattr(flags, name) > 0]
    if flags.isolated:
        found.append("-I")
    else:
        found += [f"-{letter}" for name, letter in ISOLATION.items() if getattr(flags, name)]
    if getattr(sys.__stdout__, "write_through", False):
        found.append("-u")
    implied = {option for name, added in IMPLIED.items() if getattr(flags, name) for option in added}
    found += [f"-W{option}" for option in sys.warnoptions if option not in implied]
    for name, value in _x_options().items():
        found += ["-X", name if value is True else f"{name}={value}"]
    return found


def _x_options() -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    faulthandler = sys.modules.get("faulthandler")
    if sys.flags.dev_mode:
        if "PYTHONDEVMODE" not in os.environ:  # which the other interpreter inherits
            found["dev"] = True
    elif faulthandler is not None and faulthandler.is_enabled():
        found["faulthandler"] = True
    found |= sys._xoptions
    if lazy_imports() is not None or "lazy_imports" in found:
        found["lazy_imports"] = "normal"  # a template loads its own modules eagerly, and takes the mode over then
    return found


def lazy_imports() -> tuple[str, str | None] | None:
    """Return the mode of lazy imports (PEP 810) and the name of their filter; None if both are as in a new interpreter.

    A filter that is not a function of a module has no name, and so is not passed on.
    """
    if not LAZY_IMPORTS:
        return None
    mode: str = sys.get_lazy_imports()  # type: ignore[attr-defined]  # Python 3.15
    chosen = sys.get_lazy_imports_filter()  # type: ignore[attr-defined]  # it exists where the mode does
    name = None if chosen is None else ORDINARY.name_of(chosen)
    return None if mode == "normal" and name is None else (mode, name)
