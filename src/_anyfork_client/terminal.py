"""The terminal of a program: a pseudo-terminal of its own, which the client connects with the caller's terminal.

A process of the keeper cannot join the caller's session. So the program leads a session with a terminal of its own, as
it needs for /dev/tty and for signals from the keyboard. If all three standard streams are the caller's terminal, they
are the new one in the program, and the client passes everything on between the two. Otherwise other programs may use
the caller's terminal too, as in ``anyfork run program | less``. Then the program has its streams as they are, and the
client begins to pass input on when the program writes to /dev/tty, as those do that ask for a password.
"""

from __future__ import annotations

import os
import termios
from _signal import SIG_DFL, SIGCONT, SIGSTOP, SIGTSTP, SIGWINCH, signal
from fcntl import ioctl
from select import POLLIN, POLLOUT, poll
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CHUNK = 1 << 16  # bytes
LAST_WORDS_MS = 100  # milliseconds to wait for more output when processes of an ended program have the terminal open
MOST_LAST_WORDS = 1 << 20  # bytes: much more than the kernel keeps of what a program has written
LOOK_MS = 200  # milliseconds between two looks whether a job in the background has come to the foreground
OFLAG, LFLAG, CC = 1, 3, 6  # places in the attributes of a terminal
SIZE = bytes(8)  # of struct winsize


