"""The module path of this program: where modules are found, and whether another interpreter finds them there.

Nearly all modules are found under their names. The others were made by a program that loads files itself: pytest with
``--import-mode=importlib``, plug-ins, notebooks. Their functions and classes are sent by value, like those of
``__main__``.
"""

from __future__ import annotations

import os
import sys

from _anyfork_child.values.functions_by_value import Receiver
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
    if not _given or _seen[0] == sys.path:
        return _seen[1]
    now = [*sys.path]
    path = [*dict.fromkeys(place for entry in now if isinstance(entry, str) for place in places(entry) if place)]
    later = _not_as_given(path)
    _seen[:] = now, later
    return later


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


_known: dict[str, tuple[object, bool]] = {}  # by name: the module, and whether it is found


def is_importable(name: str) -> bool:
    """Return whether another interpreter that imports the name gets the module that is loaded here."""
    module = sys.modules.get(name)
    known = _known.get(name)
    if known is None or known[0] is not module:
        known = _known[name] = module, _is_found(name, module)
    return known[1]


def _is_found(name: str, module: object) -> bool:
    parent = name.rpartition(".")[0]
    if parent and not is_importable(parent):
        return False
    spec: ModuleSpec | None = getattr(module, "__spec__", None)
    if (spec is not None and spec.origin in ("built-in", "frozen")) or hasattr(module, "__compiled__"):
        return True  # in the executable; in one made by Nuitka, any module may be
    try:
        found = _find(name, getattr(sys.modules.get(parent), "__path__", None))
    except ImportError:  # forbidden by a finder of this program, which another interpreter does not have
        return True
    if found is None:
        return bool(parent)  # its package is found, and makes the module
    return spec is None or _is_same(spec, found)


def _find(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        found: ModuleSpec | None = find(name, path, None) if find is not None else None
        if found is not None:
            return found
    return None


def _is_same(spec: ModuleSpec, found: ModuleSpec) -> bool:
    if spec.origin is not None and found.origin is not None:
        return spec.origin == found.origin
    places = (set(one.submodule_search_locations or ()) for one in (spec, found))  # of a package without a file
    return bool(set.intersection(*places))


ORDINARY = Receiver(
    is_importable, place_of=place_of, places=later_places
)  # any process except those that are forked from a copy of this program


def is_installed(name: str) -> bool:
    """Return whether a module belongs to the standard library or to an installed package, and not to a project."""
    try:
        spec = _find(name.partition(".")[0], None)
    except ImportError:
        return False
    if spec is None:
        return False
    if spec.origin in ("built-in", "frozen"):
        return True
    places = spec.submodule_search_locations or [spec.origin or ""]
    return all(_is_for_installed(os.path.dirname(place)) for place in places)


def _is_for_installed(directory: str) -> bool:
    return directory.endswith("-packages") or is_standard_library(directory)
