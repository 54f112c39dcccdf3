"""The program that owns the processes of one row of ``memory``: it brings them into a state and weighs them."""

from __future__ import annotations

import os
import sys

from .child import COLLECT, PING, WORK, serve
from .owner import serve as serve_driver
from .procfs import memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

COMMANDS = {"idle": PING, "collected": COLLECT, "used": WORK}


class AnyforkHolder:
    """Processes forked from one anyfork template that has loaded the module."""

    def __init__(self, module: str) -> None:
        from anyfork import Template

        self._template = Template().preload("bench.child", module).ready()
        self.parent = self._template.pid
        self._module = module
        self._processes: list[Any] = []

    def start(self) -> tuple[int, int]:
        """Start a process; return its pid and the descriptor to speak to it."""
        process = self._template.fork().run(serve, self._module)
        self._processes.append(process)
        assert process.pid is not None
        return process.pid, process.channel.fileno()

    def close(self) -> None:
        """End the processes by the end of their channels, and wait for them."""
        for process in self._processes:
            process.channel.close()
            process.wait()
        self._template.close()


class MultiprocessingHolder:
    """Processes of multiprocessing; where they are forked, from a process that has loaded the module."""

    def __init__(self, method: str, module: str) -> None:
        import multiprocessing

        self._context: Any = multiprocessing.get_context(method)
        self._context.set_forkserver_preload(["bench.child", module])
        self._method = method
        self._module = module
        self._processes: list[Any] = []
        if method == "fork":
            __import__(module)

    @property
    def parent(self) -> int | None:
        """The process that they are forked from, if they are."""
        if self._method == "fork":
            return os.getpid()
        if self._method == "forkserver":
            from multiprocessing import forkserver

            pid: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]  # nothing public
            return pid
        return None

    def start(self) -> tuple[int, int]:
        """Start a process; return its pid and the descriptor to speak to it."""
        mine, far = self._context.Pipe()
        process = self._context.Process(target=serve, args=(far, self._module), daemon=True)
        process.start()
        far.close()
        self._processes.append((process, mine))
        return process.pid, mine.fileno()

    def close(self) -> None:
        """End the processes: forked siblings hold each other's channels open, so by a signal."""
        for process, _ in self._processes:
            process.terminate()
        for process, _ in self._processes:
            process.join()


def main() -> None:
    """Hold the processes that the command line describes: descriptor of the socket, kind, module."""
    fd, kind, module = sys.argv[1:]
    os.set_inheritable(int(fd), False)
    with open(int(fd), "r+b", buffering=0) as control:
        holder = AnyforkHolder(module) if kind == "anyfork" else MultiprocessingHolder(kind, module)
        processes: list[tuple[int, int]] = []

        def answer(measure: str, amount: float) -> list[float]:
            if measure == "start":
                processes.extend(holder.start() for _ in range(int(amount)))
                return []
            if measure == "parent":
                return [] if holder.parent is None else weigh([holder.parent])
            for _, channel in processes:
                command(channel, COMMANDS[measure])
            return weigh([pid for pid, _ in processes])

        serve_driver(control, answer)
        holder.close()


def command(channel: int, byte: bytes) -> None:
    """Have a process do something, and wait until it is done."""
    os.write(channel, byte)
    if os.read(channel, 1) != byte:
        raise RuntimeError("a process did not do what it was told")


def weigh(pids: list[int]) -> list[float]:
    """Private, proportional and resident bytes of each."""
    return [float(size) for pid in pids for m in (memory(pid),) for size in (m.private, m.pss, m.rss)]
