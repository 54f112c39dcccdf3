"""Encoding of values as bytes, descriptors and large buffers: the counterpart of values.decode.

Runs in the owner and in workers.

Values travel by pickle 5. Descriptors among them (sockets, files, pipes, connections, Descriptor), however deeply
nested, travel beside the bytes, and values.decode rebuilds the objects: see values.reduce. Lambdas, closures and
everything of ``__main__`` have no name on the other side and go by value with cloudpickle, which is loaded only then:
see values.by_value_pickler.
"""

from __future__ import annotations

import _pickle
import os
import sys
from types import FunctionType

from ..wire.frames import IN_FILE, MAX_DESCRIPTORS, Frame
from ..wire.memfd import new_file
from ..wire.own_imports import import_own
from . import decode
from .functions_by_value import OWNER
from .reduce import CannotTravelError as CannotTravelError
from .reduce import reduce
from .scalars import SCALARS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from _typeshed import ReadableBuffer

    from ..wire.descriptors import Owned
    from .functions_by_value import Receiver

PROTOCOL = 5
LARGE = 64 << 10  # bytes from which a buffer is worth a file of its own
MAX_BUFFERS = 64  # in one message: each of them takes a descriptor for a moment
INLINE = 64 << 10  # most bytes to send without a file: more would fill a socket's buffer (208 KiB by default) and block


class Encoded:
    """Pickled values: pieces of bytes, and the descriptors that go with them.

    The descriptors belong to ``holders``, which are kept so that dropping them elsewhere does not close them.
    """

    __slots__ = ("buffers", "by_value", "fds", "holders", "made", "name", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.fds: list[int] = []
        self.holders: list[object] = []
        self.made: list[Owned] = []  # owners of the descriptors that were made for these values
        self.buffers: list[memoryview] = []  # large buffers, which travel beside the bytes, too
        self.size = 0
        self.by_value = False  # whether cloudpickle was used, which the other side needs then, too
        self.name = b""  # the function's name, before the pickle of its arguments; empty for one among the values

    def write(self, data: ReadableBuffer) -> int:
        """Take the next piece from a pickler. Large bytes objects arrive as they are and are not copied."""
        piece = data if type(data) is bytes else bytes(data)
        self.pieces.append(piece)
        self.size += len(piece)
        return len(piece)

    def take_buffer(self, buffer: _pickle.PickleBuffer) -> bool:
        """Return whether a pickler must put a buffer among the bytes; serves as its buffer_callback."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < LARGE or len(self.buffers) == MAX_BUFFERS:
            return True
        self.buffers.append(raw)
        return False

    def add_descriptor(self, holder: object, fd: int) -> int:
        """Note a descriptor; return its index."""
        try:
            os.fstat(fd)
        except OSError as error:
            raise CannotTravelError(f"its descriptor {fd} is not open") from error
        if len(self.fds) >= MAX_DESCRIPTORS:
            raise CannotTravelError(f"more than {MAX_DESCRIPTORS} descriptors in one call")
        self.fds.append(fd)
        self.holders.append(holder)
        return len(self.fds) - 1

    def add_made(self, owner: Owned) -> int:
        """Note a descriptor that was made for these values and is closed once they are sent; return its index."""
        self.made.append(owner)
        self.fds.append(owner.fd)
        return len(self.fds) - 1

    def close_made(self) -> None:
        """Close the descriptors that were made for these values."""
        for owner in self.made:
            owner.close()

    def frame(self, kind: int) -> tuple[Frame, list[Owned], Sequence[bytes]]:
        """Return the frame that carries the values, the owners of descriptors made for it, and pieces for a file.

        The caller writes the pieces into the last of the frame's descriptors before it sends the frame, and closes the
        owners afterwards.
        """
        if self.size <= INLINE:
            return Frame(kind, len(self.name), b"".join((self.name, *self.pieces)), self.fds), self.made, ()
        file = new_file()
        return Frame(kind | IN_FILE, self.size, self.name, [*self.fds, file.fd]), [*self.made, file], self.pieces


_SIZED = frozenset({str, bytes})


def is_plain(value: object) -> bool:
    """Return whether a value is small and needs only pickle: no descriptor in it, and nothing that goes by value."""
    kind = type(value)
    return kind in SCALARS or (kind in _SIZED and len(value) <= INLINE)  # type: ignore[arg-type]  # it has a size


def encode(values: Sequence[object], receiver: Receiver = OWNER, out_of_band: bool = False) -> Encoded:
    """Pickle values. With ``out_of_band``, large buffers travel beside the bytes; the other side must support that.

    Raises any exception that their pickling raises, CannotTravelError among others.
    """
    encoded = Encoded()
    try:
        _Pickler(encoded, encoded.take_buffer if out_of_band else None, receiver).dump(values)
    except (_ByValueNeededError, _pickle.PicklingError, TypeError, AttributeError) as error:
        if not isinstance(error, _ByValueNeededError):
            from ..wire.signals import comes_from_outside

            if comes_from_outside(error):
                raise
        import_own(
            "_anyfork_child.values.by_value_pickler"
        )  # only now: importing cloudpickle costs more than all of anyfork
        from .by_value_pickler import ByValuePickler, Names

        encoded = Encoded()
        encoded.by_value = True
        take_buffer = encoded.take_buffer if out_of_band else None
        pickler = ByValuePickler(encoded, PROTOCOL, take_buffer, receiver)
        try:
            pickler.dump((_SameVersion(receiver.places()), *values, Names(pickler)))
        finally:
            pickler.clear_memo()  # it holds Names, which holds the pickler: a cycle would keep all that was written
    return encoded


def encode_error(error: BaseException) -> Encoded:
    """Pickle an exception, if necessary without those of its attributes that cannot travel.

    Raises any exception that its pickling raises even then.
    """
    try:
        return encode((error,))
    except Exception:  # pickling runs code of the attributes, which may raise anything
        from .exceptions import Reduced

        return encode((Reduced(error, can_travel),))


def can_travel(value: object) -> bool:
    """Return whether a value can be pickled."""
    try:
        encode((value,))
    except Exception:  # pickling runs code of the value, which may raise anything
        return False
    return True


def pickle_into(encoded: Encoded, value: object) -> None:
    """Pickle plain data of our own into ``encoded``."""
    _Pickler(encoded, None, OWNER).dump(value)


class _SameVersion:
    """A first value that makes the other side check its Python version and add places to its path.

    It precedes values that only the same version of Python can decode, and that may import from these places.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self._places = places

    def __reduce__(self) -> tuple[object, ...]:
        return decode.check_version, (sys.version_info[:2], *map(decode.file_name, self._places))


class _ByValueNeededError(Exception):
    """Raised when a function or class among the values has no name by which another interpreter would find it."""


class _Pickler(_pickle.Pickler):
    """A pickler that takes descriptors out, and raises at the first function or class that needs cloudpickle."""

    def __init__(self, encoded: Encoded, take_buffer: Callable[[Any], bool] | None, receiver: Receiver) -> None:
        super().__init__(encoded, PROTOCOL, buffer_callback=take_buffer)
        self._encoded = encoded
        self._receiver = receiver
        self._lacks_main = receiver.lacks_main

    def reducer_override(self, value: Any) -> Any:
        reduced = reduce(self._encoded, value, self._receiver)
        if reduced is not None:
            return reduced
        if isinstance(value, FunctionType | type):
            if self._receiver.name_of(value) is None:
                raise _ByValueNeededError
        elif self._lacks_main and getattr(value, "__module__", "") == "__main__":
            raise _ByValueNeededError  # pickle may store it by its name in __main__
        return NotImplemented  # tells the pickler to go on as usual
