"""Functions and classes by value: the choice of those for which cloudpickle is needed. All others travel by name.

By value travels what the receiver does not find by name; values.by_value_pickler writes it. Everything of ``__main__``
does, except in a copy of the program, which shares its objects (values.objects_of_main). A Receiver is what the sender
knows of the process that receives the values.
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol, TypeAlias

    class Main(Protocol):
        """The objects that both sides have in common in ``__main__``: values.objects_of_main.SharedMain."""

        def path_of(self, value: object) -> tuple[int, str] | None:
            """Return the path of this very object, or None for any other object."""

    Reducers: TypeAlias = Mapping[type, Callable[[Any], Any]]

NAMED = (FunctionType, BuiltinFunctionType, type)
NO_REDUCERS: Reducers = {}
ANY = object()


def everything(_module: str) -> bool:
    """Return True: the receiver finds the definitions of every module by name."""
    return True


def no_places() -> Sequence[str]:
    """Return no places: the receiver knows all places of the path."""
    return ()


def anywhere(_module: str) -> str:
    """Return no place: the receiver finds the module without being told its place."""
    return ""


class Receiver:
    """The process that receives values.

    ``has`` tells whether the receiver finds the definitions of a module by name. ``main`` describes what its
    ``__main__`` has in common with ours; it is usually None, for nothing. ``reducers`` reduce further types, as those
    of copyreg do; a reducer that returns None leaves the value to the usual way. ``place_of`` returns the place of the
    path where a module is found, if the receiver must be told, and ``places`` returns all such places. ``remote``
    tells whether the receiver is on another machine, where no descriptors can be sent. A receiver that ``imports_main``
    has run the same ``__main__`` again, and finds its definitions by name. ``initializer`` is the function that it has
    run first, whose globals its other functions share; ANY stands for all functions.
    """

    __slots__ = ("has", "imports_main", "initializer", "main", "place_of", "places", "reducers", "remote")

    def __init__(
        self,
        has: Callable[[str], bool] = everything,
        main: Main | None = None,
        reducers: Reducers = NO_REDUCERS,
        remote: bool = False,
        place_of: Callable[[str], str] = anywhere,
        places: Callable[[], Sequence[str]] = no_places,
        imports_main: bool = False,
        initializer: object = None,
    ) -> None:
        self.has = has
        self.main = main
        self.reducers = reducers
        self.remote = remote
        self.place_of = place_of
        self.places = places
        self.imports_main = imports_main
        self.initializer = initializer

    def started_with(self, initializer: object) -> Receiver:
        """Return the receiver as it is once it has run this initializer."""
        if initializer is None or isinstance(initializer, str):
            return self
        has, main, reducers = self.has, self.main, self.reducers
        where = self.place_of, self.places
        return Receiver(has, main, reducers, self.remote, *where, self.imports_main, initializer)

    def path_in_main(self, value: object) -> tuple[int, str] | None:
        """Return the arguments with which ``values.objects_of_main.named`` finds this very object in the receiver.

        Return None for an object that both do not have in common.
        """
        return None if self.main is None else self.main.path_of(value)

    def name_of(self, value: Any) -> str | None:
        """Return ``module:qualname`` if the receiver finds this very function or class under that name.

        Return None if the value must go by value, or together with the place where it is found.
        """
        name = self.name_there(value)
        return None if name is None or self.place_of(name.partition(":")[0]) else name

    def name_there(self, value: Any) -> str | None:
        """Return ``module:qualname`` if the receiver finds this very function or class, or None.

        The receiver may have to be told the place where the module is found.
        """
        if not isinstance(value, NAMED):
            return None
        known = self.path_in_main(value)
        if known is not None:
            return f"__main__:{known[1]}"
        module_name = getattr(value, "__module__", None)
        if not module_name or not self.finds(module_name):
            return None
        path: str = getattr(value, "__qualname__", "")
        found: Any = sys.modules.get(module_name)
        try:
            for part in path.split("."):
                found = getattr(found, part)
        except AttributeError:
            return None
        return f"{module_name}:{path}" if found is value else None

    def finds(self, module_name: str) -> bool:
        """Return whether the receiver finds the definitions of a module, or of ``__main__``, by name."""
        if module_name == "__main__":
            return self.imports_main
        return self.main is not None or self.has(module_name)

    @property
    def lacks_main(self) -> bool:
        """Return whether the receiver has nothing of this process's ``__main__`` but what is sent by value."""
        return self is not OWNER and self.main is None and not self.imports_main


OWNER = Receiver()  # the owner, as its processes see it: it has everything that they have by name
