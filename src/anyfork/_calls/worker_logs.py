"""The log records of workers, in the owner: they go to the handlers of the owner's loggers."""

from __future__ import annotations

import logging
from json import loads
from typing import TYPE_CHECKING

from .call import Event

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from _anyfork_child.wire import call_messages


class Records:
    """The decoder of records, which travel as JSON: to read that runs no code. The owner sends none."""

    name = "log records"

    @staticmethod
    def loads(data: bytes) -> tuple[Any]:
        """Return the only value."""
        return (loads(data),)


def levels() -> tuple[dict[str, int], int]:
    """Return the levels of the owner's loggers by name, and the level up to which logging is disabled."""
    loggers = logging.root.manager.loggerDict.copy()
    found = {name: one.level for name, one in loggers.items() if isinstance(one, logging.Logger) and one.level}
    return {"": logging.root.level, **found}, logging.root.manager.disable


def log_event(message: call_messages.Message, worker: str, pid: int | None) -> Event:
    """Return the event for a record: its handler gives the record to the owner's loggers.

    The record says which worker it comes from, and in which call it was made.
    """
    call = message[1]

    def write(fields: Mapping[str, Any]) -> None:
        record = logging.makeLogRecord(dict(fields))
        record.worker, record.worker_pid, record.call = worker, pid, call or None
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)

    return Event(message, Records, write, None)
