"""The wait for the first of many processes that ends."""

from __future__ import annotations

import os
from select import POLLIN

from _anyfork_child.wire.descriptors import duplicate

from .._errors import ArgumentError, HandleError
from .._processes import flows
from .._system.polling import new_poll
from .._system.timeouts import deadline, one_wait, remaining
from .process import Process
from .waiting import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def wait(processes: Iterable[Process], timeout: float | None = None) -> list[Process]:
    """Wait until one of these processes has ended; return all that have, in the order given.

    Return an empty list when the timeout, in seconds, is over before, and for no processes. The handles can be used
    from other threads meanwhile.

    For example::

        import anyfork

        template = anyfork.Template()
        processes = [template.fork().run_module("this") for _ in range(2)]
        while processes:
            for process in anyfork.wait(processes):
                processes.remove(process)
                process.close()
    """
    if not hasattr(processes, "__iter__"):
        raise ArgumentError(f"wait() takes a list of processes, not {type(processes).__name__}: wait([process])")
    watched = list(processes)
    for process in watched:
        if not isinstance(process, Process):
            raise ArgumentError(f"wait() needs processes, as Template.run() makes them, not {type(process).__name__}")
    until = deadline(timeout)
    while True:
        ended = [process for process in watched if _has_ended(process)]
        if ended or not watched or remaining(until) == 0:
            return ended
        _wait_for_any(watched, remaining(until))


def _has_ended(process: Process) -> bool:
    run(flows.look(process._link))
    return process._link.session.status is not None


def _wait_for_any(processes: Sequence[Process], seconds: float | None) -> None:
    """Wait until a descriptor shows that one of the processes may have ended."""
    poller, copies = new_poll(), []
    try:
        for process in processes:
            copies.append(duplicate(process.fileno()))  # a wait in another thread closes the descriptor itself
            poller.register(copies[-1], POLLIN)
        poller.poll(None if seconds is None else one_wait(seconds) * 1000)
    except HandleError:  # one has ended meanwhile, or its handle was closed: the next look says so
        pass
    finally:
        for copy in copies:
            os.close(copy)
