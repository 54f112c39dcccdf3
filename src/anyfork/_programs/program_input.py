"""The input of a program: bytes that one thread queues, and another one writes when the program reads."""

from __future__ import annotations

import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

MOST_BYTES = 16 << 20  # bytes that wait until the program reads them
PIECE = 1 << 16  # bytes to write at once


class InputError(Exception):
    """Raised for input that nobody will read; the text says why."""


class ProgramInput:
    """A queue of bytes, and the descriptor ``wake``, which is readable when there is something new in it."""

    def __init__(self, is_open: bool) -> None:
        self.wake: int = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._data = bytearray()
        self._is_open = is_open  # for further data
        self._given_up = False

    def add(self, data: bytes, end: bool) -> None:
        """Queue data, and the end of the input after it. Raises InputError."""
        with self._lock:
            if not self._is_open:
                raise InputError('the standard input of the program is no "pipe", or is closed')
            if len(self._data) + len(data) > MOST_BYTES:
                raise InputError(f"more than {MOST_BYTES} bytes would wait: the program does not read them")
            self._data += data
            self._is_open = not end
            self._notify()

    def give_up(self) -> None:
        """Let the thread that writes end."""
        with self._lock:
            self._given_up = True
            self._notify()

    def _notify(self) -> None:
        if self.wake >= 0:
            os.eventfd_write(self.wake, 1)

    def awake(self) -> bool:
        """Wait for the next call of ``add`` or ``give_up``. Return False if there is no more to do."""
        os.eventfd_read(self.wake)
        return not self._given_up

    def write(self, file: IO[bytes]) -> bool:
        """Write what a pipe takes. Return whether data is left, and close the pipe after the last."""
        with self._lock:
            try:
                written = os.write(file.fileno(), self._data[:PIECE]) if self._data else 0
            except BlockingIOError:
                return True
            except BrokenPipeError:  # the program does not read any more
                self._is_open, written = False, len(self._data)
            del self._data[:written]
            if not self._data and not self._is_open:
                file.close()
            return bool(self._data)

    def close(self) -> None:
        """Close the descriptor, and refuse further data."""
        with self._lock:
            self._is_open = False
            os.close(self.wake)
            self.wake = -1
