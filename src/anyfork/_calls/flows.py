"""The flows of workers: what each question to a worker waits for, and in which order.

They are flows like those of processes (_processes.flows), with two further needs. A condition, alone or with the call
that it is about: a face waits for it by the worker's channel. And PAUSE: other tasks may go on in between.
"""

from __future__ import annotations

from functools import partial

from .._processes.flows import birth, end, enter, entered
from .._status import UNKNOWN
from .._system.timeouts import remaining
from .call import DONE
from .worker_channel import WORKER_END_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TypeAlias

    from _anyfork_child.values.message import Message

    from .._processes.flows import Need, Result
    from .._status import ExitStatus
    from .call import Answer, Call
    from .map import CallMap
    from .worker_channel import WorkerChannel

    Condition: TypeAlias = Callable[[], bool]
    Flow: TypeAlias = Generator[Need | tuple[Condition] | tuple[Condition, Answer] | tuple[()], bool, Result]

PAUSE = ()


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


# --- Calls ------------------------------------------------------------------------------------------------------


def begin(channel: WorkerChannel, call: Call) -> Flow[None]:
    """Queue a call, and send what the socket takes. Wait while too many are queued."""
    message = call.message
    assert message is not None
    try:
        yield from write(message)
        while not channel.whole(partial(channel.add_if_room, call)):
            yield (channel.has_room,)
    except BaseException:
        channel.drop_unsent(call)
        raise


def write(message: Message) -> Flow[None]:
    """Write the files of a message, piece by piece."""
    for _ in message.write_stepwise():
        yield PAUSE


def next_call(work: CallMap, *, filled: bool = False) -> Flow[Answer | None]:
    """Take the next call of a map once it is done; None at the end.

    Make further calls before, if it is time for them, unless the face has ``filled`` the map.
    """
    if not filled and work.wants_more:
        yield from fill(work)
    if not work.ahead:
        return None
    call = work.ahead[0]
    if call.state is not DONE:
        yield work.first_is_done, call
    return work.ahead.popleft()


def fill(work: CallMap) -> Flow[None]:
    """Make the calls of further items of a map, and send them together."""
    batch = work.new_batch()
    try:
        for message in batch.fill(work.items):
            yield from write(message)
        work.more = not batch.exhausted
    except BaseException:
        work.stop(batch)
        raise
    work.send(batch)


# --- The end ----------------------------------------------------------------------------------------------------


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