class Terminal:
    """The caller's terminal, and the one that stands for it in the program."""

    def __init__(self, device: int) -> None:
        self._outer = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        self._inner, self.slave = os.openpty()
        self._before: list[Any] = termios.tcgetattr(self._outer)
        termios.tcsetattr(self.slave, termios.TCSANOW, self._before)
        self._copy_size()
        for fd in (self._inner, self._outer):  # a terminal that takes nothing must not keep signals from the program
            os.set_blocking(fd, False)
        self.is_whole = all(os.fstat(fd).st_rdev == device for fd in (0, 1, 2))
        self.program = 0  # its pid, which is that of its process group, too
        self._passes_input = False
        self._is_raw = False
        self._pending = b""  # input
        self._unshown = b""  # output
        self._hung_up = False

    @property
    def streams(self) -> tuple[int, int, int]:
        """The standard streams of the program."""
        return (self.slave,) * 3 if self.is_whole else (0, 1, 2)

    def begin(self, program: int) -> None:
        """Connect the terminals: the program has begun."""
        self.program = program
        self._passes_input = self.is_whole
        self._set_raw()

    def end(self) -> None:
        """Write what the program has written last, and leave the caller's terminal as it was."""
        os.close(self.slave)  # only now: the program may close its terminal, and open it again
        os.set_blocking(self._outer, True)
        self._show()
        self._pass_last_output()
        self._restore()

    def _pass_last_output(self) -> None:
        """Pass on what the program has written; processes that it has left may write for ever."""
        waiting = poll()
        waiting.register(self._inner, POLLIN)
        patience, most = LAST_WORDS_MS, MOST_LAST_WORDS
        while not self._hung_up and patience > 0 and most > 0:
            began = monotonic()
            if not waiting.poll(patience):
                return
            patience -= int((monotonic() - began) * 1000)
            most -= self._pass_output()

    def interest(self) -> Iterator[tuple[int, int]]:
        """Yield the descriptors to wait for, each with its events."""
        if self.program and not self._hung_up:
            yield self._inner, (0 if self._unshown else POLLIN) | (POLLOUT if self._pending else 0)
        events = (POLLIN if self._is_raw and not self._pending else 0) | (POLLOUT if self._unshown else 0)
        if events:
            yield self._outer, events

    @property
    def patience(self) -> int | None:
        """Return how many milliseconds to wait for events; None for as long as it takes."""
        return LOOK_MS if self.program and self._passes_input and not self._is_raw else None

    def handle(self, ready: dict[int, int]) -> None:
        """Pass on what has come."""
        if not ready:
            self._set_raw()
        if ready.get(self._inner, 0) & ~POLLOUT:
            self._pass_output()
        if ready.get(self._outer, 0) & ~POLLOUT:
            self._pass_input()
        if self._unshown:
            self._show()
        if self._pending:
            self._write_pending()

    def _pass_output(self) -> int:
        """Show what the program has written; return how many bytes that were."""
        try:
            data = os.read(self._inner, CHUNK)
        except BlockingIOError:
            return 0
        except OSError:  # all processes of the program have closed it
            data = b""
        if not data:
            self._hung_up = True
            return 0
        if not self._passes_input:
            self._passes_input = True
            self._set_raw()
        self._unshown += data
        self._show()
        return len(data)

    def _show(self) -> None:
        """Write the program's output to the caller's terminal, as far as that takes it."""
        try:
            while self._unshown:
                self._unshown = self._unshown[os.write(self._outer, self._unshown) :]
        except BlockingIOError:
            pass
        except OSError:  # the caller's terminal is gone
            self._hang_up()

    def _pass_input(self) -> None:
        try:
            data = os.read(self._outer, CHUNK)
        except BlockingIOError:  # another process was faster
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        stop = self._stop_character()
        before, found, after = data.partition(stop) if stop else (data, b"", b"")
        self._pending += before
        if found:
            self._write_pending()
            self.stop()
            self._pending += after

    def _hang_up(self) -> None:
        """Hang up the program's terminal as the caller's was: the kernel sends the signals."""
        if self._hung_up:
            return
        self._hung_up, self._is_raw, self._passes_input = True, False, False
        self._pending = self._unshown = b""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, self._inner, inheritable=False)
        os.close(null)

    def follow_hangup(self) -> bool:
        """Hang up the program's terminal if the caller's was hung up; return whether it was."""
        waiting = poll()
        waiting.register(self._outer, 0)
        if not waiting.poll(0):
            return False
        self._hang_up()
        return True

    def _write_pending(self) -> None:
        try:
            self._pending = self._pending[os.write(self._inner, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any longer
            self._pending = b""

    def _stop_character(self) -> bytes:
        """Return the key that stops the program, empty if it is a key like any other, or the program's own affair."""
        attributes = termios.tcgetattr(self._inner)
        character: bytes = attributes[CC][termios.VSUSP]
        if not attributes[LFLAG] & termios.ISIG or character == b"\0" or self._foreground() != self.program:
            return b""
        return b"" if self._ignores_stop() else character

    def _ignores_stop(self) -> bool:
        try:
            with open(f"/proc/{self.program}/status", encoding="utf-8", errors="replace") as file:
                mask = next(line for line in file if line.startswith("SigIgn:")).split()[1]
        except OSError:  # it has ended
            return True
        return bool(int(mask, 16) >> SIGTSTP - 1 & 1)

    def _foreground(self) -> int:
        return int.from_bytes(ioctl(self._inner, termios.TIOCGPGRP, bytes(4)), "little")

    def stop(self) -> None:
        """Stop the program and this job, and go on with both when the job is continued.

        The program's process group is an orphaned one: for that, the kernel ignores the signal of the key.
        """
        self._kill(SIGSTOP)
        self._restore()
        before = signal(SIGTSTP, SIG_DFL)
        os.killpg(0, SIGTSTP)  # this process stops here
        signal(SIGTSTP, before)
        self.go_on()

    def go_on(self) -> None:
        """Continue the program, in the foreground if this job is there."""
        self.resize()
        self._set_raw()
        self._kill(SIGCONT)
        if self._is_raw:
            self._kill(SIGWINCH)  # other programs have used the screen: draw it anew

    def signal_group(self, number: int) -> None:
        """Send a signal of the keyboard to the program and its children in the foreground."""
        self._kill(number)

    def resize(self) -> None:
        """Give the program's terminal the size of the caller's; the kernel tells the program."""
        try:
            if not self._hung_up:
                self._copy_size()
        except OSError:  # the caller's terminal is gone
            self._hang_up()

    def _kill(self, number: int) -> None:
        try:
            os.killpg(self.program, number)
        except (ProcessLookupError, PermissionError):  # it has ended, or become another user
            pass

    def _copy_size(self) -> None:
        ioctl(self._inner, termios.TIOCSWINSZ, ioctl(self._outer, termios.TIOCGWINSZ, SIZE))

    def _set_raw(self) -> None:
        """Take all keys from now on, if this job is in the foreground and the program may want them."""
        try:
            if not self._passes_input or self._is_raw or os.tcgetpgrp(self._outer) != os.getpgrp():
                return
            self._before = termios.tcgetattr(self._outer)
            termios.tcsetattr(self._outer, termios.TCSADRAIN, _raw(self._before))
            self._is_raw = True
        except (OSError, termios.error):  # the caller's terminal is gone
            self._hang_up()

    def _restore(self) -> None:
        try:
            if self._is_raw:
                termios.tcsetattr(self._outer, termios.TCSADRAIN, self._before)
        except termios.error:  # the caller's terminal is gone
            self._hang_up()
        self._is_raw = False


def _raw(attributes: list[Any]) -> list[Any]:
    """Return the attributes of a terminal that passes every byte on, as cfmakeraw(3) makes them."""
    iflag, oflag, cflag, lflag, *speeds, characters = attributes
    characters = [*characters]
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    dropped = (
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    return [iflag & ~dropped, oflag & ~termios.OPOST, cflag, lflag, *speeds, characters]
