"""The command line of a program, and what it means for the interpreter: its options, sys.argv and sys.path."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


BY_VARIABLE = {
    "d": "PYTHONDEBUG",
    "v": "PYTHONVERBOSE",
    "O": "PYTHONOPTIMIZE",
    "B": "PYTHONDONTWRITEBYTECODE",
    "u": "PYTHONUNBUFFERED",
    "s": "PYTHONNOUSERSITE",
    "P": "PYTHONSAFEPATH",
}
X_BY_VARIABLE = {"dev": "PYTHONDEVMODE", "faulthandler": "PYTHONFAULTHANDLER"}
ISOLATED = "EsP"  # the options that -I means
WITHOUT_EFFECT = "R"  # this is the default
MODULE, CODE, SCRIPT = "-m", "-c", ""
_kept: list[object] = []  # the template's finders: freeing them would copy the memory of all names in its directories


def own() -> list[str]:
    """Return the options that this interpreter was started with, before ``-c`` and the code of the template."""
    given = sys.orig_argv[1:]
    return given[: given.index("-c")] if "-c" in given else []


def have_same_effect(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two lists of options have the same effect in this environment."""
    return list(one) == list(other) or _effect(one) == _effect(other)


def _effect(options: Sequence[str]) -> object:
    letters, values = _read(options)
    variables = {} if "E" in letters or "I" in letters else os.environ
    if "I" in letters:
        letters += ISOLATED
    counts = {letter: letters.count(letter) for letter in {*letters} - {*WITHOUT_EFFECT}}
    for letter, name in BY_VARIABLE.items():
        text = variables.get(name, "")
        if text and (text != "0" or letter not in "dvO"):
            counts[letter] = max(counts.get(letter, 0), int(text) if letter in "dvO" and text.isdigit() else 1)
    features = {value for option, value in values if option == "X"}
    features |= {value for value, name in X_BY_VARIABLE.items() if variables.get(name)}
    warnings = variables.get("PYTHONWARNINGS", "").split(",") + [value for option, value in values if option == "W"]
    return counts, features, [*dict.fromkeys(filter(None, warnings))]


def _read(options: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """Return the letters of options without a value, and the others with theirs."""
    letters, values = "", []
    rest = iter(options)
    for option in rest:
        if option.startswith("--"):
            values.append((option, next(rest, "")))
            continue
        for place, letter in enumerate(option[1:], 2):
            if letter in "WX":
                values.append((letter, option[place:] or next(rest, "")))
                break
            letters += letter
    return letters, values


class Command:
    """A command line: its kind, the module, code or path, and the arguments of the program.

    ``line`` is the whole of it, as sys.orig_argv has it, with ``options`` of the interpreter; without a line, the
    options are those of the template. ``start_path`` is sys.path as the interpreter has computed it, without the entry
    that depends on the command.
    """

    __slots__ = ("argv", "kind", "line", "options", "start_path", "target")

    def __init__(
        self,
        kind: str,
        target: str,
        argv: Sequence[str],
        start_path: Sequence[str],
        line: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.target = target
        self.argv = argv
        self.start_path = start_path
        self.options = options if line else own()
        self.line = line or [sys.executable, *self.options, *([kind] if kind else []), target, *argv]

    @property
    def file(self) -> str:
        """The absolute path of a script."""
        return self.target if os.path.isabs(self.target) else f"{os.getcwd()}/{self.target}"

    def first_place(self) -> str:
        """Return the directory that the command puts before all others in sys.path. Raises OSError."""
        if self.kind == MODULE:
            return os.getcwd()
        return "" if self.kind == CODE else os.path.dirname(os.path.realpath(self.target))

    def set_up(self) -> None:
        """Set the arguments and the module path of the interpreter. Raises OSError."""
        first = [] if sys.flags.safe_path else [self.first_place()]
        sys.orig_argv[:] = self.line
        sys.argv[:] = [self.kind or self.target, *self.argv]
        sys.path[:] = [*first, *self.start_path]
        _kept.append(sys.path_importer_cache)
        sys.path_importer_cache = {}
        zipimport = sys.modules.get("zipimport")
        if zipimport is not None:
            zipimport._zip_directory_cache.clear()
