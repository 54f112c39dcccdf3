"""The flows of workers: what each question to a worker waits for, and in which order.

They are flows like those of processes (_processes.flows). To wait for messages of the worker, they yield a condition
alone, and a face waits for it by the worker's channel.
"""

from __future__ import annotations

from .._processes.flows import birth, end, enter, entered
from .._status import UNKNOWN
from .._system.timeouts import remaining
from .worker_channel import WORKER_END_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TypeAlias

    from .._processes.flows import Need, Result
    from .._status import ExitStatus
    from .worker_channel import WorkerChannel

    Flow: TypeAlias = Generator[Need | tuple[Callable[[], bool]], bool, Result]


def connect(channel: WorkerChannel, deadline: float | None) -> Flow[None]:
    """Wait until the worker has been started, and use its channel.

    Raises why the worker has not been started, and TimeoutError; the worker goes on then.
    """
    channel.check()
    if channel.sock is not None:
        return
    link = channel.process._link
    if deadline is not None and not (yield from entered(link, remaining(deadline))):
        raise TimeoutError
    yield from enter(link, None)
    yield from birth(link)
    channel.open_channel()


def ready(channel: WorkerChannel, deadline: float | None) -> Flow[None]:
    """Wait until the worker's initializer has run. Raises what failed, and TimeoutError."""
    yield from connect(channel, deadline)
    calls = channel.calls
    yield (lambda: calls.ready or calls.failed,)
    calls.check()


def listen(channel: WorkerChannel, deadline: float | None) -> Flow[ExitStatus]:
    """Take messages until the worker has ended; return its exit status. Raises TimeoutError."""
    yield from connect(channel, deadline)
    yield (lambda: channel.calls.failed,)
    return (yield from end(channel.process._link, remaining(deadline)))


def finish(channel: WorkerChannel) -> Flow[ExitStatus]:
    """Wait for all answers, let the worker end, and return its exit status."""
    calls = channel.calls
    if calls.streams:
        channel.give_up_streams()
    if not calls.failed:
        yield (lambda: not calls.outstanding or calls.failed,)
        channel.end_input()
    return (yield from listen(channel, None))


def fate(channel: WorkerChannel) -> Flow[ExitStatus]:
    """Return the exit status of a worker whose channel has ended; kill the worker if none is known in time."""
    try:
        status = yield from end(channel.process._link, WORKER_END_TIMEOUT)
    except TimeoutError:
        status = UNKNOWN
    if not status.known:  # the worker runs on without its channel, or its template is stopped
        channel.process.kill()
    return status
