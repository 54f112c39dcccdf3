"""Decoding of functions and arguments: from bytes and descriptors back to objects.

Runs in the process that uses them, never in a template that only hands them on. Modules that a kind of value needs are
imported when such a value arrives, so that a bare template stays small.
"""

from __future__ import annotations

import os
import sys
from _pickle import Unpickler, loads
from io import BufferedReader, BytesIO, RawIOBase
from os import close, preadv
from sys import modules

from ..wire.frames import IN_FILE, LOST_DESCRIPTOR, Frame
from ..wire.own_imports import import_own, warm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any, Protocol, TypeVar

    from _typeshed import WriteableBuffer

    class Finder(Protocol):
        """The template that a call takes over."""

        def find_function(self, name: str, values: Sequence[object]) -> Callable[..., object]:
            """Find the function of the call, which may have to be imported."""

    Name = TypeVar("Name")


class DescriptorsLostError(OSError):
    """Raised when descriptors did not fit into this process: its limit of open files (RLIMIT_NOFILE) is reached."""

    def __init__(self) -> None:
        super().__init__(24, "too many open files to receive the descriptors that were sent")


class FunctionNotFoundError(LookupError):
    """Raised when a name does not lead to a function."""


class OtherPythonError(Exception):
    """Raised when a function or class came by value from another version of Python."""

    def __init__(self, version: tuple[int, int]) -> None:
        theirs, ours = (".".join(map(str, pair)) for pair in (version, sys.version_info[:2]))
        super().__init__(
            f"a function or class of Python {theirs} came by value, which is of no use to Python {ours}: "
            "put it into a module that both can import"
        )


CHECKED = object()


class Descriptor:
    """A raw file descriptor that travels as such: ``Descriptor(fd)`` among the arguments arrives as a Descriptor.

    The number differs on the other side. Only ``close`` closes the descriptor; ``detach`` gives the number away.

    For example::

        import os
        import anyfork

        reading, writing = os.pipe()
        anyfork.call(lambda end: os.write(end.fileno(), b"hello"), anyfork.Descriptor(writing))
        assert os.read(reading, 100) == b"hello"
    """

    __slots__ = ("_fd",)
    __module__ = "anyfork" if "anyfork" in sys.modules else __name__

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return the number in this process. Raises ValueError after close or detach.

        For example::

            import os
            import anyfork

            reading, writing = os.pipe()
            end = anyfork.Descriptor(reading)
            assert end.fileno() == reading
        """
        if self._fd < 0:
            raise ValueError("this descriptor was closed or detached")
        return self._fd

    def detach(self) -> int:
        """Return the number and forget it: the caller must close the descriptor.

        For example::

            import os
            import anyfork

            reading, writing = os.pipe()
            end = anyfork.Descriptor(reading)
            os.close(end.detach())
        """
        fd, self._fd = self.fileno(), -1
        return fd

    def close(self) -> None:
        """Close the descriptor. Closing twice is harmless.

        For example::

            import os
            import anyfork

            reading, writing = os.pipe()
            end = anyfork.Descriptor(reading)
            end.close()
        """
        if self._fd >= 0:
            close(self.detach())

    def __repr__(self) -> str:
        return f"<Descriptor {self._fd}>" if self._fd >= 0 else "<Descriptor closed>"


class Payload:
    """Pickled values with their descriptors, as they came in a frame; ``load`` decodes them."""

    __slots__ = ("_fds", "_file", "_pickle", "lost", "name")

    def __init__(self, frame: Frame) -> None:
        self.lost = LOST_DESCRIPTOR in frame.fds  # whether some of its descriptors could not be received
        if frame.kind & IN_FILE:
            self.name = frame.body  # the function's name, before the pickle of its arguments; empty for one by value
            self._file = frame.fds[-1]
            self._fds = frame.fds[:-1]
            self._pickle = b""
        else:
            self.name = frame.body[: frame.value]
            self._file = -1
            self._fds = frame.fds
            self._pickle = frame.body[frame.value :]

    def close(self) -> None:
        """Close the descriptors; called instead of ``load``."""
        for fd in (*self._fds, self._file):
            if fd >= 0:
                close(fd)

    def load(self) -> Any:
        """Decode the values. Call it only once, because each descriptor can be used only once.

        Raises any exception that the decoding of the values raises.
        """
        if self._file < 0 and not self._fds:
            return _plain(loads(self._pickle)) if self._pickle else ()
        return load_values(self._pickle, self._file, self._fds, ())

    def load_call(self, find: Callable[..., object] | None = None) -> list[Any]:
        """Decode the values; return a function and its arguments. Raises as ``load``, and FunctionNotFoundError.

        ``find`` replaces ``find_function``.
        """
        values = self.load()
        return [(find or find_function)(str(self.name, "utf-8"), values), *values] if self.name else [*values]


def load_call(body: bytes, length: int, finder: Finder) -> list[Any]:
    """Decode a call as Payload.load_call does, for one without descriptors whose function's name has this length.

    Most starts run this function, so it does as little as possible.
    """
    values = _plain(loads(body[length:])) if len(body) > length else ()
    if not length:
        return [*values]
    name = body[:length].decode()
    module, _, path = name.partition(":")
    try:
        function = getattr(modules[module], path)
    except (KeyError, AttributeError):
        function = finder.find_function(name, values)
    return [function, *values]


def check_version(version: tuple[int, int], *places: str) -> object:
    """Check that values by value come from this version of Python, and add places to the path; return CHECKED.

    The unpickler calls this before it decodes such values: code of one version does not run in another, and the values
    may import from these places. Raises OtherPythonError.
    """
    if version != sys.version_info[:2]:
        raise OtherPythonError(version)
    warm("cloudpickle.cloudpickle")  # the rest of these values needs it
    add_places(*places)
    return CHECKED


def _plain(values: Any) -> Any:
    return values[1:-1] if isinstance(values, tuple) and values and values[0] is CHECKED else values


class _FileBody(RawIOBase):
    """A file read by position, because clones of a template share its offset, which must not move."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = preadv(self._fd, [buffer], self._position)
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            close(self._fd)
        super().close()


