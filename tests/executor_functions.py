"""What workers run in the tests of Executor. Workers import this module by its name."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import time
from _pickle import PickleBuffer

from _anyfork_child.wire.emitter import retire


class Odd:
    """An object of a class of ours: it has to be pickled as such."""

    def __init__(self, value):
        self.value = value

    def doubled(self):
        return 2 * self.value

    def __eq__(self, other):
        return type(other) is Odd and other.value == self.value

    __hash__ = None


class Block:
    """An object that is pickled with a large buffer."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Block, (PickleBuffer(self.data),)

    def __len__(self):
        return len(self.data)


class ExitsWhenDecoded:
    def __reduce__(self):
        return sys.exit, (3,)


def odd(value):
    return Odd(value)


def exits_when_decoded():
    return ExitsWhenDecoded()


def end_when_told(reading):
    """Let this process end only after it has read a byte."""
    atexit.register(reading.read, 1)


def capture(*args, **kwargs):
    return args, kwargs


def write_and_read(writing, reading):
    """Say that this runs, and wait for the other one."""
    os.write(writing.fileno(), b"x")
    return os.read(reading.fileno(), 1)


def read_or_return(item):
    """Return a number at once, and what can be read from a pipe."""
    return item if isinstance(item, int) else os.read(item.fileno(), 100)


def say_pid_and_wait(writing, reading):
    """Say on a pipe who runs this, and wait until something comes, or the end."""
    os.write(writing.fileno(), b"%d\n" % os.getpid())
    os.read(reading.fileno(), 1)
    return os.getpid()


async def tell_and_wait_later(writing, *, gate):
    """Do the same for one of several jobs that run at once."""
    import anyio

    os.write(writing.fileno(), b"%d\n" % os.getpid())
    await anyio.wait_readable(gate.fileno())
    os.read(gate.fileno(), 1)
    return os.getpid()


async def double_later(number):
    return 2 * number


def append(path, text):
    """Add a line to a file, in one piece."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)
    return text


def append_and_die_at_first(path, text):
    """Die in the first run."""
    append(path, text)
    with open(path) as file:
        if len(file.readlines()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)


def die_if(value, bad):
    if value == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def retire_and_tell():
    retire()
    return os.getpid()


def thread_count():
    import threading

    return threading.active_count()


def fill(size):
    """Fill memory, so that the worker stays large."""
    globals()["filled"] = bytearray(os.urandom(1)) * size
    return os.getpid()


def environment(name):
    return os.environ.get(name)


initialized = []


def initialize(*args):
    initialized.extend(args)


def what_was_initialized():
    return initialized


def fail_to_initialize():
    raise ValueError("error in initializer")


def put(where, key):
    where[key] = key


def append_slowly(path, text):
    """Append a text as ``append`` does, in a millisecond."""
    time.sleep(0.001)
    return append(path, text)


def warn(name):
    """Log a warning."""
    logging.getLogger(name).warning("a warning")
