"""The emitter of events: the worker that this process is, for ``anyfork.emit`` and ``anyfork.retire``."""

from __future__ import annotations

from os import getpid

from .call_messages import EVENT, HEADER, RETIRE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any, Protocol, TypeVar

    class Worker(Protocol):
        """A worker's end of its channel, as far as this module needs to know it."""

        sock: _socket.socket
        functions: dict[int, Any]

        @property
        def number(self) -> int: ...
        @property
        def is_copy(self) -> bool: ...
        def send(self, data: bytes) -> None: ...
        def send_value(self, kind: int, number: int, value: Any) -> None: ...

    AnyWorker = TypeVar("AnyWorker", bound=Worker)

current: Worker | None = None  # the worker that this process is


def become(worker: AnyWorker) -> AnyWorker:
    """Set the worker that emit and retire act for; return it."""
    global current
    current = worker
    return worker


def emit(value: object) -> None:
    """Send a value to the ``on_event`` of the running call, or of the worker; it has been sent when this returns.

    Only for functions that run in a worker: raises RuntimeError elsewhere, and any exception that the encoding of the
    value raises. Waits as long as the owner does not read.

    For example::

        import anyfork

        def work():
            anyfork.emit("half done")

        with anyfork.Worker(on_event=print) as worker:
            worker.call(work)
    """
    worker = _current("emit", "in a function that Worker.call or call runs")
    worker.send_value(EVENT, worker.number, value)


def retire() -> None:
    """Retire this worker from its pool: it finishes the calls that it was given, gets no more, and ends.

    Another worker takes its place. Calling it again changes nothing; a worker that belongs to no pool just goes on.
    Only for functions that run in a worker: raises RuntimeError elsewhere.

    For example::

        import anyfork

        with anyfork.Executor(max_workers=1) as executor:
            executor.submit(anyfork.retire).result()
    """
    _current("retire", "in a function that a pool runs").send(HEADER.pack(0, 0, 0, RETIRE, 0, 0))


def _current(call: str, where: str) -> Worker:
    if current is None:
        raise RuntimeError(f"{call}() works only in a worker: {where}")
    if current.is_copy:
        raise RuntimeError(f"{call}() works only in the worker itself: process {getpid()} is a forked copy of it")
    return current
