"""The starter of a program with anyfork.subprocess: what it asks for, and what it is told."""

from __future__ import annotations

import os
from fcntl import F_DUPFD_CLOEXEC, fcntl

from ..wire.program_reports import COLD, FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..values.decode import Descriptor


class Starter:
    """The end of a pipe, if there is a starter that waits until the program has begun."""

    report = -1
    imports_to = ""  # the address to tell what the program has imported; empty if nobody wants to know
    process = 0

    def obey(
        self,
        report: Descriptor,
        passed: Sequence[tuple[int, Descriptor]],
        group: int | None,
        terminal: Descriptor | None = None,
        imports_to: str = "",
    ) -> None:
        """Give the process the numbered descriptors, the process group and the terminal that the starter wants."""
        if imports_to:
            from .loaded import note_changes

            self.imports_to, self.process = imports_to, os.getpid()
            note_changes()
        if terminal is not None:
            _take_terminal(terminal.detach())
        above = max((number for number, _ in passed), default=2) + 1
        self.report = _lift(report, above)
        lifted = [(number, _lift(given, above)) for number, given in passed]
        for number, fd in lifted:
            os.dup2(fd, number)
            os.close(fd)
        if group is not None:
            try:
                os.setpgid(0, group)
            except OSError as error:
                os.write(self.report, FAILED + b"%d" % (error.errno or 0))
                os._exit(255)

    def tell_cold(self, reason: str) -> None:
        """Tell the starter why a new interpreter runs the program, which closes the pipe."""
        if self.report >= 0:
            try:
                os.write(self.report, COLD + reason.encode("utf-8", "backslashreplace"))
            except BrokenPipeError:  # the starter has ended, and the program outlives it
                pass

    def tell_begun(self) -> None:
        """Tell the starter that the program begins, here."""
        if self.report >= 0:
            os.close(self.report)

    def tell_imports(self, start_path: Sequence[str]) -> None:
        """Tell what the program has imported, at its end. Copies of the process, which have come here too, do not."""
        if not self.imports_to or self.process != os.getpid():
            return
        try:
            from .loaded import tell_installed

            tell_installed(self.imports_to, start_path)
        except Exception:  # nobody listens any more, or the program may not, or has changed anything: it ends as ever
            pass


def _take_terminal(fd: int) -> None:
    """Make a terminal that of this process, which leads its session."""
    from fcntl import ioctl
    from termios import TIOCSCTTY

    ioctl(fd, TIOCSCTTY, 0)
    os.close(fd)


def _lift(descriptor: Descriptor, above: int) -> int:
    fd = descriptor.detach()
    try:
        return fcntl(fd, F_DUPFD_CLOEXEC, above)
    finally:
        os.close(fd)
