"""A Starlette application, served by uvicorn, that does heavy work in processes of a template made before the loop.

Needs starlette and uvicorn. Try it: ``python asgi_workers.py 8000``, and then get http://127.0.0.1:8000/primes/1000000
"""

import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from anyfork import aio


def count_primes(channel: socket.socket, limit: int) -> None:
    """Runs in a worker, which may take as long as it likes: the loop of the server is in another process."""
    sieve = bytearray([1]) * (limit + 1)
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit + 1, number)))
    with channel:
        channel.sendall(json.dumps(sum(sieve[2:])).encode())


async def primes(request: Request) -> JSONResponse:
    """One process for each request. Whatever cancels this ends the process too."""
    limit = request.path_params["limit"]
    async with await workers.fork().run(count_primes, limit) as process:
        answer = b"".join([part async for part in process.channel])
    if process.returncode != 0:
        return JSONResponse({"error": f"the worker ended with {process.returncode}"}, 500)
    return JSONResponse({"limit": limit, "primes": json.loads(answer)})


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """The template is made before the server accepts, and ends with it."""
    await workers.ready()
    yield
    await workers.aclose()


# Made before any loop runs: what it needs is loaded while the application starts.
workers = aio.Template().preload("json", "socket")
app = Starlette(routes=[Route("/primes/{limit:int}", primes)], lifespan=lifespan)


async def main(port: int) -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    await server.serve()


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
