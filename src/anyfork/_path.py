"""The module path of this program: what its entries mean, and what was put on it after the first template had it."""

from __future__ import annotations

import os
import sys

from _anyfork_child._imports import is_standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.machinery import ModuleSpec


def current_directory() -> str:
    """Return the current directory; nothing where it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


BEGINNING = current_directory()  # of the program, or nearly: a relative path in sys.path was meant from there


_given: set[str] = set()  # places of the path that templates are started with; none before the first


def note_given(places: Iterable[str | None]) -> None:
    """Note the places that the first template finds modules in: what comes later has to be told."""
    if not _given:
        _given.update(place for place in places if place)


def places(entry: str) -> list[str | None]:
    """What an entry of sys.path means to this program: one place or none; None is the standard library."""
    if is_standard_library(entry):
        return [None]
    if os.path.isabs(entry):
        return [entry]
    here = [place for place in (current_directory(),) if place]
    if not entry:
        return [*here]
    # The importer has looked there when the program began, and stays there when the program moves on.
    for base in (BEGINNING, *here):
        place = os.path.join(base, entry)
        if os.path.exists(place):
            return [place]
    return [entry]  # it may mean something to a path hook


def later_places() -> list[str]:
    """Return the places that were put on the path later, in their order."""
    if not _given or _seen[0] == (now := [entry for entry in sys.path if isinstance(entry, str)]):
        return _seen[1]
    _seen[:] = now, [place for entry in now for place in places(entry) if place and place not in _given]
    return _seen[1]


_seen: list[list[str]] = [[], []]  # the path, and what is later in it


def place_of(name: str) -> str:
    """Return the later place in which a module is found; nothing for one that templates find by themselves."""
    later = later_places()
    if not later:
        return ""
    spec: ModuleSpec | None = getattr(sys.modules.get(name.partition(".")[0]), "__spec__", None)
    if spec is None:
        return ""
    found = {os.path.dirname(place) for place in spec.submodule_search_locations or [spec.origin or ""]}
    return next((place for place in later if place in found), "") if not found & _given else ""
