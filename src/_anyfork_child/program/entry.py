"""The entry of a program, which takes over the process of a template.

A program runs at the bottom of the stack, and its end is the real end of the interpreter. Both need a stack without
frames of ours. So the function that takes over the process raises Unwinding, which leaves all frames of the template.
The interpreter then calls sys.excepthook, and that is ``Program.run`` here. When it raises SystemExit, the interpreter
ends as with any other program. A process that is a copy of a running program has frames of that program below, which
must not go on: there the program runs above them, and the process ends as after a function.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal

from ..birth import exit as birth
from ..birth.last_words import UNTOLD, report
from ..template import template as templates
from ..wire.frames import DETACHED
from .cold import begin_anew, reason, set_coerced
from .command_line import SCRIPT, Command
from .ending import print_error, thaw
from .execution import CannotRunError, load
from .starter import Starter
from .state import renew_streams, restore, set_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Collection, Sequence
    from typing import Any, NoReturn


def run(
    channel: _socket.socket,
    kind: str,
    target: str,
    argv: Sequence[str],
    ignored: Collection[int] = (),
    blocked: Collection[int] = (),
    starter: Sequence[Any] = (),
) -> NoReturn:
    """Run a program in this process: a module, code or a script, as the interpreter's command line says.

    ``ignored`` and ``blocked`` are the signals that the program's starter ignores and blocks. ``starter`` is for
    anyfork.subprocess: see ``starter.Starter``.
    """
    signal(SIGINT, SIG_DFL)  # until the program begins: an interrupt ends this, as it ends an interpreter that starts
    template = templates.this
    _close_own(template, channel)
    line, options, *attributes = starter or ((), ())
    program = Program(Command(kind, target, argv, template.start_path, line, options), template, ignored, blocked)
    if attributes:
        program.starter.obey(*attributes)
    if birth.is_copy:
        program.run_above()
    program.hook, sys.excepthook = sys.excepthook, program.run
    raise birth.Unwinding


def _close_own(template: templates.Template, channel: _socket.socket) -> None:
    """Close the descriptors of the template, as another program would not have them."""
    report(template.reports, UNTOLD)
    channel.close()
    os.close(template.reports)
    if not template.flags & DETACHED:  # whose lifeline is closed already
        os.close(template.lifeline)
    templates.held = ()


class Program:
    """A program that is about to run in this process, and the hook by which the interpreter calls it."""

    def __init__(
        self, command: Command, template: templates.Template, ignored: Collection[int], blocked: Collection[int]
    ) -> None:
        self.command = command
        self.template = template
        self.ignored = ignored
        self.blocked = blocked
        self.hook = sys.excepthook
        self.starter = Starter()

    def run(self, *_error: object) -> None:
        """Run the program, as the only frame below its own. Raises SystemExit, or returns after an interrupt."""
        program = self._begin()
        failure = None
        try:
            program()
        except SystemExit:
            raise
        except BaseException as error:
            failure = error
        finally:
            self.starter.tell_imports(self.command.start_path)
            thaw()
        code = self._succeed() if failure is None else _fail(failure)
        if code is not None:
            raise SystemExit(code)

    def run_above(self) -> NoReturn:
        """Run the program above the frames of another one. Raises SystemExit."""
        self.run()
        birth.wind_up(-SIGINT)
        birth.leave(-SIGINT)

    def _begin(self) -> Callable[[], object]:
        """Make this process like a new interpreter with this command; return the program."""
        command = self.command
        sys.excepthook = self.hook
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            vars(sys).pop(name, None)
        set_signals(self.ignored, self.blocked)
        if "title" not in self.template.attributes:
            self.template.title.show_command(command.line)
        restore(self.template)
        try:
            program = self._load()
        except (CannotRunError, OSError) as error:
            self.starter.tell_cold(str(error))
            begin_anew(command)
        set_coerced(self.template)
        renew_streams()
        self.starter.tell_begun()
        if getsignal(SIGINT) == SIG_DFL:
            signal(SIGINT, default_int_handler)
        return program

    def _load(self) -> Callable[[], object]:
        """Return the program. Raises CannotRunError and OSError if a new interpreter has to run it."""
        why = reason(self.template, self.command)
        if why:
            raise CannotRunError(why)
        self.command.set_up()
        return load(self.command)

    def _succeed(self) -> int:
        """Return the exit code of a program that has come to its end; a script loses its name then."""
        if self.command.kind == SCRIPT:
            for name in ("__file__", "__cached__"):
                vars(sys.modules["__main__"]).pop(name, None)
        return 0


def _fail(error: BaseException) -> int | None:
    """Print an exception of the program; return the exit code, None if the interpreter must end by SIGINT."""
    print_error(error)
    if type(error) is not KeyboardInterrupt:
        return 1
    try:
        exec("raise KeyboardInterrupt")  # such an exception of code given as text is what the interpreter takes note of
    except KeyboardInterrupt:
        pass
    return None
