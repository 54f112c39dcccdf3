"""Templates on other machines, for async programs."""

from __future__ import annotations

from .._blocking.remote import CONNECT_TIMEOUT, KEEP_ALIVE, Unsupported, connect
from .._blocking.remote import RemoteTemplate as BlockingRemoteTemplate
from ._template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._processes.arguments import Argument


class RemoteTemplate(Unsupported, Template):
    """A template on another machine, at the other end of a command such as ``["ssh", "host", "python3"]``.

    It works like ``anyfork.RemoteTemplate``, and has the methods of ``anyfork.aio.Template``.

    For example::

        import anyio
        import sys
        from anyfork import aio

        async def main():
            async with aio.RemoteTemplate([sys.executable]) as template:      # or ["ssh", "host", "python3"]
                assert await aio.call("math:gcd", 12, 18, template=template) == 6

        anyio.run(main)
    """

    __slots__ = ()

    def __init__(
        self,
        command: Sequence[Argument],
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        keep_alive: float = KEEP_ALIVE,
    ) -> None:
        self._link = connect(command, connect_timeout, keep_alive)
        self._link.hold()
        self._link.outbox.piecewise = True
        self._queued()

    def to_blocking(self) -> BlockingRemoteTemplate:
        """Make a blocking handle of this one, which is used up. Raises HandleError.

        For example::

            import sys
            import anyio
            from anyfork import aio

            async def main():
                template = await aio.RemoteTemplate([sys.executable]).ready()
                template.to_blocking().close()

            anyio.run(main)
        """
        return BlockingRemoteTemplate._of(self._give_up("to_blocking"))
