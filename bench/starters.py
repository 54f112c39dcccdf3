"""The ways to start a process, behind one interface. Each runs in an owner program of its own (see owner)."""

from __future__ import annotations

import os
import sys
from time import perf_counter

from .child import nothing, send_byte

TYPE_CHECKING = False
if TYPE_CHECKING:
    import multiprocessing.process
    import subprocess
    from collections.abc import Callable
    from typing import Any, Protocol, TypeVar

    import anyfork

    Handle = TypeVar("Handle")

    class Starter(Protocol[Handle]):
        """Starts processes in one way."""

        def one(self) -> None:
            """Create a process whose function returns at once, and wait until its end is reported."""

        def start(self) -> Handle:
            """Create such a process."""

        def end(self, handle: Handle, /) -> None:
            """Wait until its end is reported."""

        def close(self) -> None:
            """Let go of what the starter holds."""

    class Talker(Starter[Handle], Protocol[Handle]):
        """A starter whose processes can send a byte."""

        def first_byte(self) -> Handle:
            """Create a process that sends a byte at once, and wait for the byte."""


TRUE = "/bin/true"


class Anyfork:
    """Forks of one template in which the function is loaded, as a program would do it."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        from anyfork import Template

        self._template = Template().preload("bench.child", *preload).ready()

    def one(self) -> None:
        self._template.fork().run(nothing).wait()

    def start(self) -> anyfork.Process:
        return self._template.fork().start(nothing)

    def entered(self) -> anyfork.Process:
        """Create a process, and wait until its function has been entered."""
        return self._template.fork().run(nothing)

    def first_byte(self) -> anyfork.Process:
        process = self._template.fork().start(send_byte)
        process.channel.recv(1)
        return process

    def end(self, process: anyfork.Process) -> None:
        process.wait()
        process.close()

    def close(self) -> None:
        self._template.close()


class AnyforkSpares(Anyfork):
    """The same with a process that is there before anybody asks for it."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        super().__init__(preload)
        self._template.keep_spares(1)


class AnyforkNew:
    """What Perl's ``new->run("CORE::exit")`` is: forks of the default template that run something built in."""

    def __init__(self, _preload: tuple[str, ...]) -> None:
        from anyfork import Template

        self._new: Callable[[], anyfork.Template] = Template

    def one(self) -> None:
        self._new().start("builtins:id").wait()

    def start(self) -> anyfork.Process:
        return self._new().start("builtins:id")

    def first_byte(self) -> anyfork.Process:
        process = self._new().start("_socket:socket.send", b"x")
        process.channel.recv(1)
        return process

    def end(self, process: anyfork.Process) -> None:
        process.wait()
        process.close()

    def close(self) -> None:
        pass


class Program(Anyfork):
    """Forks of one template that run /bin/true."""

    def one(self) -> None:
        self.end(self.start())

    def start(self) -> anyfork.Process:
        return self._template.fork().run_program([TRUE])


class AnyforkExec(AnyforkNew):
    """A fresh interpreter for each process."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        super().__init__(preload)
        from anyfork import Template

        self._new = Template.new_exec

    def ready(self, count: int) -> list[float]:
        """Seconds until an exec'ed template is ready, and of a bare interpreter, in turn, so many of each."""
        times = []
        for _ in range(count):
            times += [self._ready_once(), _interpreter_once()]
        return times

    def _ready_once(self) -> float:
        import select

        begin = perf_counter()
        template = self._new().ready()
        took = perf_counter() - begin
        assert template.pid is not None
        pidfd = os.pidfd_open(template.pid)
        template.close()
        select.select([pidfd], [], [])  # the next one must not run beside its end
        os.close(pidfd)
        return took


def _interpreter_once() -> float:
    begin = perf_counter()
    os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-I", "-c", "pass"], os.environ), 0)
    return perf_counter() - begin


class OsFork:
    """A fork of the owner itself, by hand: a socketpair, so that the two can talk, and ``os._exit``."""

    def __init__(self, _preload: tuple[str, ...]) -> None:
        import _socket

        self._pair = _socket.socketpair

    def _start(self, function: Callable[[Any], None]) -> tuple[int, Any]:
        mine, far = self._pair()
        pid = os.fork()
        if pid == 0:
            function(far)
            os._exit(0)
        far.close()
        return pid, mine

    def one(self) -> None:
        self.end(self._start(nothing))

    def start(self) -> tuple[int, Any]:
        return self._start(nothing)

    def first_byte(self) -> tuple[int, Any]:
        pid, mine = self._start(send_byte)
        mine.recv(1)
        return pid, mine

    def end(self, process: tuple[int, Any]) -> None:
        pid, mine = process
        os.waitpid(pid, 0)
        mine.close()

    def close(self) -> None:
        pass


class PosixSpawn:
    """A small C program, by the system's cheapest way to start one."""

    def __init__(self, _preload: tuple[str, ...]) -> None:
        pass

    def one(self) -> None:
        self.end(self.start())

    def start(self) -> int:
        return os.posix_spawn(TRUE, [TRUE], os.environ)

    def end(self, pid: int) -> None:
        os.waitpid(pid, 0)

    def close(self) -> None:
        pass


class Subprocess:
    """The same program by way of subprocess."""

    def __init__(self, _preload: tuple[str, ...]) -> None:
        import subprocess

        self._popen = subprocess.Popen

    def one(self) -> None:
        self.end(self.start())

    def start(self) -> subprocess.Popen[bytes]:
        return self._popen([TRUE])

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()

    def close(self) -> None:
        pass


class Multiprocessing:
    """multiprocessing, by one of its start methods. The owner has no ``__main__`` file, so no child loads one again."""

    def __init__(self, method: str, preload: tuple[str, ...]) -> None:
        import multiprocessing

        self._context = multiprocessing.get_context(method)
        self._context.set_forkserver_preload(["bench.child", *preload])

    def _start(self, function: Callable[..., None], *args: object) -> multiprocessing.process.BaseProcess:
        process = self._context.Process(target=function, args=args)  # type: ignore[attr-defined]  # each context has it
        process.start()
        return process  # type: ignore[no-any-return]  # the context's own class

    def one(self) -> None:
        self.end(self._start(nothing))

    def start(self) -> multiprocessing.process.BaseProcess:
        return self._start(nothing)

    def first_byte(self) -> multiprocessing.process.BaseProcess:
        reader, writer = self._context.Pipe(duplex=False)
        process = self._start(send_byte, writer)
        writer.close()
        os.read(reader.fileno(), 1)
        reader.close()
        return process

    def end(self, process: multiprocessing.process.BaseProcess) -> None:
        process.join()
        process.close()

    def close(self) -> None:
        pass


def make(kind: str, preload: tuple[str, ...]) -> Starter[Any]:
    """The starter of this kind. Raises ImportError when something it needs is not installed."""
    for module in preload:
        _check_installed(module)
    if kind == "floor":
        from .floor import Floor

        return Floor(preload)
    if kind.startswith("mp-"):
        return Multiprocessing(kind.removeprefix("mp-"), preload)
    return KINDS[kind](preload)


KINDS: dict[str, Callable[[tuple[str, ...]], Starter[Any]]] = {
    "anyfork": Anyfork,
    "anyfork-spares": AnyforkSpares,
    "anyfork-new": AnyforkNew,
    "anyfork-exec": AnyforkExec,
    "os-fork": OsFork,
    "posix-spawn": PosixSpawn,
    "subprocess": Subprocess,
    "program": Program,
}


def _check_installed(module: str) -> None:
    """Raise ImportError for what is missing, without loading it here."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise ImportError(f"{module} is not installed")
