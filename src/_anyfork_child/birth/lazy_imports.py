"""Lazy imports (PEP 810, Python 3.15): a template really loads the modules that it preloads."""

from __future__ import annotations

import sys
import types
from types import ModuleType

from ..values.decode import find_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LAZY: type | None = getattr(types, "LazyImportType", None)  # the stand-in for a module that was not used yet


def resolve_lazy_imports(names: Iterable[str]) -> None:
    """Import the lazy imports of these modules, and of all loaded modules of their packages.

    A lazy import that fails stays lazy, with an ImportWarning: the program may never use it.
    """
    packages = {name.partition(".")[0] for name in names}
    tried: set[tuple[str, str]] = set()
    while new := [found for found in _lazy_names(packages) if (found[0].__name__, found[1]) not in tried]:
        for module, name in new:
            tried.add((module.__name__, name))
            _resolve(module, name)


def _lazy_names(packages: set[str]) -> Iterator[tuple[ModuleType, str]]:
    for loaded, module in list(sys.modules.items()):
        if loaded.partition(".")[0] in packages and isinstance(module, ModuleType):
            yield from ((module, name) for name, value in list(vars(module).items()) if type(value) is LAZY)


def _resolve(module: ModuleType, name: str) -> None:
    try:
        getattr(module, name)  # imports the module, and replaces the stand-in
    except Exception as error:  # a module may raise anything while it is imported
        _note(f"cannot preload {name!r}, a lazy import of {module.__name__}: {error}")


def set_mode(mode: str, filter_name: str | None) -> None:
    """Set the program's mode of lazy imports, and its filter if the filter is found here by its name."""
    sys.set_lazy_imports(mode)  # type: ignore[attr-defined]  # Python 3.15
    if filter_name is None:
        return
    try:
        chosen = find_function(filter_name)
    except Exception as error:  # the module of the filter may raise anything while it is imported
        _note(f"lazy imports have no filter here, because {filter_name} cannot be imported: {error}")
    else:
        sys.set_lazy_imports_filter(chosen)  # type: ignore[attr-defined]  # Python 3.15


def _note(text: str) -> None:
    import warnings

    try:
        warnings.warn(text, ImportWarning, stacklevel=3)
    except ImportWarning:  # with -W error
        pass
