"""The title of a worker of a pool with a name: what ``ps`` shows. Runs in such workers.

It is the name of the pool. In a pool that is observed, the running function follows. Three system calls show it, each
time that it changes and when the worker waits, which is more than an empty job costs.
"""

from __future__ import annotations

from ..birth.preparation import function_name
from ..birth.title import Title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .server import WorkerServer

    class Loop(Protocol):
        """A loop of jobs (worker.job_loop), as this module sees it."""

        _serving: WorkerServer

        def answer(self, number: int, function: Callable[..., Any], args: Sequence[Any]) -> None: ...


class PoolTitle:
    """The title of this process: the name of its pool, and with ``functions`` the function that it runs."""

    def __init__(self, owner: int, name: str, functions: bool) -> None:
        self._name = name
        self._functions = functions
        self._title = Title(owner)
        self._running: object = None  # the function that is shown
        self._title.show(name.encode("utf-8", "replace"), short=True)

    def follow(self, loop: Loop, *through: Callable[..., Any]) -> None:
        """Show what a loop runs from now on, if that is wanted.

        ``through`` are functions of the loop whose first argument is the function that it runs.
        """
        if self._functions:
            self._through = through
            server = loop._serving
            self._answer, self._receive = loop.answer, server.receive
            loop.answer = self.answer  # type: ignore[method-assign]  # each call goes through here
            server.receive = self.receive  # type: ignore[method-assign]  # the loop waits only here

    def answer(self, number: int, function: Callable[..., Any], args: Sequence[Any]) -> None:
        """Answer a call."""
        self._show(function if all(function is not one for one in self._through) else args[0])
        self._answer(number, function, args)

    def receive(self, flags: int) -> tuple[bytes, Sequence[int], bool]:
        """Read bytes. If that may wait, no function runs."""
        if not flags:
            self._show(None)
        return self._receive(flags)

    def _show(self, function: Any) -> None:
        if function is not self._running:
            self._running = function
            what = "" if function is None else f": {function_name(function).rpartition(':')[2]}"
            self._title.show(f"{self._name}{what}".encode("utf-8", "replace"))
