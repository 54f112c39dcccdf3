"""The events of a worker, in the owner: the values that its functions emit, and its log records, with their handlers.

``Calls.take`` finds the handler of a value that ``emit`` has sent: that of its call, or else the worker's ``on_event``.
A face calls ``handle`` where it holds no lock. The records of a worker go to the handlers of the owner's loggers.
"""

from __future__ import annotations

from _anyfork_child.wire.call_messages import FDS
from _anyfork_child.wire.channel import close_all

from .._system.log import WARNING, write_record
from .results import decode_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from _anyfork_child.values.serializers import Decoder
    from _anyfork_child.wire import call_messages

    from .call import Failed, Handler


class Event:
    """A value that a worker has emitted, for its handler.

    ``call`` fails if the handler raises. ``receiver`` gets the answer that follows the event: a call, a job of a pool,
    or the map that it belongs to.
    """

    __slots__ = ("_call", "_decoder", "_message", "handler", "receiver")

    def __init__(
        self,
        message: call_messages.Message,
        decoder: Decoder | None,
        handler: Handler | None,
        call: Failed | None,
        receiver: object = None,
    ) -> None:
        self.handler: Handler | None = handler
        self._message = message
        self._decoder = decoder
        self._call = call
        self.receiver: object = receiver

    def handle(self) -> Any:
        """Call the handler and return its result. Log an event that has no handler."""
        if self.handler is None:
            self.drop()
            write_record(WARNING, "an event of a worker was dropped: there is no on_event for it")
            return None
        try:
            return self.handler(self.value())
        except Exception as error:
            self.not_handled(error)
            return None

    def not_handled(self, error: BaseException) -> None:
        """Make the handler's error the error of the event's call, or log it if there is no call.

        It is not raised here, because the reader may wait for another call.
        """
        if self._call is None:
            write_record(WARNING, "the on_event of a worker has raised", error=error)
        else:
            self._call.error = self._call.error or error

    def value(self) -> Any:
        """Return the value. Raises ResultError."""
        return decode_value(self._decoder, self._message)

    def drop(self) -> None:
        """Close the descriptors of an event that will not be handled."""
        close_all(self._message[FDS])


# --- Log records ------------------------------------------------------------------------------------------------


class Records:
    """The decoder of records, which travel as JSON: to read that runs no code. The owner sends none."""

    name = "log records"

    @staticmethod
    def loads(data: bytes) -> tuple[Any]:
        """Return the only value."""
        import json  # only now: few workers have logs

        return (json.loads(data),)


def levels() -> tuple[dict[str, int], int]:
    """Return the levels of the owner's loggers by name, and the level up to which logging is disabled."""
    import logging

    loggers = logging.root.manager.loggerDict.copy()
    found = {name: one.level for name, one in loggers.items() if isinstance(one, logging.Logger) and one.level}
    return {"": logging.root.level, **found}, logging.root.manager.disable


def log_event(message: call_messages.Message, worker: str, pid: int | None) -> Event:
    """Return the event for a record: its handler gives the record to the owner's loggers.

    The record says which worker it comes from, and in which call it was made.
    """
    import logging

    call = message[1]

    def write(fields: Mapping[str, Any]) -> None:
        record = logging.makeLogRecord(dict(fields))
        record.worker, record.worker_pid, record.call = worker, pid, call or None
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)

    return Event(message, Records, write, None)
