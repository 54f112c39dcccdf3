"""The check that another interpreter would find a module under its name.

Nearly all modules are found. The others were made by a program that loads files itself: pytest with
``--import-mode=importlib``, plug-ins, notebooks. Their functions and classes are sent by value, like those of
``__main__``.
"""

from __future__ import annotations

import sys

from _anyfork_child.values.receiver import Receiver

from .import_path import later_places, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

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
