"""A call in a process of its own, for async programs."""

from __future__ import annotations

from anyio import move_on_after

from .._blocking.call import start_one
from .._calls.calls import Calls
from .._calls.worker_handle import raise_given_up
from .._processes.arguments import refused_keywords
from .._processes.flows import put_down
from .._processes.handles import check_template
from .._system.signatures import overload
from .._system.timeouts import NotInTimeError, deadline, remaining
from ._process import Process
from ._template import Template
from ._waiting import leave, limited, run, shielded, within
from ._warm import Warm
from ._worker_channel import AsyncWorkerChannel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._calls.call import Handler
    from .._system.signatures import Arguments, Result


@overload
async def call(
    function: Callable[[*Arguments], Result],
    /,
    *args: *Arguments,
    template: Template | Warm | None = ...,
    timeout: float | None = ...,
    on_event: Handler | None = ...,
) -> Result: ...
@overload
async def call(
    function: str,
    /,
    *args: object,
    template: Template | Warm | None = ...,
    timeout: float | None = ...,
    on_event: Handler | None = ...,
) -> Any: ...
async def call(
    function: Callable[..., Any] | str,
    /,
    *args: object,
    template: Template | Warm | None = None,
    timeout: float | None = None,
    on_event: Handler | None = None,
    **keywords: object,
) -> Any:
    """Call ``function(*args)`` in a process of its own, which has ended when this returns, and return the result.

    It works like ``anyfork.call``. If it is cancelled, it kills the process.

    For example::

        import asyncio
        from anyfork import aio

        assert asyncio.run(aio.call(pow, 2, 10)) == 1024
    """
    if keywords:
        raise refused_keywords("call", function, keywords, "template, timeout, on_event")
    return await run_alone(template, function, *args, timeout=timeout, on_event=on_event)


async def run_alone(
    template: Template | Warm | None,
    function: Callable[..., Any] | str,
    /,
    *args: object,
    timeout: float | None,
    on_event: Handler | None,
) -> Any:
    """Run a call in a process of its own, as ``call`` says."""
    until = deadline(timeout)
    try:
        taken = await _fork_of(template, until)
    except NotInTimeError:
        raise_given_up(TimeoutError(), timeout, started=False)
    scope = limited(remaining(until))
    process = start_one(Process._of, taken, function, args)
    taken._queued()
    channel = AsyncWorkerChannel(process, Calls(receiver=process._link.receiver))
    asked = channel.calls.expect(1, on_event)
    try:
        with scope:
            await channel.connect()
            await channel.wait_for(asked)
            await process.wait()
    except BaseException as error:
        leave(scope, error)
        started = not process._link.revoke()
        if started:
            await shielded(run, put_down(process._link))
        raise_given_up(error, timeout, started)
    finally:
        await shielded(channel.drop)
    return asked.result()


async def _fork_of(template: Template | Warm | None, until: float | None) -> Template:
    """Return a fork of a template, or of the default one.

    Raises ArgumentError, what prevents a new template, and NotInTimeError if there is none at a deadline.
    """
    if template is None:
        return Template()
    if isinstance(template, Warm):
        taken = await within(move_on_after(remaining(until)), template.fork)
        if taken is None:
            raise NotInTimeError
        return taken
    check_template("call", template)
    template._link.check("call")
    return template.fork()
