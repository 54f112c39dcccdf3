"""Requests whose clients leave: Starlette and FastAPI let a handler go on, and its job with it.

``async with cancel_on_disconnect(request):`` ends both.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

from anyio import CancelScope, create_task_group

from ._engine import require

require("starlette", "0.45", "starlette")

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody gets the response, but access logs and middleware see it


class ClientDisconnectedError(HTTPException):
    """The client of a request has left before its answer was ready.

    A handler need not catch it: Starlette answers it with status 499, to nobody, and logs no traceback.
    """

    def __init__(self) -> None:
        super().__init__(CLIENT_CLOSED_REQUEST, "the client has closed the connection")


@asynccontextmanager
async def cancel_on_disconnect(request: Request) -> AsyncGenerator[None]:
    """Cancel the block when the client of a request leaves, and raise ClientDisconnectedError.

    A pool ends the job that the block waits for. Exceptions of the block, timeouts too, leave it as they are. The body
    of the request is read first, unless it was read before.

    For example::

        import anyfork
        from anyfork.contrib.starlette import cancel_on_disconnect
        from starlette.responses import JSONResponse

        async def power(request):
            try:
                async with cancel_on_disconnect(request):
                    return JSONResponse(await request.app.state.pool.call(pow, 2, 10, timeout=30))
            except anyfork.CallTimeoutError:
                return JSONResponse("this takes too long", status_code=504)
    """
    await _read_body(request)
    raised = None
    async with create_task_group() as tasks:
        with CancelScope() as block:
            tasks.start_soon(_cancel_when_gone, request, block)
            try:
                yield
            except Exception as error:  # the group would wrap it
                raised = error
        tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised
    if block.cancelled_caught:
        raise ClientDisconnectedError


async def _read_body(request: Request) -> None:
    """Read the body, which the handler may want later: it comes before the message that the client has gone."""
    try:
        await request.body()
    except ClientDisconnect:
        raise ClientDisconnectedError from None
    except RuntimeError:  # the handler has read it as a form or a stream
        pass


async def _cancel_when_gone(request: Request, block: CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    block.cancel()
