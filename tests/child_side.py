"""What the processes of the contract and unit tests run, and values that misbehave when they are decoded there.

Processes import this module by its name, so it needs the standard library only, and little of that.
"""

from __future__ import annotations

import _pickle as pickle  # its C half, which templates have loaded
import os
import signal
import sys
import time

MODULES = {
    "os",
    "sys",
    "socket",
    "signal",
    "resource",
    "threading",
    "time",
    "json",
    "gc",
    "multiprocessing",
    "tempfile",
}

count = 0  # what steps of a template have changed, for those that are forked from it


def answer(channel, *values):
    """Evaluate the last value, an expression in which ``v`` are those before it, and send back the result."""
    *values, expression = values
    code = compile(expression, "<asked>", "eval")
    names = {name: __import__(name) for name in MODULES if name in expression}
    channel.sendall(pickle.dumps(eval(code, {"v": values, "channel": channel, **names})))


def enter(channel, *_):
    """Do nothing."""


def echo(channel, *_):
    """Send back what comes until the channel ends."""
    while data := channel.recv(1 << 16):
        channel.sendall(data)


def until_closed(channel, *_):
    """Stay until the channel ends."""
    while channel.recv(1 << 16):
        pass


def say_and_stay(channel, *_):
    """Say that it runs, and stay until the channel ends."""
    channel.sendall(b".")
    until_closed(channel)


def write_to(channel, file, text):
    """Write a text into a binary file, as a trace that this function was entered."""
    file.write(text)
    file.close()


def leave(channel, code):
    """End by SystemExit, as user code does it."""
    raise SystemExit(code)


def leave_without(channel):
    """End by a SystemExit without code."""
    raise SystemExit


def fail(channel, text):
    """End by an exception, two frames deep."""
    _fail_inside(text)


def _fail_inside(text):
    raise ValueError(text)


def die_of(channel, number):
    """End by a signal."""
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    os.kill(os.getpid(), number)


def exit_at_once(channel, code):
    """End without any of the ends of an interpreter."""
    os._exit(code)


def burn(channel, seconds):
    """Use CPU time, in user mode."""
    import time

    while time.process_time() < seconds:
        sum(range(10_000))


def fill_memory(channel, size):
    """Touch that many bytes of memory, and give them back."""
    bytearray(b"x" * size)


def on_signal(channel, number, code):
    """End with a code when a signal comes."""
    signal.signal(number, lambda *_: os._exit(code))
    channel.sendall(b".")
    while True:
        time.sleep(0.1)  # pause() would miss a signal that comes just before it


def add_one():
    """Add one, as a step of a template."""
    global count
    count += 1


def add(number):
    """Add a number, as a step of a template with an argument."""
    global count
    count += number


class UnreadableError(Exception):
    """Cannot be asked for what belongs to a traceback."""

    @property
    def __cause__(self):
        raise RuntimeError("not for you")


def fail_unreadably(channel):
    raise UnreadableError("still said")


def fail_with_a_failing_hook(channel):
    import sys

    def hook(*_):
        raise RuntimeError("the hook")

    sys.excepthook = hook
    raise ValueError("the error itself")


def fail_step(text="no model there"):
    """Fail, as a step of a template."""
    raise RuntimeError(text)


def leave_step(code):
    """End the template in a step, as user code may do it."""
    sys.exit(code)


def die_step(number):
    """Kill the template in a step."""
    os.kill(os.getpid(), number)


def start_thread():
    """Leave a thread running, as a step of a template."""
    import threading

    threading.Thread(target=threading.Event().wait, name="left-over", daemon=True).start()


def wait_for_end(fd):
    """Wait, as a step of a template, until the last copy of the other end of a pipe is closed."""
    os.read(fd.fileno(), 1)


not_a_function = 17


class Holder:
    """A class with functions that have qualified names."""

    @staticmethod
    def static(channel, *values):
        channel.sendall(pickle.dumps(values))

    @classmethod
    def of_class(cls, channel, *values):
        channel.sendall(pickle.dumps((cls.__name__, *values)))

    def method(self, channel, *values):
        channel.sendall(pickle.dumps(("self", *values)))

    def __call__(self, channel, *values):
        channel.sendall(pickle.dumps(("called", *values)))


class Decoding:
    """A value that calls a function when it is decoded."""

    def __init__(self, function, *args):
        self.function = function
        self.args = args

    def __reduce__(self):
        return (self.function, self.args)


def raise_when_decoded(text):
    """Raise an exception when a Decoding is decoded."""
    raise LookupError(text)


def exit_when_decoded(code):
    """Exit when a Decoding is decoded: the process is gone before it has entered its function."""
    os._exit(code)


def leave_when_decoded(code):
    """Leave the process at once when a Decoding is decoded."""
    sys.exit(code)


def die_when_decoded(number):
    """Die of a signal when a Decoding is decoded."""
    os.kill(os.getpid(), number)


class NamedPipe:
    """A pipe that each process opens by its path: it reaches the processes of a RemoteTemplate on this machine, too."""

    def __init__(self, path):
        self.path = path
        self._file = None

    def __reduce__(self):
        return NamedPipe, (self.path,)

    def fileno(self):
        if self._file is None:
            self._file = open(self.path, "r+b", 0)
        return self._file.fileno()

    def close(self):
        if self._file is not None:
            self._file.close()


def stay_when_decoded(fd):
    """Wait, when a Decoding is decoded, until something comes, or the other end of a pipe is closed."""
    os.read(fd.fileno(), 1)


def with_exit_handlers(channel, file):
    """Leave traces at the end: of an exit handler, of a thread that is joined, and of unflushed output."""
    import atexit
    import threading

    go = threading.Event()

    def late():
        go.wait()
        os.write(file.fileno(), b"thread ")

    atexit.register(lambda: os.write(file.fileno(), b"atexit "))
    threading.Thread(target=late).start()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    go.set()


def print_unflushed(channel, out, err):
    """Print without a flush."""
    sys.stdout.write(out)
    sys.stderr.write(err)


def take_template(channel, sock, *args):
    """Take a detached template over and let it run a function that answers on a channel of its own."""
    import anyfork

    template = anyfork.Template.from_socket(sock)
    process = template.run(answer, *args)
    with process:
        while data := process.channel.recv(1 << 16):
            channel.sendall(data)


def stay_beyond(channel, go, said, name):
    """Stay until the owner has ended and somebody says go; then say a name."""
    os.closerange(0, 3)  # the owner's owner waits for their end
    until_closed(channel)
    os.read(go.fileno(), 1)
    os.write(said.fileno(), name.encode())


def tell_peak(channel, value):
    """Say how long a value is, what it contains, and how much memory this process has had at most, in KiB."""
    import zlib

    with open("/proc/self/status") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    channel.sendall(f"{len(value)} {zlib.crc32(value)} {peak}".encode())


def count_into(channel, *values):
    """Write into a file how many values there were; its name is the last of them."""
    with open(values[-1], "w") as file:
        file.write(str(len(values)))


def tell_modules(channel, *names):
    """Say which of the modules of these names are loaded."""
    channel.sendall(" ".join(name for name in names if name in sys.modules).encode())


async def tell_modules_async(channel, *names):
    """Do as ``tell_modules``, in an async function."""
    await channel.send(" ".join(name for name in names if name in sys.modules).encode())


def count_arguments(channel, *values):
    """Say how many there were."""
    channel.sendall(b"%d" % len(values))


def stay_whatever_comes(channel, *_):
    """Stay, whether the channel ends or SIGTERM comes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        signal.pause()