def keep_shared_data() -> None:
    """Let the data that functions by value share stay in this process, as in a module; see function_globals."""
    shared = sys.modules.get("_anyfork_child.values.function_globals")
    if shared is not None:
        shared.keep_data()


def load_values(body: bytes, file: int, fds: Sequence[int], buffers: Sequence[object]) -> Any:
    """Decode values from bytes, or from a file, which is closed, with their descriptors and large buffers.

    Closes all descriptors if the decoding fails. Raises any exception that the decoding raises.
    """
    with BytesIO(body) if file < 0 else BufferedReader(_FileBody(file)) as stream:
        unpickler = _Unpickler(stream, fds, buffers)
        try:
            values = unpickler.load()
        except BaseException:
            unpickler.close()
            raise
        unpickler.taken.clear()
        return _plain(values)


class _Unpickler(Unpickler):
    """An unpickler that passes the descriptors beside the bytes to the rebuilding functions of this module."""

    def __init__(self, file: BytesIO | BufferedReader[Any], fds: Sequence[int], buffers: Sequence[object] = ()) -> None:
        super().__init__(file, buffers=buffers)
        self._fds = fds
        self.taken: dict[int, Any] = {}  # by index: the object that was made of a descriptor

    def find_class(self, module: str, name: str) -> Any:
        if module != __name__ or name not in REBUILD:
            return super().find_class(module, name)
        rebuild, fds, taken = REBUILD[name], self._fds, self.taken

        def make(index: int, *details: Any) -> object:  # without self, whose memo holds this: a cycle keeps files open
            made = taken[index] = rebuild(fds[index], *details)
            return made

        return make

    def close(self) -> None:
        """Close all descriptors after a failure, by the objects that were made of them or by number."""
        for index, fd in enumerate(self._fds):
            if index in self.taken:
                self.taken[index].close()
            elif fd >= 0:
                close(fd)


def add_places(*places: str) -> None:
    """Put places on the path in this order, before all other entries; leave a path that has them in this order."""
    if [entry for entry in sys.path if entry in places] != [*places]:
        sys.path[:] = [*places, *(entry for entry in sys.path if entry not in places)]


