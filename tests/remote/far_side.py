"""What processes on the other side run. It needs the standard library only."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time


def identify(channel, *values):
    """Say who and where this is, and what was sent."""
    with channel:
        channel.sendall(pickle.dumps((sys.version_info[:2], os.getpid(), os.getppid(), values)))


def say_pid_and_stay(channel):
    """Say who this is, and stay until the channel ends."""
    channel.sendall(b"%d\n" % os.getpid())
    while channel.recv(1 << 16):
        pass


def stay_whatever_comes(channel):
    """Do the same, and stay longer, whatever signal comes, as far as a process can."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    channel.sendall(b"%d\n" % os.getpid())
    while True:
        time.sleep(100)


def echo(channel, *_):
    """Send back what comes until the channel ends."""
    while data := channel.recv(1 << 16):
        channel.sendall(data)


def flood(channel):
    """Send without end."""
    while True:
        channel.sendall(bytes(1 << 16))


def say(channel, size):
    """Send so many bytes."""
    channel.sendall(bytes(size))


def sink(channel):
    """Say that it is there, and read nothing until it gets SIGUSR1; then say how much has come."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
    channel.sendall(b".")
    signal.sigwait((signal.SIGUSR1,))
    size = 0
    while data := channel.recv(1 << 16):
        size += len(data)
    channel.sendall(b"%d" % size)


def write_lines(channel, *lines):
    """Write to standard output and standard error, in pieces."""
    with channel:
        for line in lines:
            half = len(line) // 2
            os.write(1, line[:half].encode())
            os.write(2, line[half:].encode() + b"\n")
        print("by print")
        sys.stdout.flush()
        channel.sendall(b".")


def leave(channel, code):
    """End with this code."""
    raise SystemExit(code)


def double(value):
    """Double a value, for calls."""
    return value * 2


def fail(text):
    """Raise an error, for calls."""
    raise LookupError(text)


class Trap:
    """Its unpickling leaves a trace in whoever does that."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TrapError(Exception):
    """The same as an exception."""

    def __init__(self, path):
        super().__init__("a trap")
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def return_trap(path):
    """Return, from a call, what runs code when it is unpickled."""
    return Trap(path)


def raise_trap(path):
    """Raise, from a call, what runs code when it is unpickled."""
    raise TrapError(path)


def where_after(seconds):
    """Return after a moment whether this is the other side, and which process."""
    import _anyfork_child

    time.sleep(seconds)
    return bool(_anyfork_child.HOST), os.getpid()
