"""The options of the interpreter that runs this program, for another one that is to behave like it."""

from __future__ import annotations

import os
import sys

from .importable import ORDINARY

# Those without a value, by their name in sys.flags; a number is how often they were given.
LETTERS = {
    "debug": "d",
    "dont_write_bytecode": "B",
    "no_site": "S",
    "verbose": "v",
    "bytes_warning": "b",
    "quiet": "q",
    "optimize": "O",
}
ISOLATION = {"ignore_environment": "E", "no_user_site": "s", "safe_path": "P"}  # all of them are -I
# What an interpreter adds to its warning options by itself.
IMPLIED = {"dev_mode": ("default",), "bytes_warning": ("default::BytesWarning", "error::BytesWarning")}


def options() -> list[str]:
    """The command line options: those of sys.flags, -W, -X, and what the program has switched on since."""
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
        if "PYTHONDEVMODE" not in os.environ:  # which the other one has, too
            found["dev"] = True
    elif faulthandler is not None and faulthandler.is_enabled():
        found["faulthandler"] = True
    found |= sys._xoptions
    if lazy_imports() is not None or "lazy_imports" in found:
        found["lazy_imports"] = "normal"  # a template loads its own modules at once, and takes over the mode then
    return found


def lazy_imports() -> tuple[str, str | None] | None:
    """Return the mode of lazy imports (PEP 810) and the name of their filter; None if all is as in a new interpreter.

    A filter that is no function of a module has no name, and so stays here.
    """
    if not hasattr(sys, "get_lazy_imports"):  # Python 3.15
        return None
    mode: str = sys.get_lazy_imports()
    chosen = sys.get_lazy_imports_filter()  # type: ignore[attr-defined]  # there is one, too
    name = None if chosen is None else ORDINARY.name_of(chosen)
    return None if mode == "normal" and name is None else (mode, name)
