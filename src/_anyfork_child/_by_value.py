"""Values with what has no name on the other side: functions and classes travel by value, with cloudpickle."""

from __future__ import annotations

import sys
from types import CodeType, FunctionType

import cloudpickle

from ._classes import MEMBERS, fill_class, make_class, make_enum
from ._kinds import order_fields, reduce_c_type, reduce_kind
from ._reduction import CannotTravelError, reduce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._encoding import Encoded
    from ._receiver import Receiver

SKELETON, ENUM = cloudpickle.cloudpickle._make_skeleton_class, cloudpickle.cloudpickle._make_skeleton_enum
OF_ENUMS = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
HIDDEN = "<dynamic-code>"  # what cloudpickle has in the place of a file name


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles by value what the receiver has not, and all else as ever."""

    def __init__(
        self, encoded: Encoded, protocol: int, take_buffer: Callable[[Any], bool] | None, receiver: Receiver
    ) -> None:
        super().__init__(encoded, protocol, take_buffer)
        self._encoded = encoded
        self._receiver = receiver

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
        return _reduce_class(value, reduced) if isinstance(value, type) else reduced


def _located(code: CodeType, make: object, args: tuple[object, ...]) -> tuple[object, tuple[object, ...]]:
    """Say of code where it comes from, which tracebacks, debuggers and coverage need; cloudpickle leaves that out."""
    return make, tuple(code.co_filename if isinstance(part, str) and part == HIDDEN else part for part in args)


def _reduce_class(cls: type, reduced: Any) -> Any:
    """Let a class by value be made as _classes does it, where it is found under its path."""
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
