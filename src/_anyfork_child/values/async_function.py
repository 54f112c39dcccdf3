"""Async functions as the function of a process: under a loop of their own, with the channel as an AnyIO stream.

Runs in processes. AnyIO and its dependencies are imported only when such a function is run.
"""

from __future__ import annotations

from .decode import find_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

BACKENDS = ("asyncio", "trio")


def run_async(backend: str, function: Callable[..., object] | str, channel: socket.socket, *args: object) -> object:
    """Run ``function(stream, *args)``, an async function or its name, to its end; return its result."""
    import anyio

    called: Any = find_function(function) if isinstance(function, str) else function

    async def main() -> object:
        stream = await anyio.abc.UNIXSocketStream.from_socket(channel)
        return await called(stream, *args)

    return anyio.run(main, backend=backend)
