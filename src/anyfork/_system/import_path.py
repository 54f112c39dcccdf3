"""The module path of this program: the meaning of its entries, and those added after the first template got it."""

from __future__ import annotations

import os
import sys

from _anyfork_child.wire.own_imports import is_standard_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.machinery import ModuleSpec


def current_directory() -> str:
    """Return the current directory, or an empty string if it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


BEGINNING = current_directory()  # of the program, or nearly: relative paths in sys.path refer to it


_given: dict[
    str, None
] = {}  # places of the path that templates are started with, in order; empty before the first template


def note_given(places: Iterable[str | None]) -> None:
    """Record the places in which the first template finds modules. Templates have to be told of later ones."""
    if not _given:
        _given.update(dict.fromkeys(place for place in places if place))


def places(entry: str) -> list[str | None]:
    """Return the place that an entry of sys.path means here, as a list of one or none; None is the standard library."""
    if is_standard_library(entry):
        return [None]
    if os.path.isabs(entry):
        return [entry]
    here = [place for place in (current_directory(),) if place]
    if not entry:
        return [*here]
    # The importer looked there when the program began, and keeps to it when the program changes its directory.
    for base in (BEGINNING, *here):
        place = os.path.join(base, entry)
        if os.path.exists(place):
            return [place]
    return [entry]  # it may mean something to a path hook


def later_places() -> list[str]:
    """Return the places that were put on the path later, or moved before others on it, in their order."""
    if not _given or _seen[0] == (now := [entry for entry in sys.path if isinstance(entry, str)]):
        return _seen[1]
    path = [*dict.fromkeys(place for entry in now for place in places(entry) if place)]
    _seen[:] = now, _not_as_given(path)
    return _seen[1]


def _not_as_given(path: Sequence[str]) -> list[str]:
    """Return the places to put before the given ones, so that modules are found in the order of ``path``."""
    order = {place: number for number, place in enumerate(_given)}
    count, latest = 0, -1
    for index, place in enumerate(path, 1):
        if order.get(place, latest) < latest:
            count = index
        latest = max(latest, order.get(place, -1))
    return [*path[:count], *(place for place in path[count:] if place not in order)]


def changes(before: Sequence[str], after: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the places to remove from the path of a template, and the places to put before the others.

    ``before`` is the result of ``later_places`` that the template has; ``after`` is the present result.
    """
    gone = [place for place in before if place not in after]
    return [place for place in gone if place not in _given], [*after, *(place for place in _given if place in gone)]


_seen: list[list[str]] = [[], []]  # the path, and the later places in it


def place_of(name: str) -> str:
    """Return the later place in which a module is found, or an empty string if templates find it by themselves."""
    later = later_places()
    if not later:
        return ""
    spec: ModuleSpec | None = getattr(sys.modules.get(name.partition(".")[0]), "__spec__", None)
    if spec is None:
        return ""
    found = {os.path.dirname(place) for place in spec.submodule_search_locations or [spec.origin or ""]}
    return next((place for place in later if place in found), "") if not found & _given.keys() else ""
