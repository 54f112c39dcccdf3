"""Pickling by value: functions and classes without a name on the other side travel with cloudpickle.

values.encode chooses this way when plain pickle cannot encode the values; values.functions_by_value decides which
functions and classes have a name on the other side.
"""

from __future__ import annotations

import sys
import types
from math import inf
from types import CodeType, FunctionType

import cloudpickle

from .classes import MEMBERS, fill_class, make_class, make_enum
from .definition_parts import order_fields, reduce_c_type, reduce_kind
from .function_globals import (
    all_names,
    assigned_in,
    changed_by,
    hints_of,
    is_of_module,
    looked_up,
    needed,
    share,
    words_of,
)
from .functions_by_value import OWNER
from .objects_of_main import install
from .reduce import CannotTravelError, reduce
from .single_objects import reduce_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from _typeshed import ReadableBuffer

    from .functions_by_value import Receiver
    from .reduce import Encoded

SKELETON, ENUM = cloudpickle.cloudpickle._make_skeleton_class, cloudpickle.cloudpickle._make_skeleton_enum
OF_ENUMS = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
PLAIN = (bool, int, float, str, type(None))
HIDDEN = "<dynamic-code>"  # cloudpickle's replacement for a file name


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """A pickler that pickles functions and classes that the receiver lacks by value, and all other values as usual."""

    def __init__(
        self, encoded: Encoded, protocol: int, take_buffer: Callable[[Any], bool] | None, receiver: Receiver
    ) -> None:
        super().__init__(encoded, protocol, take_buffer)
        self._encoded = encoded
        self._receiver = receiver
        # The owner has its own __main__, and so has a copy of the owner: neither needs names of ours.
        self._main = vars(sys.modules["__main__"]) if receiver is not OWNER and receiver.main is None else {}
        self._names: dict[str, Any] = {}  # names of __main__ that the other side needs, with their values
        self._sent: set[str] = set()
        self._travels: dict[int, bool] = {}  # by id of optional values: whether they can be pickled
        self._assigned: dict[str, frozenset[str]] = {}  # names that functions assign or may change, by module

    def new_names(self) -> dict[str, Any]:
        """Return the names and values that the other side needs in ``__main__``, without those returned before."""
        names = {name: value for name, value in self._names.items() if name not in self._sent}
        self._sent.update(names)
        return names

    def _shares(self, function: FunctionType) -> bool:
        """Return whether a function uses globals that functions of its module, or an initializer, may change."""
        if self._receiver is OWNER or not is_of_module(function):
            return False
        module = function.__module__
        if module not in self._assigned:
            changed = changed_by(self._receiver.initializer, function.__globals__)
            self._assigned[module] = assigned_in(function.__globals__) | changed
        return not self._assigned[module].isdisjoint(all_names(function.__code__))

    def _note(self, value: Any) -> None:
        """Note a function or class of ``__main__``, so that the other side finds it by name if it pickles it.

        For a class, note the globals in its type hints, too.
        """
        if value.__module__ == "__main__":
            self._note_path(value.__qualname__, value)
        if isinstance(value, type):
            try:
                hints = value.__annotations__
            except Exception:  # hints may be computed on access, which may raise anything
                return
            names = vars(sys.modules.get(value.__module__, types))
            self._add_names((name, names[name], inf) for name in sorted(words_of(hints)) if name in names)

    def _note_path(self, path: str, value: object) -> None:
        """Note the global of ``__main__`` that is or contains the value of this path. Nothing contains a local one."""
        name, _, inner = path.partition(".")
        found = self._main.get(name)
        is_member = inner and not inner.startswith("<locals>")
        if found is not None and (found is value or (is_member and self._can_travel(found))):
            self._names[name] = found

    def _reduce_object(self, value: Any) -> Any:
        """Return how to pickle an object that is neither a function nor a class."""
        if not self._receiver.lacks_main or getattr(value, "__module__", "") != "__main__":
            return super().reducer_override(value)
        if type(value) in self.dispatch_table:
            return NotImplemented
        reduced, name = reduce_named(value)
        self._note_path(name, value)
        return NotImplemented if reduced is None else reduced

    def _add_names(self, found: Iterable[tuple[str, Any, float]]) -> dict[str, Any]:
        taken = {name: value for name, value, limit in found if self._can_travel(value, limit)}
        self._names.update((name, value) for name, value in taken.items() if self._main.get(name) is value)
        return taken

    def _can_travel(self, value: object, limit: float = inf) -> bool:
        """Return whether an optional value can be taken along, in at most ``limit`` bytes."""
        known = self._travels.get(id(value))
        if known is None:
            known = type(value) in PLAIN or _Trial(self._receiver, limit).takes(value)
            self._travels[id(value)] = known
        return known

    def reducer_override(self, value: Any) -> Any:
        """Return how to pickle a value, as pickle requests it for every object, or NotImplemented for the usual way."""
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
                f"{value.__qualname__} was compiled (by Nuitka), and has no code that can be sent: put it into a module"
            )
        if not isinstance(value, FunctionType | type):
            return self._reduce_object(value)
        if self._receiver.imports_main and self._receiver.name_there(value):
            return NotImplemented
        module = sys.modules.get(value.__module__)
        if module is not None and not self._receiver.has(value.__module__):
            cloudpickle.register_pickle_by_value(module)
        original = value
        try:
            reduced = super().reducer_override(value)
        except Exception:  # its type hints, since Python 3.14, may be any code
            if not isinstance(value, FunctionType) or (value := _with_readable_hints(value)) is None:
                raise
            reduced = super().reducer_override(value)
        if reduced is not NotImplemented:
            self._note(original)
            if isinstance(value, FunctionType):
                there = reduced[2][1]["__globals__"]
                there.update(needed(value))
                there.update(self._add_names(looked_up(value)))
                if self._shares(value):
                    return share(reduced)
        return _reduce_class(value, reduced) if isinstance(value, type) else reduced


