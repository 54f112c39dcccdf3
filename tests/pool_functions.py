"""What workers of pools run in the tests. Workers import this module by its name."""

from __future__ import annotations

import os
import signal
import sys
import threading

from _anyfork_child.wire.emitter import emit, retire

held = []


def tell_and_wait(gate):
    """Say who works, and wait until something comes; return who worked."""
    emit(os.getpid())
    os.read(gate.fileno(), 1)
    return os.getpid()


async def tell_and_wait_later(gate):
    import anyio

    emit(os.getpid())
    await anyio.wait_readable(gate.fileno())
    os.read(gate.fileno(), 1)
    return os.getpid()


async def pid_later():
    return os.getpid()


def pid(*_):
    return os.getpid()


def parent():
    return os.getppid()


def wait(gate):
    """Wait until something comes."""
    os.read(gate.fileno(), 1)


def note(path, text, result=None):
    """Add a line to a file: what has run, and how often."""
    with open(path, "a") as file:
        file.write(f"{text}\n")
    return result


def note_and_wait(path, text, gate):
    note(path, text)
    os.read(gate.fileno(), 1)
    return text


def note_item(path_and_number):
    path, number = path_and_number.rsplit(":", 1)
    return note(path, number, int(number))


def retire_times(count):
    for _ in range(count):
        retire()
    return os.getpid()


async def retire_later(count):
    return retire_times(count)


def initialize_and_retire():
    retire()


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_first(path, times):
    """Kill the worker so many times, counted in a file; then return how often it has run."""
    note(path, "run")
    with open(path) as file:
        runs = len(file.readlines())
    if runs <= times:
        die()
    return runs


def die_at(number, bad):
    if number == bad:
        die()
    return number


def die_at_13(number):
    return die_at(number, 13)


def fail_at_5(number):
    if number == 5:
        raise ValueError("five")
    return number


def grow(megabytes):
    """Keep so much memory; return who has it."""
    held.append(os.urandom(1 << 20) * megabytes)
    return os.getpid()


def no_luck():
    raise RuntimeError("no luck today")


def leave_at_once():
    os._exit(7)


def first_process_only(path):
    """Work, as an initializer, from the third process on."""
    note(path, "start")
    with open(path) as file:
        if len(file.readlines()) < 3:
            raise RuntimeError("not yet")


def say_all(count):
    for value in range(count):
        emit(value)


async def say_before_and_after():
    """Say something, and something more when this is cancelled."""
    import anyio

    emit("before")
    try:
        await anyio.sleep_forever()
    finally:
        emit("after")


def say(value):
    emit(value)
    return value


def sent(value):
    return getattr(sys.modules[__name__], "given", None), value


def give(value):
    sys.modules[__name__].given = value  # type: ignore[attr-defined]  # made here


def raise_stop_async_iteration(_):
    raise StopAsyncIteration


def forget_the_end(gate):
    """Ignore that nobody wants it any more."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.read(gate.fileno(), 1)


def say_nothing(value):
    return value


def keep_gate(gate):
    held.append(gate)


def wait_at_gate():
    """Wait at the gate that was kept."""
    os.read(held[-1].fileno(), 1)


def leave_a_thread():
    """Start a thread that never ends, so that the worker does not end by itself. Return its pid."""
    threading.Thread(target=threading.Event().wait).start()
    return os.getpid()
