"""Clients of Starlette that leave: a real server, and clients that close their connections."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from deadlines import DEADLINE
from pool_side import until

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from anyfork import CallTimeoutError, aio
from anyfork.contrib.starlette import ClientDisconnectedError, cancel_on_disconnect


async def pass_on(request, call_next):
    return await call_next(request)


NONE, PASSING = [], [Middleware(BaseHTTPMiddleware, dispatch=pass_on)]


class Service:
    """An application with one handler, and what its requests ended with."""

    def __init__(self, handler, middleware=NONE):
        self.handler = handler
        self.ends = []
        self.app = Starlette(routes=[Route("/", self.handle, methods=["POST"])], middleware=middleware)

    async def handle(self, request):
        try:
            response = await self.handler(request)
        except Exception as error:
            self.ends.append(error)
            raise
        self.ends.append(None)
        return response

    @asynccontextmanager
    async def serve(self):
        """Serve in the running loop."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(self.app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve(sockets=[self.listener]))
        try:
            yield self
        finally:
            server.should_exit = True
            await serving

    async def connect(self, body=b"", size=None):
        """Send a request, and return the connection."""
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        head = f"POST / HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {size or len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return reader, writer

    async def ask(self, body=b""):
        """Return the status and the body of the answer."""
        reader, writer = await self.connect(body)
        async with asyncio.timeout(DEADLINE):
            head, _, said = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), said.decode()


def say_and_wait(begun, fifo):
    """Say in a file which process has begun, and wait for ever. Runs in a worker."""
    Path(f"{begun}.new").write_text(str(os.getpid()))
    Path(f"{begun}.new").rename(begun)
    with open(fifo):
        pass


@pytest.mark.parametrize("middleware", [NONE, PASSING], ids=["plain", "middleware"])
def test_a_client_that_leaves_ends_its_job_and_no_other(tmp_path, middleware, caplog):
    begun, fifo = tmp_path / "begun", tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main():
        async def handler(request):
            async with cancel_on_disconnect(request):
                if await request.body() != b"quick":
                    await pool.call(say_and_wait, str(begun), str(fifo))
                return PlainTextResponse(str(await pool.call(abs, -1)))

        service = Service(handler, middleware)
        async with aio.Pool(max_workers=2) as pool, service.serve():
            _, writer = await service.connect()
            await until(begun.exists)
            writer.close()
            await until(lambda: service.ends)
            assert [type(error) for error in service.ends] == [ClientDisconnectedError]
            worker = Path("/proc", begun.read_text())
            await until(lambda: not worker.exists())
            assert await service.ask(b"quick") == (200, "1")

    asyncio.run(main())
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_timeout_is_no_disconnect(tmp_path):
    os.mkfifo(tmp_path / "fifo")

    async def main():
        async def handler(request):
            try:
                async with cancel_on_disconnect(request):
                    await pool.call(say_and_wait, str(tmp_path / "begun"), str(tmp_path / "fifo"), timeout=0.01)
            except CallTimeoutError:
                return PlainTextResponse("too long", 504)

        service = Service(handler)
        async with aio.Pool(max_workers=1) as pool, service.serve():
            assert await service.ask() == (504, "too long")

    asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError("bad"), TimeoutError("late"), asyncio.CancelledError()], ids=repr)
def test_what_a_block_raises_leaves_it_as_it_is(error):
    async def handler(request):
        try:
            async with cancel_on_disconnect(request):
                raise error
        except type(error) as caught:
            return PlainTextResponse(str(caught is error))

    async def main():
        async with Service(handler).serve() as service:
            assert await service.ask() == (200, "True")

    asyncio.run(main())


@pytest.mark.parametrize("before", [False, True], ids=["in the block", "before it"])
def test_a_body_can_be_read_in_the_block_and_before_it(before):
    async def handler(request):
        body = b"".join([part async for part in request.stream()]) if before else None
        async with cancel_on_disconnect(request):
            return PlainTextResponse(body or await request.body())

    async def main():
        service = Service(handler)
        async with service.serve():
            assert await service.ask(b"text" * 100_000) == (200, "text" * 100_000)

    asyncio.run(main())


def test_a_client_that_leaves_in_the_middle_of_its_body_is_a_disconnect():
    async def main():
        entered = asyncio.Event()

        async def handler(request):
            entered.set()
            async with cancel_on_disconnect(request):
                raise AssertionError("the body is not there")

        service = Service(handler)
        async with service.serve():
            _, writer = await service.connect(b"te", size=4)
            await entered.wait()
            writer.close()
            await until(lambda: service.ends)
            assert [type(error) for error in service.ends] == [ClientDisconnectedError]

    asyncio.run(main())
