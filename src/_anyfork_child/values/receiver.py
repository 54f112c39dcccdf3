"""What is known of the side that values go to: what it finds by name, and what else is special about it."""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol, TypeAlias

    class Main(Protocol):
        """What both sides have in common in ``__main__``: values.shared_main.Main."""

        def path_of(self, value: object) -> tuple[int, str] | None:
            """Return the path of this very object; None for any other one."""

    Reducers: TypeAlias = Mapping[type, Callable[[Any], Any]]

NO_REDUCERS: Reducers = {}


def everything(_module: str) -> bool:
    """What the module of this name defines is found there."""
    return True


def no_places() -> Sequence[str]:
    """Say that all places of the path are known."""
    return ()


def anywhere(_module: str) -> str:
    """Say that the module of this name is found without being told where."""
    return ""


class Receiver:
    """The process that values go to.

    ``has`` says whether it finds by name what the module of a name defines. ``main`` is what its ``__main__`` has in
    common with ours, and None as a rule: then nothing. ``reducers`` says of more types how they are reduced, as copyreg
    does, or with None: as usual. ``place_of`` says on which place of the path a module is found, if that has to be
    told, and ``places`` which ones there are. Calls go ``in_band`` to one on another machine: without descriptors, see
    message_of.
    """

    __slots__ = ("has", "in_band", "main", "place_of", "places", "reducers")

    def __init__(
        self,
        has: Callable[[str], bool] = everything,
        main: Main | None = None,
        reducers: Reducers = NO_REDUCERS,
        in_band: bool = False,
        place_of: Callable[[str], str] = anywhere,
        places: Callable[[], Sequence[str]] = no_places,
    ) -> None:
        self.has = has
        self.main = main
        self.reducers = reducers
        self.in_band = in_band
        self.place_of = place_of
        self.places = places

    def path_in_main(self, value: object) -> tuple[int, str] | None:
        """Under what ``values.shared_main.named`` finds this very object there; None for what both do not have in
        common."""
        return None if self.main is None else self.main.path_of(value)

    def name_of(self, value: Any) -> str | None:
        """``module:qualname`` if it finds this very function or class there; None if that must go by value, or with the
        place where it is found.
        """
        name = self.name_there(value)
        return None if name is None or self.place_of(name.partition(":")[0]) else name

    def name_there(self, value: Any) -> str | None:
        """``module:qualname`` if it finds this very function or class there, where it may have to be told the place."""
        if not isinstance(value, FunctionType | BuiltinFunctionType | type):
            return None
        known = self.path_in_main(value)
        if known is not None:
            return f"__main__:{known[1]}"
        module_name = getattr(value, "__module__", None)
        if not module_name or module_name == "__main__" or not (self.main or self.has(module_name)):
            return None
        path: str = getattr(value, "__qualname__", "")
        found: Any = sys.modules.get(module_name)
        try:
            for part in path.split("."):
                found = getattr(found, part)
        except AttributeError:
            return None
        return f"{module_name}:{path}" if found is value else None


OWNER = Receiver()  # for processes: what they have by name, their owner has
