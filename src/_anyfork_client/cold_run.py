"""A cold run that is timed: the program is a child of this process, which passes signals on and ends as it ends."""

from __future__ import annotations

import os
from _signal import (
    SIG_BLOCK,
    SIG_DFL,
    SIG_IGN,
    SIG_SETMASK,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGQUIT,
    SIGSTOP,
    SIGWINCH,
    getsignal,
    pthread_sigmask,
    signal,
    valid_signals,
)
from time import monotonic

from .signals import KEPT, STOPS

try:
    from _signal import sigwaitinfo
except ImportError:  # not every system has it
    sigwaitinfo = None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

OF_JOB = {SIGINT, SIGQUIT, SIGWINCH} | STOPS  # the kernel sends them to all processes of a job
OF_HANGUP = {SIGHUP, SIGCONT}  # it sends them to the leader of a session alone, if that is this process
SI_KERNEL = 128  # as siginfo says that the kernel has sent a signal
PR_SET_PDEATHSIG = 1  # of prctl


class ColdRun:
    """A new interpreter with the program, a child of this process. Raises OSError if it cannot be started.

    ``become`` executes the program.
    """

    def __init__(self, become: Callable[[], NoReturn]) -> None:
        if sigwaitinfo is None:
            raise OSError("this system does not say who has sent a signal")
        self._awaited = {*valid_signals()} - KEPT | {SIGCHLD}
        self._shared = OF_JOB if os.getsid(0) == os.getpid() else OF_JOB | OF_HANGUP
        bond, ignored = _bond(), getsignal(SIGCHLD) == SIG_IGN
        signal(SIGCHLD, SIG_DFL)  # otherwise the system forgets how the program ends
        before = pthread_sigmask(SIG_BLOCK, self._awaited)
        self._began = monotonic()
        try:
            self._pid = os.fork()
        except OSError:
            _restore(before, ignored)
            raise
        if self._pid == 0:
            bond()
            _restore(before, ignored)
            become()

    def await_end(self) -> tuple[int, float]:
        """Pass signals on to the program until it has ended, and stop with it.

        Return its exit code, or minus the signal that has ended it, and the seconds that it has taken.
        """
        while True:
            info = sigwaitinfo(self._awaited)
            if info.si_signo == SIGCHLD:
                returncode = self._look()
                if returncode is not None:
                    return returncode, monotonic() - self._began
            elif info.si_code != SI_KERNEL or info.si_signo not in self._shared:
                os.kill(self._pid, info.si_signo)

    def _look(self) -> int | None:
        while found := os.waitid(os.P_PID, self._pid, os.WEXITED | os.WSTOPPED | os.WNOHANG):
            if found.si_code == os.CLD_EXITED:
                return found.si_status
            if found.si_code != os.CLD_STOPPED:
                return -found.si_status
            os.kill(os.getpid(), SIGSTOP)
        return None


def _restore(blocked: set[int], ignored: bool) -> None:
    """Let signals do in this process what they did at first. ``ignored`` says that of SIGCHLD."""
    if ignored:
        signal(SIGCHLD, SIG_IGN)
    if getsignal(SIGINT) != SIG_IGN:
        signal(SIGINT, SIG_DFL)
    pthread_sigmask(SIG_SETMASK, blocked)


def _bond() -> Callable[[], None]:
    """Return what lets a child end with this process, even if this one is killed."""
    parent = os.getpid()
    try:
        from ctypes import CDLL

        prctl = CDLL(None).prctl
    except (ImportError, AttributeError):  # an interpreter without ctypes, or another system
        return lambda: None

    def bond() -> None:
        prctl(PR_SET_PDEATHSIG, int(SIGKILL))
        if os.getppid() != parent:
            os._exit(1)

    return bond
