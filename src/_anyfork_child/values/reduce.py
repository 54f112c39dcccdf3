"""Reducers for values that pickle cannot reduce, or not well enough: the counterpart of REBUILD in values.decode.

The values are objects around descriptors, functions and classes of a ``__main__`` that both sides have, cached
functions, and types for which a receiver has reducers of its own.
"""

from __future__ import annotations

import _socket
import io
import os
import stat
import sys
from types import ModuleType

from . import decode, objects_of_main
from .decode import Descriptor
from .functions_by_value import anywhere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from .functions_by_value import Receiver

    class Encoded(Protocol):
        """The target of the encoding: see values.encode.Encoded."""

        def add_descriptor(self, holder: object, fd: int) -> int:
            """Note a descriptor; return its index."""


class CannotTravelError(Exception):
    """Raised for a value that cannot be sent to another process."""


def reduce(encoded: Encoded, value: Any, receiver: Receiver) -> Any:
    """Return how to rebuild a value on the other side, in the form of ``__reduce__``, or None to leave it to pickle."""
    reduced = _reduce_descriptor(encoded, value)
    if reduced is not None:
        return reduced
    if isinstance(value, BaseException):
        from .exceptions import reduce_error  # only now: most values are no exceptions

        return reduce_error(value)
    kind = type(value)
    if kind in receiver.reducers:
        return receiver.reducers[kind](value)
    path = receiver.path_in_main(value)
    if path is not None:
        return objects_of_main.named, path
    if receiver.place_of is not anywhere:
        reduced = _reduce_placed(value, receiver)
        if reduced is not None:
            return reduced
    if kind.__name__ == "_lru_cache_wrapper" and _goes_by_value(value, receiver):
        parameters = value.cache_parameters()
        return decode.cached, (value.__wrapped__, parameters["maxsize"], parameters["typed"])
    if kind.__name__ == "Struct" and kind.__module__ == "_struct":
        return kind, (value.format,)
    return None


def _reduce_placed(value: Any, receiver: Receiver) -> Any:
    """Return how to find a module, function or class on a place added to the path later; None for any other object."""
    name = f"{value.__name__}:" if isinstance(value, ModuleType) else receiver.name_there(value)
    place = receiver.place_of(name.partition(":")[0]) if name else ""
    if not place:
        return None
    return decode.find_placed, (decode.file_name(place), name)


def _goes_by_value(cached: Any, receiver: Receiver) -> bool:
    module, path = getattr(cached, "__module__", ""), getattr(cached, "__qualname__", "")
    return "<locals>" in path or not receiver.finds(module)


# --- Descriptors ------------------------------------------------------------------------------------------------


def _reduce_descriptor(encoded: Encoded, value: Any) -> tuple[object, tuple[object, ...]] | None:
    """Return how to rebuild an object around a descriptor, or a proxy of a manager; None for any other object."""
    kind = type(value)
    if isinstance(value, _socket.socket):
        return _reduce_socket(encoded, value) if _is_plain_socket(kind) else None
    if kind in _FILES:
        return _reduce_file(encoded, value)
    if kind is Descriptor:
        return decode._descriptor, (encoded.add_descriptor(value, value.fileno()),)
    if kind.__module__ == "multiprocessing.connection" and kind.__name__ == "Connection":
        index = encoded.add_descriptor(value, value.fileno())
        return decode._connection, (index, value.readable, value.writable)
    if kind.__module__ == "tempfile" and type(getattr(value, "file", None)) in _FILES:
        return _reduce_file(encoded, value.file)
    managers = sys.modules.get("multiprocessing.managers")
    if managers is not None and isinstance(value, managers.BaseProxy):
        return _reduce_proxy(value)
    return None


def _reduce_proxy(value: Any) -> tuple[object, tuple[object, ...]]:
    """Return how to rebuild a proxy of multiprocessing's managers, with the key that the receiving process lacks."""
    rebuild, (kind, token, serializer, options) = value.__reduce__()
    return rebuild, (kind, token, serializer, {**options, "authkey": bytes(value._authkey)})


def _reduce_socket(encoded: Encoded, value: Any) -> tuple[object, tuple[object, ...]]:
    if value.fileno() < 0:
        raise CannotTravelError("the socket is closed")
    index = encoded.add_descriptor(value, value.fileno())
    # The number of the family, not the enum: the class of the enum need not be loaded on the other side.
    return decode._socket, (index, int(value.family), int(value.type), value.proto, value.gettimeout())


def _reduce_file(encoded: Encoded, value: Any) -> tuple[object, tuple[object, ...]]:
    if value.closed:
        raise CannotTravelError("the file is closed")
    kind = type(value)
    try:
        fd = value.fileno()
    except OSError as error:
        raise CannotTravelError("it has no descriptor") from error
    _synchronise(value, fd)
    index = encoded.add_descriptor(value, fd)
    if kind is io.TextIOWrapper:
        mode = _mode(value.buffer).replace("b", "")
        return decode._text, (
            index,
            mode,
            value.encoding,
            value.errors,
            value.line_buffering,
            value.write_through,
        )
    return decode._binary, (index, _mode(value), 0 if kind is io.FileIO else -1)


# The types of system files. Other file and socket types may have state of their own, and are left to pickle.
_FILES = frozenset({io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO, io.TextIOWrapper})


def _is_plain_socket(kind: type) -> bool:
    socket, owned = sys.modules.get("socket"), sys.modules.get("anyfork._system.channel_socket")
    if kind is _socket.socket or (socket is not None and kind is socket.socket):
        return True
    return owned is not None and kind is owned.ChannelSocket  # it has no state beyond its descriptor, either


def _mode(value: Any) -> str:
    raw = value if isinstance(value, io.FileIO) else value.raw
    mode: str = raw.mode
    return mode.replace("x", "w")  # the file exists by now


def _synchronise(value: Any, fd: int) -> None:
    """Flush a file object, and set the position of its descriptor to the object's own.

    Raises CannotTravelError if the object's position is not known or is not a number of bytes.
    """
    if value.writable():
        value.flush()
    if value.readable() and stat.S_ISREG(os.fstat(fd).st_mode) and type(value) is not io.FileIO:
        try:
            position = value.tell()
        except OSError as error:
            raise CannotTravelError(f"its position is unknown: {error}") from error
        if position >= 1 << 64:  # a text file amid a stateful encoding: its position is not a number of bytes
            raise CannotTravelError("its decoder has state that cannot be sent")
        os.lseek(fd, position, os.SEEK_SET)
