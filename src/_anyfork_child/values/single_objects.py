"""Objects of which only the identity counts, or mostly: pickle stores them by their name in a module.

Where the other side does not find that name, such an object goes by value, but each process makes it only once: every
further message brings the same object. So ``value is MISSING`` stays true, and a type parameter remains the same.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import typing
import uuid
import weakref
from typing import TYPE_CHECKING

from .exceptions import built_in_base, set_attributes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reduced = tuple[Any, ...]

MOST_HELD = 1000  # objects without weak references that stay known: context variables, for instance

_made: dict[str, Callable[[], Any]] = {}  # how to get an object, by its tracker, which is the same in all processes
_trackers: dict[int, str] = {}  # by the id of an object
_held: dict[str, Any] = {}  # objects without weak references, by tracker; those used last are the last


def reduce_single(value: object, make: Callable[..., object], args: Reduced, state: object = None) -> Reduced:
    """Return how to rebuild an object once in each process, by a call of ``make`` and, if any, the state."""
    tracker = _trackers.get(id(value)) or uuid.uuid4().hex
    _keep(tracker, value)
    return rebuild_single, (_trackers.get(id(value), tracker), make, args, state)


def rebuild_single(tracker: str, make: Callable[..., object], args: Reduced, state: object) -> object:
    """Return the object of this tracker; make it if it is not known here."""
    found = _made.get(tracker, _nothing)()
    if found is None:
        found = make(*args)
        if state is not None:  # otherwise pickle would not call __setstate__ either
            _set_state(found, state)
    return _keep(tracker, found)


def _nothing() -> None:
    pass


def _keep(tracker: str, value: Any) -> Any:
    """Know an object as long as it is in use. Return that of the first thread, if several receive it at the same time.

    An object without weak references may not be in use any more: it is forgotten when MOST_HELD others have been used
    since.
    """
    known = _made.get(tracker) or _made.setdefault(tracker, _reference(tracker, value))
    kept = known()
    if kept is None:  # the one before it has just ended
        kept = value
        _made[tracker] = _reference(tracker, value)
    _trackers.setdefault(id(kept), tracker)
    if tracker in _held:
        _held[tracker] = _held.pop(tracker, kept)
        for surplus in [*_held][:-MOST_HELD] if len(_held) > MOST_HELD else ():
            _forget(surplus, id(_held.pop(surplus, None)))
    return kept


def _reference(tracker: str, value: Any) -> Callable[[], Any]:
    """Return a weak reference, if the object allows one. Hold the object otherwise."""
    try:
        return weakref.ref(value, functools.partial(_forget, tracker, id(value)))
    except TypeError:
        _held.setdefault(tracker, value)
        return functools.partial(_held.get, tracker)


def _forget(tracker: str, number: int, reference: object = None) -> None:
    """Forget an object, unless another one has its tracker meanwhile."""
    if _trackers.get(number) == tracker:
        del _trackers[number]
    if reference is None or _made.get(tracker) is reference:
        _made.pop(tracker, None)


def _set_state(made: Any, state: Any) -> None:
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    for attributes in state if isinstance(state, tuple) else (state,):
        set_attributes(made, attributes or {})


def reduce_named(value: Any) -> tuple[Reduced | None, str]:
    """Return how to rebuild an object of ``__main__`` and, if pickle stores it by a name, that name.

    Return None for an object that can only be stored by its name, because its class is not written in Python.
    """
    reduced = value.__reduce_ex__(5)
    if not isinstance(reduced, str):
        return reduced, ""
    cls = type(value)
    if built_in_base(cls) is not object:
        return None, reduced
    return reduce_single(value, object.__new__, (cls,), value.__getstate__()), reduced


# --- Type parameters, types by NewType, context variables ---------------------------------------------------------


OPTIONS = ("bound", "covariant", "contravariant", "infer_variance")


def _is_found(value: Any) -> bool:
    """Return whether any process finds an object under its name."""
    module = value.__module__
    return module != "__main__" and getattr(sys.modules.get(module), value.__name__, None) is value


def _reduce_new_type(value: Any) -> Reduced | None:
    if _is_found(value):
        return None
    names = {"__module__": value.__module__, "__qualname__": value.__qualname__}
    return reduce_single(value, typing.NewType, (value.__name__, value.__supertype__), names)


def _reduce_parameter(value: Any) -> Reduced | None:
    """Return how to rebuild a TypeVar, ParamSpec or TypeVarTuple, whose attributes are named as its options."""
    if _is_found(value):
        return None
    options = {name: getattr(value, f"__{name}__") for name in OPTIONS if hasattr(value, f"__{name}__")}
    if getattr(value, "has_default", bool)():  # since Python 3.13
        options["default"] = value.__default__
    kind: Any = type(value)
    make = functools.partial(kind, value.__name__, *getattr(value, "__constraints__", ()), **options)
    return reduce_single(value, make, (), {"__module__": value.__module__})


def _reduce_alias(value: Any) -> Reduced | None:
    """Return how to rebuild what ``type X = ...`` makes, since Python 3.12. Its value may refer to the alias itself."""
    if _is_found(value):
        return None
    if value.__type_params__ or not value.__name__.isidentifier():
        kind: Any = type(value)
        make = functools.partial(kind, type_params=value.__type_params__)
        return reduce_single(value, make, (value.__name__, value.__value__))
    return (*reduce_single(value, make_alias, (value.__name__,)), [value.__value__], None, None, set_alias)


_of_aliases: dict[int, tuple[object, list[object]]] = {}  # without a value yet, by their ids


def make_alias(name: str) -> object:
    """Return a type alias without parameters whose value is not known yet."""
    later: list[object] = []
    names: dict[str, Any] = {"__name__": "__main__", "later": later}
    exec(f"type {name} = later[0]", names)
    alias = names[name]
    _of_aliases[id(alias)] = alias, later
    return alias


def set_alias(alias: object, value: list[object]) -> None:
    """Set the value of an alias that has none; leave an alias that this process has made itself."""
    known = _of_aliases.pop(id(alias), None)
    if known is not None:
        known[1].extend(value)


def _reduce_variable(value: Any) -> Reduced:
    try:
        default: tuple[object, ...] = (contextvars.Context().run(value.get),)
    except LookupError:
        default = ()
    return reduce_single(value, make_variable, (value.name, default))


def make_variable(name: str, default: tuple[object, ...]) -> object:
    """Return a context variable, with a default if there is one."""
    return contextvars.ContextVar(name, default=default[0]) if default else contextvars.ContextVar(name)


REDUCERS: dict[type, Callable[[Any], Reduced | None]] = {
    typing.NewType: _reduce_new_type,
    typing.TypeVar: _reduce_parameter,
    typing.ParamSpec: _reduce_parameter,
    typing.TypeVarTuple: _reduce_parameter,
    contextvars.ContextVar: _reduce_variable,
    getattr(typing, "TypeAliasType", type(None)): _reduce_alias,  # since Python 3.12; pickle asks nobody about None
}
