"""Reducers for objects in definitions that pickle cannot pickle although it can pickle their parts, by type.

The objects go by value with the definitions, see values.by_value_pickler. ``rebuild_`` functions run in the process
that decodes them.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import weakref
from typing import TYPE_CHECKING

from . import single_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Reduced = tuple[Any, ...]

_CLASS_OF_C = (type(ctypes.Structure), type(ctypes.Union))
_ARRAY = type(ctypes.Array)
_POINTER = type(ctypes._Pointer)
_FUNCTION = type(ctypes._CFuncPtr)  # type: ignore[attr-defined]  # typeshed names only its subclasses
# The metaclasses of these have no name under which they can be found.
_OF_C = (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._Pointer, ctypes._SimpleCData, ctypes._CFuncPtr)  # type: ignore[attr-defined]  # typeshed names only subclasses of the last
_CLASSES_OF_C = {type(cls): cls for cls in _OF_C}
_SWAPPED, _NATIVE = ("__ctype_be__", "__ctype_le__") if sys.byteorder == "little" else ("__ctype_le__", "__ctype_be__")


def reduce_kind(value: Any) -> Reduced | None:
    """Return how to rebuild an object of one of these types, or None for any other object."""
    reducer = _REDUCERS.get(type(value))
    if reducer is not None:
        return reducer(value)
    if isinstance(value, functools.cached_property):
        state = {name: part for name, part in vars(value).items() if name != "lock"}
        return rebuild_cached_property, (type(value),), state, None, None, set_state
    if isinstance(value, ctypes.CDLL):
        return type(value), (value._name,)
    return None


# --- functools, weakref ---------------------------------------------------------------------------------------------


def rebuild_cached_property(kind: Any) -> object:
    """Make a cached property without a function, but with a lock of its own if this Python's have one."""
    made = kind.__new__(kind)
    functools.cached_property.__init__(made, _nothing)
    return made


def _reduce_partial_method(value: Any) -> Reduced:
    return rebuild_partial_method, (value.func, value.args, value.keywords)


def rebuild_partial_method(function: Any, arguments: Sequence[Any], keywords: dict[str, Any]) -> object:
    """Make a partial method by its constructor, which Python 3.14 and newer require."""
    return functools.partialmethod(function, *arguments, **keywords)


def set_state(made: Any, state: dict[str, Any]) -> None:
    """Set attributes directly in the instance dictionary, past ``__setattr__`` and descriptors of the class."""
    vars(made).update(state)


def _nothing(_: object) -> None:
    pass


def _reduce_weak_dictionary(value: Any) -> Reduced:
    return type(value), (), None, None, iter([*value.items()])


def _reduce_reference(value: Any) -> Reduced:
    return rebuild_reference, (value(),)


def rebuild_reference(value: object) -> object:
    """Make a weak reference to a value; a dead one for None."""
    return weakref.ref(value if value is not None else {1})


# --- ctypes ---------------------------------------------------------------------------------------------------------


def reduce_c_type(value: Any) -> Reduced | None:
    """Return how to rebuild a type that ctypes derives from other types, or None for any other class."""
    kind = type(value)
    if value in _CLASSES_OF_C:
        return type, (_CLASSES_OF_C[value],)
    if issubclass(kind, _ARRAY) and value is value._type_ * value._length_:
        return rebuild_array, (value._type_, value._length_)
    if issubclass(kind, _POINTER) and value is ctypes.POINTER(value._type_):
        return ctypes.POINTER, (value._type_,)
    if issubclass(kind, _FUNCTION) and "_argtypes_" in vars(value):
        return ctypes.CFUNCTYPE, (value._restype_, *value._argtypes_)
    if vars(value).get(_SWAPPED) is value and vars(value)[_NATIVE] is not value:
        return getattr, (vars(value)[_NATIVE], _SWAPPED)
    return None


def rebuild_array(kind: Any, length: int) -> object:
    """Return the type of arrays of ``length`` elements of type ``kind``."""
    return kind * length


def order_fields(value: type, attributes: dict[str, Any]) -> None:
    """Drop the descriptors that a ctypes structure makes of its fields, and put ``_fields_`` last.

    Fields depend on the other attributes.
    """
    if issubclass(type(value), _CLASS_OF_C):
        for name in [name for name, part in attributes.items() if type(part).__name__ == "CField"]:
            del attributes[name]
        if "_fields_" in attributes:
            attributes["_fields_"] = attributes.pop("_fields_")


_REDUCERS: dict[type, Callable[[Any], Reduced | None]] = {
    functools.partialmethod: _reduce_partial_method,
    weakref.WeakKeyDictionary: _reduce_weak_dictionary,
    weakref.WeakValueDictionary: _reduce_weak_dictionary,
    weakref.ReferenceType: _reduce_reference,
    **single_objects.REDUCERS,
}
