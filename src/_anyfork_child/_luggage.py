"""What is carried to the other side: the sources of this package, and of cloudpickle, for what goes by value.

Runs in the near relay. Sources come from the loaders, wherever those have them.
"""

from __future__ import annotations

import zlib
from importlib.util import find_spec
from pkgutil import iter_modules

from . import _carried

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec

PACKAGES = (__package__, "cloudpickle")


def pack(options: Sequence[object]) -> bytes:
    """The files, compressed, with the options of the far relay."""
    files = {name: source for package in PACKAGES for name, source in _sources(package)}
    return zlib.compress(repr({_carried.OPTIONS: tuple(options), **files}).encode("utf-8", "surrogatepass"), 6)


def _sources(package: str) -> list[tuple[str, str]]:
    spec = find_spec(package)
    if spec is None:
        return []
    modules = iter_modules(spec.submodule_search_locations)
    # Asked of the finders themselves: find_spec would import the package.
    specs = [spec, *(found.module_finder.find_spec(f"{package}.{found.name}", None) for found in modules)]
    return [(found.name, _source(found)) for found in specs if found is not None]


def _source(spec: ModuleSpec) -> str:
    get_source = getattr(spec.loader, "get_source", None)
    source = None if get_source is None else get_source(spec.name)
    if source is None:
        raise ImportError(f"there is no source of {spec.name}, which the other side needs")
    return str(source)
