"""The importer of the modules that arrived over a connection, from a dictionary of sources: nothing is installed.

Runs in the interpreter on the other side, before any other module of the package: the bootstrap executes this source
as it is (see remote.bootstrap).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any, NoReturn

OPTIONS = ""  # the key in the dictionary for the options of remote.remote_relay


class BundleImporter:
    """A finder and loader of modules from a dictionary of sources; a module with others below it is a package."""

    def __init__(self, sources: dict[str, str]) -> None:
        self._sources = sources

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return the specification of a module, or None if its source is not among the files."""
        if name not in self._sources:
            return None
        return ModuleSpec(name, self, origin=f"<anyfork>/{name}", is_package=self.is_package(name))  # type: ignore[arg-type]

    def is_package(self, name: str) -> bool:
        """Return whether the files contain modules below this one."""
        return any(other.startswith(f"{name}.") for other in self._sources)

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Return None: the import system creates the module as usual."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the source of a module in the module."""
        module.__file__ = f"<anyfork>/{module.__name__}"
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """Return the compiled code of a module."""
        return compile(self._sources[name], f"<anyfork>/{name}", "exec", dont_inherit=True)

    def get_source(self, name: str) -> str:
        """Return the source of a module, which tracebacks show."""
        return self._sources[name]


def go(files: dict[str, Any]) -> NoReturn:
    """Become the remote relay of a connection."""
    options: Sequence[Any] = files.pop(OPTIONS)
    sys.meta_path.insert(0, BundleImporter(files))
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    import _anyfork_child

    _anyfork_child.HOST = options[0]
    from _anyfork_child.remote.remote_relay import serve

    serve(*options)
