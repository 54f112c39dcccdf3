"""Whether another interpreter would find a module under its name.

Nearly all are found. Those that are not were made by a program that loads files itself: pytest with
``--import-mode=importlib``, plug-ins, notebooks. What they define goes by value, as that of ``__main__`` does.
"""

from __future__ import annotations

import sys

from _anyfork_child.values.receiver import Receiver

from .import_path import later_places, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

_known: dict[str, tuple[object, bool]] = {}  # by name: for which module, and whether it is found


def is_importable(name: str) -> bool:
    """Whether a module that is loaded here is the one that an import of its name brings elsewhere."""
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
        return True  # it is in the executable; in one by Nuitka, any module may be
    try:
        found = _find(name, getattr(sys.modules.get(parent), "__path__", None))
    except ImportError:  # a finder of the program's forbids it, which another interpreter does not have
        return True
    if found is None:
        return bool(parent)  # a package that is found makes it
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
)  # any process but those of a copy of this program
