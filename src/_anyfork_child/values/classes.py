"""Classes by value: made again without the program's hooks for class creation, and filled once.

cloudpickle makes an empty class each time it decodes one, which runs ``__init_subclass__`` and the metaclass once more:
a registry gets a second entry, or refuses it. This module reuses a known class, and makes an unknown one by the first
base of its metaclass that did not come by value itself. The effects of the program's hooks on a class arrive with its
attributes.
"""

from __future__ import annotations

import types
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from cloudpickle import cloudpickle

from .exceptions import built_in_base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

_made: WeakSet[type] = WeakSet()  # classes of other processes that were made here


def make_class(
    metaclass: type, name: str, bases: Sequence[Any], namespace: Mapping[str, Any], tracker: str, qualname: str
) -> type:
    """Return the class of this tracker; make it, without attributes, if it is not known here."""
    known = _known(tracker)
    if known is not None:
        return known
    inner = {**namespace, "__qualname__": qualname}
    resolved = types.resolve_bases(bases)
    if resolved is not tuple(bases):
        inner["__orig_bases__"] = tuple(bases)
    native = next(meta for meta in metaclass.__mro__ if meta not in _made)
    with _without_hooks(resolved):
        if native is metaclass:
            made = types.new_class(name, tuple(bases), {"metaclass": metaclass}, lambda ns: ns.update(inner))
        else:
            made = native.__new__(metaclass, name, resolved, inner)
    return _track(tracker, made)


def make_enum(
    bases: tuple[type, ...], name: str, members: Mapping[str, tuple[Any, Any]], names: Mapping[str, str], tracker: str
) -> type:
    """Return the enum of this tracker; make it, with its members, if it is not known here.

    A member is its value and the data that the program's ``__new__`` has made of it, or None without a ``__new__``.
    """
    known = _known(tracker)
    if known is not None:
        return known
    metaclass: Any = type(bases[-1])
    namespace = metaclass.__prepare__(name, bases)
    if any(data is not None for _, data in members.values()):
        namespace["__new__"] = _maker([*members.values()])
    for member, (value, _) in members.items():
        namespace[member] = value
    with _without_hooks(bases):
        made: type = metaclass.__new__(metaclass, name, bases, namespace)
    for attribute, text in names.items():
        setattr(made, attribute, text)
    return _track(tracker, made)


def _maker(members: Sequence[tuple[Any, Any]]) -> Callable[..., object]:
    """Return a ``__new__`` that makes the members in order, one at each call."""
    ahead = iter(members)

    def make(cls: type, *_: object) -> object:
        value, data = next(ahead)
        native: Any = built_in_base(cls)
        member = native.__new__(cls, *data)
        member._value_ = value
        return member

    return make


def fill_class(cls: type, state: Any) -> type:
    """Set the attributes of a class that came from another process; a class of this process keeps its own."""
    if cls in _made:
        for name, values in state[0].pop(MEMBERS, {}).items():
            cls.__members__[name].__dict__.update(values)  # type: ignore[attr-defined]  # it is an enum
        if "_fields_" in vars(cls):  # a ctypes structure: its fields cannot be changed any more
            state[0].pop("_fields_", None)
        cloudpickle._class_setstate(cls, state)
    return cls


MEMBERS = "<members>"  # the key in the state of an enum for the attributes of its members, by name


def _known(tracker: str) -> type | None:
    with cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK:
        known: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
        return known


def _track(tracker: str, made: type) -> type:
    _made.add(made)
    tracked: type = cloudpickle._lookup_class_or_track(tracker, made)
    return tracked


@contextmanager
def _without_hooks(bases: Sequence[type]) -> Iterator[None]:
    """Disable ``__init_subclass__`` of base classes that came by value."""
    hooked = [cls for base in bases for cls in base.__mro__ if cls in _made and "__init_subclass__" in vars(cls)]
    kept = [(cls, vars(cls)["__init_subclass__"]) for cls in dict.fromkeys(hooked)]
    for cls, _ in kept:
        type.__setattr__(cls, "__init_subclass__", classmethod(_nothing))
    try:
        yield
    finally:
        for cls, hook in kept:
            type.__setattr__(cls, "__init_subclass__", hook)


def _nothing(_cls: type, /, **_options: object) -> None:
    pass
