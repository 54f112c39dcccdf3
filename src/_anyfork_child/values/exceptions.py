"""Reducers for exceptions: they are rebuilt without their own constructor, which may take other arguments.

pickle calls the class of an exception with its ``args``. The call fails if the class has a constructor of its own with
other parameters. So the constructor of its built-in base class makes such an exception, and then its attributes are
set.
"""

from __future__ import annotations

import copyreg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

MADE_AT_RUN_TIME = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class is not one of the interpreter's own
REDUCTIONS = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")


def reduce_error(error: BaseException) -> tuple[Any, ...] | None:
    """Return how to rebuild an exception with a constructor of its own, or None if pickle can rebuild it."""
    cls = type(error)
    built_in = _built_in(cls)
    if built_in is None or cls in copyreg.dispatch_table:
        return None
    if _differ(cls, built_in, REDUCTIONS):
        return _with_notes(error)
    return _reduce(error, built_in) if _differ(cls, built_in, ("__init__", "__new__")) else None


def _with_notes(error: BaseException) -> tuple[Any, ...] | None:
    """Return the reduction that the class of an exception has itself, with the notes that it leaves out, if any."""
    notes = getattr(error, "__notes__", None)
    if not notes:
        return None
    reduced: Any = error.__reduce_ex__(5)
    match reduced:
        case make, args:
            return make, args, {"__notes__": notes}, None, None, set_attributes
        case make, args, dict(state) if not _differ(type(error), BaseException, ("__setstate__",)):
            return make, args, {**state, "__notes__": notes}
    return reduced  # type: ignore[no-any-return]  # with state that the class alone understands


class Reduced:
    """A stand-in for an exception, which arrives as the exception with those of its attributes that can travel."""

    def __init__(self, error: BaseException, travels: Callable[[object], bool]) -> None:
        self._error = error
        self._travels = travels

    def __reduce__(self) -> tuple[Any, ...]:
        built_in = _built_in(type(self._error))
        if built_in is None:
            return self._error.__reduce__()  # type: ignore[return-value]  # a tuple, as that of all exceptions
        return _reduce(self._error, built_in, self._travels)


def _reduce(
    error: BaseException, built_in: type[BaseException], travels: Callable[[object], bool] = lambda _: True
) -> tuple[Any, ...]:
    cls = type(error)
    reduced: Any = built_in.__reduce__(error)
    _, making, *rest = reduced
    state: dict[str, Any] = dict(rest[0] or {}) if rest else {}
    slots = {name for name in copyreg._slotnames(cls) if hasattr(error, name)}  # type: ignore[attr-defined]
    state.update((name, getattr(error, name)) for name in slots)
    state = {name: value for name, value in state.items() if travels(value)}
    if isinstance(error, BaseExceptionGroup):
        making = (error.message, [*error.exceptions])
    return rebuild_error, (cls, built_in, tuple(making), error.args), state, None, None, set_attributes


def rebuild_error(
    cls: type[BaseException], built_in: type[BaseException], making: Sequence[Any], args: tuple[Any, ...]
) -> BaseException:
    """Make an exception of this class by the constructor of its built-in base class."""
    error: BaseException = built_in.__new__(cls, *making)
    try:
        built_in.__init__(error, *making)
    except TypeError:  # its own constructor did not call the built-in one either
        pass
    BaseException.args.__set__(error, args)  # type: ignore[attr-defined]  # it is a descriptor
    return error


def set_attributes(made: object, state: dict[str, Any]) -> None:
    """Set attributes past the ``__setattr__`` of the class."""
    for name, value in state.items():
        if hasattr(type(made), name):
            object.__setattr__(made, name, value)
        else:
            made.__dict__[name] = value


def built_in_base(cls: type) -> type:
    """Return the first base class that is not written in Python: it decides the memory layout."""
    return next(base for base in cls.__mro__ if not base.__flags__ & MADE_AT_RUN_TIME)


def _built_in(cls: type) -> type[BaseException] | None:
    """Return the built-in base class; None if it is not an exception class."""
    found = built_in_base(cls)
    return found if issubclass(found, BaseException) else None


def _differ(cls: type, base: type, names: Sequence[str]) -> bool:
    return any(getattr(cls, name, None) is not getattr(base, name, None) for name in names)
