"""The file of a timeline, in Chrome's trace format, which Perfetto opens.

The file is an array of events, a line for each. Several pools, workers and programs may write to it at the same time:
each appends whole lines, and holds a shared lock of the file meanwhile. The last writer that closes the file ends the
array. A program that is killed leaves the array without its end, which the format allows. A writer that finds nobody
else begins the file anew, unless the file ends with the mark of the writer's own program.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock
from collections import deque
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from json import dumps
from math import inf
from time import sleep, time_ns

from .._errors import ArgumentError
from .._system import this_process
from .._system.locks import try_locked
from .._system.log import WARNING, write_record

BEGIN = b"[\n"
LONGEST_END = 200  # bytes of the last line with the mark of a program, and of the end of the array
PAUSE = 0.5  # seconds between two writes
MOST_EVENTS = 100_000  # events that wait to be written, while the file is in use by others; older ones are dropped
ATTEMPTS, WAIT = 100, 0.001  # to lock a file that another program is just opening or closing; seconds between them
RUN = time_ns()  # tells this program from an earlier one with the same pid


class TraceFile:
    """A file of events. It is open while ``tracks`` of workers are."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.tracks = 0
        self.wake_at = inf  # when events have to be written at the latest
        self._fd = -1
        self._lines: deque[str] = deque(maxlen=MOST_EVENTS)
        self._lock = RLock()
        self._owner = this_process.pid
        self._broken = False
        self._open()
        self._close()

    @property
    def pid(self) -> int:
        """The process id of the program whose workers are on the timeline."""
        return self._owner

    # --- Events ---

    def add(self, name: str, kind: str, tid: int, at: float, more: str = "") -> None:
        """Add an event of this kind (``ph``). ``name`` and ``more``, its other members, are JSON."""
        head = f'{{"name":{name},"ph":"{kind}","pid":{self._owner},"tid":{tid}'
        self._lines.append(f'{head},"ts":{at * 1e6:.0f}{more}}},\n')
        if self.wake_at == inf:
            self.wake_at = at + PAUSE

    def instant(self, name: str, tid: int, at: float, **details: object) -> None:
        """Add an event without a duration."""
        self.add(dumps(name), "i", tid, at, f',"s":"{"t" if tid else "p"}","args":{dumps(details)}')

    def count(self, name: str, at: float, **values: float) -> None:
        """Add the values of a counter at this time."""
        self.add(dumps(name), "C", 0, at, f',"args":{dumps(values)}')

    def name_track(self, tid: int, name: str) -> None:
        """Name the track of a worker."""
        self.add('"thread_name"', "M", tid, 0.0, f',"args":{dumps({"name": name})}')

    # --- Writing ---

    def open_track(self) -> None:
        """Note that a worker needs the file. Keep it open from now on: its own workers may write to it before."""
        self.tracks += 1
        if self._owner == this_process.pid:
            try_locked(self._lock, self._begin_to_write)

    def close_track(self) -> None:
        """Note that a worker needs the file no more. Write the events, and close the file after the last worker."""
        self.tracks -= 1
        if self._owner == this_process.pid:
            try_locked(self._lock, self._write_all)

    def flush(self, now: float) -> None:
        """Write the events, if it is time."""
        if now >= self.wake_at and self._owner == this_process.pid:
            self.wake_at = now + PAUSE  # if another thread writes now
            try_locked(self._lock, self._write_all)

    def _write_all(self) -> None:
        self._write()
        if not self.tracks:
            self._close()

    def _write(self) -> None:
        self.wake_at = inf
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            self._begin_to_write()
        if not lines or self._broken:
            return
        try:
            data = "".join(lines).encode()
            if os.write(self._fd, data) < len(data):
                raise OSError(f"only a part of {len(data)} bytes could be written")
        except OSError as error:
            self._fail(error)

    def _begin_to_write(self) -> None:
        """Open the file, unless it is open."""
        if self._fd < 0 and not self._broken:
            try:
                self._open()
                os.write(self._fd, self._introduction().encode())
            except OSError as error:
                self._fail(error)

    def _introduction(self) -> str:
        program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
        name = dumps({"name": f"{program} {self._owner}"})
        return f'{{"name":"process_name","ph":"M","pid":{self._owner},"tid":0,"ts":0,"args":{name}}},\n'

    def _fail(self, error: OSError) -> None:
        """Give up the timeline, which must not disturb the program."""
        self._broken = True
        self._lines.clear()
        self._shut()
        write_record(WARNING, "the timeline %s ends here: writing it failed: %s", self.path, error)

    # --- The file ---

    def _open(self) -> None:
        """Open the file, and begin it anew unless others write to it. Raises OSError."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            for _ in range(ATTEMPTS):
                if _try_flock(self._fd, LOCK_EX):
                    self._begin()
                    flock(self._fd, LOCK_SH)
                    return
                if _try_flock(self._fd, LOCK_SH) and not self._end():
                    return
                sleep(WAIT)
            raise OSError("another program keeps the file locked")
        except BaseException:
            self._shut()
            raise

    def _begin(self) -> None:
        end = self._end()
        if end.startswith(self._mark()):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - len(end))
        else:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, BEGIN)

    def _mark(self) -> bytes:
        return f'{{"name":"end of {self._owner} {RUN}",'.encode()

    def _end(self) -> bytes:
        """Return the end of the array with the line before it, or nothing if the array has no end."""
        size = os.fstat(self._fd).st_size
        last = os.pread(self._fd, LONGEST_END, max(0, size - LONGEST_END))
        if not last.endswith(b"\n]\n"):
            return b""
        return last[last.rfind(b"\n", 0, -3) + 1 :]

    def _close(self) -> None:
        """Close the file, and end the array if nobody else writes to it."""
        if self._fd >= 0:
            try:
                if _try_flock(self._fd, LOCK_EX):
                    os.write(self._fd, self._mark() + b'"ph":"M","pid":0,"tid":0,"ts":0}\n]\n')
            except OSError as error:
                self._fail(error)
            self._shut()

    def _shut(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _try_flock(fd: int, kind: int) -> bool:
    try:
        flock(fd, kind | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def trace_file_at(call: str, path: str | os.PathLike[str] | None) -> TraceFile | None:
    """Return the file for a timeline at this path, or at that of ANYFORK_TRACE, or None. Raises ArgumentError."""
    chosen = os.environ.get("ANYFORK_TRACE") or None if path is None else os.fspath(path)
    if chosen is None:
        return None
    if not isinstance(chosen, str) or not chosen:
        raise ArgumentError(f"{call}(): trace must be the path of a file, not {path!r}")
    try:
        return TraceFile(chosen)
    except OSError as error:
        raise ArgumentError(f"{call}(): the timeline {chosen} cannot be written: {error}") from error
