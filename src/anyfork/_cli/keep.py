"""The command ``keep``: a keeper for a program in any language."""

from __future__ import annotations

import os

from _anyfork_client.arguments import interpreter_options

from .._programs.host_listener import keep
from .._programs.kept_templates import Recipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

OPTIONS = ("--socket", "--preload", "--watch")


def run(arguments: Sequence[str], fail: Callable[[str], NoReturn]) -> None:
    """Serve hosts until the end. ``fail`` says what is wrong with the arguments."""
    given = _taken_apart([*arguments], fail)
    path, *others = given["--socket"] or [""]
    if not path or others:
        fail("keep needs one --socket PATH")
    for name in given["--preload"]:
        if not all(part.isidentifier() for part in name.split(".")):
            fail(f"--preload needs the name of a module, not {name!r}")
    watch = tuple(map(os.path.abspath, given["--watch"]))
    try:
        keep(path, Recipe(tuple(given["--preload"]), watch), interpreter_options())
    except OSError as error:
        raise SystemExit(f"anyfork: cannot listen at {path!r}: {error.strerror}") from error


def _taken_apart(rest: list[str], fail: Callable[[str], NoReturn]) -> dict[str, list[str]]:
    """Return the values of each option."""
    given: dict[str, list[str]] = {name: [] for name in OPTIONS}
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in given:
            fail(f"keep has no option {name!r}")
        if not equals and not rest:
            fail(f"the option {name} lacks its value")
        given[name].append(value if equals else rest.pop(0))
    return given
