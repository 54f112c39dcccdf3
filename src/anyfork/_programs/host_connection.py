"""The connection of a host: its requests, and the events of its programs."""

from __future__ import annotations

import json
import os
import sys
import threading
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, SHUT_RDWR
from collections import deque
from functools import partial

from .host_requests import LONGEST, Input, RequestError, Start, read_request
from .hosted_program import HostedProgram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket

    from .host_requests import Id
    from .owned_program import ProgramSource

PROTOCOL = 1
PIECE = 1 << 16  # bytes to ask for at once
MOST_DESCRIPTORS = 253  # in one message; the kernel allows no more
INTEGER = 4  # bytes


class HostConnection:
    """A connection and the programs that were started over it. They end with it."""

    def __init__(self, sock: socket, source: ProgramSource) -> None:
        self._sock = sock
        self._source = source
        self._lines = Lines(sock)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._programs: dict[Id, HostedProgram] = {}

    def serve(self) -> None:
        """Carry out requests until the host closes the connection. Raises OSError if it has ended."""
        self.tell("hello", protocol=PROTOCOL, pid=os.getpid(), python=sys.executable)
        try:
            for line, fds in self._lines.read():
                self._take_line(line, fds)
        finally:
            stop_sending(self._sock)
            self._lines.close()
            with self._lock:
                programs = [*self._programs.values()]
            for program in programs:
                program.give_up()

    def tell(self, event: str, **fields: object) -> None:
        """Send an event. Raises OSError if the host has ended."""
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        with self._sending:
            self._sock.sendall(line)

    def _take_line(self, line: bytes, fds: list[int]) -> None:
        """Carry out a request, or say what is wrong with it. Raises OSError if the host has ended."""
        unused = fds
        try:
            request = read_request(line)
            if isinstance(request, Start):
                self._start(request, fds)
                unused = []
            elif isinstance(request, Input):
                self._program(request.id).add_input(request)
            else:
                self._program(request.id).send_signal(request.number)
        except RequestError as error:
            self.tell("error", id=error.id, message=str(error))
        finally:
            for fd in unused:
                os.close(fd)

    def _program(self, id: Id) -> HostedProgram:  # noqa: A002  # the name in the protocol
        with self._lock:
            program = self._programs.get(id)
        if program is None:
            raise RequestError("no program with this id runs", id)
        return program

    def _start(self, request: Start, fds: list[int]) -> None:
        """Start a program in a thread of its own. Raises RequestError."""
        try:
            with self._lock:
                if request.id in self._programs:
                    raise RequestError("a program with this id runs already", request.id)
                program = self._programs[request.id] = HostedProgram(request, fds, self.tell)
            run = partial(self._run, request.id, program)
            threading.Thread(target=run, name="anyfork program", daemon=True).start()
        except (RuntimeError, OSError) as error:  # there can be no more threads, or descriptors
            self._forget(request.id)
            raise RequestError(f"the program cannot be started: {error}", request.id) from error

    def _run(self, id: Id, program: HostedProgram) -> None:  # noqa: A002  # as above
        """Serve one program. Runs in a thread of its own."""
        try:
            program.run(self._source)
            last, fields = "finished", {}
        except RequestError as error:
            last, fields = "error", {"message": str(error)}
        except OSError:  # the host has ended
            return
        finally:
            self._forget(id)
        self._tell_if_there(last, id=id, **fields)

    def _tell_if_there(self, event: str, **fields: object) -> None:
        try:
            self.tell(event, **fields)
        except OSError:  # the host has ended
            pass

    def _forget(self, id: Id) -> None:  # noqa: A002  # as above
        with self._lock:
            self._programs.pop(id, None)


class Lines:
    """The lines that come over a socket, and the descriptors that came with each."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self._complete: deque[tuple[bytes, list[int]]] = deque()
        self._rest = bytearray()  # of a line that is not complete
        self._fds: list[int] = []  # of that line

    def read(self) -> Iterator[tuple[bytes, list[int]]]:
        """Yield each line and its descriptors, which are the caller's then. Raises OSError."""
        while self._receive():
            while self._complete:
                yield self._complete.popleft()

    def _receive(self) -> bool:
        """Receive what is there; return False at the end. Raises OSError.

        A host sends descriptors together with the beginning of their line. One call gets those of one message, and
        nothing after it. So they belong to the last line that has begun.
        """
        data, beside, _, _ = self._sock.recvmsg(PIECE, CMSG_SPACE(MOST_DESCRIPTORS * INTEGER), MSG_CMSG_CLOEXEC)
        given = [fd for _, _, packed in beside for fd in memoryview(packed).cast("i")]
        first, *others = data.split(b"\n")
        self._rest += first
        for begun in others:
            self._complete.append((bytes(self._rest), self._fds))
            self._rest, self._fds = bytearray(begun), []
        last = self._complete[-1][1] if others and not self._rest else self._fds
        last += given
        del self._rest[LONGEST + 1 :]  # the request is refused for its length, whatever follows
        return bool(data)

    def close(self) -> None:
        """Close the descriptors of lines that nobody has read."""
        for _, fds in (*self._complete, (b"", self._fds)):
            while fds:
                os.close(fds.pop())


def stop_sending(sock: socket) -> None:
    """Let all threads that send over a socket fail."""
    try:
        sock.shutdown(SHUT_RDWR)
    except OSError:  # the other end has closed it
        pass
