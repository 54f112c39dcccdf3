"""The types of functions and their arguments, for type checkers: nothing here loads typing.

A function is given with its positional arguments, which are checked against its parameters. A function that takes over
a process gets the channel first, then the values queued by ``send``, whose types are not known, then the arguments. A
function that is named by a string has arguments and a result of any type.
"""

from __future__ import annotations

from types import GenericAlias

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
    from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar, TypeVarTuple
    from typing import Generic as Generic
    from typing import overload as overload

    from anyio.abc import UNIXSocketStream

    Arguments = TypeVarTuple("Arguments")
    Parameters = ParamSpec("Parameters")
    Result = TypeVar("Result")
    Item = TypeVar("Item")

    Later: TypeAlias = Coroutine[Any, Any, Result]  # the return type of an async function
    Items: TypeAlias = Iterable[Item] | AsyncIterable[Item]

    # Functions that take over a process: with all arguments, with one or two values of ``send`` before them, with
    # values of ``send`` alone.
    Entry: TypeAlias = (
        Callable[[UNIXSocketStream, *Arguments], Later[object]] | Callable[[socket.socket, *Arguments], object]
    )
    EntryAfterOne: TypeAlias = (
        Callable[[UNIXSocketStream, Any, *Arguments], Later[object]]
        | Callable[[socket.socket, Any, *Arguments], object]
    )
    EntryAfterTwo: TypeAlias = (
        Callable[[UNIXSocketStream, Any, Any, *Arguments], Later[object]]
        | Callable[[socket.socket, Any, Any, *Arguments], object]
    )
    AnyEntry: TypeAlias = (
        Callable[Concatenate[UNIXSocketStream, ...], Later[object]] | Callable[Concatenate[socket.socket, ...], object]
    )
else:
    Item = Result = None

    def overload(function):
        """Return the function: overloads are for type checkers."""
        return function

    class Generic:
        """A base class that lets a class be written with the type of its contents."""

        __class_getitem__ = classmethod(GenericAlias)
