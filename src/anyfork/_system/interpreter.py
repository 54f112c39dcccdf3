"""Which interpreter is started for this program, and with which options.

What is asked for goes first: ``python=``, then ANYFORK_PYTHON. Without that it is the interpreter that runs the
program, and how it is found depends on how the program is shipped:

1. ``sys.executable``, where that is the interpreter: it is called as one, and this process does not run anything else.
2. Otherwise ``python3.X`` of the very version beside the standard library in use: below ``sys.prefix``,
   ``sys.base_prefix``, and where Python was built to be installed. So it is in a program that embeds Python, whose
   ``sys.executable`` is the program itself, nothing, or whatever ``python3`` the PATH has.

A frozen program has no interpreter, and is executed itself where its main program imports ``anyfork.frozen``.

A file is never executed to see what it is: it might be the user's program.
"""

from __future__ import annotations

import os
import sys

from .._errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# What may stand around the version in the name of an interpreter's file.
NAMES = ("python", "pypy")
SUFFIXES = ("", "w", "d", "t", "td", "-dbg", "-intel64", "-wrapped")
VERSION = "{}.{}".format(*sys.version_info)
TOO_OLD = "anyfork: this is Python "  # what one says, before its version, that is too old for a template
REMEDY = (
    "name an interpreter with python= or in ANYFORK_PYTHON, or make `import anyfork.early` the first import of the "
    "program, which needs none"
)


def find_python(python: str | os.PathLike[str] | None = None) -> str:
    """The interpreter to start: what was asked for, or that of this program. Raises LaunchError."""
    asked = ((python and os.fspath(python), "python="), (os.environ.get("ANYFORK_PYTHON"), "ANYFORK_PYTHON"))
    for candidate, source in asked:
        if candidate:
            if not _is_executable(candidate):
                raise LaunchError(f"{source} is {candidate!r}, which is no executable file; name an interpreter there")
            return candidate
    return frozen_program() or _running_python()


# --- A program that is run by an interpreter ------------------------------------------------------------------------


def _running_python() -> str:
    executable = sys.executable or ""
    if is_python(executable) and not _is_embedded():
        return executable
    directories = _directories()
    for directory in directories:
        candidate = os.path.join(directory, f"python{VERSION}{getattr(sys, 'abiflags', '')}")
        if _is_executable(candidate):
            return candidate
    raise LaunchError(f"{_why_not(executable)}, and no python{VERSION} is in {', '.join(directories)}: {REMEDY}")


def _why_not(executable: str) -> str:
    if not executable:
        return "sys.executable is empty"
    what = "not known to be the interpreter of this program" if _is_executable(executable) else "no executable file"
    return f"sys.executable is {executable!r}, which is {what}"


def is_python(path: str) -> bool:
    """Whether a file can be executed and is called as an interpreter is, or leads to one that is."""
    names = (os.path.basename(path), os.path.basename(os.path.realpath(path)))
    return os.path.isabs(path) and _is_executable(path) and any(map(_is_name, names))


def _is_name(name: str) -> bool:
    name = name.lower().removeprefix(".")
    return any(name.startswith(known) and name[len(known) :].strip("0123456789.") in SUFFIXES for known in NAMES)


def _is_executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _is_embedded() -> bool:
    """Whether this process runs a program that is no interpreter, as far as the system tells."""
    try:
        name = os.path.basename(os.readlink("/proc/self/exe")).removesuffix(" (deleted)")
    except OSError:  # no /proc
        return False
    return not (_is_name(name) or name.startswith(("ld-", "ld.")))  # or the dynamic linker, told what to run


def _directories() -> list[str]:
    """Where the interpreter of the standard library in use is installed, each once."""
    import sysconfig  # only now: it is large, and few programs come here

    found = [os.path.join(prefix, "bin") for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix)]
    return list(dict.fromkeys([*found, sysconfig.get_config_var("BINDIR") or found[-1]]))


# --- A frozen program -------------------------------------------------------------------------------------------


def frozen_program() -> str:
    """The executable of a program that was built to need no interpreter; empty for any other program."""
    compiled = globals().get("__compiled__") or getattr(sys.modules.get("__main__"), "__compiled__", None)
    if getattr(compiled, "standalone", False):  # by Nuitka, which names an interpreter that is not there
        return getattr(compiled, "process_exe", "") or os.path.realpath("/proc/self/exe")
    return sys.executable if getattr(sys, "frozen", False) else ""  # by PyInstaller, cx_Freeze and others


def check_reentry() -> None:
    """Raise LaunchError where this frozen program, started again, would not become a template but run anew."""
    if "anyfork.frozen" not in sys.modules:
        raise LaunchError(
            f"the frozen program {frozen_program()!r} is no interpreter: make `import anyfork.frozen` the first line "
            f"of its main program, so that it can be executed as a template; or {REMEDY}"
        )


# A program in one file of PyInstaller finds by these where it is unpacked; without them it would do that anew.
UNPACKED = {name: value for name, value in os.environb.items() if name.startswith(b"_PYI_") and frozen_program()}


def executable_environment(asked: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """What a fresh interpreter gets as its environment, for one that is asked for."""
    return {**UNPACKED, **asked} if UNPACKED else asked
