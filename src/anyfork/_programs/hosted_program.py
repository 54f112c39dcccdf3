"""A program of a host: started for it, with its streams in the host's connection, and killed with that."""

from __future__ import annotations

import os
import threading
from base64 import b64encode
from select import POLLIN, POLLOUT, poll
from signal import SIGKILL

from .._errors import AnyforkError, StatusUnknownError
from .host_requests import RequestError
from .program_input import InputError, ProgramInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from .host_requests import Input, Start
    from .owned_program import OwnedProgram, ProgramSource

    Tell = Callable[..., None]

PIECE = 1 << 16  # bytes of output in one event


class HostedProgram:
    """A program by the id that its host has given it. ``tell`` sends an event to the host."""

    def __init__(self, request: Start, fds: Sequence[int], tell: Tell) -> None:
        self._request = request
        self._fds = fds
        self._tell = tell
        self._lock = threading.Lock()
        self._program: OwnedProgram | None = None
        self._given_up = False
        self._input = ProgramInput(request.streams["stdin"] == "pipe")

    def run(self, source: ProgramSource) -> None:
        """Start the program, and serve it to its end. Runs in a thread of its own.

        Raises RequestError if it cannot be started, and OSError if the host has ended.
        """
        try:
            self._serve(self._start(source))
        finally:
            self._input.close()

    def _start(self, source: ProgramSource) -> OwnedProgram:
        request = self._request
        try:
            program = source.start(request.program, request.env, request.cwd, request.keywords(self._fds))
        except (AnyforkError, OSError, ValueError) as error:
            raise RequestError(f"the program cannot be started: {error}", request.id) from error
        finally:
            for fd in self._fds:
                os.close(fd)
        with self._lock:
            self._program = program
            if self._given_up:
                program.process.send_signal(SIGKILL)
        return program

    def send_signal(self, number: int) -> None:
        """Send a signal to the program. Raises RequestError if it has not started."""
        with self._lock:
            if self._program is None:
                raise RequestError("the program has not started yet", self._request.id)
            self._program.process.send_signal(number)

    def add_input(self, request: Input) -> None:
        """Queue data for the standard input. Raises RequestError if nobody will read it."""
        try:
            self._input.add(request.data, request.end)
        except InputError as error:
            raise RequestError(str(error), request.id) from error

    def give_up(self) -> None:
        """Kill the program, because its host has ended."""
        with self._lock:
            self._given_up = True
            if self._program is not None:
                self._program.process.send_signal(SIGKILL)
        self._input.give_up()

    def _serve(self, program: OwnedProgram) -> None:
        """Tell the host what the program does, and write its input. Raises OSError if the host has ended."""
        try:
            with program:
                try:
                    self._tell("started", id=self._request.id, pid=program.pid, cold=program.cold or None)
                    Service(program, self._request, self._input, self._tell).run()
                except OSError:
                    self.give_up()
                    raise
        except StatusUnknownError:  # the host knows that it has ended
            pass


class Service:
    """The streams and the end of a program, for its host."""

    def __init__(self, program: OwnedProgram, request: Start, given: ProgramInput, tell: Tell) -> None:
        self._program = program
        self._id = request.id
        self._given = given
        self._tell = tell
        self._waiting = poll()
        named = {"stdout": program.stdout, "stderr": program.stderr}
        self._outputs: dict[int, tuple[str, IO[bytes]]] = {
            file.fileno(): (name, file) for name, file in named.items() if file is not None
        }
        self._end = program.process.fileno()
        self._stdin = -1
        if program.stdin is not None:
            self._stdin = program.stdin.fileno()
            os.set_blocking(self._stdin, False)
        for fd in (*self._outputs, self._end, given.wake):
            self._waiting.register(fd, POLLIN)

    def run(self) -> None:
        """Serve until the program has ended and closed its output. Raises OSError if the host has ended."""
        while self._outputs or self._end >= 0:
            for fd, _ in self._waiting.poll():
                if fd in self._outputs:
                    self._pass_output(fd)
                elif fd == self._end:
                    self._tell_end()
                elif fd == self._stdin:
                    self._write_input()
                elif not self._given.awake():
                    return
                elif self._stdin >= 0:
                    self._waiting.register(self._stdin, POLLOUT)

    def _pass_output(self, fd: int) -> None:
        name, file = self._outputs[fd]
        data = os.read(fd, PIECE)
        if data:
            self._tell("output", id=self._id, stream=name, data=b64encode(data).decode())
            return
        self._waiting.unregister(fd)
        del self._outputs[fd]
        file.close()
        self._tell("closed", id=self._id, stream=name)

    def _write_input(self) -> None:
        file = self._program.stdin
        assert file is not None
        if not self._given.write(file):
            self._waiting.unregister(self._stdin)
        if file.closed:
            self._stdin = -1

    def _tell_end(self) -> None:
        self._waiting.unregister(self._end)
        self._end = -1
        try:
            returncode: int | None = self._program.wait()
        except StatusUnknownError:
            returncode = None
        code = None if returncode is None or returncode < 0 else returncode
        number = None if returncode is None or returncode >= 0 else -returncode
        self._tell("ended", id=self._id, code=code, signal=number)