def _with_readable_hints(function: FunctionType) -> FunctionType | None:
    """Return a copy of a function whose type hints cannot be evaluated, with hints as text; None for any other one."""
    hints, evaluated = hints_of(function)
    if evaluated:
        return None
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__dict__.update(function.__dict__)
    for name in ("__qualname__", "__module__", "__doc__", "__kwdefaults__"):
        setattr(copy, name, getattr(function, name))
    copy.__annotations__ = dict(hints)
    return copy


class Names:
    """A last value that carries the names of ``__main__`` found while the values before it were pickled.

    A further instance follows for the names that these values bring, until there are no new ones.
    """

    def __init__(self, pickler: ByValuePickler) -> None:
        self._pickler = pickler

    def __reduce__(self) -> tuple[object, ...]:
        names = self._pickler.new_names()
        return install, (names, Names(self._pickler) if names else None)


class _Trial(ByValuePickler):
    """A pickler that only tests whether a value can travel, without the globals that it might look up."""

    def __init__(self, receiver: Receiver, limit: float) -> None:
        self._left = limit
        super().__init__(self, 5, None, receiver)  # it receives its own output, too
        self.fds: list[int] = []

    def write(self, data: ReadableBuffer) -> int:
        """Count the written bytes. Raises CannotTravelError when they exceed the limit."""
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise CannotTravelError("it is too large")
        return size

    def add_descriptor(self, _holder: object, _fd: int) -> int:
        """Raise CannotTravelError: an optional value must not bring descriptors."""
        raise CannotTravelError("it has a descriptor")

    def takes(self, value: object) -> bool:
        """Return whether a value can travel."""
        try:
            self.dump(value)
        except Exception:  # pickling runs code of the value, which may raise anything
            return False
        finally:
            self.clear_memo()  # the pickler refers to itself, so it stays until the next garbage collection
        return True

    def _can_travel(self, _value: object, _limit: float = inf) -> bool:
        return False


def _located(code: CodeType, make: object, args: tuple[object, ...]) -> tuple[object, tuple[object, ...]]:
    """Restore the file name of code, which cloudpickle leaves out; tracebacks, debuggers and coverage need it."""
    return make, tuple(code.co_filename if isinstance(part, str) and part == HIDDEN else part for part in args)


def _reduce_class(cls: type, reduced: Any) -> Any:
    """Return how to pickle a class by value so that values.classes makes it, under its qualified name."""
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
    """Return the attributes of a member that the program has set, without those that every enum sets."""
    return {name: value for name, value in vars(member).items() if name not in OF_ENUMS}


def _data(cls: Any, member: Any) -> tuple[Any, ...] | None:
    """Return the data of a member apart from its value, or None if the program's class has no ``__new__``."""
    if not isinstance(vars(cls).get("__new_member__"), FunctionType):
        return None
    kind = cls._member_type_
    if kind is object:
        return ()
    return (str.__str__(member) if issubclass(kind, str) else kind(member),)
