"""Tasks of the tests of Dask, and templates for them."""

import os
import signal
import sys
from pathlib import Path

import anyfork


def pid(_=None):
    """Say which process runs this, and which one has forked it."""
    return os.getpid(), os.getppid()


def number_uploaded(_):
    """Say whether a module that was uploaded is loaded already, and what is in it."""
    there = "uploaded" in sys.modules
    import uploaded

    return there, uploaded.NUMBER


async def coroutine():
    """Say which process runs a coroutine."""
    return os.getpid()


class Actor:
    """An actor that says which process runs it."""

    def pid(self):
        return os.getpid()


def worker_of_dask():
    """Ask Dask for the worker that runs this."""
    from distributed import get_worker

    return get_worker().address


def die(_=None):
    """End this process by a signal."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(path):
    """End this process by a signal the first time."""
    if not Path(path).exists():
        Path(path).touch()
        die()
    return "alive"


def wait_for(fifo, result=None):
    """Wait until the other end of a FIFO has been opened."""
    with open(fifo):
        return result


def say_and_wait(begun, fifo):
    """Say that the task has begun, with its process, and wait for a FIFO."""
    Path(f"{begun}.new").write_text(str(os.getpid()))
    Path(f"{begun}.new").rename(begun)
    wait_for(fifo)
    Path(f"{begun}.done").touch()


def note(path, text):
    """Add a line to a file."""
    with open(path, "a") as file:
        file.write(f"{text}\n")


DATA = []


def load(*items):
    """Prepare data in a template."""
    DATA.extend(items)


def template_with_data():
    """Make a template that has data."""
    return anyfork.Template().prepare(load, 1, 2, 3)


def data(_=None):
    """Return what the template has prepared."""
    return DATA


def template_of_one_machine():
    """Make a template that fails where the environment says so."""
    return anyfork.Template().preload(os.environ.get("MODULE_OF_THIS_MACHINE", "json"))


MADE = []


def slow_template(begun, fifo):
    """Wait for a FIFO, make a template, and note its process."""
    say_and_wait(begun, fifo)
    template = anyfork.Template().ready()
    MADE.append(template.pid)
    return template
