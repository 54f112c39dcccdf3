"""What workers run in the tests of calls. Workers import this module by its name."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys

from _anyfork_child.wire.emitter import emit

remembered = []


class OddError(Exception):
    """An exception that wants more than its arguments."""

    def __init__(self, code, *, detail):
        super().__init__(code)
        self.code = code
        self.detail = detail


class PlainError(Exception):
    """One that is rebuilt from its arguments and its attributes."""


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("this does not want to travel")


class Undecodable:
    """Travels, but cannot be decoded anywhere."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise RuntimeError("this does not want to arrive")


def echo(*args):
    return args[0] if len(args) == 1 else args


def pid(*_):
    return os.getpid()


def sent(*args):
    remembered.extend(args)


def recall():
    return remembered


def fail(text="no luck"):
    raise PlainError(text)


def fail_with_notes():
    error = PlainError("noted")
    error.add_note("remember this")
    error.extra = [1, 2]
    raise error


def fail_to_parse():
    try:
        json.loads("{")
    except json.JSONDecodeError as error:  # it has a reduction of its own, without the notes
        error.add_note("remember this")
        raise


class StatementError(Exception):
    """An error whose class has a reduction with state of its own, as those of SQLAlchemy."""

    def __init__(self, statement, *, detail=()):
        super().__init__(statement)
        self.detail = detail

    def __reduce__(self):
        return StatementError, self.args, {"detail": self.detail}


def fail_to_execute():
    error = StatementError("select", detail=["no table"])
    error.add_note("remember this")
    raise error


def fail_in_a_group():
    raise ExceptionGroup("several", [ValueError("one"), ExceptionGroup("inner", [PlainError("two")])])


def odd_error():
    return OddError(7, detail="odd")


def fail_oddly():
    raise odd_error()


class SlotError(Exception):
    __slots__ = ("slot",)

    def __init__(self, *, slot):
        self.slot = slot


class PathError(FileNotFoundError):
    def __init__(self, path):
        super().__init__(errno.ENOENT, "no such file", path)


class ModuleError(ImportError):
    def __init__(self, module):
        super().__init__(f"no {module}", name=module)


class LockedError(Exception):
    def __init__(self, code):
        import threading

        super().__init__(f"code {code}")
        self.code, self.lock = code, threading.Lock()


class SeveralErrors(ExceptionGroup):  # a group
    def __new__(cls, errors):
        return super().__new__(cls, "several", errors)

    def __init__(self, errors):
        self.count = len(errors)


def record_error():
    from record_errors import RecordError

    return RecordError()


ERRORS = {
    "a dataclass": record_error,
    "slots": lambda: SlotError(slot=1),
    "an OSError": lambda: PathError("/nowhere"),
    "an ImportError": lambda: ModuleError("nothing"),
    "with a lock": lambda: LockedError(7),
    "a group": lambda: SeveralErrors([PathError("/nowhere"), ValueError("one")]),
}


def fail_with(kind):
    raise ERRORS[kind]()


def fail_unpicklably():
    raise PlainError(Unpicklable())


def fail_with_a_cause():
    try:
        {}["absent"]
    except KeyError as error:
        raise PlainError("outer") from error


class SilentError(RuntimeError):
    def __str__(self):
        raise ValueError("no words")


def fail_with_a_bad_str():
    raise SilentError


def unpicklable(_=None):
    return Unpicklable()


def undecodable():
    return Undecodable()


def leave(code):
    sys.exit(code)


def vanish(code):
    os._exit(code)


def last_words(words):
    emit(words)
    os._exit(3)


def crash():
    print("about to crash", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def say(count):
    for number in range(count):
        emit(number)
    return "said"


def say_from_a_thread(count):
    import threading

    thread = threading.Thread(target=say, args=(count,))
    thread.start()
    thread.join()


def wait_for(file):
    """Return what can be read from a pipe."""
    return os.read(file.fileno(), 100)


def mark_and_wait(marker, file):
    """Leave a mark, and wait until something comes."""
    open(marker, "w").close()
    return os.read(file.fileno(), 100)


def mark(path):
    open(path, "w").close()


def count(limit):
    yield from range(limit)


def count_and_mark(limit, path):
    try:
        yield from range(limit)
    finally:
        mark(path)


def count_and_tell(limit, file):
    """Say on a pipe which item is made."""
    for number in range(limit):
        os.write(file.fileno(), b".")
        yield number


def count_and_fail(limit):
    yield from range(limit)
    raise PlainError("enough")


def yield_unpicklable():
    yield 1
    yield Unpicklable()


async def echo_later(value):
    import anyio

    await anyio.lowlevel.checkpoint()
    return value


async def echo_when_told(value, file):
    import anyio

    await anyio.wait_readable(file.fileno())
    return value


async def count_later(limit):
    for number in range(limit):
        yield number


async def sleep_and_mark(started, cancelled):
    import anyio

    mark(started)
    try:
        await anyio.sleep(1000)
    except BaseException:
        mark(cancelled)
        raise


async def say_when_told(name, file):
    import anyio

    for number in range(3):
        await anyio.wait_readable(file.fileno())
        os.read(file.fileno(), 1)
        emit((name, number))


async def leave_later(code):
    sys.exit(code)


def library():
    return sys.modules["sniffio"].current_async_library() if "sniffio" in sys.modules else "unknown"


async def loop_kind():
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_run():
            return "trio"
    return "asyncio"


def pair():
    """Return two connected sockets, one of them used here."""
    here, there = socket.socketpair()
    here.sendall(b"from the worker")
    here.close()
    return {"there": there}


def read_from(sock):
    with sock:
        return sock.recv(100)


def log(text):
    import logging

    logging.getLogger("worker").warning(text)


def fill(size):
    return b"x" * size


def fork_and_hold_the_channel():
    """Leave a process behind that has everything of this one open, and tell who it is."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


def double(array):
    array *= 2  # in place: it must be writable, and nobody else may see it
    return array


def memory_maps():
    with open("/proc/self/maps") as maps:
        return sum("memfd:anyfork" in line for line in maps)


held = []


def hold(value):
    held.append(value)
    return memory_maps()


def let_go():
    held.clear()
    return memory_maps()


def interrupted():
    """Be interrupted as by Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()


def interrupted_at_once():
    """Be interrupted as by Ctrl-C; return who was."""
    signal.raise_signal(signal.SIGINT)
    return os.getpid()


def forward_logs():
    import logging
    import logging.handlers

    class Forward(logging.handlers.QueueHandler):
        def enqueue(self, record):
            emit(record)

    logging.getLogger().addHandler(Forward(None))


def flood(count, size):
    for _ in range(count):
        emit(bytes(size))


def flood_back(data):
    return data


def pieces(count, size):
    for _ in range(count):
        yield bytes(size)


def write_to(file):
    os.write(file.fileno(), b"x")
    return b"x"


async def say_later(count):
    import anyio

    for number in range(count):
        emit(number)
        await anyio.lowlevel.checkpoint()


def undecodable_with_a_socket():
    here, there = socket.socketpair()
    there.close()
    return [here, Undecodable(), here]


def raise_stop_iteration(_):
    raise StopIteration


def raise_stop_async_iteration(_):
    raise StopAsyncIteration


def count_descriptors():
    return len(os.listdir("/proc/self/fd"))
