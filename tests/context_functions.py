"""What processes of the multiprocessing context run in the tests; they import it by its name."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from multiprocessing import shared_memory


def nothing():
    pass


def square(number):
    return number * number


def fork(how):
    """Fork; the copy leaves this function in one of several ways, and the original by its pid."""
    copy = os.fork()
    if not copy:
        if how == "raise":
            raise ValueError("of the copy")
        if how == "exit":
            sys.exit(3)
        return "copy"
    os.waitpid(copy, 0)
    return os.getpid()


def leave(code):
    sys.exit(code)


def fail():
    raise ValueError("as asked")


def kill_itself(number):
    os.kill(os.getpid(), number)


def wait_for(event):
    event.wait()


def never_end():
    signal.pause()


def tell(sender, expression):
    """Send the value of an expression."""
    current, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    names = {"os": os, "sys": sys, "multiprocessing": multiprocessing, "current": current, "parent": parent}
    sender.send(eval(expression, names))


def echo(inward, outward):
    """Put what comes, twice, until None comes."""
    for item in iter(inward.get, None):
        outward.put((item, item))


def consume(queue):
    """Do the jobs of a joinable queue."""
    while True:
        queue.get()
        queue.task_done()


def add(value, times, lock=contextlib.nullcontext()):  # noqa: B008  # stateless
    for _ in range(times):
        with lock:
            value.value += 1


def pass_barrier(barrier, sender):
    sender.send(barrier.wait())


def notify(condition):
    with condition:
        condition.notify_all()


def take_lock(_, lock):
    with lock:
        pass


def write_memory(name, data):
    memory = shared_memory.SharedMemory(name)
    memory.buf[: len(data)] = data
    memory.close()


def read_file(file, sock):
    with file, sock:
        sock.sendall(file.read())


def start_another(sender, expression):
    """Start a process of the same context and wait for it."""
    inner = multiprocessing.Process(target=tell, args=(sender, expression))
    inner.start()
    inner.join()
    assert inner.exitcode == 0


def start_and_kill_itself(sender):
    """Start a process that never ends, tell its pid, and be killed."""
    inner = multiprocessing.Process(target=never_end)
    inner.start()
    sender.send(inner.pid)
    os.kill(os.getpid(), signal.SIGKILL)


def load(fetched, ready, done, dataset):
    """Load samples by index into shared memory, until told that it is done, as a worker of torch's DataLoader."""
    ready.cancel_join_thread()
    while not done.is_set():
        index = fetched.get()
        if index is None:
            break
        memory = shared_memory.SharedMemory(create=True, size=8)
        memory.buf[:8] = (dataset[index] * 2).to_bytes(8, "little")
        ready.put((index, memory.name))
        memory.close()


count = 0


def remember(number):
    """Remember a number, as an initializer."""
    global count
    count = number


def remembered(_):
    return count


class AskedError(Exception):
    """Raised in a process, and to be caught in the owner."""


def raise_asked(number):
    raise AskedError(number)


def tell_channel(channel):
    """Tell what the channel is, as a function of an ordinary process."""
    channel.sendall(b"here")


def check_class(cls, ctx):
    """Check that what belonged to a template of the owner's is that of the default template here."""
    assert cls is type(multiprocessing.current_process()) is ctx.Process


class Slow:
    """Decoded only when something has come through its connection."""

    def __init__(self, connection):
        self.connection = connection

    def __setstate__(self, state):
        self.connection = state["connection"]
        self.connection.recv()


kept = []


def keep(*given):
    kept.extend(given)


def use_kept():
    queue, lock, event, semaphore, condition, value = kept
    with lock, condition:
        value.value += 1
    semaphore.acquire()
    queue.put(value.value)
    event.set()
