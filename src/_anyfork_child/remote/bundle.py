"""The bundle sent to the other side: the sources of this package, and of cloudpickle, which values by value need.

Runs in the local relay. The loaders supply the sources, wherever the loaders keep them.
"""

from __future__ import annotations

import zlib
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from pkgutil import iter_modules

from . import importer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec

PACKAGES = ("_anyfork_child", "cloudpickle")


def pack(options: Sequence[object]) -> bytes:
    """Return the files, compressed, with the options of the remote relay."""
    files = {name: source for package in PACKAGES for name, source in _sources(package)}
    return zlib.compress(repr({importer.OPTIONS: tuple(options), **files}).encode("utf-8", "surrogatepass"), 6)


def _sources(package: str) -> list[tuple[str, str]]:
    spec = find_spec(package)
    return [] if spec is None else [(found.name, _source(found)) for found in _with_submodules(spec)]


def _with_submodules(spec: ModuleSpec) -> Iterator[ModuleSpec]:
    """Yield the specifications of a module and of all modules below it, without importing any."""
    yield spec
    for module in iter_modules(spec.submodule_search_locations) if spec.submodule_search_locations else ():
        # Ask the finders themselves: importlib's find_spec would import the package.
        found = module.module_finder.find_spec(f"{spec.name}.{module.name}", None)
        if found is not None and not isinstance(found.loader, ExtensionFileLoader):  # an optional compiled part
            yield from _with_submodules(found)


def _source(spec: ModuleSpec) -> str:
    get_source = getattr(spec.loader, "get_source", None)
    source = None if get_source is None else get_source(spec.name)
    if source is None:
        raise ImportError(f"there is no source of {spec.name}, which the other side needs")
    return str(source)
