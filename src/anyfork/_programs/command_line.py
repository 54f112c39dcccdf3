"""A command line of the interpreter, taken apart as the interpreter does: options, then a module, code or a script."""

from __future__ import annotations

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._processes.arguments import Kind

PLAIN = frozenset("bBdEIOPqRsSuv")  # options without a value that say how to run a program
WITH_VALUE = frozenset("WX")
LONG_WITH_VALUE = "--check-hash-based-pycs"


class NotAProgramError(ValueError):
    """Raised for a command line that a template cannot run; the text says why."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command line that runs a Python program: its options, and the module, code or script with its arguments.

    ``line`` is the whole of it. If that is empty, the program sees a line with the options of its template.
    """

    options: Sequence[str]
    kind: Kind
    target: str
    argv: Sequence[str]
    line: Sequence[str]


def take_apart(line: Sequence[str]) -> CommandLine:
    """Take a command line of this interpreter apart. Raises NotAProgramError if a template cannot run it."""
    at = 1
    while at < len(line) and line[at].startswith("-") and line[at] != "-":
        kind, width, value = _option(line, at)
        if kind:
            return CommandLine(line[1:at], kind, value, line[at + width :], line)
        at += width
    if at == len(line) or line[at] == "-":
        raise NotAProgramError("the program comes from standard input")
    return CommandLine(line[1:at], "", line[at], line[at + 1 :], line)


def _option(line: Sequence[str], at: int) -> tuple[Kind, int, str]:
    """Return the kind of program that an argument begins, how many arguments it takes up, and the module or code."""
    text = line[at]
    if text == LONG_WITH_VALUE:
        return "", 2, ""
    for place, letter in enumerate(text[1:], 2):
        if letter in "mc" or letter in WITH_VALUE:
            rest = text[place:]
            if not rest and at + 1 == len(line):
                raise NotAProgramError(f"the option -{letter} lacks its value")
            value = rest or line[at + 1]
            kind: Kind = "-m" if letter == "m" else "-c" if letter == "c" else ""
            if kind and place > 2:
                raise NotAProgramError(f"{text!r} has options and a program in one argument")
            return kind, 1 if rest else 2, value
        if letter not in PLAIN:
            raise NotAProgramError(f"a template has no option {text!r}")
    return "", 1, ""
