"""The importer for what has come over a connection: from a dictionary of sources, where nothing is installed.

Runs in the interpreter on the other side, first of all: executed there as it is, by the first line (see
remote.bootstrap).
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any, NoReturn

OPTIONS = ""  # the name in the dictionary of what remote.remote_relay is told


class Carried:
    """Finds and loads modules among the sources, by their name; packages are those with others below."""

    def __init__(self, sources: dict[str, str]) -> None:
        self._sources = sources

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """The module of that name, if it is among them."""
        if name not in self._sources:
            return None
        return ModuleSpec(name, self, origin=f"<anyfork>/{name}", is_package=self.is_package(name))  # type: ignore[arg-type]

    def is_package(self, name: str) -> bool:
        """Whether modules are below it."""
        return any(other.startswith(f"{name}.") for other in self._sources)

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """As usual."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run its source."""
        module.__file__ = f"<anyfork>/{module.__name__}"
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """Its code."""
        return compile(self._sources[name], f"<anyfork>/{name}", "exec", dont_inherit=True)

    def get_source(self, name: str) -> str:
        """Its source, which tracebacks show."""
        return self._sources[name]


def go(files: dict[str, Any]) -> NoReturn:
    """Be the other side of a connection."""
    options: Sequence[Any] = files.pop(OPTIONS)
    sys.meta_path.insert(0, Carried(files))
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    import _anyfork_child

    _anyfork_child.HOST = options[0]
    from _anyfork_child.remote.remote_relay import serve

    serve(*options)
