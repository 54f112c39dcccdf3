"""Classes by value: made again without what the program runs when a class is made, and filled once.

cloudpickle makes an empty class each time it meets one, which runs ``__init_subclass__`` and the metaclass once more: a
registry gets a second entry, or refuses it. Here a class that is known is taken as it is, and one that is not is made
by the built-in metaclass below those that came by value themselves. What the program's hooks have done to the classes
comes with their attributes.
"""

from __future__ import annotations

import types
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakSet

from cloudpickle import cloudpickle

from .exceptions import MADE_AT_RUN_TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

_made: WeakSet[type] = WeakSet()  # here, of classes of other processes


def make_class(
    metaclass: type, name: str, bases: Sequence[Any], namespace: Mapping[str, Any], tracker: str, qualname: str
) -> type:
    """Return the class of this tracker, made without attributes if it is not known here."""
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
    """Return the enum of this tracker, made with its members if it is not known here.

    A member is the value with the data that a ``__new__`` of the program has made of it, and None without one.
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
    """Return what makes members, one after the other."""
    ahead = iter(members)

    def make(cls: type, *_: object) -> object:
        value, data = next(ahead)
        native: Any = next(base for base in cls.__mro__ if not base.__flags__ & MADE_AT_RUN_TIME)
        member = native.__new__(cls, *data)
        member._value_ = value
        return member

    return make


def fill_class(cls: type, state: Any) -> type:
    """Give a class that came from elsewhere its attributes; one of this process's own keeps those that it has."""
    if cls in _made:
        for name, values in state[0].pop(MEMBERS, {}).items():
            cls.__members__[name].__dict__.update(values)  # type: ignore[attr-defined]  # it is an enum
        if "_fields_" in vars(cls):  # a structure of C: they cannot be changed any more
            state[0].pop("_fields_", None)
        cloudpickle._class_setstate(cls, state)
    return cls


MEMBERS = "<members>"  # in the state of an enum: what its members have as attributes, by name


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
    """Keep ``__init_subclass__`` of classes that came by value from running."""
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
