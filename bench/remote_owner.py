"""The owner program of a contender of ``remote``: one connection over ssh, calls and processes at its other end."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from operator import neg

from .call_floor import IN_FLIGHT
from .callers import Caller
from .owner import own, sequential

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

SSH = "ANYFORK_BENCH_SSH"  # in the environment: the command to the other machine, the Python there behind it, as JSON
ECHO = "import operator\nwhile 1: channel.send(operator.neg(channel.receive()))"


class Anyfork(Caller):
    """A remote template, its forks, and a worker of it."""

    def __init__(self, command: list[str]) -> None:
        from anyfork import RemoteTemplate, Worker

        self._template = RemoteTemplate(command).ready()
        self._worker = Worker(self._template.fork()).ready()

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        return self._worker.call(function, argument)

    def results(self, items: Iterable[int]) -> Iterable[int]:
        return self._worker.map(neg, items)

    def one(self) -> None:
        """A process from its creation to its end."""
        with self._template.fork().run("os:getpid") as process:
            process.wait()


class Execnet(Caller):
    """A gateway over ssh, a channel there, and gateways behind it."""

    def __init__(self, command: list[str]) -> None:
        import execnet

        *ssh, python = command
        self._python = python
        self._group = execnet.Group()
        gateway = self._group.makegateway(f"ssh={' '.join(ssh[1:])}//python={python}//id=far")
        self._channel = self._place(gateway).remote_exec(ECHO)

    def _place(self, gateway: Any) -> Any:
        """Where calls run: in the one process that ends the connection."""
        return gateway

    def call(self, function: Callable[..., Any], argument: object) -> Any:  # noqa: ARG002  # the loop has it
        self._channel.send(argument)
        return self._channel.receive()

    def results(self, items: Iterable[int]) -> Iterator[int]:
        channel, ahead = self._channel, 0
        for item in items:
            channel.send(item)
            ahead += 1
            if ahead == IN_FLIGHT:
                yield channel.receive()
                ahead -= 1
        for _ in range(ahead):
            yield channel.receive()

    def one(self) -> None:
        """A process from its creation to its end."""
        gateway = self._group.makegateway(f"popen//via=far//python={self._python}")
        gateway.exit()
        gateway.join()

    def close(self) -> None:
        self._group.terminate(1.0)


class ExecnetVia(Execnet):
    """The same with a process of its own for the calls, as a worker has one."""

    def _place(self, gateway: Any) -> Any:
        return self._group.makegateway(f"popen//via={gateway.id}//python={self._python}")


class Mitogen(Caller):
    """A context over ssh, and contexts behind it."""

    def __init__(self, command: list[str]) -> None:
        import mitogen.master

        ssh, flag, config, host, python = command
        self._python = python
        self._broker = mitogen.master.Broker()
        self._router = mitogen.master.Router(self._broker)
        self._context = self._router.ssh(
            hostname=host,
            python_path=python,
            ssh_path=ssh,
            ssh_args=[flag, config],
            check_host_keys="enforce",
            username=os.environ.get("USER", "root"),
        )

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        return self._context.call(function, argument)

    def results(self, items: Iterable[int]) -> Iterator[int]:
        ahead: deque[Any] = deque()
        for item in items:
            ahead.append(self._context.call_async(neg, item))
            if len(ahead) == IN_FLIGHT:
                yield ahead.popleft().get().unpickle()
        while ahead:
            yield ahead.popleft().get().unpickle()

    def one(self) -> None:
        """A process from its creation to its end."""
        context = self._router.local(via=self._context, python_path=self._python)
        context.shutdown(wait=True)

    def close(self) -> None:
        self._broker.shutdown()
        self._broker.join()


KINDS = {"anyfork": Anyfork, "execnet": Execnet, "execnet-via": ExecnetVia, "mitogen": Mitogen}


def main() -> None:
    """Be the owner that the command line describes: descriptor of the socket, kind."""
    fd, kind = sys.argv[1:]
    own(fd, lambda: _checked(KINDS[kind](json.loads(os.environ[SSH]))), _answer)


def _answer(caller: Any, measure: str, amount: float) -> list[float]:
    if measure == "processes":
        return sequential(caller, amount)
    return getattr(caller, measure)(amount)  # type: ignore[no-any-return]  # one of two methods of Caller


def _checked(caller: Any) -> Any:
    if caller.call(neg, 1) != -1:
        raise RuntimeError(f"{type(caller).__name__} gives wrong answers")
    caller.one()
    return caller
