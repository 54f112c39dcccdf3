"""The options of an interpreter, as they work together with its environment."""

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
