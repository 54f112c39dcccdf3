"""Values into bytes, descriptors and large buffers: the counterpart of _values, in the owner and in workers.

Values travel by pickle 5. Descriptors among them (sockets, files, pipes, connections, Descriptor) travel beside the
bytes, whatever they are nested in, and are rebuilt by _values. What pickle cannot name, that is lambdas, closures and
everything of ``__main__``, goes by value with cloudpickle, which is loaded only then.
"""

from __future__ import annotations

import _pickle
import _socket
import io
import os
import stat
import sys
from types import BuiltinFunctionType, FunctionType

from . import _values
from ._files import new_file
from ._values import Descriptor
from ._wire import IN_FILE, MAX_DESCRIPTORS, Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeAlias

    from _typeshed import ReadableBuffer

    Reducers: TypeAlias = Mapping[type, Callable[[Any], Any]]

PROTOCOL = 5
LARGE = 64 << 10  # bytes of a buffer that is worth a file of its own
MAX_BUFFERS = 64  # of one message: each of them is a descriptor for a moment
INLINE = 64 << 10  # bytes: more would fill a socket's buffer (208 KiB by default) and wait there for the reader


class Encoded:
    """Pickled values: pieces of bytes, and the descriptors that go with them.

    The descriptors belong to ``holders``, which are kept so that dropping them elsewhere does not close them.
    """

    __slots__ = ("buffers", "by_value", "fds", "holders", "made", "name", "pieces", "size")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.fds: list[int] = []
        self.holders: list[object] = []
        self.made: list[int] = []
        self.buffers: list[memoryview] = []  # large ones, which travel beside the bytes too
        self.size = 0
        self.by_value = False  # with cloudpickle, which the other side needs too
        self.name = b""  # of a function, before the pickle of its arguments; empty for one among the values

    def write(self, data: ReadableBuffer) -> int:
        """Take the next piece from a pickler: large bytes objects come as themselves and are not copied."""
        piece = data if type(data) is bytes else bytes(data)
        self.pieces.append(piece)
        self.size += len(piece)
        return len(piece)

    def take_buffer(self, buffer: _pickle.PickleBuffer) -> bool:
        """Whether a pickler is to put a buffer among the bytes, as its buffer_callback."""
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

    def add_made(self, fd: int) -> int:
        """Note a descriptor that was made for this and is closed with it; return its index."""
        self.made.append(fd)
        self.fds.append(fd)
        return len(self.fds) - 1

    def frame(self, kind: int) -> tuple[Frame, list[int], Sequence[bytes]]:
        """The frame that carries this; the descriptors made for it, which the caller closes once it is sent; and what
        has to be written into the last of them before."""
        if self.size <= INLINE:
            return Frame(kind, len(self.name), b"".join((self.name, *self.pieces)), self.fds), self.made, ()
        file = new_file()
        return Frame(kind | IN_FILE, self.size, self.name, [*self.fds, file]), [*self.made, file], self.pieces


NO_REDUCERS: Reducers = {}

SCALARS = frozenset({int, float, bool, type(None), complex})
_SIZED = frozenset({str, bytes})


def is_plain(value: object) -> bool:
    """Whether it is small, and pickle alone does right with it: no descriptor in it, and nothing that goes by value."""
    kind = type(value)
    return kind in SCALARS or (kind in _SIZED and len(value) <= INLINE)  # type: ignore[arg-type]  # it has a size


def encode(values: Sequence[object], beside: bool = False, reducers: Reducers = NO_REDUCERS) -> Encoded:
    """Pickle values; large buffers travel ``beside`` the bytes, where the other side can take them from there.

    ``reducers`` says of more types how they are reduced, as copyreg does, or with None: as usual. Raises whatever their
    pickling raises, CannotTravelError among others.
    """
    encoded = Encoded()
    try:
        _Pickler(encoded, encoded.take_buffer if beside else None, reducers).dump(values)
    except (_ByValueNeededError, _pickle.PicklingError, TypeError, AttributeError):
        encoded = Encoded()
        encoded.by_value = True
        pickler = _by_value_pickler()
        pickler(encoded, encoded.take_buffer if beside else None, reducers).dump((_SameVersion(), *values))
    return encoded


def pickle_into(encoded: Encoded, value: object) -> None:
    """Pickle plain data of our own."""
    _Pickler(encoded).dump(value)


def importable_name(function: object) -> str | None:
    """``module:qualname`` if another interpreter finds this very function there; None if it must go by value."""
    if not isinstance(function, FunctionType | BuiltinFunctionType | type):
        return None
    module_name = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", "")
    if not module_name or module_name == "__main__":
        return None
    found: Any = sys.modules.get(module_name)
    try:
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError:
        return None
    return f"{module_name}:{path}" if found is function else None


class _SameVersion:
    """Stands before values that only the same version of Python can decode."""

    def __reduce__(self) -> tuple[object, ...]:
        return _values.check_version, (sys.version_info[:2],)


class _ByValueNeededError(Exception):
    """Something among the values has no name by which another interpreter would find it."""


class CannotTravelError(Exception):
    """A value that another process cannot be given."""


