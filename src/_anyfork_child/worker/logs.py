"""The log records of a worker, which go to the handlers of its owner. Runs in workers with ``logs=True``.

A record is sent at once if the channel takes it, and otherwise waits in this process, at the latest until the result of
the running call is sent. So logging never waits for the owner. A thread or a signal handler that logs in the middle of
another message leaves its record to the one that sends that message.
"""

from __future__ import annotations

import atexit
import json
import logging
from _thread import RLock
from collections import deque
from contextlib import suppress

from ..wire.call_messages import HEADER, LOG, MAX_BODY
from ..wire.channel import NOWAIT
from ..wire.descriptors import is_claimed
from ..wire.platform import NOSIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..values.message import Message
    from .server import WorkerServer

AT_ONCE = 16 << 10  # bytes of a record that the socket takes whole or not at all
MOST_CHARACTERS = 40_000  # characters of a text in a record; the rest is cut off
MOST_BYTES = 8 << 20  # bytes of records that wait; the oldest are dropped
NEVER_SENT = frozenset({"msg", "args", "exc_info", "exc_text", "message", "asctime"})
# What is left of a record with more data than a message holds.
PLAIN = ("name", "levelno", "levelname", "created", "pathname", "filename", "lineno", "funcName", "process", "exc_text")
FORMATTER = logging.Formatter()


def send_logs(server: WorkerServer, levels: Mapping[str, int], disabled: int) -> None:
    """Send the records of this process to its owner, whose loggers have these levels."""
    handler = OwnerHandler(server)
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    logging.disable(disabled)
    logging.root.handlers[:] = [handler]  # those of a copied program would write each record a second time
    atexit.register(handler.flush)


class OwnerHandler(logging.Handler):
    """A handler that sends records over the channel of the worker, between its other messages."""

    def __init__(self, server: WorkerServer) -> None:
        super().__init__()
        self._server = server
        self._waiting: deque[bytes] = deque()
        self._size = 0  # bytes that wait, about
        self._dropped: deque[int] = deque()  # how many records, each time that their limit was reached
        self._gate = RLock()  # held while a message is sent
        self._send, self._send_message = server.send, server.send_message
        server.send = self.send  # type: ignore[method-assign]  # all messages go through here
        server.send_message = self.send_message  # type: ignore[method-assign]  # as above

    def handle(self, record: logging.LogRecord) -> bool:
        """Send a record without the lock of other handlers: a signal handler that logs must not wait for it."""
        found = self.filter(record)
        if found:
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return bool(found)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record now, or let it wait."""
        if self._server.is_copy:  # its records are not those of the worker
            return
        try:
            body = encode(record)
        except Exception:  # encoding runs code of the record's values, which may raise anything
            self.handleError(record)
            return
        data = HEADER.pack(len(body), self._server.number, 0, LOG, 0, 0) + body
        self._waiting.append(data)
        self._size += len(data)
        if self._size > MOST_BYTES:
            self._drop()
        self._try()

    def _drop(self) -> None:
        dropped = 0
        with suppress(IndexError):  # another thread may send or drop the last ones
            while self._size > MOST_BYTES // 2:
                self._size -= len(self._waiting.popleft())
                dropped += 1
        self._dropped.append(dropped)

    def _try(self) -> None:
        """Send the records that wait, as far as that is possible without waiting."""
        gate = self._gate
        if gate._is_owned() or not gate.acquire(blocking=False):  # type: ignore[attr-defined]  # missing in the stubs
            return
        try:
            while self._waiting and is_claimed(self._server.fd) and self._send_first():
                pass
        except OSError:  # no room now, or the owner has ended
            return
        finally:
            gate.release()

    def _send_first(self) -> bool:
        """Send the oldest record; return False if it is too long for that, or was dropped. Raises OSError."""
        try:
            data = self._waiting.popleft()  # now: another thread may drop it meanwhile
        except IndexError:
            return False
        try:
            if len(data) <= AT_ONCE:
                if self._dropped:
                    self._tell_now()
                self._send_now(data)
                self._size -= len(data)
                return True
        except BaseException:
            self._waiting.appendleft(data)
            raise
        self._waiting.appendleft(data)
        return False

    def _send_now(self, data: bytes) -> None:
        sent = self._server.sock.send(data, NOWAIT | NOSIGNAL)
        if sent < len(data):  # on systems that send a part
            self._send(data[sent:])

    def _tell_now(self) -> None:
        """Send how many records were dropped. Raises OSError if there is no room now."""
        dropped = self._count_dropped()
        try:
            self._send_now(_note(dropped))
        except OSError:
            self._dropped.append(dropped)
            raise

    def _count_dropped(self) -> int:
        return sum(self._dropped.popleft() for _ in range(len(self._dropped)))

    def _take(self) -> bytes:
        """Remove the records that wait, and return them as messages, after a note of how many were dropped."""
        taken: list[bytes] = []
        with suppress(IndexError):  # another thread may drop some
            taken.extend(self._waiting.popleft() for _ in range(len(self._waiting)))
        self._size = 0
        if self._dropped:
            taken.insert(0, _note(self._count_dropped()))
        return b"".join(taken)

    def send(self, data: bytes) -> None:
        """Send a message of the worker, after the records that wait."""
        with self._gate:
            self._send(self._take() + data if self._waiting or self._dropped else data)
        if self._waiting:
            self._try()

    def send_message(self, message: Message) -> None:
        """Send a message with descriptors and files, after the records that wait."""
        with self._gate:
            if self._waiting or self._dropped:
                self._send(self._take())
            self._send_message(message)

    def flush(self) -> None:
        """Send the records that wait at the end of the worker, which waits for its owner then."""
        unsent = self._waiting or self._dropped
        if unsent and not self._server.is_copy and not self._gate._is_owned():  # type: ignore[attr-defined]  # as above
            self.send(b"")


def _note(dropped: int) -> bytes:
    text = f"{dropped} log records of this worker were dropped: the owner did not read them in time"
    body = encode(logging.LogRecord("anyfork", logging.WARNING, __file__, 0, text, (), None))
    return HEADER.pack(len(body), 0, 0, LOG, 0, 0) + body


def encode(record: logging.LogRecord) -> bytes:
    """Return a record as JSON, which any owner may read: its message is formatted, and values of other types are text.

    A message that is a dictionary stays one, as structlog makes them.
    """
    fields = {name: value for name, value in record.__dict__.items() if name not in NEVER_SENT}
    fields["msg"] = record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage()
    fields["exc_text"] = record.exc_text or (FORMATTER.formatException(record.exc_info) if record.exc_info else None)
    fields = {name: shortened(value) for name, value in fields.items()}
    try:
        body = json.dumps(fields, default=text_of, skipkeys=True).encode()
    except ValueError:  # a value contains itself
        body = b""
    if body and len(body) <= MAX_BODY:
        return body
    short = {name: fields[name] for name in PLAIN if name in fields}
    return json.dumps({**short, "msg": shortened(text_of(fields["msg"]))}).encode()


def shortened(value: Any) -> Any:
    """Cut a long text off."""
    return value[:MOST_CHARACTERS] + "..." if isinstance(value, str) and len(value) > MOST_CHARACTERS else value


def text_of(value: object) -> str:
    """Return a value as text, for JSON."""
    try:
        return str(value)
    except Exception as error:  # a __str__ of the user's may raise anything
        return f"<its __str__ raised {type(error).__name__}>"