def change_places(gone: Collection[str], places: Sequence[str]) -> None:
    """Remove places from the path that the program has removed, and add others."""
    if gone:
        sys.path[:] = [entry for entry in sys.path if entry not in gone]
    add_places(*places)


def find_placed(place: str, name: str) -> object:
    """Return the function or class of this name, or the module if no name follows the colon.

    The function adds the place to the path first: the program has added it after it had started the template.
    """
    add_places(place)
    module, _, path = name.partition(":")
    return find_function(name) if path else __import__(module, None, None, ("__name__",))


def named(function: Callable[..., Any] | str) -> Callable[..., Any]:
    """Return a function itself, or find it by name. Raises FunctionNotFoundError."""
    return find_function(function) if isinstance(function, str) else function


def find_function(name: str, args: Sequence[object] = ()) -> Callable[..., object]:
    """Return the function called ``package.module:qualified.name``; without a module, one of the template's __main__.

    ``args`` are the arguments of the call, for the text of the error. Raises FunctionNotFoundError, with the error of
    the import or lookup as its cause.
    """
    module_name, colon, path = name.rpartition(":")
    if not colon:
        module_name = "__main__"
    try:
        # Import a loaded module, too: another thread may be in the middle of importing it, and this waits for it.
        found: Any = __import__(module_name, None, None, ("__name__",))
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # an import may raise anything: it is reported
        why = f": {type(error).__name__}: {error}" if colon else f" in __main__; {_remedy(name, args)}"
        raise FunctionNotFoundError(f"there is no function {name!r}{why}") from error
    if not callable(found):
        raise FunctionNotFoundError(f"{name!r} is not callable but {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # getattr knows no types


def _remedy(name: str, args: Sequence[object]) -> str:
    """Say what to write instead of a name without a module that __main__ does not have."""
    if args and callable(args[0]):
        return f"the argument behind it is a function: the function comes first, as in run(function, {name!r})"
    module, _, path = name.rpartition(".")
    if module:
        return f"a function of a module is written '{module}:{path}'"
    return f"define it there with execute(), or name its module: 'module:{name}'"


def _socket(fd: int, family: int, kind: int, proto: int, timeout: float | None) -> object:
    sock = import_own("socket").socket(family, kind, proto, fd)
    if timeout is not None:
        sock.settimeout(timeout)
    return sock


def _binary(fd: int, mode: str, buffering: int, closefd: bool = True) -> object:
    return open(fd, mode, buffering, closefd=closefd)


def _text(fd: int, mode: str, encoding: str, errors: str, line_buffering: bool, write_through: bool) -> object:
    file = open(fd, mode, encoding=encoding, errors=errors)
    file.reconfigure(line_buffering=line_buffering, write_through=write_through)  # type: ignore[attr-defined]
    return file


def _connection(fd: int, readable: bool, writable: bool) -> object:
    from multiprocessing.connection import Connection

    return Connection(fd, readable, writable)


def cached(function: Callable[..., object], maxsize: int | None, typed: bool) -> object:
    """Return a function with a cache of its own, which is empty at first (``functools.lru_cache``)."""
    from functools import lru_cache

    return lru_cache(maxsize, typed)(function)


def _descriptor(fd: int) -> Descriptor:
    return Descriptor(fd)


REBUILD: dict[str, Callable[..., object]] = {
    "_socket": _socket,
    "_binary": _binary,
    "_text": _text,
    "_connection": _connection,
    "_descriptor": _descriptor,
}


class FileName(str):
    """A name that is pickled as its bytes, so that it names the same file on the other side.

    The other side may use another encoding for names, because another version of Python does so by default: from 3.15
    on, that is UTF-8 whatever the locale says.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        return name_of_bytes, (os.fsencode(self),)


def name_of_bytes(data: bytes) -> str:
    """Return the name, as this process has it, of the file with these bytes as its name."""
    return os.fsdecode(data)


def file_name(name: Name) -> Name:
    """Return the name in a form that travels as its bytes, if it is text and that makes a difference."""
    if not isinstance(name, str) or name.isascii():
        return name
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # no file that this process can see has that name
        return name
    return FileName(name)  # type: ignore[return-value]  # it is a str