class _Pickler(_pickle.Pickler):
    """Pickles by name what has one, takes descriptors out, and gives up at the first value that needs cloudpickle."""

    def __init__(
        self,
        encoded: Encoded,
        buffer_callback: Callable[[Any], bool] | None = None,
        reducers: Reducers = NO_REDUCERS,
    ) -> None:
        super().__init__(encoded, PROTOCOL, buffer_callback=buffer_callback)
        self._encoded = encoded
        self._reducers = reducers

    def reducer_override(self, value: Any) -> Any:
        reduced = _reduce(self._encoded, value, self._reducers)
        if reduced is not None:
            return reduced
        if isinstance(value, FunctionType | type) and importable_name(value) is None:
            raise _ByValueNeededError
        return NotImplemented  # how reducer_override says that the pickler is to go on as usual


def _by_value_pickler() -> type[Any]:
    """The pickler on cloudpickle, made at the first need: importing cloudpickle costs more than all of anyfork."""
    import cloudpickle

    class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        def __init__(self, encoded: Encoded, buffer_callback: Callable[[Any], bool] | None, reducers: Reducers) -> None:
            super().__init__(encoded, PROTOCOL, buffer_callback)
            self._encoded = encoded
            self._reducers = reducers

        def reducer_override(self, value: Any) -> Any:
            reduced = _reduce(self._encoded, value, self._reducers)
            if reduced is None:
                reduced = super().reducer_override(value)
                if isinstance(value, type):
                    _keep_path(value, reduced)
            return reduced

    return ByValuePickler


def _keep_path(cls: type, reduced: Any) -> None:
    """Say where a nested class is found, by which it comes back as itself: cloudpickle keeps only its name."""
    if isinstance(reduced, tuple) and reduced[0].__name__ == "_make_skeleton_class":
        keywords = reduced[1][3]
        keywords.setdefault("__qualname__", cls.__qualname__)


def _reduce(encoded: Encoded, value: Any, reducers: Reducers) -> Any:
    """How to rebuild what neither pickle nor cloudpickle knows how to, or None for any other object."""
    reduced = _reduce_descriptor(encoded, value)
    if reduced is None and type(value) in reducers:
        return reducers[type(value)](value)
    return reduced


# --- Descriptors ------------------------------------------------------------------------------------------------


def _reduce_descriptor(encoded: Encoded, value: Any) -> tuple[object, tuple[object, ...]] | None:
    """How to rebuild an object around a descriptor, or None for any other object."""
    kind = type(value)
    if isinstance(value, _socket.socket):
        return _reduce_socket(encoded, value)
    if isinstance(value, io.IOBase):
        return _reduce_file(encoded, value)
    if kind is Descriptor:
        return _values._descriptor, (encoded.add_descriptor(value, value.fileno()),)
    if kind.__module__ == "multiprocessing.connection" and kind.__name__ == "Connection":
        index = encoded.add_descriptor(value, value.fileno())
        return _values._connection, (index, value.readable, value.writable)
    if kind.__module__ == "tempfile" and isinstance(getattr(value, "file", None), io.IOBase):
        return _reduce_file(encoded, value.file)
    return None


def _reduce_socket(encoded: Encoded, value: Any) -> tuple[object, tuple[object, ...]]:
    socket = sys.modules.get("socket")
    if type(value) is not _socket.socket and (socket is None or type(value) is not socket.socket):
        raise CannotTravelError(f"a {type(value).__qualname__} has state beyond its descriptor")
    if value.fileno() < 0:
        raise CannotTravelError("the socket is closed")
    index = encoded.add_descriptor(value, value.fileno())
    # The number of the family, not the enum: the class of the enum need not be loaded on the other side.
    return _values._socket, (index, int(value.family), int(value.type), value.proto, value.gettimeout())


def _reduce_file(encoded: Encoded, value: Any) -> tuple[object, tuple[object, ...]]:
    if value.closed:
        raise CannotTravelError("the file is closed")
    kind = type(value)
    if kind not in _BINARY and kind is not io.TextIOWrapper:
        raise CannotTravelError(f"a {kind.__qualname__} is no file of the system, or not only that")
    try:
        fd = value.fileno()
    except OSError as error:
        raise CannotTravelError("it has no descriptor") from error
    _synchronise(value, fd)
    index = encoded.add_descriptor(value, fd)
    if kind is io.TextIOWrapper:
        mode = _mode(value.buffer).replace("b", "")
        return _values._text, (
            index,
            mode,
            value.encoding,
            value.errors,
            value.line_buffering,
            value.write_through,
        )
    return _values._binary, (index, _mode(value), 0 if kind is io.FileIO else -1)


_BINARY = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)


def _mode(value: Any) -> str:
    raw = value if isinstance(value, io.FileIO) else value.raw
    mode: str = raw.mode
    return mode.replace("x", "w")  # the file exists by now


def _synchronise(value: Any, fd: int) -> None:
    """Make the position of the descriptor that of the object: write out what it buffers, go back to where it reads."""
    if value.writable():
        value.flush()
    if value.readable() and stat.S_ISREG(os.fstat(fd).st_mode) and type(value) is not io.FileIO:
        try:
            position = value.tell()
        except OSError as error:
            raise CannotTravelError(f"its position is not known: {error}") from error
        if position >= 1 << 64:  # a text file in the middle of a stateful encoding: its position is no number of bytes
            raise CannotTravelError("its decoder has state that another process cannot be given")
        os.lseek(fd, position, os.SEEK_SET)
