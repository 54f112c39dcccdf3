"""What the fault tests run in other processes: functions that stay, end or misbehave, and values that do when decoded.

Imported in templates and in processes, so it needs the standard library only and little of that.
"""
# every function that a process runs gets its channel, and some have no use for it

from __future__ import annotations

import atexit
import builtins
import importlib
import os
import signal
import sys
import time

STUCK = "import os, signal\nos.write(args[0].fileno(), b'.')\nwhile True: signal.pause()"  # code for execute
LATE = """
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.write(args[1].fileno(), b".")
os.read(args[0].fileno(), 1)
time.sleep(0.3)  # longer than the grace that all processes have
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
while True: signal.pause()
"""  # gets its signals only some time after its owner's end
DEAF = "import os\nos.write(args[0].fileno(), b'.')\nsum(range(10**18))"  # never looks whether a signal has come


class Kept:
    """An object for a finalizer."""


KEPT = Kept()


def echo(channel, *_):
    """Send back what comes until the channel ends."""
    while data := channel.recv(65536):
        channel.sendall(data)


def forever(channel, *_):
    """Run for ever; the end of the channel does not end this either."""
    channel.sendall(b".")
    while True:
        time.sleep(0.1)  # pause() would miss a signal that comes just before it


def silent(channel, *_):
    """Run as ``forever``, without a word."""
    while True:
        signal.pause()


def stubborn(channel, *_):
    """Run as ``forever``, and ignore all signals that can be ignored."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    forever(channel)


def end_with(channel, code):
    """End with an exit code."""
    sys.exit(code)


def end_when_told(channel, code):
    """Say that it runs, wait for one byte or the channel's end, end with an exit code."""
    channel.sendall(b".")
    channel.recv(1)
    sys.exit(code)


def fail(channel, text):
    """End by an exception."""
    raise ValueError(text)


def write_to(channel, file, *_):
    """Leave a trace that this function was entered."""
    os.write(file.fileno(), b"entered")


def count_descriptors(channel, *descriptors):
    """Send back how many of the descriptors are open and not inheritable."""
    good = sum(not os.get_inheritable(descriptor.fileno()) for descriptor in descriptors)
    channel.sendall(b"%d" % good)


def tell_end(channel, file):
    """Say into a file that this runs, and then how it sees the end of its channel."""
    os.write(file.fileno(), b".")
    try:
        os.write(file.fileno(), repr(channel.recv(1)).encode())
    except OSError as error:
        os.write(file.fileno(), type(error).__name__.encode())


def digest_of(channel, *values):
    """Send back the SHA-256 of the values, one behind the other."""
    import hashlib

    digest = hashlib.sha256()
    for value in values:
        digest.update(value)
    channel.sendall(digest.digest())


class Decoding:
    """A value whose decoding calls a function, in whatever process decodes it."""

    def __init__(self, function, *args):
        self.function = function
        self.args = args

    def __reduce__(self):
        return self.function, self.args


def die_by(number):
    """End this process by a signal."""
    os.kill(os.getpid(), number)


def hang(file):
    """Say so, and do nothing ever after."""
    os.write(file.fileno(), b".")
    while True:
        signal.pause()


def end_with_anything(channel, *_):
    """Take any arguments, and end."""


class Modules(dict):
    """Names of an expression: modules, imported at their first use."""

    def __missing__(self, name):
        if name in vars(builtins):
            raise KeyError(name)
        return importlib.import_module(name)


def evaluate(expression):
    """Return the value of an expression in this process."""
    return eval(expression, Modules())


def send_value(channel, expression):
    """Send back what an expression is worth in this process, as text."""
    channel.sendall(str(evaluate(expression)).encode())


def find_in_memory(channel, first, second):
    """Send back how often the two parts, one behind the other, are in the memory of this process."""
    count = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(number, 16) for number in span.split("-"))
            if rights[0] == "r" and "[v" not in line:
                memory.seek(start)
                count += count_pairs(memory.read(end - start), first, second)
    channel.sendall(b"%d" % count)


def count_pairs(data, first, second):
    """Count how often the second part stands right behind the first, without making a string of both."""
    count, at = 0, data.find(first)
    while at >= 0:
        count += data.startswith(second, at + len(first))
        at = data.find(first, at + 1)
    return count


