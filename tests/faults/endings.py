"""What the tests of ends run in other processes: functions that raise after they have done something to this process.

Imported in templates and in processes, so it needs the standard library only and little of that.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

FIRST = 3  # the lowest descriptor that is not a standard stream


def raise_error(channel, *_):
    """Raise."""
    raise ValueError("mine")


def exit_with_text(channel, *_):
    """Raise SystemExit with a text."""
    sys.exit("mine")


def close_all(channel, then):
    """Close all descriptors but the standard streams."""
    os.closerange(FIRST, 256)
    then(channel)


def close_everything(channel, then):
    """Close all descriptors."""
    os.closerange(0, 256)
    then(channel)


def fill_numbers(channel, then, seen):
    """Have sockets and pipes of its own under all numbers, and tell at the exit what was written there."""
    import socket

    number = os.dup2(seen.fileno(), 200)
    os.closerange(FIRST, 200)
    pairs = [socket.socketpair(type=kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) for _ in range(5)]
    pipes = [os.pipe() for _ in range(5)]
    for end in (end for pair in pairs for end in pair):
        end.setblocking(False)
    for read, _ in pipes:
        os.set_blocking(read, False)

    def look():
        found = b""
        for read in (*(end.fileno() for pair in pairs for end in pair), *(read for read, _ in pipes)):
            try:
                found += os.read(read, 9999)
            except (BlockingIOError, OSError):
                continue
        os.write(number, repr(found).encode())

    atexit.register(look)
    then(channel)


def fill_own(channel, then):
    """Write what is no report to all that it has, until nothing takes more, and let it wait there again."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number < FIRST or number == channel.fileno():
            continue
        try:
            os.set_blocking(number, False)
            for _ in range(100):
                os.write(number, b"\0junk" * 1000)
        except OSError:
            pass
        try:
            os.set_blocking(number, True)
        except OSError:
            continue
    then(channel)


def write_junk(channel, junk, code):
    """Write something to all that it has, and end."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number >= FIRST and number != channel.fileno():
            try:
                os.write(number, junk)
            except OSError:
                continue
    sys.exit(code)


def raise_after_deadly_pipes(channel):
    """Raise in a process that dies of a pipe which nobody reads, as programs do."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    raise ValueError("mine")


def wait_first(channel, then):
    """Say that it runs, and go on when told."""
    channel.sendall(b".")
    channel.recv(1)
    then(channel)


def pretend(channel, pid):
    """Raise as another process."""
    os.getpid = lambda: pid
    raise ValueError("of another process")


def linger(channel, size):
    """Raise, and have a thread that goes on until it is told."""
    import threading

    threading.Thread(target=lambda: (channel.sendall(b"."), channel.recv(1))).start()
    raise ValueError("a" * size)


def kill_itself(channel):
    """End by a signal."""
    os.kill(os.getpid(), signal.SIGKILL)


def fork_and_raise(channel):
    """Raise in a copy, and then end in order."""
    copy = os.fork()
    if copy == 0:
        raise ValueError("of the copy")
    code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    channel.sendall(b"%d" % code)
    sys.exit(5)
