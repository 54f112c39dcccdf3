"""The options of the interpreter that runs this program, for another interpreter that has to behave like it."""

from __future__ import annotations

import os
import sys

from .importable import ORDINARY

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
    if not hasattr(sys, "get_lazy_imports"):  # Python 3.15
        return None
    mode: str = sys.get_lazy_imports()
    chosen = sys.get_lazy_imports_filter()  # type: ignore[attr-defined]  # it exists where the mode does
    name = None if chosen is None else ORDINARY.name_of(chosen)
    return None if mode == "normal" and name is None else (mode, name)
