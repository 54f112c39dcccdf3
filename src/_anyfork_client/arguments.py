"""The arguments of ``anyfork run``: its options, then a Python program as on the interpreter's command line."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
usage: anyfork run [OPTION ...] -m MODULE [ARGUMENT ...] | SCRIPT [ARGUMENT ...] | -c CODE [ARGUMENT ...]

Run a Python program as `python` would, from a template that has its modules loaded.

  --preload MODULE   a module that the template loads; may be repeated
  --watch PATH       make the template again when this file or directory has changed; may be repeated
  --idle MINUTES     how long the keeper of the templates stays without a program (10)
  --cold             run the program in a new interpreter, and tell how long that and its last warm run took
  --verbose          say why a program starts cold
"""
IDLE_MINUTES = 10.0  # minutes
KINDS = ("-m", "-c")


class ArgumentsError(Exception):
    """Raised for wrong arguments; the text says what is wrong."""


class RunArguments:
    """The arguments of one ``anyfork run``. ``kind`` is "-m", "-c", or empty for a script."""

    __slots__ = ("argv", "cold", "idle", "kind", "preload", "target", "verbose", "watch")

    def __init__(self, arguments: Sequence[str]) -> None:
        self.preload: list[str] = []
        self.watch: list[str] = []
        self.idle = IDLE_MINUTES
        self.cold = self.verbose = False
        rest = self._take_options([*arguments])
        self.kind = rest.pop(0) if rest[:1] and rest[0] in KINDS else ""
        if not rest or (not self.kind and rest[0].startswith("-")):
            raise ArgumentsError("run needs a script, -m and a module, or -c and code")
        self.target, *self.argv = rest

    @property
    def program(self) -> list[str]:
        """The program's part of the command line."""
        return [*([self.kind] if self.kind else []), self.target, *self.argv]

    def _take_options(self, rest: list[str]) -> list[str]:
        while rest and rest[0].startswith("--"):
            name, equals, value = rest.pop(0).partition("=")
            if not equals and name in ("--cold", "--verbose"):
                setattr(self, name[2:], True)
            elif name in ("--preload", "--watch", "--idle"):
                if not equals and not rest:
                    raise ArgumentsError(f"the option {name} lacks its value")
                self._set(name, value if equals else rest.pop(0))
            else:
                raise ArgumentsError(f"run has no option {name}")
        return rest

    def _set(self, name: str, value: str) -> None:
        if name == "--preload":
            if not all(part.isidentifier() for part in value.split(".")):
                raise ArgumentsError(f"--preload needs the name of a module, not {value!r}")
            self.preload.append(value)
        elif name == "--watch":
            self.watch.append(os.path.abspath(value))
        else:
            self.idle = _minutes(value)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 1e6:
        raise ArgumentsError(f"--idle needs a positive number of minutes, not {text!r}")
    return minutes


def interpreter_options() -> list[str]:
    """Return the options that this interpreter was started with, for the interpreter of the program."""
    head = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    if len(head) > 1 and head[-1] in ("anyfork", "_anyfork_client") and head[-2].startswith("-"):
        letters = head[-2].removesuffix("m")
        return [*head[:-2], *([letters] if letters != "-" else [])]
    return head[:-1]
