"""The handles of workers and of their streams: the part that both faces share, which awaits nothing."""

from __future__ import annotations

from functools import partial

from .._errors import AnyforkError, CallTimeoutError, HandleError
from .._processes.arguments import Stays
from .._processes.handles import check_template
from .._processes.session import STARTING
from .._system.signatures import Generic, Item
from .call import State
from .calls import Calls
from .worker_options import find_trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TypeVar

    from _anyfork_child.values.functions_by_value import Receiver
    from _anyfork_child.wire import call_messages

    from .._processes.handles import TemplateHandle
    from .._processes.link import Link
    from .._status import ExitStatus
    from .call import Call
    from .worker_channel import WorkerChannel
    from .worker_options import Options

    Made = TypeVar("Made")


class WorkerHandle(Stays):
    """A worker's handle: the part that awaits nothing."""

    _instead = "make a Worker there, or pass on the results of its calls"

    _channel: WorkerChannel

    def _take_over(self, template: TemplateHandle, options: Options, make: Callable[[Link, Calls], Made]) -> Made:
        """Let a worker take over the template, and make its channel. Raises ArgumentError."""
        check_template("Worker", template)
        calls = self._prepare(options, template._link.receiver)
        return start_worker(template, options, lambda link: make(link, calls))

    def _prepare(self, options: Options, receiver: Receiver) -> Calls:
        """Make the calls of a worker that does not run yet. Raises ArgumentError."""
        self._waits = options.on_cancel == "wait"
        self._cancels = options.concurrency is not None
        self._closed = False
        self._status: ExitStatus | None = None  # set when the worker is closed
        return _new_calls(options, receiver.started_with(options.initializer))

    @property
    def pid(self) -> int | None:
        """The process id of the worker, known after ``ready`` or the first call; None before.

        For example::

            import anyfork

            with anyfork.Worker() as worker:
                print(worker.ready().pid)
        """
        return self._channel.process.pid

    def kill(self) -> None:
        """Kill the worker now. Calls that have no answer yet fail.

        For example::

            import anyfork

            with anyfork.Worker() as worker:
                worker.ready()
                worker.kill()
        """
        if self._status is None and not self._channel.foreign:
            self._channel.process.kill()

    def _withdraw(self, call: Call | None, wanted: bool = False) -> bool:
        """Take back a call that is no longer waited for, or leave it if it is ``wanted`` once it has begun.

        Return whether it may have begun. A worker that is torn ends, and its calls fail then.
        """
        channel = self._channel
        if call is None:
            return False
        channel.drop_unsent(call)
        if channel.torn:
            return True
        return call.state is not State.NEW and bool(channel.whole(partial(channel.give_up, call, wanted)))

    def _raise_given_up(self, error: BaseException, timeout: float | None, started: bool) -> NoReturn:
        """Raise why a call was given up. If it may run, kill the worker, unless it cancels one of several calls."""
        try:
            if started and not self._cancels:
                self.kill()
            raise_given_up(error, timeout, started)
        finally:
            del error  # see raise_given_up

    def _check(self, call: str) -> None:
        self._channel.check()
        if self._closed:
            raise HandleError(f"{call}() on a worker that was closed: make a new one, or close it later")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._channel.calls.failed else "working"
        return f"<Worker pid={self.pid} {state}>"


def start_worker(template: TemplateHandle, options: Options, make: Callable[[Link], Made]) -> Made:
    """Let a worker take over the template, and make what its caller has of it. Raises ArgumentError."""
    link: Link | None = None
    try:
        link = options.start(template)
        template._queued()
        return make(link)
    except AnyforkError:
        raise
    except BaseException:  # the caller gets no handle
        started = link or template._link
        if started.session.phase is STARTING:
            started.abandon()
        raise


def _new_calls(options: Options, receiver: Receiver) -> Calls:
    """Create the calls of a worker, with a timeline if there is to be one. Raises ArgumentError."""
    file = find_trace("Worker", options.trace)
    if file is None:
        return Calls(options.serializer, options.concurrency, options.on_event, receiver)
    from .traced_calls import TracedCalls

    return TracedCalls(file, options.serializer, options.concurrency, options.on_event, receiver)


class StreamHandle(Stays, Generic[Item]):
    """The items of a generator in a worker: the part of the handle that awaits nothing."""

    _instead = "pass on its items"

    _channel: WorkerChannel
    _call: Call

    def _there(self) -> bool:
        """Return whether the next item, or the end of the stream, has arrived."""
        return bool(self._call.items) or self._call.state >= State.GIVEN_UP

    def _next(self) -> call_messages.Message | None:
        """Take the next item, which has arrived, for ``Call.decode``; None at the end.

        Raises what the generator has raised, once.
        """
        item: call_messages.Message | None = self._channel.whole(self._take)
        call = self._call
        if item is None and call.state is State.DONE and not call.ended:
            call.ended = True
            call.result()
        return item

    def _take(self) -> call_messages.Message | None:
        call, calls = self._call, self._channel.calls
        if call.items:
            calls.consumed(call)
            if calls.out:
                self._channel.flush()
            return call.items.popleft()
        return None

    def _close(self) -> None:
        """Give up the stream, because its items are not wanted any more."""
        if self._channel.foreign:
            return
        call = self._call
        call.ended = True
        if call.state in (State.QUEUED, State.SENT):
            self._channel.calls.give_up(call)
            self._channel.flush()
        else:
            call.drop()


def raise_given_up(error: BaseException, timeout: float | None, started: bool) -> NoReturn:
    """Raise why a call was given up; for a timeout, CallTimeoutError, which says whether the call may have run."""
    try:
        if isinstance(error, TimeoutError) and not isinstance(error, AnyforkError):
            what = "it may have run" if started else "nothing of it has run"
            text = f"the call had no result within {timeout} seconds; {what}"
            raise CallTimeoutError(text, may_have_run=started) from None
        raise error
    finally:
        del error  # its traceback refers to it: the error and all of the worker would be left to the garbage collector
