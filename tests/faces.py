"""The async face behind the interface of the blocking one, so that one text of a test holds for both.

Each backend has one loop, in a thread of its own, as long as the tests run. What a test calls is awaited there.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
from functools import cache, partial
from socket import MSG_WAITALL
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.from_thread import start_blocking_portal

import anyfork
from anyfork import aio

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

    from anyio.from_thread import BlockingPortal

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


_stack = contextlib.ExitStack()
atexit.register(_stack.close)


@cache
def portal(name: str) -> BlockingPortal:
    """Return the loop of a backend, which ends with the program."""
    return _stack.enter_context(start_blocking_portal(**BACKENDS[name], name=f"the loop of {name}"))


class Loop:
    """Calls things in the loop of a backend."""

    def __init__(self, name: str) -> None:
        self._portal = portal(name)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return the result of a plain function."""
        return self._portal.call(partial(function, *args, **options))

    def wait(self, function: Callable[..., Awaitable[Any]], *args: Any, seconds: float | None = None) -> Any:
        """Return the result of an async function. Raises TimeoutError when it is not there in so many seconds."""

        async def within() -> Any:
            with anyio.fail_after(seconds):
                return await function(*args)

        return self._portal.call(within)


class Template:
    """An async template, as if it were a blocking one."""

    def __init__(self, loop: Loop, template: aio.Template) -> None:
        self._loop = loop
        self._template = template

    @classmethod
    def make(cls, name: str, make: Callable[[], aio.Template]) -> Template:
        """Make a template in the loop of a backend."""
        loop = Loop(name)
        return cls(loop, loop.call(make))

    @property
    def pid(self) -> int | None:
        return self._template.pid

    def _plain(self, name: str, *args: Any) -> Template:
        self._loop.call(getattr(self._template, name), *args)
        return self

    def preload(self, *modules: str) -> Template:
        return self._plain("preload", *modules)

    def execute(self, code: str, *args: object) -> Template:
        return self._plain("execute", code, *args)

    def prepare(self, function: Any, /, *args: object) -> Template:
        return self._plain("prepare", function, *args)

    def send(self, *args: object) -> Template:
        return self._plain("send", *args)

    def immortalize(self) -> Template:
        return self._plain("immortalize")

    def keep_spares(self, maximum: int | None) -> Template:
        return self._plain("keep_spares", maximum)

    def fork(self, **attributes: Any) -> Template:
        return Template(self._loop, self._loop.call(self._template.fork, **attributes))

    def ready(self, timeout: float | None = None) -> Template:
        try:
            self._loop.wait(self._template.ready, seconds=timeout)
        except TimeoutError as error:
            if isinstance(error, anyfork.AnyforkError):
                raise
            raise TimeoutError(f"template {self.pid} was not ready within {timeout} seconds") from error
        return self

    def start(self, function: Any, /, *args: object) -> Process:
        return Process(self._loop, self._loop.call(self._template.start, function, *args))

    def run(self, function: Any, /, *args: object, timeout: float | None = None) -> Process:
        return self._run(self._template.run, function, *args, seconds=timeout)

    def run_program(self, argv: Any, /, *, timeout: float | None = None) -> Process:
        return self._run(self._template.run_program, argv, seconds=timeout)

    def run_module(self, name: str, /, *argv: Any, timeout: float | None = None) -> Process:
        return self._run(self._template.run_module, name, *argv, seconds=timeout)

    def run_script(self, path: Any, /, *argv: Any, timeout: float | None = None) -> Process:
        return self._run(self._template.run_script, path, *argv, seconds=timeout)

    def run_code(self, source: str, /, *argv: Any, timeout: float | None = None) -> Process:
        return self._run(self._template.run_code, source, *argv, seconds=timeout)

    def _run(self, function: Any, *args: Any, seconds: float | None) -> Process:
        return Process(self._loop, _not_ready(self._loop, function, *args, seconds=seconds))

    def detach(self) -> socket.socket:
        return self._loop.wait(self._template.detach)

    def close(self) -> None:
        self._loop.wait(self._template.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._template)


def _not_ready(loop: Loop, function: Any, *args: Any, seconds: float | None) -> Any:
    """Turn a deadline that passes into NotReadyError: it is the cancellation of a run, of which nothing is left."""
    try:
        return loop.wait(function, *args, seconds=seconds)
    except TimeoutError as error:
        raise anyfork.NotReadyError(f"it was not ready within {seconds} seconds; it was killed") from error


