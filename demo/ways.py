"""Three ways to have the same work done by processes: anyfork, and multiprocessing's forkserver and spawn."""

from __future__ import annotations

import multiprocessing
import pickle
from abc import ABC, abstractmethod
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

import anyfork

from . import survey

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence
    from multiprocessing.context import ForkServerContext, SpawnContext
    from multiprocessing.process import BaseProcess
    from typing import Self


class Way(ABC):
    """One way to start processes."""

    name: str

    @abstractmethod
    def begin(self, paths: Sequence[str]) -> Connection | socket.socket:
        """Start a worker for some modules; return where its answer will come."""

    @abstractmethod
    def finish(self, source: Connection | socket.socket) -> bytes:
        """Take the answer and wait for the worker's end."""

    @abstractmethod
    def start_and_end(self) -> None:
        """Start a process that does nothing, and wait for its end."""

    def answers(self, chunks: Sequence[Sequence[str]], at_once: int) -> Iterator[survey.Answer]:
        """Have each chunk done by a process of its own, so many at once."""
        waiting = list(reversed(chunks))
        running: list[Connection | socket.socket] = []
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(self.begin(waiting.pop()))
            for source in wait(running):
                running.remove(source)  # type: ignore[arg-type]  # wait returns what it was given
                yield pickle.loads(self.finish(source))  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of what only this way needs."""


class Anyfork(Way):
    """Processes forked from a template in which the modules are loaded."""

    name = "anyfork"

    def __enter__(self) -> Self:
        self._template = anyfork.Template().preload(survey.__name__)
        self._running: dict[socket.socket, anyfork.Process] = {}
        return self

    def begin(self, paths: Sequence[str]) -> Connection | socket.socket:
        process = self._template.fork().start(survey.work_for_anyfork, *paths)
        self._running[process.channel] = process
        return process.channel

    def finish(self, source: Connection | socket.socket) -> bytes:
        with self._running.pop(source) as process:  # type: ignore[arg-type]  # begin returns sockets
            with process.channel.makefile("rb") as answer:
                data = answer.read()
            status = process.wait()
            assert status.code == 0, status
            return data

    def start_and_end(self) -> None:
        with self._template.fork().start(survey.do_nothing):
            pass

    def close(self) -> None:
        self._template.close()


class Multiprocessing(Way):
    """Processes of a context of multiprocessing."""

    def __init__(self, context: ForkServerContext | SpawnContext) -> None:
        self.name = f"multiprocessing {context.get_start_method()}"
        self._context = context
        self._running: dict[Connection, BaseProcess] = {}
        context.set_forkserver_preload([survey.__name__])

    def begin(self, paths: Sequence[str]) -> Connection | socket.socket:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=survey.work_for_multiprocessing, args=(theirs, *paths))
        process.start()
        theirs.close()
        self._running[ours] = process
        return ours

    def finish(self, source: Connection | socket.socket) -> bytes:
        assert isinstance(source, Connection)
        process = self._running.pop(source)
        with source:
            data = source.recv_bytes()
        process.join()
        assert process.exitcode == 0, process.exitcode
        process.close()
        return data

    def start_and_end(self) -> None:
        process = self._context.Process(target=survey.do_nothing)
        process.start()
        process.join()
        process.close()

    def close(self) -> None:
        """Its fork server is the program's, and ends with it."""


def all_ways() -> tuple[Way, ...]:
    """The three of them."""
    return (
        Anyfork(),
        Multiprocessing(multiprocessing.get_context("forkserver")),
        Multiprocessing(multiprocessing.get_context("spawn")),
    )
