"""Values with what has no name on the other side: functions and classes travel by value, with cloudpickle."""

from __future__ import annotations

import sys
import types
from math import inf
from types import CodeType, FunctionType

import cloudpickle

from .classes import MEMBERS, fill_class, make_class, make_enum
from .definition_parts import order_fields, reduce_c_type, reduce_kind
from .global_names import all_names, looked_up, needed, words_of
from .receiver import OWNER
from .reduce import CannotTravelError, reduce
from .shared_globals import assigned_in, is_of_module, share
from .shared_main import install

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from _typeshed import ReadableBuffer

    from .receiver import Receiver
    from .reduce import Encoded

SKELETON, ENUM = cloudpickle.cloudpickle._make_skeleton_class, cloudpickle.cloudpickle._make_skeleton_enum
OF_ENUMS = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
PLAIN = (bool, int, float, str, type(None))
HIDDEN = "<dynamic-code>"  # what cloudpickle has in the place of a file name


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles by value what the receiver has not, and all else as ever."""

    def __init__(
        self, encoded: Encoded, protocol: int, take_buffer: Callable[[Any], bool] | None, receiver: Receiver
    ) -> None:
        super().__init__(encoded, protocol, take_buffer)
        self._encoded = encoded
        self._receiver = receiver
        # The owner has its own __main__, and a copy of it has that too.
        self._main = vars(sys.modules["__main__"]) if receiver is not OWNER and receiver.main is None else {}
        self._names: dict[str, Any] = {}  # of __main__, which the other side is to have
        self._sent: set[str] = set()
        self._travels: dict[int, bool] = {}  # by id, of values that may be left out
        self._assigned: dict[str, frozenset[str]] = {}  # names that functions assign, by module

    def new_names(self) -> dict[str, Any]:
        """Return what the other side is to have in its ``__main__``, as far as it was not asked for before."""
        names = {name: value for name, value in self._names.items() if name not in self._sent}
        self._sent.update(names)
        return names

    def _shares(self, function: FunctionType) -> bool:
        """Whether a function reads or assigns globals that functions of its module assign."""
        if self._receiver is OWNER or not is_of_module(function):
            return False
        module = function.__module__
        if module not in self._assigned:
            self._assigned[module] = assigned_in(function.__globals__)
        return not self._assigned[module].isdisjoint(all_names(function.__code__))

    def _note(self, value: Any) -> None:
        """Note what is defined in ``__main__``: who pickles it there finds it under its name."""
        if value.__module__ == "__main__":
            name, dot, _ = value.__qualname__.partition(".")
            found = self._main.get(name)
            if found is not None and (found is value or (dot and self._can_travel(found))):
                self._names[name] = found
        if isinstance(value, type):
            try:
                hints = value.__annotations__
            except Exception:  # hints may be computed when they are asked for, which may raise anything
                return
            names = vars(sys.modules.get(value.__module__, types))
            self._add_names((name, names[name], inf) for name in sorted(words_of(hints)) if name in names)

    def _add_names(self, found: Iterable[tuple[str, Any, float]]) -> dict[str, Any]:
        taken = {name: value for name, value, limit in found if self._can_travel(value, limit)}
        self._names.update((name, value) for name, value in taken.items() if self._main.get(name) is value)
        return taken

    def _can_travel(self, value: object, limit: float = inf) -> bool:
        """Whether it can be taken along; that it could is not needed."""
        known = self._travels.get(id(value))
        if known is None:
            known = type(value) in PLAIN or _Trial(self._receiver, limit).takes(value)
            self._travels[id(value)] = known
        return known

    def reducer_override(self, value: Any) -> Any:
        """As pickle asks for it."""
        reduced = reduce(self._encoded, value, self._receiver)
        if reduced is not None:
            return reduced
        reduced = reduce_c_type(value) if isinstance(value, type) else reduce_kind(value)
        if reduced is not None:
            return reduced
        if isinstance(value, CodeType):
            return _located(value, *self.dispatch_table[CodeType](value))
        if type(value).__name__ == "compiled_function" and self._receiver.name_of(value) is None:
            raise CannotTravelError(
                f"{value.__qualname__} was compiled (by Nuitka), and has no code that could: put it into a module"
            )
        if not isinstance(value, FunctionType | type):
            return super().reducer_override(value)
        module = sys.modules.get(value.__module__)
        if module is not None and not self._receiver.has(value.__module__):
            cloudpickle.register_pickle_by_value(module)
        reduced = super().reducer_override(value)
        if reduced is not NotImplemented:
            self._note(value)
            if isinstance(value, FunctionType):
                there = reduced[2][1]["__globals__"]
                there.update(needed(value))
                there.update(self._add_names(looked_up(value)))
                if self._shares(value):
                    return share(reduced)
        return _reduce_class(value, reduced) if isinstance(value, type) else reduced


class Names:
    """Stands behind values: names of ``__main__`` that were met among them, and then those that these have brought."""

    def __init__(self, pickler: ByValuePickler) -> None:
        self._pickler = pickler

    def __reduce__(self) -> tuple[object, ...]:
        names = self._pickler.new_names()
        return install, (names, Names(self._pickler) if names else None)


class _Trial(ByValuePickler):
    """Finds out whether a value can travel, without what it might look up."""

    def __init__(self, receiver: Receiver, limit: float) -> None:
        self._left = limit
        super().__init__(self, 5, None, receiver)  # it takes what is written, too
        self.fds: list[int] = []

    def write(self, data: ReadableBuffer) -> int:
        """Count what is written. Raises CannotTravelError when it is too much."""
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise CannotTravelError("it is too large")
        return size

    def add_descriptor(self, _holder: object, _fd: int) -> int:
        """Take no descriptors: nobody has asked for this value."""
        raise CannotTravelError("it has a descriptor")

    def takes(self, value: object) -> bool:
        """Whether it can travel."""
        try:
            self.dump(value)
        except Exception:  # pickling runs code of the value, which may raise anything
            return False
        finally:
            self.clear_memo()  # this writes into itself, so it is garbage that has to be collected
        return True

    def _can_travel(self, _value: object, _limit: float = inf) -> bool:
        return False


def _located(code: CodeType, make: object, args: tuple[object, ...]) -> tuple[object, tuple[object, ...]]:
    """Say of code where it comes from, which tracebacks, debuggers and coverage need; cloudpickle leaves that out."""
    return make, tuple(code.co_filename if isinstance(part, str) and part == HIDDEN else part for part in args)


def _reduce_class(cls: type, reduced: Any) -> Any:
    """Let a class by value be made as values.classes does it, where it is found under its path."""
    if not isinstance(reduced, tuple) or reduced[0] not in (SKELETON, ENUM):
        return reduced
    make, args, (attributes, slots), *_ = reduced
    order_fields(cls, attributes)
    if make is SKELETON:
        kind, name, bases, namespace, tracker, _ = args
        if attributes.get("__slots__"):
            namespace["__slots__"] = attributes.pop("__slots__")
        args = kind, name, bases, namespace, tracker, cls.__qualname__
        return make_class, args, (attributes, slots), None, None, fill_class
    bases, name, path, _, module, tracker, _ = args
    found: Any = cls.__members__  # type: ignore[attr-defined]  # it is an enum
    for alias in found:
        attributes.pop(alias, None)
    attributes[MEMBERS] = {name: _own(member) for name, member in found.items()}
    members = {name: (member.value, _data(cls, member)) for name, member in found.items()}
    names = {"__module__": module, "__qualname__": path}
    return make_enum, (bases, name, members, names, tracker), (attributes, slots), None, None, fill_class


def _own(member: Any) -> dict[str, Any]:
    """Return what the class of an enum has given a member."""
    return {name: value for name, value in vars(member).items() if name not in OF_ENUMS}


def _data(cls: Any, member: Any) -> tuple[Any, ...] | None:
    """Return what a member is beside its value, where the program makes members itself."""
    if not isinstance(vars(cls).get("__new_member__"), FunctionType):
        return None
    kind = cls._member_type_
    if kind is object:
        return ()
    return (str.__str__(member) if issubclass(kind, str) else kind(member),)
