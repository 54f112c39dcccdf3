"""The signals of the client: all that it gets go to the program, and it ends by the signal that ended the program."""

from __future__ import annotations

import os
from _signal import (
    SIG_DFL,
    SIG_IGN,
    SIG_UNBLOCK,
    SIGBUS,
    SIGCHLD,
    SIGCONT,
    SIGFPE,
    SIGHUP,
    SIGILL,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGQUIT,
    SIGSEGV,
    SIGSTOP,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGWINCH,
    SIGXFSZ,
    getsignal,
    pthread_sigmask,
    set_wakeup_fd,
    signal,
    valid_signals,
)
from select import POLLIN, poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator
    from typing import NoReturn

    from .terminal import Terminal

# They cannot be caught, belong to the interpreter, or are faults of the client itself.
KEPT = {SIGKILL, SIGSTOP, SIGCHLD, SIGPIPE, SIGXFSZ, SIGSEGV, SIGBUS, SIGFPE, SIGILL}
OF_KEYS = {SIGINT, SIGQUIT}  # the terminal sends them to all processes of a job
STOPS = {SIGTSTP, SIGTTIN, SIGTTOU}


class Signals:
    """A pipe that has the numbers of the signals that came, for a process with nothing else to do."""

    def __init__(self) -> None:
        self.has_answer = False
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        set_wakeup_fd(write, warn_on_full_buffer=False)
        self._noted = [number for number in valid_signals() - KEPT if getsignal(number) != SIG_IGN]
        self._passed: list[int] = []
        for number in self._noted:
            signal(number, _note)

    def wait(self, sock: socket, terminal: Terminal | None) -> Iterator[tuple[str, int]]:
        """Wait for a signal, an answer of the keeper or the terminal; yield messages for the keeper."""
        waiting = poll()
        waiting.register(sock.fileno(), POLLIN)
        waiting.register(self._read, POLLIN)
        for fd, events in terminal.interest() if terminal is not None else ():
            waiting.register(fd, events)
        ready = dict(waiting.poll(terminal.patience if terminal is not None else None))
        if terminal is not None:
            terminal.handle(ready)
        self.has_answer = sock.fileno() in ready
        if self._read in ready:
            for number in os.read(self._read, 1 << 12):
                self._passed.append(number)
                yield from _pass_on(number, terminal)

    def restore(self) -> None:
        """Let signals do what they do in a process that becomes a new interpreter: those, too, that no program got."""
        set_wakeup_fd(-1)
        for number in self._noted:
            signal(number, SIG_DFL)
        os.set_blocking(self._read, False)
        try:
            self._passed += os.read(self._read, 1 << 12)
        except BlockingIOError:  # none has come
            pass
        for number in self._passed:
            if number not in STOPS:  # which have had their effect
                os.kill(os.getpid(), number)


def end_as(returncode: int) -> NoReturn:
    """End this process as the program has ended: with an exit code, or by the signal -returncode."""
    if returncode >= 0:
        os._exit(returncode)
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # it has left one
    if -returncode != SIGKILL:
        signal(-returncode, SIG_DFL)
        pthread_sigmask(SIG_UNBLOCK, [-returncode])
    os.kill(os.getpid(), -returncode)
    os._exit(128 - returncode)  # the signal does not end a process


def _note(_number: int, _frame: object) -> None:
    """Do nothing: the pipe has the number already."""


def _pass_on(number: int, terminal: Terminal | None) -> Iterator[tuple[str, int]]:
    """Pass a signal on to the program; yield the messages for the keeper that this takes."""
    if terminal is None or not terminal.program:
        yield "signal", number
        if number in STOPS:
            os.kill(os.getpid(), SIGSTOP)
            yield "signal", SIGCONT
    elif number == SIGWINCH:
        terminal.resize()
    elif number in STOPS:
        terminal.stop()
    elif number == SIGCONT:
        terminal.go_on()
    elif number in OF_KEYS and not terminal.is_whole:
        terminal.signal_group(number)
    elif number == SIGHUP and terminal.follow_hangup():
        return
    else:
        yield "signal", number