def find_in_memory_too(channel, _, first, second):
    """Search as ``find_in_memory``, with another argument before."""
    find_in_memory(channel, first, second)


def print_text(channel, text):
    """Print to standard output, without a line end."""
    print(text, end="")


def register_handler(channel):
    """Print, and print something else at the exit."""
    atexit.register(print, " handler", end="")
    print("function", end="")


def register_finalizer(channel):
    """Print when an object of the module goes, which is at the exit."""
    import weakref

    weakref.finalize(KEPT, print, "finalized", end="")


def list_descriptors_of_a_program(channel, _):
    """Send back what a program finds open that inherits all that is inheritable."""
    import subprocess

    command = ["/bin/sh", "-c", "ls -l /proc/self/fd"]
    channel.sendall(subprocess.run(command, stdout=subprocess.PIPE, close_fds=False, check=True).stdout)


def wait_for_signals(channel):
    """Run as ``forever``, and end by SIGINT as by other signals."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    forever(channel)


def describe_signals(channel):
    """Send back the mask and the signals with handlers with which a function starts."""
    mask = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    handled = sorted(int(number) for number in signal.valid_signals() if callable(signal.getsignal(number)))
    channel.sendall(repr((mask, handled)).encode())


def tell_if_ignored(channel, number):
    """Send back whether a function starts with this signal ignored."""
    channel.sendall(repr(signal.getsignal(number) == signal.SIG_IGN).encode())


def handle_signals(channel):
    """Tell of one SIGUSR1, and which wakeup descriptor was set when this started."""
    before = signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGUSR1, lambda *_: channel.sendall(b"handled %d" % before))
    channel.sendall(b".")
    channel.recv(1)  # until the channel ends


def insert_path(path):
    """Let modules be found in a directory."""
    sys.path.insert(0, path)


def answer_from_thread(channel):
    """Return at once, and leave a thread that answers later."""
    import threading

    returned = threading.Event()
    threading.Thread(target=lambda: (returned.wait(0.05), channel.sendall(b"from a thread"))).start()


def send_arguments(channel, *values):
    """Send back the arguments, as text."""
    channel.sendall(repr(values).encode())


def send_much(channel, size):
    """Send so many bytes."""
    channel.sendall(bytes(size))


def send_stack_size(channel):
    """Send back how many bytes of the machine's stack are in use here: from its top to where the kernel sees us."""
    with open("/proc/self/maps") as maps:
        end = next(int(line.split()[0].split("-")[1], 16) for line in maps if line.endswith("[stack]\n"))
    with open("/proc/self/syscall") as file:
        pointer = int(file.read().split()[-2], 16)
    channel.sendall(b"%d" % (end - pointer))


def leave_orphans(channel, count):
    """Make processes whose parent ends before them, and leave them to init."""
    for _ in range(count):
        if os.fork() == 0:
            parent = os.getpid()
            if os.fork() == 0:
                while os.getppid() == parent:
                    pass
            os._exit(0)
        os.wait()


def count_zombies(channel):
    """Send back how many zombies there are once each process of the namespace had time to be reaped."""
    import time

    end = time.monotonic() + 5
    while (count := sum(map(is_zombie, filter(str.isdigit, os.listdir("/proc"))))) and time.monotonic() < end:
        pass
    channel.sendall(b"%d" % count)


def is_zombie(pid):
    """Tell whether a process has ended and was not reaped."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def start_own(channel):
    """Be an owner: start a process, send back its pid, end."""
    from anyfork import Template

    process = Template().run(forever)
    process.channel.recv(1)
    channel.sendall(b"%d" % process.pid)
    channel.recv(1)


marks = None  # where a worker says that it has made some descriptors


def limit_descriptors(file, limit):
    """Let this process have so many, and as many in flight."""
    global marks
    marks = file.fileno()
    resource = __import__("resource")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def some_descriptors(count):
    """Return as many copies of standard input; the mark comes before they are sent."""
    os.write(marks, b".")
    descriptor = importlib.import_module("_anyfork_child.values.decode").Descriptor
    return [descriptor(0) for _ in range(count)]


def same(value):
    return value


def wait_at(file):
    """Wait, as a job, until something comes."""
    os.read(file.fileno(), 1)


def ignore_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class NoException(BaseException):  # like what libraries in Rust raise for a panic
    """An exception that ``except Exception`` does not catch."""


def panic(*_):
    raise NoException("lost")