class Process:
    """An async process, as if it were a blocking one."""

    def __init__(self, loop: Loop, process: aio.Process) -> None:
        self._loop = loop
        self._process = process
        self._channel: Channel | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def channel(self) -> Channel:
        if self._channel is None:
            self.ready()
            self._channel = Channel(self._loop, self._process.channel)
        return self._channel

    def ready(self, timeout: float | None = None) -> Process:
        if timeout is None:
            self._loop.wait(self._process.ready)
        else:
            _not_ready(self._loop, self._process._ready_or_gone, seconds=timeout)
        return self

    def wait(self, timeout: float | None = None) -> anyfork.ExitStatus:
        try:
            return self._loop.wait(self._process.wait, seconds=timeout)
        except TimeoutError as error:
            raise TimeoutError(f"process {self.pid} has not ended within {timeout} seconds") from error

    def poll(self) -> int | None:
        return self._loop.call(self._process.poll)

    def send_signal(self, number: int) -> None:
        self._loop.call(self._process.send_signal, number)

    def terminate(self) -> None:
        self._loop.call(self._process.terminate)

    def kill(self) -> None:
        self._loop.call(self._process.kill)

    def fileno(self) -> int:
        self.ready()
        return self._loop.call(self._process.fileno)

    def close(self) -> None:
        self._loop.wait(self._process.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._loop.wait(self._process.__aexit__, *raised)

    def __repr__(self) -> str:
        return repr(self._process)


class Worker:
    """An async worker, as if it were a blocking one."""

    def __init__(self, name: str, template: Template | None = None, **options: Any) -> None:
        self._loop = Loop(name)
        taken = None if template is None else template._template
        self._worker = self._loop.call(aio.Worker, taken, **options)

    @property
    def pid(self) -> int | None:
        return self._worker.pid

    @property
    def _channel(self) -> Any:
        return self._worker._channel

    def ready(self) -> Worker:
        self._loop.wait(self._worker.ready)
        return self

    def call(self, function: Any, /, *args: object, **options: Any) -> Any:
        return self._loop.wait(partial(self._worker.call, function, *args, **options))

    def map(self, function: Any, items: Any, /, **options: Any) -> Iterator[Any]:
        return _Items(self._loop, self._loop.call(self._worker.map, function, items, **options))

    def stream(self, function: Any, /, *args: object, **options: Any) -> _Items:
        return _Items(self._loop, self._loop.wait(partial(self._worker.stream, function, *args, **options)))

    def wait(self, timeout: float | None = None) -> anyfork.ExitStatus:
        return self._loop.wait(self._worker.wait, seconds=timeout)

    def kill(self) -> None:
        self._loop.call(self._worker.kill)

    def close(self) -> None:
        self._loop.wait(self._worker.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._loop.wait(self._worker.__aexit__, *raised)


class _Items:
    """An async iterator, as if it were a plain one."""

    def __init__(self, loop: Loop, items: Any) -> None:
        self._loop = loop
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._loop.wait(self._items.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._loop.wait(self._items.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Channel:
    """An AnyIO stream, as far as the tests use it as a socket."""

    def __init__(self, loop: Loop, stream: anyio.abc.UNIXSocketStream) -> None:
        self._loop = loop
        self._stream = stream

    def fileno(self) -> int:
        return self._stream.extra(anyio.abc.SocketAttribute.raw_socket).fileno()

    def get_inheritable(self) -> bool:
        return os.get_inheritable(self.fileno())

    def recv(self, size: int, flags: int = 0) -> bytes:
        try:
            data = self._loop.wait(self._stream.receive, size)
        except anyio.EndOfStream:
            return b""
        return data + self.recv(size - len(data), flags) if flags == MSG_WAITALL and len(data) < size else data

    def sendall(self, data: bytes) -> None:
        self._loop.wait(self._stream.send, data)

    def shutdown(self, _how: int) -> None:
        self._loop.wait(self._stream.send_eof)

    def close(self) -> None:
        self._loop.wait(self._stream.aclose)

    def makefile(self, mode: str = "r") -> Any:
        binary = io.BufferedReader(_Raw(self))
        return binary if mode == "rb" else io.TextIOWrapper(binary)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Raw(io.RawIOBase):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)
