"""What the tests of copies run in workers: functions that fork by themselves, and that do not spare descriptors.

The original tells how its copy has ended. Standard library only: it is imported in workers.
"""

from __future__ import annotations

import os
import sys

FIRST = 3  # the lowest descriptor that is not a standard stream


def leave(how):
    """Leave the function in this way."""
    if how == "exception":
        raise ValueError("of the copy")
    if how == "exit":
        sys.exit(7)
    if how == "text":
        sys.exit("text of the copy")
    return "of the copy"


def forks(how):
    """Fork; the copy leaves the function, and the original returns the exit code of the copy."""
    copy = os.fork()
    return code_of(copy) if copy else leave(how)


async def forks_async(how):
    """Do as ``forks``."""
    return forks(how)


def yields_forks(how):
    """Do as ``forks``, in a generator: the copy leaves it by an item or by its end, too."""
    yield "before"
    copy = os.fork()
    if copy:
        yield code_of(copy)
    elif how == "item":
        yield "of the copy"
    else:
        leave(how)


def emits_in_copy():
    """Emit in a copy; it ends with 9 when that is refused."""
    import anyfork

    copy = os.fork()
    if copy:
        anyfork.emit("of the worker")
        return code_of(copy)
    for call in (lambda: anyfork.emit("of the copy"), anyfork.retire):
        try:
            call()
        except RuntimeError:
            continue
        os._exit(0)
    os._exit(9)


initial = None


def initialize(how):
    """Do as ``forks``, as an initializer."""
    global initial
    initial = forks(how)


def initialized():
    """Return what became of the copy that the initializer has made."""
    return initial


class Forks:
    """A value that forks when it is decoded or encoded."""

    def __init__(self, how, when):
        self.how = how
        self.when = when

    def __reduce__(self):
        if self.when == "encoded":
            self.how = forks(self.how)
            return str, (self.how,)
        return forks, (self.how,)


def code_of(copy):
    """Return the exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


def same(value):
    """Return it."""
    return value


def replace_descriptors(path):
    """Close all descriptors, and have files of its own under their numbers."""
    os.closerange(FIRST, 256)
    return [os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) for _ in range(50)]


def close_descriptors():
    """Close all descriptors."""
    os.closerange(FIRST, 256)


def double_close(number, path):
    """Close a descriptor that is not this function's, and get its number for a file."""
    os.close(number)
    assert os.open(path, os.O_RDWR | os.O_CREAT) == number
