"""A call in a process of its own, in the blocking face."""

from __future__ import annotations

from _anyfork_child.wire.frames import START

from .._calls.calls import Calls
from .._calls.worker_handle import raise_given_up
from .._calls.worker_options import MODULE
from .._errors import NotReadyError
from .._processes.arguments import check_function, encode_for, refused_keywords
from .._processes.session import STARTING
from .._processes.start import take_over, warm_parent
from .._system.signatures import overload
from .._system.timeouts import NotInTimeError, remaining
from .._system.timeouts import deadline as deadline_of
from .process import Process
from .template import fork_of
from .worker_channel import BlockingWorkerChannel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from .._calls.call import Handler
    from .._processes.handles import TemplateHandle
    from .._processes.link import Link
    from .._system.signatures import Arguments, Result
    from .template import Template
    from .warm import Warm

    Made = TypeVar("Made")


@overload
def call(
    function: Callable[[*Arguments], Result],
    /,
    *args: *Arguments,
    template: Template | Warm | None = ...,
    timeout: float | None = ...,
    on_event: Handler | None = ...,
) -> Result: ...
@overload
def call(
    function: str,
    /,
    *args: object,
    template: Template | Warm | None = ...,
    timeout: float | None = ...,
    on_event: Handler | None = ...,
) -> Any: ...
def call(
    function: Callable[..., Any] | str,
    /,
    *args: object,
    template: Template | Warm | None = None,
    timeout: float | None = None,
    on_event: Handler | None = None,
    **keywords: object,
) -> Any:
    """Call ``function(*args)`` in a process of its own, and return the result. The process has ended by then.

    The process is a fork of the template, which stays, or of the default template. Raises what the function raises,
    with the remote traceback as its cause; all else is as in ``Worker.call``. After the timeout, in seconds, the
    process is killed.

    For example::

        import anyfork

        assert anyfork.call(pow, 2, 10) == 1024
    """
    if keywords:
        raise refused_keywords("call", function, keywords, "template, timeout, on_event")
    return run_alone(template, function, *args, timeout=timeout, on_event=on_event)


def run_alone(
    template: Template | Warm | None,
    function: Callable[..., Any] | str,
    /,
    *args: object,
    timeout: float | None,
    on_event: Handler | None,
) -> Any:
    """Run a call in a process of its own, as ``call`` says."""
    deadline = deadline_of(timeout)
    try:
        process = start_one(Process._of, fork_of("call", template, deadline), function, args)
    except NotInTimeError:
        raise_given_up(TimeoutError(), timeout, started=False)
    channel = BlockingWorkerChannel(process, Calls(receiver=process._link.receiver))
    asked = channel.calls.expect(1, on_event)
    try:
        if timeout is not None:
            process.ready(remaining(deadline))
        channel.connect()
        channel.wait(lambda: channel.is_done(asked), deadline)
        process.wait(remaining(deadline))
    except NotReadyError:  # the process is killed, if it is ever forked
        raise_given_up(TimeoutError(), timeout, started=False)
    except TimeoutError as error:
        process.kill()
        process.wait()
        raise_given_up(error, timeout, started=True)
    except BaseException:
        process._link.abandon()
        raise
    finally:
        channel.drop()
    return asked.result()


def start_one(
    make: Callable[[Link], Made], template: TemplateHandle, function: Callable[..., Any] | str, args: Sequence[object]
) -> Made:
    """Let a template become the process of one call, and make the process's handle. Raises ArgumentError."""
    check_function("call", function)
    encoded = encode_for("call", (function, *args, len(args)), 0, receiver=template._link.receiver)
    encoded.name = f"{MODULE}:serve_one".encode()
    warm_parent(template._link, MODULE)
    link = template._link
    try:
        return make(take_over(link, "call", START, encoded))
    except BaseException:  # the caller gets no handle
        if link.session.phase is STARTING:
            link.abandon()
        raise
